"""Packed weights on the host: random blocks, layouts and the float64 reference, through the codecs' own host build."""
import ctypes
import os
import subprocess

import numpy as np

import spec

# Byte offsets of the f16 fields of a block: (offset, typical magnitude). Everything else may be random bits.
_HALVES = {"q4_0": [(0, 4e-3)], "q4_1": [(0, 4e-3), (2, -3e-2)], "q5_0": [(0, 2e-3)], "q5_1": [(0, 2e-3), (2, -3e-2)],
           "q8_0": [(0, 3e-4)], "q4_k": [(0, 1e-4), (2, 8e-4)], "q5_k": [(0, 5e-5), (2, 8e-4)], "q6_k": [(208, 1e-5)]} | {f: [(0, 3e-4), (2, 1e-2)] for f in spec.SHAPES}

_SOURCE = """
#include <cstring>
{includes}
template <class C> static void dequantize(const uint8_t* src, uint64_t n, float* dst) {{
  for (uint64_t b = 0; b < n; ++b)
    for (int c = 0; c < C::kBlock / (C::kRuns * C::kRun); ++c) {{
      apr::Planes<1> p{{{{src + b * C::kBytes}}}};
      const auto raw = C::RowMajor::load(p, c);
      float v[C::kRuns][C::kRun];
      if constexpr (C::kInteger) {{
        apr::IntChunk<C::kRuns, C::kRun> q;
        C::RowMajor::decode(raw, c, q);
        for (int r = 0; r < C::kRuns; ++r) for (int i = 0; i < C::kRun; ++i) v[r][i] = apr::chunk_value<C::kOffset>(q, r, i);
      }} else {{
        apr::FloatChunk<C::kRuns, C::kRun> f;
        C::RowMajor::decode(raw, c, f);
        memcpy(v, f.v, sizeof v);
      }}
      for (int r = 0; r < C::kRuns; ++r) for (int i = 0; i < C::kRun; ++i) dst[b * C::kBlock + C::col(c, r) + i] = v[r][i];
    }}
}}
template <class C> concept HasPlanar = requires {{ typename C::Planar; }};
template <class C> static int planes(int* bytes) {{
  if constexpr (HasPlanar<C>) {{
    for (int i = 0; i < C::Planar::kPlanes; ++i) bytes[i] = C::Planar::kPlaneBytes[i];
    return C::Planar::kPlanes;
  }}
  return 0;
}}
template <class C> static void split(const uint8_t* src, uint64_t n, uint8_t* const* plane) {{
  if constexpr (HasPlanar<C>)
    for (uint64_t b = 0; b < n; ++b) {{
      uint8_t* at[4] = {{}};
      for (int i = 0; i < C::Planar::kPlanes; ++i) at[i] = plane[i] + b * C::Planar::kPlaneBytes[i];
      C::Planar::split(src + b * C::kBytes, at);
    }}
}}
#define FORMAT(name, T) extern "C" void name##_info(int* v) {{ v[0] = T::kBlock; v[1] = T::kBytes; v[2] = planes<T>(v + 3); }} \\
  extern "C" void name##_dequantize(const uint8_t* s, uint64_t n, float* d) {{ dequantize<T>(s, n, d); }} \\
  extern "C" void name##_split(const uint8_t* s, uint64_t n, uint8_t* const* p) {{ split<T>(s, n, p); }}
{formats}
"""

_lib = None


def library():
    global _lib
    if _lib is None:
        os.makedirs(spec.STORE, exist_ok=True)
        includes = "\n".join(f'#include "{os.path.relpath(f, spec.ROOT)}"' for f in sorted({f for _, f in spec.CODECS.values()}))
        formats = "\n".join(f"FORMAT({name}, {kind})" for name, (kind, _) in spec.CODECS.items())
        source = os.path.join(spec.STORE, "codecs.cpp")
        text = _SOURCE.format(includes=includes, formats=formats)
        out = os.path.join(spec.STORE, "codecs.so")
        with open(source, "w") as f:
            f.write(text)
        subprocess.run(["g++", "-std=c++20", "-O2", "-shared", "-fPIC", "-ffp-contract=off", "-I", spec.ROOT, "-I",
                        os.path.join(spec.ROOT, "include"), source, "-o", out], check=True)
        _lib = ctypes.CDLL(out)
    return _lib


def info(fmt):
    v = (ctypes.c_int * 8)()
    getattr(library(), fmt + "_info")(v)
    return v[0], v[1], list(v[3:3 + v[2]])


def _pointer(a):
    return a.ctypes.data_as(ctypes.c_void_p)


def random_blocks(fmt, n_rows, k, rng):
    """uint8 [n_rows, row bytes]; rows of single-element formats are padded with zeros to the codec's block."""
    block, bytes_, _ = info(fmt)
    blocks = -(-k // block)
    if fmt in ("f32", "f16", "bf16"):
        w = np.zeros((n_rows, blocks * block), np.float32)
        w[:, :k] = rng.standard_normal((n_rows, k), dtype=np.float32) * 0.02
        if fmt == "f32":
            return w.view(np.uint8).reshape(n_rows, -1)
        if fmt == "f16":
            return w.astype(np.float16).view(np.uint8).reshape(n_rows, -1)
        return (w.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8).reshape(n_rows, -1)
    assert k % block == 0, (fmt, k)
    b = rng.integers(0, 256, size=(n_rows * blocks, bytes_), dtype=np.uint8)
    if fmt.startswith("f8_"):
        return (b & 0xbf).reshape(n_rows, -1)  # all finite
    for at, size in _HALVES[fmt]:
        value = (size * (0.5 + rng.random(n_rows * blocks))).astype(np.float16)
        b[:, at:at + 2] = value.view(np.uint8).reshape(-1, 2)
    return b.reshape(n_rows, -1)


def dequantize(fmt, rows, k):
    block, bytes_, _ = info(fmt)
    n = rows.size // bytes_
    out = np.empty(n * block, np.float32)
    rows = np.ascontiguousarray(rows)
    getattr(library(), fmt + "_dequantize")(_pointer(rows), ctypes.c_uint64(n), _pointer(out))
    return out.reshape(rows.shape[0], -1)[:, :k]


def planes(fmt, layout, rows):
    """List of uint8 arrays, one per plane."""
    rows = np.ascontiguousarray(rows)
    if layout == "row_major":
        return [rows.reshape(-1)]
    _, bytes_, sizes = info(fmt)
    n = rows.size // bytes_
    out = [np.empty(n * s, np.uint8) for s in sizes]
    array = (ctypes.c_void_p * len(out))(*[o.ctypes.data for o in out])
    getattr(library(), fmt + "_split")(_pointer(rows), ctypes.c_uint64(n), array)
    return out


def preferred_layout(fmt):
    return "planar" if info(fmt)[2] else "row_major"
