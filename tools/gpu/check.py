"""Checks every template against float64 on the GPU: random inputs, poisoned outputs, guard bands behind every output.

usage: check.py [--only PART] [--quick] [--build]
Prints a line per failure and a summary last; exit status 1 when anything failed.
"""
import argparse
import ctypes
import multiprocessing
import os
import sys

import numpy as np

import nvrtc
import spec
from spec import Kernel

GUARD = 64
NONE, RESIDUAL, SWIGLU = 0, 1, 2
CASES = []


def case(part, kernel, run):
    CASES.append((part, kernel, run))


def _build(kernel):
    try:
        kernel.build()
        return None
    except Exception as e:  # reported by the parent
        return f"{kernel.label()}: {str(e)[:1500]}"


_pool = None


def start_builders():
    """Processes that compile: to be started before the CUDA context exists, since they are forks."""
    global _pool
    if _pool is None:
        _pool = multiprocessing.Pool(min(os.cpu_count(), 32))


def build_all(kernels):
    """Compiles in parallel. A list of messages."""
    start_builders()
    return [m for m in _pool.map(_build, kernels, chunksize=1) if m]


# ---- float64 references --------------------------------------------------------------------------------------------------

def int8_blocks(x):
    """x [M, K] float32 -> what the kernels make of it: (q [M, Kp], scale, sum, x^ as float64 [M, K])."""
    m, k = x.shape
    kp = -(-k // 32) * 32
    v = np.zeros((m, kp), np.float32)
    v[:, :k] = x
    b = v.reshape(m, -1, 16)
    amax = np.abs(b).max(-1, keepdims=True)
    big = amax > 1e-30
    inverse = np.where(big, (np.float32(1) / np.where(big, amax, 1)).astype(np.float32) * np.float32(127), 0).astype(np.float32)
    q = np.rint(b * inverse).astype(np.int8)
    scale = (amax * np.float32(1 / 127)).astype(np.float32)
    sums = scale[..., 0] * q.sum(-1).astype(np.float32)
    return q.reshape(m, kp), scale[..., 0], sums.reshape(m, -1), (q.astype(np.float64) * scale).reshape(m, kp)[:, :k]


def rms(x, w, eps):
    x = x.astype(np.float64)
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * w


def silu(x):
    return x / (1 + np.exp(-x))


def nmse(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if not np.isfinite(a).all():
        return float("inf")
    return float(((a - b) ** 2).sum() / max((b ** 2).sum(), 1e-300))


def rotate(x, position, inv_freq, kind, dims):
    y = x.astype(np.float64).copy()
    if kind == 0 or dims == 0:
        return y
    a = position * inv_freq.astype(np.float64)
    c, s = np.cos(a), np.sin(a)
    i0, i1 = (np.arange(0, dims, 2), np.arange(1, dims, 2)) if kind == 1 else (np.arange(dims // 2), np.arange(dims // 2, dims))
    y[..., i0], y[..., i1] = x[..., i0] * c - x[..., i1] * s, x[..., i0] * s + x[..., i1] * c
    return y


# ---- running -------------------------------------------------------------------------------------------------------------

class Device:
    def __init__(self):
        import cupy
        import args
        import device
        self.cp, self.A, self.device = cupy, args, device
        self.keep = []

    def put(self, a):
        a = self.cp.asarray(np.ascontiguousarray(a))
        self.keep.append(a)
        return a.data.ptr

    def out(self, shape, dtype=np.float32):
        n = int(np.prod(shape))
        dtype = np.dtype(dtype)
        a = self.cp.empty(n + GUARD, dtype)
        a.view(self.cp.uint8)[:] = 0xff  # NaN as floats
        self.keep.append(a)
        return a

    def got(self, a, shape):
        n = int(np.prod(shape))
        h = a.get()
        assert (h[n:].view(np.uint8) == 0xff).all(), "wrote past the end of the output"
        return h[:n].reshape(shape)

    def load(self, kernel):
        return self.device.Loaded(kernel.build()[0], kernel.label())

    def run(self, kernel, arguments, rows=1, times=1):
        loaded = self.load(kernel)
        if hasattr(arguments, "scratch"):
            arguments.scratch = loaded.scratch.data.ptr
        for _ in range(times):
            loaded.launch(arguments, rows)
        self.cp.cuda.get_current_stream().synchronize()
        return loaded

    def weight(self, fmt, layout, rows):
        import weights
        w = self.A.Weight()
        for i, p in enumerate(weights.planes(fmt, layout, rows)):
            w.plane[i] = self.put(p)
        return w

    def int8(self, arguments, field, m, n, launch, y):
        """Runs launch with an ActInt8 output; error against the float64 result y in blocks."""
        np_ = -(-n // 32) * 32
        q, scale, sums = self.out((m, np_), np.int8), self.out((m, np_ // 16)), self.out((m, np_ // 16))
        setattr(arguments, field, self.A.ActInt8(q.data.ptr, scale.data.ptr, sums.data.ptr))
        launch()
        q, scale, sums = self.got(q, (m, np_)), self.got(scale, (m, np_ // 16)), self.got(sums, (m, np_ // 16))
        assert (q[:, n:] == 0).all(), "padding is not zero"
        value = (q.reshape(m, -1, 16).astype(np.float64) * scale[..., None]).reshape(m, np_)[:, :n]
        assert nmse(sums, q.reshape(m, -1, 16).astype(np.float64).sum(-1) * scale) < 1e-12, "sums"
        return nmse(value, int8_blocks(y.astype(np.float32))[3]), 1e-5  # one unit in a few places

    def act_half(self, x, kind):
        """ActHalf of x [M, K] as convert makes it, and what it is worth."""
        m, k = x.shape
        kp = -(-k // 64) * 64
        h = self.A.ActHalf()
        t0, t1, scale = self.out((m, kp), np.uint16), self.out((m, kp), np.uint16), self.out((m,))
        h.term[0], h.term[1], h.scale = t0.data.ptr, t1.data.ptr if kind != 2 else None, scale.data.ptr
        a = self.A.ConvertArgs(m=self.put(np.array([m], np.int32)), x=self.put(x), yh=h)
        self.run(Kernel("convert", m=0, k=k, kSwiglu=False, kOutput=kind), a, m)
        return h, (t0, t1, scale)


def linear_case(part, template, m, k, segments, epilogue=NONE, norm=False, input_=0, tolerance=None, seed=1, w_scale=16.0, output=0, **params):
    """segments: (format, layout or None, n, bias)."""
    import weights
    segments = [(f, l or weights.preferred_layout(f), n, b) for f, l, n, b in segments]
    gemm = template == "gemm"
    kernel = Kernel(template, m=0 if gemm else m, k=k, segments=segments, kEpilogue=epilogue, kNorm=norm, kInput=input_, kOutput=output, **params)

    def run(d):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((m, k), dtype=np.float32) * np.exp(rng.standard_normal((1, k), dtype=np.float32))
        x[:, :min(k, 32)] = 0  # a block of zeros
        norm_w = (1 + 0.2 * rng.standard_normal(k)).astype(np.float32)
        a = d.A.LinearArgs(m=d.put(np.array([m], np.int32)), x=d.put(x), norm=d.put(norm_w), eps=1e-5)
        outs, results = [], []
        xr = x.astype(np.float64)
        if template == "gemv_int":
            scaled = x * norm_w if norm else x
            q, scale, sums, xr = int8_blocks(scaled)
            if norm:
                xr = xr / np.sqrt((x.astype(np.float64) ** 2).mean(-1, keepdims=True) + 1e-5)
            if input_ == 1:
                a.xq = d.A.ActInt8(d.put(q), d.put(scale), d.put(sums))
        elif norm:
            xr = rms(x, norm_w, 1e-5)
        if gemm:
            a.xh, _ = d.act_half(x, input_)
        for i, (fmt, layout, n, bias) in enumerate(segments):
            rows = weights.random_blocks(fmt, n, k, rng)
            w = weights.dequantize(fmt, rows, k)
            a.w[i] = d.weight(fmt, layout, rows)
            y = d.cp.asarray(xr) @ d.cp.asarray(w.astype(np.float64)).T
            b = rng.standard_normal(n).astype(np.float32)
            if bias:
                y = y + d.cp.asarray(b)
            a.bias[i] = d.put(b)
            a.w_scale[i] = w_scale
            results.append(y.get())
        if epilogue == SWIGLU:
            results = [silu(results[0]) * results[1]]
        for i, r in enumerate(results):
            n = r.shape[1]
            stride = n + 3
            out = d.out((m, stride))
            a.y[i], a.y_stride[i] = out.data.ptr, stride
            outs.append((out, n, stride))
        if epilogue == RESIDUAL:
            res = rng.standard_normal((m, stride)).astype(np.float32)
            a.residual = d.put(res)
            results[0] = results[0] + res[:, :n]
        if output == 1:
            return d.int8(a, "yq", m, n, lambda: d.run(kernel, a, m), results[0])
        d.run(kernel, a, m)
        worst = 0.0
        for r, (out, n, stride) in zip(results, outs):
            g = d.got(out, (m, stride))
            assert np.isnan(g[:, n:]).all(), "wrote between rows"
            worst = max(worst, nmse(g[:, :n], r))
        limit = tolerance or {"gemv_int": 1e-11, "gemv_float": 1e-11}.get(template) or {2: 4e-7, 3: 1e-8, 4: 3e-7}[input_]
        return worst, limit

    case(part, kernel, run)


def chain_case(fmt, n, template):
    """Fifty dependent GEMVs through three buffers, with programmatic dependent launch and without: the same bits."""
    kernels = [Kernel(template, m=1, k=n, segments=[(fmt, "planar" if template == "gemv_int" else "row_major", n, False)], kEpilogue=e, kNorm=e == 0,
                      kInput=0, kOutput=0, **p) for e, p in ((0, dict(warps=4, ctas=4)), (1, dict(warps=8, ctas=1)), (0, dict(warps=2, ctas=8)))]

    def run(d):
        import weights
        rng = np.random.default_rng(11)
        loaded = [d.load(k) for k in kernels]
        w = d.weight(fmt, kernels[0].segments[0][1], weights.random_blocks(fmt, n, n, rng))
        norm = d.put(np.ones(n, np.float32))
        results = []
        for pdl in (False, True, True):
            buffers = [d.cp.zeros(n, np.float32) for _ in range(3)]
            buffers[0][:] = d.cp.asarray(np.random.default_rng(1).standard_normal(n).astype(np.float32))
            def chain():
                for i in range(50):
                    a = d.A.LinearArgs(x=buffers[i % 3].data.ptr, norm=norm, eps=1e-5, residual=buffers[i % 3].data.ptr)
                    a.w[0], a.y[0], a.y_stride[0] = w, buffers[(i + 1) % 3].data.ptr, n
                    loaded[i % 3].launch(a, pdl=pdl)
            graph, stream = d.device.capture(chain)
            graph.launch(stream)
            stream.synchronize()
            results.append(np.stack([b.get() for b in buffers]).view(np.uint32))
        assert np.isfinite(results[0].view(np.float32)).all()
        return float(sum((r != results[0]).sum() for r in results)), 0.5

    case("chain", kernels[0], run)
    kernels[0].also = kernels[1:]


def ptx_case(n, k, m, bias, epilogue):
    def run(d):
        import weights
        rng = np.random.default_rng(3)
        text = spec.read(os.path.join(spec.TEMPLATES, "gemv_f32.ptx"))
        for name, v in dict(kN=n, kM=m, kK=k, kBias=int(bias), kEpilogue=epilogue).items():
            text = text.replace("{{%s}}" % name, str(v))
        x = rng.standard_normal((m, k), dtype=np.float32)
        rows = weights.random_blocks("f32", n, k, rng)
        w = weights.dequantize("f32", rows, k)
        b, res = rng.standard_normal(n).astype(np.float32), rng.standard_normal((m, n)).astype(np.float32)
        a = d.A.LinearArgs(x=d.put(x), residual=d.put(res))
        a.w[0] = d.weight("f32", "row_major", rows)
        a.bias[0] = d.put(b)
        out = d.out((m, n))
        a.y[0], a.y_stride[0] = out.data.ptr, n
        d.device.Loaded(text.encode() + b"\0", "gemv_f32.ptx").launch(a, m)
        d.cp.cuda.get_current_stream().synchronize()
        y = x.astype(np.float64) @ w.astype(np.float64).T + (b if bias else 0) + (res if epilogue else 0)
        return nmse(d.got(out, (m, n)), y), 1e-11

    case("gemv_f32.ptx", f"gemv_f32.ptx n={n} k={k} m={m}", run)


def embed_case(fmt, layout, n, k, m):
    kernel = Kernel("embed", m=0, k=k, segments=[(fmt, layout, n, False)])

    def run(d):
        import weights
        rng = np.random.default_rng(4)
        rows = weights.random_blocks(fmt, n, k, rng)
        tokens = rng.integers(0, n, m).astype(np.int32)
        tokens[0] = n - 1
        out = d.out((m, k))
        a = d.A.EmbedArgs(m=d.put(np.array([m], np.int32)), tokens=d.put(tokens), w=d.weight(fmt, layout, rows), y=out.data.ptr)
        d.run(kernel, a, m)
        return float((d.got(out, (m, k)) != weights.dequantize(fmt, rows, k)[tokens]).sum()), 0.5  # bit for bit

    case("embed", kernel, run)


def activation_case(template, k, m, output, swiglu=False, groups=1):
    extra = dict(kGroups=groups) if template == "rms_norm" else dict(kSwiglu=swiglu)
    kernel = Kernel(template, m=0, k=k, kOutput=output, **extra)

    def run(d):
        rng = np.random.default_rng(5)
        x = (rng.standard_normal((m, groups * k)) * 3).astype(np.float32)
        up = rng.standard_normal((m, k)).astype(np.float32)
        w = (1 + 0.2 * rng.standard_normal(k)).astype(np.float32)
        if template == "rms_norm":
            y = rms(x.reshape(m * groups, k), w, 1e-5).reshape(m, groups * k)
            a = d.A.NormArgs(x=d.put(x), weight=d.put(w), x_stride=groups * k, eps=1e-5)
        else:
            y = silu(x.astype(np.float64)) * up if swiglu else x.astype(np.float64)
            a = d.A.ConvertArgs(x=d.put(x), up=d.put(up))
        a.m = d.put(np.array([m], np.int32))
        pad = {0: 1, 1: 32}.get(output, 64)
        kp = -(-k // pad) * pad
        if output == 0:
            out = d.out((m, groups * k))
            a.y = out.data.ptr
            d.run(kernel, a, m)
            return nmse(d.got(out, (m, groups * k)), y), 1e-12
        if output == 1:
            return d.int8(a, "yq", m, k, lambda: d.run(kernel, a, m), y)
        t = [d.out((m, kp), np.uint16) for _ in range(2)]
        scale = d.out((m,))
        a.yh.term[0], a.yh.term[1], a.yh.scale = t[0].data.ptr, t[1].data.ptr, scale.data.ptr
        d.run(kernel, a, m)
        def value(i):
            bits = d.got(t[i], (m, kp))
            return (bits.astype(np.uint32) << 16).view(np.float32) if output == 3 else bits.view(np.float16)
        total = value(0).astype(np.float64)
        if output != 2:
            total = total + value(1).astype(np.float64)
        assert (total[:, k:] == 0).all(), "padding is not zero"
        return nmse(total[:, :k] * d.got(scale, (m,))[:, None].astype(np.float64), y), {2: 1e-7, 3: 1e-9, 4: 1e-12}[output]

    case(template, kernel, run)


def elementwise_case(template, k, m):
    kernel = Kernel(template, m=0, k=k)

    def run(d):
        rng = np.random.default_rng(6)
        a_, b_ = rng.standard_normal((2, m, k)).astype(np.float32)
        rows = rng.integers(0, m, m).astype(np.int32)
        out = d.out((m, k))
        a = d.A.ElementwiseArgs(m=d.put(np.array([m], np.int32)), a=d.put(a_), b=d.put(b_), rows=d.put(rows), y=out.data.ptr)
        d.run(kernel, a, m)
        y = {"add": lambda: a_.astype(np.float64) + b_, "swiglu": lambda: silu(a_.astype(np.float64)) * b_, "gather": lambda: a_[rows]}[template]()
        return nmse(d.got(out, (m, k)), y), 1e-12

    case(template, kernel, run)


def attention_case(template, heads, kv_heads, dim, steps, kind=2, rope_dims=None, qk_norm=False, fused=False, window=0, n_ctx=None, n_seq=2,
                   tolerance=None, output=0, **params):
    """steps: (sequence, position) of each row. The cache below each sequence's first new position is random."""
    rope_dims = dim if rope_dims is None else rope_dims
    m = len(steps)
    n_ctx = n_ctx or max(p for _, p in steps) + 5
    common = dict(kHeads=heads, kKvHeads=kv_heads, kHeadDim=dim, kRopeDims=rope_dims, kRopeKind=kind, kQkNorm=qk_norm, kWindow=window)
    attention = Kernel(template, m=0 if template == "attention_prompt" else m, kFused=fused, **(dict(kOutput=output) if output else {}), **common, **params)
    rope_kv = Kernel("rope_kv", m=0, kFused=False, **common)

    def run(d):
        rng = np.random.default_rng(7)
        q = rng.standard_normal((m, heads, dim)).astype(np.float32)
        k = rng.standard_normal((m, kv_heads, dim)).astype(np.float32)
        v = rng.standard_normal((m, kv_heads, dim)).astype(np.float32)
        qn, kn = (1 + 0.2 * rng.standard_normal((2, dim))).astype(np.float32)
        inv = (1e4 ** (-np.arange(rope_dims // 2) / max(rope_dims // 2, 1))).astype(np.float32)
        scale = np.float32(dim ** -0.5)
        cache = rng.standard_normal((2, n_seq, kv_heads, n_ctx, dim)).astype(np.float16)
        positions = np.array([p for _, p in steps], np.int32)
        sequences = np.array([s for s, _ in steps], np.int32)
        for s in range(n_seq):  # what is not stored yet is poison
            mine = positions[sequences == s]
            cache[:, s, :, mine.min() if len(mine) else 0:] = np.nan
        # reference
        ref_k, ref_v = cache[0].astype(np.float64), cache[1].astype(np.float64)
        qr = np.empty_like(q, np.float64)
        for i, (s, p) in enumerate(steps):
            a_ = rms(q[i], qn, 1e-5) if qk_norm else q[i].astype(np.float64)
            b_ = rms(k[i], kn, 1e-5) if qk_norm else k[i].astype(np.float64)
            qr[i] = rotate(a_, p, inv, kind, rope_dims)
            ref_k[s, :, p] = rotate(b_, p, inv, kind, rope_dims).astype(np.float32).astype(np.float16)
            ref_v[s, :, p] = v[i].astype(np.float16)
        y = np.empty((m, heads, dim))
        for i, (s, p) in enumerate(steps):
            low = max(0, p + 1 - window) if window else 0
            for g in range(kv_heads):
                hs = slice(g * heads // kv_heads, (g + 1) * heads // kv_heads)
                score = qr[i, hs] @ ref_k[s, g, low:p + 1].T * float(scale)
                e = np.exp(score - score.max(-1, keepdims=True))
                y[i, hs] = e / e.sum(-1, keepdims=True) @ ref_v[s, g, low:p + 1]
        # device
        kc, vc = d.cp.asarray(cache[0]), d.cp.asarray(cache[1])
        out, q_out = d.out((m, heads * dim)), d.out((m, heads * dim))
        a = d.A.AttentionArgs(state=d.put(np.array([m, m, 0, 0], np.int32)), positions=d.put(positions), sequences=d.put(sequences),
                              q=d.put(q), k=d.put(k), v=d.put(v), q_stride=heads * dim, k_stride=kv_heads * dim, v_stride=kv_heads * dim,
                              n_ctx=n_ctx, q_norm=d.put(qn), k_norm=d.put(kn), inv_freq=d.put(inv), eps=1e-5, rope_scale=1.0, scale=float(scale),
                              out_stride=heads * dim, k_cache=kc.data.ptr, v_cache=vc.data.ptr, q_out=q_out.data.ptr, out=out.data.ptr)
        if not fused:
            d.run(rope_kv, a, m)
            assert nmse(d.got(q_out, (m, heads, dim)), qr) < 1e-11, "rope_kv: q"
            a.q = q_out.data.ptr
        if output == 1:
            return d.int8(a, "outq", m, heads * dim, lambda: d.run(attention, a, m, times=2), y.reshape(m, -1))
        d.run(attention, a, m, times=2)  # twice: the counters must come back to zero
        for i, (s, p) in enumerate(steps):
            assert nmse(kc[s, :, p].get(), ref_k[s, :, p]) < 1e-6 and nmse(vc[s, :, p].get(), ref_v[s, :, p]) == 0, "cache"
        return nmse(d.got(out, (m, heads, dim)), y), tolerance or (1e-10 if attention.params["terms"] == 2 else 3e-7)

    case(template, attention, run)
    attention.also = [] if fused else [rope_kv]


def argmax_case(n, m, special):
    kernel = Kernel("argmax", m=0, kN=n)

    def run(d):
        rng = np.random.default_rng(8)
        x = rng.standard_normal((m, n)).astype(np.float32)
        if special:
            x[0, :] = -0.0
            x[0, n // 2] = 0.0
            x[1 % m, n // 3] = np.nan
            if m > 2:
                x[2, [5 % n, n - 1]] = np.inf
            if m > 3:
                x[3] = -np.inf
        out = d.out((m,), np.int32)
        d.run(kernel, d.A.ArgmaxArgs(m=d.put(np.array([m], np.int32)), x=d.put(x), index=out.data.ptr), m, times=2)
        want = np.array([-1 if np.isnan(r).any() else int(r.argmax()) for r in x])
        return float((d.got(out, (m,)) != want).sum()), 0.5

    case("argmax", kernel, run)


def top_k_case(n, k, m, ties):
    kernel = Kernel("top_k", m=0, kN=n, kTopK=k)

    def run(d):
        rng = np.random.default_rng(9)
        x = rng.standard_normal((m, n)).astype(np.float32)
        if ties:
            x = np.rint(x).astype(np.float32)
        best = d.out((m, k, 2), np.int32)
        d.run(kernel, d.A.TopKArgs(m=d.put(np.array([m], np.int32)), x=d.put(x), best=best.data.ptr), m, times=2)
        found = d.got(best, (m, k, 2))
        order = np.argsort(-x.astype(np.float64) + 0.0, axis=-1, kind="stable")[:, :k]
        value = np.ascontiguousarray(found[..., 0]).view(np.float32)
        return float((found[..., 1] != order).sum() + (value != np.take_along_axis(x, order, -1)).sum()), 0.5

    case("top_k", kernel, run)


def range_case(fmt, layout, n, k):
    kernel = Kernel("weight_range", m=0, k=k, segments=[(fmt, layout, n, False)])

    def run(d):
        import weights
        rng = np.random.default_rng(10)
        rows = weights.random_blocks(fmt, n, k, rng)
        bits = d.cp.zeros(1, np.uint32)
        d.run(kernel, d.A.RangeArgs(w=d.weight(fmt, layout, rows), bits=bits.data.ptr))
        return abs(float(bits.get().view(np.float32)[0]) - float(np.abs(weights.dequantize(fmt, rows, k)).max())), 0.0

    case("weight_range", kernel, run)


def cases(quick):
    floats = ("f32", "f16", "bf16", "f8_e4m3", "f8_e5m2")
    ints = [f for f in spec.CODECS if f not in floats]
    layouts = lambda f: ["row_major"] if f in floats else ["planar", "row_major"]
    for f in ints:
        for l in layouts(f):
            linear_case("gemv_int", "gemv_int", 1, 768, [(f, l, 133, False)])
    for f in spec.SHAPES:
        for m in (1, 2, 3, 8):
            linear_case("shapes", "gemv_int", m, 768, [(f, None, 133, False)])
        linear_case("shapes", "gemv_int", 1, 2304, [(f, None, 70, False), (f, None, 70, False)], SWIGLU, True)
        linear_case("shapes", "gemv_int", 1, 2304, [(f, None, 96, False), (f, None, 96, False)], SWIGLU, True, output=1)
        linear_case("shapes", "gemv_int", 1, 4608, [(f, None, 70, False)], RESIDUAL, input_=1)
        linear_case("shapes", "gemv_int", 2, 768, [(f, None, 70, False)], NONE, input_=1, lanes=4)
        linear_case("shapes", "gemv_int", 1, 768, [(f, None, 70, False), ("q4_k", None, 33, False)], NONE, True, lanes=16)
        linear_case("shapes", "gemm", 70, 768, [(f, None, 133, False)], input_=2)
        linear_case("shapes", "gemm", 130, 768, [(f, None, 133, False), ("q4_k", None, 66, False)], input_=2)
    q = lambda n, b=False, f="q4_k", l="planar": (f, l, n, b)
    for m in range(1, 9):
        linear_case("gemv_int", "gemv_int", m, 768, [q(37)], RESIDUAL)
    linear_case("gemv_int", "gemv_int", 1, 256, [q(1)], NONE, True)
    linear_case("gemv_int", "gemv_int", 1, 3584, [q(448, True), q(64, True), q(64, True, "q6_k")], NONE, True)
    linear_case("gemv_int", "gemv_int", 3, 1536, [q(96, True), q(33, True, "q6_k"), q(64, True, "q8_0")], NONE, True)
    linear_case("gemv_int", "gemv_int", 1, 896, [q(300, False, "q5_0"), q(300, False, "q5_0")], SWIGLU, True)
    linear_case("gemv_int", "gemv_int", 2, 1536, [q(301), q(301)], SWIGLU, True)
    linear_case("gemv_int", "gemv_int", 1, 3584, [q(3001), q(3001)], SWIGLU, True, rows=4)
    linear_case("gemv_int", "gemv_int", 1, 18944, [q(70, False, "q6_k")], RESIDUAL)
    linear_case("gemv_int", "gemv_int", 8, 18944, [q(70)], RESIDUAL)
    linear_case("gemv_int", "gemv_int", 1, 18944, [q(70)], RESIDUAL, input_=1)
    linear_case("gemv_int", "gemv_int", 2, 96, [q(70, False, "q8_0")], NONE, input_=1)
    linear_case("gemv_int", "gemv_int", 1, 896, [q(151, False, "q8_0")], NONE, True, lanes=4, rows=4)
    for lanes in (4, 8, 16, 32):
        for rows, depth in ((1, 1), (2, 3), (4, 2), (2, 7)):
            linear_case("gemv_int", "gemv_int", 1, 1536, [q(201)], NONE, lanes=lanes, rows=rows, depth=depth, warps=4)
    for m in (1, 3):
        for n, p in ((301, dict(lanes=16, rows=2, warps=8)), (320, dict(lanes=16, rows=4, warps=8)), (1000, dict(lanes=8, rows=2, warps=16)),
                     (700, dict(lanes=16, rows=2, warps=8, split=2)), (100, dict(lanes=32, rows=2, warps=8))):
            linear_case("gemv_int", "gemv_int", m, 1536, [q(n), q(n)], SWIGLU, True, output=1, **p)
    for split in (2, 4, 8):
        linear_case("gemv_int", "gemv_int", 1, 8960, [q(101)], RESIDUAL, input_=1, split=split, lanes=32)
        linear_case("gemv_int", "gemv_int", 2, 8960, [q(101), q(31, True, "q6_k")], NONE, split=split, lanes=16)
        linear_case("gemv_int", "gemv_int", 1, 1536, [q(301), q(301)], SWIGLU, True, split=split, rows=4)
        linear_case("gemv_float", "gemv_float", 2, 1537, [("f32", None, 101, True)], RESIDUAL, split=split)
        linear_case("gemv_float", "gemv_float", 1, 8960, [("f32", None, 101, True)], RESIDUAL, split=split)
        linear_case("gemv_float", "gemv_float", 3, 896, [("f16", None, 101, True), ("f16", None, 101, True)], SWIGLU, split=split)
    for ahead in (32, 128):
        linear_case("gemv_int", "gemv_int", 1, 1536, [q(1301), q(1301)], SWIGLU, True, ahead=ahead, spare=1, ctas=1, output=1)
        linear_case("gemv_int", "gemv_int", 1, 3584, [q(1301, False, "q6_k")], RESIDUAL, ahead=ahead, split=2)
        linear_case("gemv_float", "gemv_float", 1, 1537, [("f32", None, 1301, True)], RESIDUAL, ahead=ahead, spare=1)
    for f in spec.CODECS:
        for l in layouts(f):
            linear_case("gemv_float", "gemv_float", 1, 768, [(f, l, 133, False)])
    for m in (1, 2, 5, 8):
        linear_case("gemv_float", "gemv_float", m, 1537, [("f32", None, 37, True)], RESIDUAL)
    linear_case("gemv_float", "gemv_float", 1, 1536, [("f32", None, 301, False), ("f32", None, 301, False)], SWIGLU, True)
    linear_case("gemv_float", "gemv_float", 3, 1536, [("f16", None, 301, True), ("f16", None, 31, True), ("f32", None, 31, True)], NONE, True)
    linear_case("gemv_float", "gemv_float", 8, 18944, [("f16", None, 5, False)], NONE)
    linear_case("gemv_float", "gemv_float", 1, 3, [("f32", None, 5, False)], NONE)
    linear_case("gemv_float", "gemv_float", 1, 3584, [("q4_k", None, 5, False), ("q6_k", None, 5, False)], NONE, True)
    for fmt, n, t in (("q4_k", 1536, "gemv_int"), ("q4_k", 4096, "gemv_int"), ("f32", 896, "gemv_float")):
        chain_case(fmt, n, t)
    for n, k, m, b, e in ((1001, 1537, 2, True, 1), (5, 3, 1, False, 0), (1536, 8960, 1, False, 1), (7, 128, 1, True, 0), (64, 516, 8, False, 0)):
        ptx_case(n, k, m, b, e)
    for f in spec.CODECS:
        for l in layouts(f):
            linear_case("gemm", "gemm", 70, 768, [(f, l, 133, False)], input_=2)
    for m in (1, 16, 64, 129, 300):
        linear_case("gemm", "gemm", m, 768, [q(200)], RESIDUAL, input_=2)
    linear_case("gemm", "gemm", 100, 3584, [q(448, True), q(64, True), q(64, True, "q6_k")], NONE, input_=2)
    linear_case("gemm", "gemm", 100, 896, [q(301, False, "q5_0"), q(301, False, "q5_0")], SWIGLU, input_=2)
    linear_case("gemm", "gemm", 100, 1536, [q(301, True), q(301, True)], SWIGLU, input_=2)
    linear_case("gemm", "gemm", 513, 18944, [q(256, False, "q6_k")], RESIDUAL, input_=2)
    linear_case("gemm", "gemm", 100, 1536, [("f32", None, 301, True), ("f32", None, 301, True)], SWIGLU, input_=3, bk=32)
    linear_case("gemm", "gemm", 33, 1537, [("f32", None, 301, True)], RESIDUAL, input_=3, bk=32, ctas=1)
    linear_case("gemm", "gemm", 33, 1537, [("f16", None, 301, True)], NONE, input_=4)
    linear_case("gemm", "gemm", 33, 100, [("bf16", None, 301, True)], NONE, input_=2)
    linear_case("gemm", "gemm", 33, 3, [("f32", None, 1, True)], NONE, input_=3)
    for split in (2, 4):
        linear_case("gemm", "gemm", 300, 1536, [q(301), q(301)], SWIGLU, input_=2, split=split)
        linear_case("gemm", "gemm", 70, 768, [q(200, True), q(100, True, "q6_k")], NONE, input_=2, split=split, bm=64)
        linear_case("gemm", "gemm", 129, 1537, [("f32", None, 301, True)], RESIDUAL, input_=3, bk=32, split=split, bm=64, bn=64)
    for bm, bn in ((64, 64), (64, 128), (128, 64)):
        for bk, stages in ((64, 2), (128, 2), (64, 3)):
            linear_case("gemm", "gemm", 200, 1024, [q(300), q(300)], SWIGLU, input_=2, bm=bm, bn=bn, bk=bk, stages=stages)
    for f in spec.CODECS:
        for l in layouts(f):
            embed_case(f, l, 50, 768, 5)
    embed_case("f32", "row_major", 50, 515, 5)
    for k, m in ((1536, 5), (897, 3), (64, 1), (18944, 2)):
        for o in range(5):
            activation_case("rms_norm", k, m, o)
            activation_case("convert", k, m, o or 1, swiglu=o % 2 == 0)
    for k, groups in ((128, 28), (80, 3), (64, 5)):
        activation_case("rms_norm", k, 4, 0, groups=groups)
    for t in ("add", "swiglu", "gather"):
        for k, m in ((1536, 5), (897, 3), (3, 1)):
            elementwise_case(t, k, m)
    for heads, kv, dim in ((28, 4, 128), (14, 2, 64), (12, 2, 128), (32, 8, 80), (8, 8, 96), (32, 2, 64), (6, 2, 40)):
        for p in (0, 15, 16, 130, 1000):
            attention_case("attention_decode", heads, kv, dim, [(1, p)], fused=True, kind=1 + p % 2, qk_norm=p == 16)
    for p in (257, 3000, 9000):
        attention_case("attention_decode", 28, 4, 128, [(0, p)], fused=True, tiles=2)
        attention_case("attention_decode", 28, 4, 128, [(0, p)], fused=True, terms=1, least=128, warps=4)
    attention_case("attention_decode", 28, 4, 128, [(0, 700)], fused=True, output=1)
    attention_case("attention_decode", 14, 2, 64, [(0, 3), (1, 70)], output=1)
    attention_case("attention_decode", 14, 2, 64, [(0, 700)], fused=True, window=100, rope_dims=32)
    attention_case("attention_decode", 8, 4, 64, [(0, 3), (1, 700), (2, 0), (3, 5000)], n_seq=4)
    attention_case("attention_decode", 8, 4, 64, [(0, 3), (0, 4), (0, 5), (1, 0), (1, 1)], n_seq=4)
    for heads, kv, dim in ((28, 4, 128), (14, 2, 64), (8, 8, 80), (8, 2, 96)):
        for terms in (1, 2):
            attention_case("attention_prompt", heads, kv, dim, [(1, 30 + i) for i in range(100)], terms=terms)
    attention_case("attention_prompt", 4, 2, 64, [(0, i) for i in range(70)] + [(1, 500 + i) for i in range(5)] + [(2, i) for i in range(3)], n_seq=3)
    attention_case("attention_prompt", 4, 2, 64, [(0, i) for i in range(300)], window=64)
    attention_case("attention_prompt", 4, 2, 64, [(0, 0)])
    for n, m, special in ((151936, 1, False), (1000, 5, True), (7, 4, True), (32003, 9, True)):
        argmax_case(n, m, special)
    for n, k, m, ties in ((151936, 40, 2, False), (1000, 1000, 1, True), (50000, 1, 3, True), (50000, 200, 2, True), (64, 33, 1, False)):
        top_k_case(n, k, m, ties)
    for f in spec.CODECS:
        range_case(f, layouts(f)[0], 33, 768)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--only")
    p.add_argument("--quick", action="store_true")
    p.add_argument("--build", action="store_true", help="compile everything and stop: needs no GPU")
    o = p.parse_args()
    if o.build:
        try:
            nvrtc.library()
        except SystemExit as missing:
            print("skipped:", missing)
            return 77
    cases(o.quick)
    chosen = [c for c in CASES if not o.only or c[0] in o.only.split(",")]
    kernels = {}
    for _, k, _ in chosen:
        for one in [k] + getattr(k, "also", []) if isinstance(k, Kernel) else []:
            kernels[one.label()] = one
    for k, out in ((1536, (2, 3, 4)), (896, (2,)), (768, (2,)), (512, (2,)), (1024, (2,)), (3584, (2,)), (18944, (2,)), (1537, (3, 4)), (100, (2,)), (3, (3,))):
        for kind in out:
            one = Kernel("convert", m=0, k=k, kSwiglu=False, kOutput=kind)
            kernels[one.label()] = one
    broken = build_all(list(kernels.values()))
    for b in broken:
        print("COMPILE", b)
    print(f"{len(kernels)} kernels compiled, {len(broken)} failed")
    if o.build:
        return 1 if broken else 0
    d = Device()
    failed, worst = 0, {}
    for part, kernel, run in chosen:
        label = kernel.label() if isinstance(kernel, Kernel) else kernel
        d.keep.clear()
        try:
            error, limit = run(d)
            ok = error <= limit
            note = f"error {error:.3g}, allowed {limit:.3g}"
        except Exception as e:
            ok, error, limit, note = False, float("inf"), 1, f"{type(e).__name__}: {str(e)[:200]}"
        n, bad, share = worst.get(part, (0, 0, 0.0))
        worst[part] = (n + 1, bad + (not ok), max(share, error))
        if not ok:
            failed += 1
            print(f"FAIL {label}: {note}")
            if "illegal" in note or "misaligned" in note or "LAUNCH_FAILED" in note.upper():
                print("the device's context is lost; stopping")
                break
    print(f"{'part':18} cases failed worst error")
    for part, (n, bad, error) in worst.items():
        print(f"{part:18} {n:5} {bad:6} {error:.3g}")
    return 1 if failed or broken else 0


if __name__ == "__main__":
    sys.exit(main())
