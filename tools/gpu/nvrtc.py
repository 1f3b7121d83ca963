"""Compiles specialised templates with NVRTC, through ctypes. Needs no GPU."""
import ctypes
import glob
import hashlib
import os
import re
import subprocess

_lib = None


class CompileError(Exception):
    pass


def library():
    global _lib
    if _lib is None:
        roots = [os.environ.get("CUDA_HOME", ""), os.environ.get("CUDA_PATH", ""), "/usr/local/cuda"]
        names = [n for r in roots if r for n in sorted(glob.glob(r + "/lib64/libnvrtc.so.1[23]"), reverse=True)]
        for name in names + ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"]:
            try:
                _lib = ctypes.CDLL(name)
                break
            except OSError:
                continue
        if _lib is None:
            raise SystemExit("libnvrtc was not found: set CUDA_HOME, or install CUDA 12 or 13")
    return _lib


def compile_cubin(source, name, headers, options):
    """source text -> (cubin bytes, log). headers: {name: text}."""
    lib = library()
    program = ctypes.c_void_p()
    names = list(headers)
    texts = (ctypes.c_char_p * len(names))(*[headers[n].encode() for n in names])
    keys = (ctypes.c_char_p * len(names))(*[n.encode() for n in names])
    status = lib.nvrtcCreateProgram(ctypes.byref(program), source.encode(), name.encode(), len(names), texts, keys)
    if status:
        raise CompileError(f"nvrtcCreateProgram: {status}")
    flags = (ctypes.c_char_p * len(options))(*[o.encode() for o in options])
    status = lib.nvrtcCompileProgram(program, len(options), flags)
    size = ctypes.c_size_t()
    lib.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    lib.nvrtcGetProgramLog(program, log)
    text = log.value.decode(errors="replace")
    if status:
        lib.nvrtcDestroyProgram(ctypes.byref(program))
        raise CompileError(text)
    lib.nvrtcGetCUBINSize(program, ctypes.byref(size))
    cubin = ctypes.create_string_buffer(size.value)
    lib.nvrtcGetCUBIN(program, cubin)
    lib.nvrtcDestroyProgram(ctypes.byref(program))
    return cubin.raw, text


def resources(log):
    """registers, spill bytes and stack of the last kernel in a ptxas -v log."""
    regs = re.findall(r"Used (\d+) registers", log)
    spills = re.findall(r"(\d+) bytes spill stores", log)
    stack = re.findall(r"(\d+) bytes stack frame", log)
    return int(regs[-1]) if regs else -1, int(spills[-1]) if spills else 0, int(stack[-1]) if stack else 0
