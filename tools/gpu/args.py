"""ctypes mirror of ptx-templates/args.h."""
import ctypes
from ctypes import Structure, c_float, c_int32, c_uint32, c_uint64, c_void_p


class LaunchShape(Structure):
    _fields_ = [(n, c_uint32) for n in ("grid_x", "grid_y", "grid_z", "block", "shared_bytes", "tile_m", "flags", "cluster_x",
                                        "scratch_bytes", "ahead_bytes")]


class Weight(Structure):
    _fields_ = [("plane", c_void_p * 4)]


class Ahead(Structure):
    _fields_ = [("data", c_void_p), ("bytes", c_uint32)]


class ActInt8(Structure):
    _fields_ = [("q", c_void_p), ("scale", c_void_p), ("sum", c_void_p)]


class ActHalf(Structure):
    _fields_ = [("term", c_void_p * 2), ("scale", c_void_p)]


class LinearArgs(Structure):
    _fields_ = [("m", c_void_p), ("x", c_void_p), ("xq", ActInt8), ("xh", ActHalf), ("norm", c_void_p), ("residual", c_void_p),
                ("w", Weight * 4), ("bias", c_void_p * 4), ("y", c_void_p * 4), ("y_stride", c_uint32 * 4), ("w_scale", c_float * 4),
                ("yq", ActInt8), ("eps", c_float)]


class EmbedArgs(Structure):
    _fields_ = [("m", c_void_p), ("tokens", c_void_p), ("w", Weight), ("y", c_void_p)]


class NormArgs(Structure):
    _fields_ = [("m", c_void_p), ("x", c_void_p), ("weight", c_void_p), ("y", c_void_p), ("yq", ActInt8), ("yh", ActHalf),
                ("x_stride", c_uint32), ("eps", c_float)]


class ConvertArgs(Structure):
    _fields_ = [("m", c_void_p), ("x", c_void_p), ("up", c_void_p), ("yq", ActInt8), ("yh", ActHalf)]


class ElementwiseArgs(Structure):
    _fields_ = [("m", c_void_p), ("a", c_void_p), ("b", c_void_p), ("rows", c_void_p), ("y", c_void_p)]


class AttentionArgs(Structure):
    _fields_ = [("state", c_void_p), ("positions", c_void_p), ("sequences", c_void_p), ("q", c_void_p), ("k", c_void_p), ("v", c_void_p),
                ("q_stride", c_uint32), ("k_stride", c_uint32), ("v_stride", c_uint32), ("n_ctx", c_uint32), ("q_norm", c_void_p),
                ("k_norm", c_void_p), ("inv_freq", c_void_p), ("eps", c_float), ("rope_scale", c_float), ("scale", c_float),
                ("out_stride", c_uint32), ("k_cache", c_void_p), ("v_cache", c_void_p), ("q_out", c_void_p), ("out", c_void_p),
                ("scratch", c_void_p), ("outq", ActInt8), ("ahead", Ahead * 12)]


class ArgmaxArgs(Structure):
    _fields_ = [("m", c_void_p), ("x", c_void_p), ("index", c_void_p), ("scratch", c_void_p), ("next", c_void_p * 3)]


class TopKArgs(Structure):
    _fields_ = [("m", c_void_p), ("x", c_void_p), ("best", c_void_p), ("scratch", c_void_p)]


class BandwidthArgs(Structure):
    _fields_ = [("data", c_void_p), ("bytes", c_uint64), ("sink", c_void_p)]


class RangeArgs(Structure):
    _fields_ = [("w", Weight), ("bits", c_void_p)]


assert ctypes.sizeof(LinearArgs) == 336, ctypes.sizeof(LinearArgs)
