"""Kernel specifications: the same prelude that the CUDA backend writes, from plain Python values."""
import hashlib
import json
import os
import re
import tomllib

import nvrtc

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TEMPLATES = os.path.join(ROOT, "ptx-templates")
TRACE = False  # compile with APR_TRACE: kernels write down when they pass their marks
STORE = os.environ.get("APR_GPU_STORE", os.path.join(ROOT, "carry", "kernels"))

# format -> (codec type, codec text). Formats whose folder is missing are left out.
_CODECS = {
    "f32": ("F32", "quant-f32/codec.h"), "q4_k": ("Q4K", "quant-q4k/codec.h"), "q6_k": ("Q6K", "quant-q6k/codec.h"),
    "q5_k": ("Q5K", "quant-q5k/codec.h"), "f16": ("F16", "quant-f16/f16.h"), "bf16": ("BF16", "quant-f16/bf16.h"),
    "q4_0": ("Q4_0", "quant-q4-0/q4_0.h"), "q4_1": ("Q4_1", "quant-q4-0/q4_1.h"), "q5_0": ("Q5_0", "quant-q4-0/q5_0.h"),
    "q5_1": ("Q5_1", "quant-q4-0/q5_1.h"), "q8_0": ("Q8_0", "quant-q4-0/q8_0.h"),
    "f8_e4m3": ("F8_E4M3", "quant-fp8/fp8.h"), "f8_e5m2": ("F8_E5M2", "quant-fp8/fp8.h"),
}


# Of shapes.h: columns are multiples of 768 in all their cases.
SHAPES = {"runs12": "Runs12", "runs24": "Runs24", "run96": "Run96", "run256": "Run256", "spread": "Spread"}


def _find(kind, path):
    """Codec files are named by their plugin; take the one in that folder that defines the type."""
    folder = os.path.join(ROOT, "plugins", os.path.dirname(path))
    if not os.path.isdir(folder):
        return None
    for name in sorted(os.listdir(folder)):
        if name.endswith(".h"):
            file = os.path.join(folder, name)
            if re.search(r"^struct %s\b" % kind, open(file).read(), re.M):
                return file
    return None


def codecs():
    found = {}
    for fmt, (kind, path) in _CODECS.items():
        file = _find(kind, path)
        if file:
            found[fmt] = ("apr::" + kind, file)
    shapes = os.path.join(os.path.dirname(os.path.abspath(__file__)), "shapes.h")
    return found | {fmt: ("shapes::" + kind, shapes) for fmt, kind in SHAPES.items()}


CODECS = codecs()


def read(path):
    with open(path) as f:
        return f.read()


def template_params(name):
    """{param: default} and the list of allowed values, from the template's TOML comment."""
    text = read(os.path.join(TEMPLATES, name + ".cu"))
    params = tomllib.loads(text[text.index("/*") + 2:text.index("*/")]).get("params", {})
    return {p: v["default"] for p, v in params.items()}, {p: v["values"] for p, v in params.items()}


class Kernel:
    """One specialised template: Kernel("gemv_int", m=1, k=3584, segments=[("q4_k", "planar", 3584, True)], kNorm=True, lanes=16)"""

    def __init__(self, template, m=None, k=None, segments=(), arch=90, feature="a", sms=132, max_shared=232448, **constants):
        self.template, self.arch, self.feature = template, arch, feature
        self.m, self.k, self.segments = m, k, [tuple(s) for s in segments]
        params, _ = template_params(template)
        self.constants = {"kArch": arch, "kSms": sms, "kMaxShared": max_shared}
        if m is not None:
            self.constants["kM"] = m
        if k is not None:
            self.constants["kK"] = k
        if self.segments:
            self.constants["kSegments"] = len(self.segments)
        self.constants.update({c: v for c, v in constants.items() if c not in params})
        self.params = {p: constants.get(p, v) for p, v in params.items()}

    def source(self):
        text = ['#include "apr/codec.h"', '#include "args.h"']
        files = []
        for fmt, *_ in self.segments:
            if CODECS[fmt][1] not in files:
                files.append(CODECS[fmt][1])
        headers = {"apr/codec.h": read(os.path.join(ROOT, "include/apr/codec.h"))}
        for name in os.listdir(TEMPLATES):
            if name.endswith(".h"):
                headers[name] = read(os.path.join(TEMPLATES, name))
        for i, file in enumerate(files):
            headers[f"codec/{i}.h"] = read(file)
            text.append(f'#include "codec/{i}.h"')
        text.append("namespace apr::spec {")
        for name, value in {**self.constants, **self.params}.items():
            kind = "bool" if isinstance(value, bool) else "int"
            text.append(f"[[maybe_unused]] constexpr {kind} {name} = {str(value).lower()};")
        for i, (fmt, layout, n, bias) in enumerate(self.segments):
            kind = CODECS[fmt][0]
            place = "Planar" if layout == "planar" else "RowMajor"
            text.append(f"struct Segment{i} {{ using Codec = {kind}; using Layout = {kind}::{place}; "
                        f"static constexpr int kN = {n}; static constexpr bool kBias = {str(bool(bias)).lower()}; }};")
        if self.segments:
            text.append("using Segments = apr::SegmentList<%s>;" % ", ".join(f"Segment{i}" for i in range(len(self.segments))))
        text.append("}")
        text.append(f'#line 1 "{self.template}.cu"')
        text.append(read(os.path.join(TEMPLATES, self.template + ".cu")))
        return "\n".join(text), headers

    def label(self):
        segments = "+".join(f"{f}/{l[0]}:{n}{'b' if b else ''}" for f, l, n, b in self.segments)
        rest = " ".join(f"{c[1:]}={int(v)}" for c, v in self.constants.items()
                        if c not in ("kArch", "kSms", "kMaxShared", "kM", "kK", "kSegments"))
        params = " ".join(f"{p}={v}" for p, v in self.params.items())
        return " ".join(x for x in (self.template, f"m={self.m}" if self.m is not None else "",
                                    f"k={self.k}" if self.k is not None else "", segments, rest, params) if x)

    def build(self):
        """(cubin bytes, log), from the store when the same source was compiled before."""
        source, headers = self.source()
        options = [f"--gpu-architecture=sm_{self.arch}{self.feature}", "-std=c++20", "-lineinfo", "-default-device", "--ptxas-options=-v"] + (["-DAPR_TRACE"] if TRACE else [])
        key = hashlib.sha256(json.dumps([source, sorted(headers.items()), options]).encode()).hexdigest()[:32]
        path = os.path.join(STORE, key)
        if not os.path.exists(path + ".cubin"):
            os.makedirs(STORE, exist_ok=True)
            cubin, log = nvrtc.compile_cubin(source, self.template + ".cu", headers, options)
            with open(path + ".log", "w") as f:
                f.write(log)
            with open(path + ".tmp%d" % os.getpid(), "wb") as f:
                f.write(cubin)
            os.replace(path + ".tmp%d" % os.getpid(), path + ".cubin")
        with open(path + ".cubin", "rb") as f:
            cubin = f.read()
        return cubin, read(path + ".log")
