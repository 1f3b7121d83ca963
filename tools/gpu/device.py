"""Loads and launches kernels through the driver API: programmatic dependent launch, captured graphs, timing."""
import ctypes
from ctypes import byref, c_int, c_size_t, c_uint, c_void_p

import cupy

import args as A

_cuda = ctypes.CDLL("libcuda.so.1")


def check(status, what):
    if status:
        text = ctypes.c_char_p()
        _cuda.cuGetErrorString(status, byref(text))
        raise RuntimeError(f"{what}: {text.value.decode() if text.value else status}")


class _Attribute(ctypes.Structure):
    _fields_ = [("id", c_int), ("pad", c_int), ("value", ctypes.c_byte * 64)]


class _Config(ctypes.Structure):
    _fields_ = [(n, c_uint) for n in ("gx", "gy", "gz", "bx", "by", "bz", "shared")] + [("stream", c_void_p), ("attrs", ctypes.POINTER(_Attribute)), ("n", c_uint)]


class Loaded:
    """A compiled kernel on the device, with its launch shape and scratch."""

    def __init__(self, image, label=""):
        self.label = label
        self.module = c_void_p()
        check(_cuda.cuModuleLoadData(byref(self.module), image), f"cuModuleLoadData of {label}")
        self.function = c_void_p()
        check(_cuda.cuModuleGetFunction(byref(self.function), self.module, b"apr_kernel"), f"apr_kernel of {label}")
        at, size = c_void_p(), c_size_t()
        check(_cuda.cuModuleGetGlobal_v2(byref(at), byref(size), self.module, b"apr_launch"), f"apr_launch of {label}")
        assert size.value == ctypes.sizeof(A.LaunchShape)
        self.shape = A.LaunchShape()
        check(_cuda.cuMemcpyDtoH_v2(byref(self.shape), at, size), "launch shape")
        if self.shape.shared_bytes > 48 * 1024:
            check(_cuda.cuFuncSetAttribute(self.function, 8, c_int(self.shape.shared_bytes)), f"{self.shape.shared_bytes} bytes of shared memory")
        self.scratch = cupy.zeros(max(self.shape.scratch_bytes, 16), cupy.uint8)

    def trace(self):
        """Nanoseconds of the last launch's marks, [CTAs, 8]; compiled with spec.TRACE."""
        import numpy as np
        at, size = c_void_p(), c_size_t()
        check(_cuda.cuModuleGetGlobal_v2(byref(at), byref(size), self.module, b"apr_trace"), "apr_trace")
        out = np.empty((1024, 8), np.uint64)
        check(_cuda.cuMemcpyDtoH_v2(out.ctypes.data_as(c_void_p), at, c_size_t(out.nbytes)), "trace")
        return out[:min(1024, self.shape.grid_x * self.shape.grid_y)]

    def launch(self, arguments, rows=1, pdl=True, stream=None):
        s = self.shape
        gy = -(-rows // s.tile_m) if s.tile_m else s.grid_y
        config = _Config(s.grid_x, gy, s.grid_z, s.block, 1, 1, s.shared_bytes, c_void_p(stream or cupy.cuda.get_current_stream().ptr), None, 0)
        attributes = (_Attribute * 2)()
        if pdl and s.flags & 1:
            attributes[config.n].id = 6  # programmatic stream serialization
            attributes[config.n].value[0] = 1
            config.n += 1
        if s.cluster_x > 1:
            attributes[config.n].id = 4  # cluster dimension
            (c_uint * 3).from_buffer(attributes[config.n].value)[:] = [s.cluster_x, 1, 1]
            config.n += 1
        config.attrs = attributes
        params = (c_void_p * 1)(ctypes.cast(byref(arguments), c_void_p))
        check(_cuda.cuLaunchKernelEx(byref(config), self.function, params, None), f"launch of {self.label}")


def capture(fn):
    """A graph of what fn launches on a stream, ready to replay."""
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        fn()
        graph = stream.end_capture()
    graph.upload(stream)
    return graph, stream


def time_graph(fn, repeats=5, inner=1):
    """Median microseconds of one call of fn (which launches `inner` equal pieces) as a graph replay."""
    graph, stream = capture(fn)
    for _ in range(2):
        graph.launch(stream)
    stream.synchronize()
    times = []
    for _ in range(repeats):
        a, b = cupy.cuda.Event(), cupy.cuda.Event()
        a.record(stream)
        graph.launch(stream)
        b.record(stream)
        b.synchronize()
        times.append(cupy.cuda.get_elapsed_time(a, b) * 1e3)
    return sorted(times)[len(times) // 2] / inner
