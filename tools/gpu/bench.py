"""Times templates on the GPU: kernels one by one over weights larger than the L2, and whole decode steps as one graph.

usage: bench.py [--parts bandwidth,gemv,gemm,attention,step] [--models 7b-q4km,...] [--out FILE.json]
A kernel's time is that of one link in a captured chain of launches of itself with programmatic dependent launch, each on
other weights: ramp, tail and launch are in it. GB/s counts packed weight bytes.
"""
import argparse
import itertools
import json
import sys

import numpy as np

import check
import spec
from spec import Kernel

NONE, RESIDUAL, SWIGLU = 0, 1, 2
RESULTS = []


def note(**kw):
    RESULTS.append(kw)


# name: layers, dim, ffn, heads, kv heads, head dim, vocab, recipe
MODELS = {
    "7b-q4km": (28, 3584, 18944, 28, 4, 128, 152064, "Q4_K_M"), "7b-q8": (28, 3584, 18944, 28, 4, 128, 152064, "q8_0"),
    "1.5b-q4km": (28, 1536, 8960, 12, 2, 128, 151936, "Q4_K_M"), "1.5b-f16": (28, 1536, 8960, 12, 2, 128, 151936, "f16"),
    "1.5b-f32": (28, 1536, 8960, 12, 2, 128, 151936, "f32"), "0.5b-q4km": (24, 896, 4864, 14, 2, 64, 151936, "Q4_K_M"),
}


def format_of(recipe, name, layer, layers, k):
    if recipe != "Q4_K_M":
        return recipe
    more = layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2
    fmt = "q6_k" if name == "head" or (name in ("v", "down") and more) else "q4_k"
    return fmt if k % 256 == 0 else {"q4_k": "q5_0", "q6_k": "q8_0"}[fmt]


def layout(fmt):
    return "row_major" if fmt in ("f32", "f16", "bf16") else "planar"


def gemv(m, k, segments, epilogue, norm, input_=0, output=0, **params):
    """segments: (format, n, bias)."""
    integer = segments[0][0] not in ("f32", "f16", "bf16")
    return Kernel("gemv_int" if integer else "gemv_float", m=m, k=k, segments=[(f, layout(f), n, b) for f, n, b in segments],
                  kEpilogue=epilogue, kNorm=norm, kInput=input_, kOutput=output, **params)


class Bench:
    def __init__(self):
        import cupy
        import args
        import device
        import weights
        self.cp, self.A, self.device, self.weights = cupy, args, device, weights
        self.random = cupy.random.randint(0, 256, 1 << 28, dtype=cupy.uint8)
        # f16 fields and floats stay finite: clear the top exponent bit of every second byte
        self.random[1::2] &= 0xbf
        self.loaded = {}

    def load(self, kernel):
        label = kernel.label()
        if label not in self.loaded:
            self.loaded[label] = self.device.Loaded(kernel.build()[0], label)
        return self.loaded[label]

    def fill(self, n):
        a = self.cp.empty(n, self.cp.uint8)
        for at in range(0, n, self.random.size):
            part = min(self.random.size, n - at)
            a[at:at + part] = self.random[:part]
        return a

    def bytes_of(self, fmt, n, k):
        block, size, planes = self.weights.info(fmt)
        return n * -(-k // block) * size

    def weight(self, fmt, n, k, keep):
        block, size, planes = self.weights.info(fmt)
        blocks = n * -(-k // block)
        w = self.A.Weight()
        for i, b in enumerate(planes if layout(fmt) == "planar" else [size]):
            p = self.fill(blocks * b)
            keep.append(p)
            w.plane[i] = p.data.ptr
        return w

    def floats(self, n, keep):
        a = self.cp.random.standard_normal(n, dtype=self.cp.float32)
        keep.append(a)
        return a.data.ptr

    def int8(self, n, keep):
        n = -(-n // 32) * 32
        q = self.cp.random.randint(0, 256, n, dtype=self.cp.uint8)
        scale, sums = self.cp.full(n // 16, 0.01, self.cp.float32), self.cp.zeros(n // 16, self.cp.float32)
        keep += [q, scale, sums]
        return self.A.ActInt8(q.data.ptr, scale.data.ptr, sums.data.ptr)

    # ---- parts ---------------------------------------------------------------------------------------------------------

    def bandwidth(self):
        size = 4 << 30
        data = self.fill(size)
        sink = self.cp.zeros(1, self.cp.uint32)
        best = 0.0
        for unroll, ctas in ((4, 8), (8, 4), (8, 8), (16, 2)):
            loaded = self.load(Kernel("read_bandwidth", m=0, unroll=unroll, ctas=ctas))
            a = self.A.BandwidthArgs(data=data.data.ptr, bytes=size, sink=sink.data.ptr)
            us = self.device.time_graph(lambda: loaded.launch(a))
            gbs = size / us / 1e3
            note(part="bandwidth", unroll=unroll, ctas=ctas, us=us, gbs=gbs)
            best = max(best, gbs)
        self.peak = best
        print(f"read bandwidth {best:.0f} GB/s")

    def gemv_chain(self, kernel, total=600 << 20):
        keep = []
        one = sum(self.bytes_of(f, n, kernel.k) for f, _, n, _ in kernel.segments)
        copies = max(4, min(64, total // one))
        m = kernel.m
        x, norm = self.floats(m * kernel.k, keep), self.floats(kernel.k, keep)
        ys = [self.floats(m * n, keep) for _, _, n, _ in kernel.segments]
        biases = [self.floats(n, keep) for _, _, n, _ in kernel.segments]
        rows = self.cp.full(1, m, self.cp.int32)
        arguments = []
        xq, yq = self.int8(m * kernel.k, keep), self.int8(m * kernel.segments[0][2], keep)
        for _ in range(copies):
            a = self.A.LinearArgs(m=rows.data.ptr, x=x, norm=norm, residual=ys[0], eps=1e-5, xq=xq, yq=yq)
            for i, (f, _, n, _) in enumerate(kernel.segments):
                a.w[i] = self.weight(f, n, kernel.k, keep)
                a.bias[i], a.y[i], a.y_stride[i], a.w_scale[i] = biases[i], ys[i], n, 16.0
            arguments.append(a)
        keep.append(rows)
        return arguments, one, keep

    def gemv(self, kernels):
        """kernels: {name: [Kernel, ...]}, the same shapes within a name."""
        for name, variants in kernels.items():
            arguments, one, keep = self.gemv_chain(variants[0])
            best = None
            for kernel in variants:
                loaded = self.load(kernel)
                repeat = max(1, 32 // len(arguments))
                def chain():
                    for _ in range(repeat):
                        for a in arguments:
                            loaded.launch(a)
                try:
                    us = self.device.time_graph(chain, 3, repeat * len(arguments))
                except RuntimeError as e:
                    print(name, kernel.params, e)
                    continue
                note(part="gemv", name=name, params=kernel.params, us=us, gbs=one / us / 1e3, bytes=one)
                if best is None or us < best[0]:
                    best = (us, kernel)
            ranked = sorted((r for r in RESULTS if r["part"] == "gemv" and r["name"] == name), key=lambda r: r["us"])
            text = "; ".join(f"{r['us']:.2f} " + ",".join(str(v) for v in r["params"].values()) for r in ranked[:4] + ranked[-1:])
            print(f"{name:22} {best[0]:7.2f} us {one / best[0] / 1e3:6.0f} GB/s {one / best[0] / 1e3 / self.peak:4.0%} | {text}")
            del keep, arguments

    def gemm(self, cases, m=512):
        for name, (k, segments, epilogue, input_, variants) in cases.items():
            keep = []
            rows = self.cp.full(1, m, self.cp.int32)
            x = self.floats(m * k, keep)
            kp = -(-k // 64) * 64
            h = self.A.ActHalf()
            buffers = [self.cp.zeros(m * kp, self.cp.uint16) for _ in range(2)] + [self.cp.ones(m, self.cp.float32)]
            h.term[0], h.term[1], h.scale = (b.data.ptr for b in buffers)
            convert = self.load(Kernel("convert", m=0, k=k, kSwiglu=False, kOutput=input_))
            ca = self.A.ConvertArgs(m=rows.data.ptr, x=x, yh=h)
            cus = self.device.time_graph(lambda: [convert.launch(ca, m) for _ in range(4)], 3, 4)
            a = self.A.LinearArgs(m=rows.data.ptr, xh=h)
            for i, (f, n) in enumerate(segments):
                a.w[i] = self.weight(f, n, k, keep)
                a.y[i], a.y_stride[i], a.w_scale[i] = self.floats(m * n, keep), n, 16.0
            a.residual = a.y[0]
            flops = 2.0 * m * k * sum(n for _, n in segments)
            best = []
            for params in variants:
                kernel = Kernel("gemm", m=0, k=k, segments=[(f, layout(f), n, False) for f, n in segments], kEpilogue=epilogue, kNorm=False,
                                kInput=input_, kOutput=0, **params)
                loaded = self.load(kernel)
                try:
                    us = self.device.time_graph(lambda: [loaded.launch(a, m) for _ in range(4)], 3, 4)
                except RuntimeError as e:
                    print(name, params, e)
                    continue
                note(part="gemm", name=name, params=kernel.params, us=us, tflops=flops / us / 1e6, convert_us=cus)
                best.append((us, kernel.params))
            best.sort(key=lambda b: b[0])
            text = "; ".join(f"{us:.1f} " + ",".join(str(v) for v in p.values()) for us, p in best[:3] + best[-1:])
            print(f"{name:22} {best[0][0]:7.1f} us {flops / best[0][0] / 1e6:6.0f} TFLOP/s convert {cus:.1f} us | {text}")

    def attention(self, cases):
        for name, (heads, kv, dim, position, variants) in cases.items():
            keep = []
            n_ctx = position + 16
            copies = max(2, min(28, (200 << 20) // (n_ctx * kv * dim * 4)))
            state = self.cp.array([1, 1, 0, 0], self.cp.int32)
            pos, seq = self.cp.full(1, position, self.cp.int32), self.cp.zeros(1, self.cp.int32)
            arguments = []
            for _ in range(copies):
                kc = self.cp.random.standard_normal((kv * n_ctx * dim,), dtype=self.cp.float32).astype(self.cp.float16)
                vc = kc.copy()
                keep += [kc, vc]
                arguments.append(self.A.AttentionArgs(
                    state=state.data.ptr, positions=pos.data.ptr, sequences=seq.data.ptr, q=self.floats(heads * dim, keep), k=self.floats(kv * dim, keep),
                    v=self.floats(kv * dim, keep), q_stride=heads * dim, k_stride=kv * dim, v_stride=kv * dim, n_ctx=n_ctx,
                    inv_freq=self.floats(dim, keep), eps=1e-5, rope_scale=1.0, scale=dim ** -0.5, out_stride=heads * dim,
                    k_cache=kc.data.ptr, v_cache=vc.data.ptr, out=self.floats(heads * dim, keep)))
            best = []
            for params in variants:
                kernel = Kernel("attention_decode", m=1, kHeads=heads, kKvHeads=kv, kHeadDim=dim, kRopeDims=dim, kRopeKind=2, kQkNorm=False,
                                kWindow=0, kFused=True, **params)
                loaded = self.load(kernel)
                for a in arguments:
                    a.scratch = loaded.scratch.data.ptr
                us = self.device.time_graph(lambda: [loaded.launch(a) for a in arguments * (28 // copies)], 3, copies * (28 // copies))
                note(part="attention", name=name, params=kernel.params, us=us, gbs=position * kv * dim * 4 / us / 1e3)
                best.append((us, kernel.params))
            best.sort(key=lambda b: b[0])
            text = "; ".join(f"{us:.2f} " + ",".join(str(v) for v in p.values()) for us, p in best[:4])
            print(f"{name:22} {best[0][0]:7.2f} us {position * kv * dim * 4 / best[0][0] / 1e3:6.0f} GB/s | {text}")

    def prompt(self, rows=512):
        """Attention of a prompt from position 0."""
        for name in ("7b-q4km", "1.5b-q4km", "0.5b-q4km"):
            _, dim, _, heads, kv, hd, _, _ = MODELS[name]
            keep = []
            state = self.cp.array([rows, rows, 0, 0], self.cp.int32)
            pos, seq = self.cp.arange(rows, dtype=self.cp.int32), self.cp.zeros(rows, self.cp.int32)
            cache = self.cp.random.standard_normal((2 * kv * rows * hd,), dtype=self.cp.float32).astype(self.cp.float16)
            a = self.A.AttentionArgs(state=state.data.ptr, positions=pos.data.ptr, sequences=seq.data.ptr, q=self.floats(rows * heads * hd, keep),
                                     q_stride=heads * hd, n_ctx=rows, scale=hd ** -0.5, out_stride=heads * hd, k_cache=cache.data.ptr,
                                     v_cache=cache.data.ptr + 2 * kv * rows * hd, out=self.floats(rows * heads * hd, keep))
            text = []
            for p in PROMPT_VARIANTS:
                loaded = self.load(Kernel("attention_prompt", m=0, kHeads=heads, kKvHeads=kv, kHeadDim=hd, kRopeDims=hd, kRopeKind=2, kQkNorm=False,
                                          kWindow=0, kFused=False, **p))
                us = self.device.time_graph(lambda: [loaded.launch(a, rows) for _ in range(4)], 3, 4)
                note(part="prompt", name=name, us=us, params=p)
                text.append(f"{us:.1f} us {json.dumps(p)}")
            print(f"attention of {rows} tokens, {name}: " + "; ".join(text))

    def prepare(self, name, position=64):
        """Memory and arguments of a whole decode step: a list of (role, make(params) -> Kernel, args)."""
        layers, dim, ffn, heads, kv, hd, vocab, recipe = MODELS[name]
        keep, launches = [], []
        self.step_bytes, self.step_keep = 0, keep
        rows = self.cp.ones(1, self.cp.int32)
        state, pos, seq = self.cp.array([1, 1, 0, 0], self.cp.int32), self.cp.full(1, position, self.cp.int32), self.cp.zeros(1, self.cp.int32)
        token = self.cp.full(1, 17, self.cp.int32)
        x, qkv, att, ff = (self.floats(8 * n, keep) for n in (dim, (heads + 2 * kv) * hd, heads * hd, ffn))
        logits, norm, index = self.floats(8 * vocab, keep), self.floats(dim, keep), self.cp.zeros(8, self.cp.int32)
        inv, bias = self.floats(hd, keep), self.floats(dim, keep)
        integer = recipe not in ("f32", "f16", "bf16")
        att8, ff8 = self.int8(heads * hd, keep), self.int8(ffn, keep)
        n_ctx = position + 64
        keep += [rows, state, pos, seq, token, index]

        def linear(role, k, segments, epilogue, use_norm, xin, ys):
            a = self.A.LinearArgs(m=rows.data.ptr, x=xin, norm=norm, residual=x, eps=1e-6, xq=att8 if role == "o" else ff8, yq=ff8)
            for i, (f, n, _) in enumerate(segments):
                a.w[i] = self.weight(f, n, k, keep)
                self.step_bytes += self.bytes_of(f, n, k)
                a.bias[i], a.w_scale[i] = bias, 16.0
            for i, (y, n) in enumerate(ys):
                a.y[i], a.y_stride[i] = y, n
            launches.append((role, lambda p: gemv(1, k, segments, epilogue, use_norm, int(integer and role in ("o", "down", "down6")),
                                                  int(integer and role == "gate_up"), **p), a))

        hf = format_of(recipe, "head", 0, layers, dim)
        ew = self.weight(hf, vocab, dim, keep)
        launches.append(("embed", lambda p: Kernel("embed", m=0, k=dim, segments=[(hf, layout(hf), vocab, False)]),
                         self.A.EmbedArgs(m=rows.data.ptr, tokens=token.data.ptr, w=ew, y=x)))
        for l in range(layers):
            f = lambda n, k: format_of(recipe, n, l, layers, k)
            linear("qkv", dim, [(f("q", dim), heads * hd, True), (f("k", dim), kv * hd, True), (f("v", dim), kv * hd, True)], NONE, True, x,
                   [(qkv, heads * hd), (qkv + 4 * heads * hd, kv * hd), (qkv + 4 * (heads + kv) * hd, kv * hd)])
            kc = self.cp.zeros(2 * kv * n_ctx * hd, self.cp.float16)
            keep.append(kc)
            launches.append(("attention", lambda p: Kernel("attention_decode", m=1, kHeads=heads, kKvHeads=kv, kHeadDim=hd, kRopeDims=hd, kRopeKind=2,
                                                           kQkNorm=False, kWindow=0, kFused=True, kOutput=int(integer), **p),
                             self.A.AttentionArgs(
                state=state.data.ptr, positions=pos.data.ptr, sequences=seq.data.ptr, q=qkv, k=qkv + 4 * heads * hd, v=qkv + 4 * (heads + kv) * hd,
                q_stride=heads * hd, k_stride=kv * hd, v_stride=kv * hd, n_ctx=n_ctx, inv_freq=inv, eps=1e-6, rope_scale=1.0, scale=hd ** -0.5,
                out_stride=heads * hd, k_cache=kc.data.ptr, v_cache=kc.data.ptr + 2 * kv * n_ctx * hd, out=att, outq=att8)))
            linear("o", heads * hd, [(f("o", heads * hd), dim, False)], RESIDUAL, False, att, [(x, dim)])
            linear("gate_up", dim, [(f("gate", dim), ffn, False), (f("up", dim), ffn, False)], SWIGLU, True, x, [(ff, ffn)])
            plain = format_of(recipe, "down", layers // 8, layers, ffn)
            linear("down6" if f("down", ffn) != plain else "down", ffn, [(f("down", ffn), dim, False)], RESIDUAL, False, ff, [(x, dim)])
        linear("head", dim, [(hf, vocab, False)], NONE, True, x, [(logits, vocab)])
        launches.append(("argmax", lambda p: Kernel("argmax", m=0, kN=vocab, **p), self.A.ArgmaxArgs(m=rows.data.ptr, x=logits, index=index.data.ptr)))
        return launches

    def kernels_of(self, launches, configs):
        return {k.label(): k for k in (make(configs.get(role, {})) for role, make, _ in launches)}.values()

    def time_step(self, launches, configs, skip=(), pdl=True, repeats=3):
        def run():
            for i, (role, make, a) in enumerate(launches):
                if role in skip:
                    continue
                key = (id(make), tuple(sorted(configs.get(role, {}).items())))
                if key not in self.step_loaded:
                    self.step_loaded[key] = self.load(make(configs.get(role, {})))
                loaded = self.step_loaded[key]
                if hasattr(a, "scratch"):
                    a.scratch = loaded.scratch.data.ptr
                loaded.launch(a, 1, pdl=pdl and i > 0)
        return self.device.time_graph(run, repeats)

    def step(self, name, trace=False, descend=True):
        """Tunes the kernels of a decode step in place: first a family for all of them, then role by role what makes the whole
        step fastest. Kernels overlap, so that neighbours decide about each other."""
        layers, integer = MODELS[name][0], MODELS[name][7] not in ("f32", "f16", "bf16")
        launches = self.prepare(name)
        self.step_loaded = {}
        present = {l[0] for l in launches}
        linears = [r for r in ("gate_up", "down", "down6", "qkv", "o", "head") if r in present]
        tried = []

        def attempt(role, p, configs):
            try:
                us = self.time_step(launches, configs)
            except (RuntimeError, check.nvrtc.CompileError):
                return None
            tried.append((role, us, p))
            return us

        families = {f: {r: p for r in linears if r != "gate_up" or not integer or p.get("warps", 8) != 12} for f, p in FAMILIES.items()}
        check.build_all([k for c in families.values() for k in self.kernels_of(launches, c)])
        timed = {}
        for _ in range(3):  # in turns, since clocks and memory drift
            for f, c in families.items():
                us = attempt(f, {}, c)
                timed[f] = min(us, timed.get(f, us)) if us else None
        start = timed["default"]
        family = min((f for f in timed if timed[f]), key=lambda f: timed[f])
        configs, best = dict(families[family]), timed[family]
        print(f"{name}: " + " ".join(f"{f} {us:.0f}" for f, us in timed.items() if us))
        for role in linears + ["attention"] if descend else []:
            deltas = [dict(configs.get(role, {}), **d) for d in (DELTAS_ATTENTION if role == "attention" else DELTAS)]
            mine = [l for l in launches if l[0] == role]
            check.build_all([k for p in deltas for k in self.kernels_of(mine, {role: p})])
            for p in deltas:
                us = attempt(role, p, dict(configs, **{role: p}))
                if us and us < best:
                    best, configs[role] = us, p
        best = self.time_step(launches, configs, repeats=9)
        floor = self.step_bytes / self.peak / 1e3
        shares = {r: best - self.time_step(launches, configs, (r, r + "6")) for r in ("qkv", "attention", "o", "gate_up", "down", "head", "argmax")}
        note(part="step", name=name, us=best, default_us=start, floor_us=floor, shares=shares, configs=configs, tried=tried)
        text = " ".join(f"{r} {v / (layers if r not in ('head', 'argmax') else 1):.2f}" for r, v in shares.items())
        print(f"{name:10} {best:7.1f} us {1e6 / best:6.0f} tok/s ({start:.1f} us with defaults), floor {floor:.0f} us ({floor / best:.0%}); us per kernel, by leaving it out: {text}")
        for role, p in configs.items():
            mine = sorted((us, q) for r, us, q in ((t[0], t[1], json.dumps(t[2]).replace('"', "")) for t in tried) if r == role)
            print(f"    {role:9} " + "; ".join(f"{us:.0f} {q}" for us, q in mine[:3] + mine[-1:]))
        if trace:
            spec.TRACE = True
            self.loaded.clear()
            self.step_loaded.clear()
            us = self.time_step(launches, configs)
            print(f"  {us:.1f} us traced; us after the layer's first CTA, of CTAs' first/median/last, at marks 0 start 1 loads issued 2 previous kernel "
                  "done 3 activations made 4 CTA ready 5 first task done 6 end")
            last = {role.rstrip("6"): self.step_loaded[(id(make), tuple(sorted(configs.get(role, {}).items())))] for role, make, _ in launches}
            t0 = None
            for role in ("qkv", "attention", "o", "gate_up", "down", "head"):
                t = last[role].trace().astype(np.int64)
                t = t[t[:, 6] > 0]
                t0 = t0 if t0 is not None else t[:, 0].min()
                marks = [m for m in range(8) if (t[:, m] > 0).all()]
                print(f"  {role:10}" + "  ".join(f"{m}: {(t[:, m].min() - t0) / 1e3:.1f}/{(np.median(t[:, m]) - t0) / 1e3:.1f}/{(t[:, m].max() - t0) / 1e3:.1f}" for m in marks))
            spec.TRACE = False
            self.loaded.clear()
        self.step_keep.clear()


def fits(role, p):
    """Whether a template can be built with these parameters for this role."""
    pair = role == "gate_up"
    if pair and p["rows"] == 1:
        return False
    if pair and p.get("quantise"):
        out = 32 // p["lanes"] * p["rows"] // 2
        teams = p["warps"] // p["split"]
        tasks = 16 // out if out <= 16 else 0
        return tasks > 0 and tasks % min(tasks, teams) == 0 and teams % min(tasks, teams) == 0 and teams // min(tasks, teams) <= 7
    return True


def gemv_cases(models, variants):
    cases = {}
    for name in models:
        layers, dim, ffn, heads, kv, hd, vocab, recipe = MODELS[name]
        integer = recipe not in ("f32", "f16", "bf16")
        for role in ("qkv", "o", "gate_up", "down", "down6", "head"):
            late = layers // 8  # a layer of the plainer types
            f = lambda n, k, l=late: format_of(recipe, n, l, layers, k)
            input_, output = 0, 0
            if role == "qkv":
                k, segments, e, norm = dim, [(f("q", dim), heads * hd, True), (f("k", dim), kv * hd, True), (f("v", dim), kv * hd, True)], NONE, True
            elif role == "o":
                k, segments, e, norm, input_ = heads * hd, [(f("o", heads * hd), dim, False)], RESIDUAL, False, int(integer)
            elif role == "gate_up":
                k, segments, e, norm, output = dim, [(f("gate", dim), ffn, False), (f("up", dim), ffn, False)], SWIGLU, True, int(integer)
            elif role in ("down", "down6"):
                fmt = f("down", ffn, late if role == "down" else 0)
                if role == "down6" and fmt == f("down", ffn):
                    continue
                k, segments, e, norm, input_ = ffn, [(fmt, dim, False)], RESIDUAL, False, int(integer)
            else:
                k, segments, e, norm = dim, [(f("head", dim), vocab, False)], NONE, True
            cases[f"{name}/{role}"] = [gemv(1, k, segments, e, norm, input_, output, **p) for p in variants(name, role, integer)
                                       if fits(role, dict(p, quantise=output == 1))]
    return cases


def product(**lists):
    return [dict(zip(lists, v)) for v in itertools.product(*lists.values())]


def v(names, *rows):
    return [dict(zip(names, r)) for r in rows]


INT = ("lanes", "rows", "depth", "warps", "ctas", "split", "spare")
SHORT = v(INT, (16, 2, 4, 8, 2, 1, 0), (16, 2, 2, 16, 1, 1, 0), (16, 4, 2, 8, 2, 1, 0), (32, 2, 4, 8, 2, 1, 0),
          (16, 2, 4, 8, 1, 1, 1), (16, 4, 2, 8, 1, 1, 1), (16, 2, 4, 8, 2, 1, 0), (16, 2, 4, 8, 1, 1, 1), (16, 4, 2, 8, 1, 1, 1), (16, 4, 2, 8, 2, 1, 0),
          (32, 2, 4, 8, 1, 1, 1), (16, 2, 2, 16, 1, 1, 1), (16, 2, 2, 12, 1, 1, 1))
LONG = v(INT, (32, 2, 4, 8, 2, 1, 0), (32, 2, 2, 8, 2, 2, 0), (32, 2, 2, 8, 2, 4, 0), (32, 4, 2, 8, 2, 2, 0), (32, 4, 2, 8, 2, 4, 0),
         (32, 2, 4, 8, 1, 1, 1), (32, 2, 4, 8, 1, 1, 1), (32, 2, 4, 8, 1, 2, 1), (32, 4, 2, 8, 1, 2, 1), (32, 4, 2, 8, 1, 4, 1), (32, 2, 2, 8, 2, 2, 0), (32, 2, 2, 16, 1, 4, 1),
         (16, 2, 4, 8, 2, 2, 0))
FLOAT = v(INT, (32, 2, 4, 8, 2, 1, 0), (32, 2, 8, 8, 2, 1, 0), (32, 2, 4, 8, 2, 2, 0), (32, 1, 8, 8, 2, 2, 0), (32, 2, 4, 8, 2, 4, 0), (32, 4, 4, 8, 2, 2, 0),
          (32, 2, 8, 8, 1, 1, 1), (32, 2, 8, 8, 1, 2, 1), (32, 2, 8, 8, 1, 2, 1), (32, 2, 4, 8, 2, 2, 0), (32, 2, 8, 8, 1, 1, 1), (32, 2, 4, 16, 1, 2, 1))


FAMILIES = {"default": {}, "ahead 32": dict(ahead=32), "ahead 64": dict(ahead=64), "ahead 128": dict(ahead=128), "two CTAs": dict(ctas=2, warps=8),
            "one CTA": dict(ctas=1, warps=16), "beside": dict(ctas=1, warps=8, depth=8, spare=1), "beside, ahead 64": dict(ctas=1, warps=8, depth=8, spare=1, ahead=64)}
DELTAS = [dict(depth=2), dict(depth=4), dict(depth=8), dict(rows=4), dict(lanes=16), dict(lanes=32), dict(split=2), dict(split=4), dict(ahead=64), dict(ahead=0),
          dict(ctas=1, warps=8, spare=1), dict(ctas=2, warps=8, spare=0), dict(ctas=1, warps=16, spare=0)]
DELTAS_ATTENTION = v(("warps", "tiles", "least", "terms"), (8, 1, 256, 1), (4, 1, 256, 2), (8, 1, 128, 2))


def variants_of(name, role, integer):
    if not integer:
        return FLOAT
    return LONG if role in ("o", "down", "down6") else SHORT


GEMM = ("bm", "bn", "bk", "stages", "ctas", "split")
GEMM_VARIANTS = [{}] + v(GEMM, (128, 128, 64, 2, 2, 1), (128, 128, 64, 2, 2, 2), (128, 128, 64, 2, 2, 4), (128, 128, 64, 2, 1, 1), (128, 128, 64, 2, 1, 2), (64, 128, 64, 2, 2, 2),
                  (64, 128, 64, 2, 2, 1), (64, 64, 64, 3, 2, 1), (64, 64, 64, 3, 2, 2), (128, 64, 64, 2, 2, 2))
DECODE = ("warps", "tiles", "least", "terms")
DECODE_VARIANTS = v(DECODE, (8, 1, 256, 2), (8, 2, 256, 2), (4, 1, 256, 2), (4, 2, 256, 2), (8, 1, 128, 2), (8, 1, 256, 1), (4, 2, 128, 1))


def gemm_cases():
    out = {}
    for name, k, segments, e in (("7b/gate_up", 3584, [("q4_k", 18944)] * 2, SWIGLU), ("7b/qkv", 3584, [("q4_k", 3584), ("q4_k", 512), ("q6_k", 512)], NONE),
                                 ("7b/o", 3584, [("q4_k", 3584)], RESIDUAL), ("7b/down", 18944, [("q6_k", 3584)], RESIDUAL),
                                 ("1.5b/gate_up", 1536, [("q4_k", 8960)] * 2, SWIGLU), ("1.5b/down", 8960, [("q4_k", 1536)], RESIDUAL),
                                 ("0.5b/gate_up", 896, [("q5_0", 4864)] * 2, SWIGLU), ("0.5b/down", 4864, [("q4_k", 896)], RESIDUAL),
                                 ("0.5b/qkv", 896, [("q5_0", 896), ("q5_0", 128), ("q8_0", 128)], NONE), ("1.5b-f16/gate_up", 1536, [("f16", 8960)] * 2, SWIGLU), ("1.5b-f16/down", 8960, [("f16", 1536)], RESIDUAL)):
        out[name] = (k, segments, e, 2, GEMM_VARIANTS)
    for name, k, segments, e in (("1.5b-f32/gate_up", 1536, [("f32", 8960)] * 2, SWIGLU), ("1.5b-f32/down", 8960, [("f32", 1536)], RESIDUAL),
                                 ("1.5b-f32/o", 1536, [("f32", 1536)], RESIDUAL), ("1.5b-f32/qkv", 1536, [("f32", 1536), ("f32", 256), ("f32", 256)], NONE)):
        out[name] = (k, segments, e, 3, [dict(p, bk=32) if p else p for p in GEMM_VARIANTS])
    return out


PROMPT_VARIANTS = v(("warps", "terms"), (4, 1), (8, 1), (2, 1), (4, 2))
ATTENTION_CASES = {f"{n}@{p}": (h, kv, d, p, DECODE_VARIANTS) for n, h, kv, d in (("7b", 28, 4, 128), ("0.5b", 14, 2, 64)) for p in (64, 500, 4000, 30000)}


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--parts", default="bandwidth,gemv,gemm,attention,step,trace")
    p.add_argument("--models", default="7b-q4km,1.5b-q4km,0.5b-q4km,1.5b-f32,1.5b-f16,7b-q8")
    p.add_argument("--out")
    p.add_argument("--defaults", action="store_true", help="GEMMs with their default parameters only, steps without the search role by role")
    o = p.parse_args()
    parts, models = o.parts.split(","), o.models.split(",")
    gemvs = gemv_cases(models, variants_of) if "gemv" in parts else {}
    gemms = gemm_cases() if "gemm" in parts else {}
    if o.defaults:
        gemms = {n: (*c[:4], [{}]) for n, c in gemms.items()}
    kernels = [k for ks in gemvs.values() for k in ks]
    for k, segments, e, input_, variants in gemms.values():
        kernels.append(Kernel("convert", m=0, k=k, kSwiglu=False, kOutput=input_))
        kernels += [Kernel("gemm", m=0, k=k, segments=[(f, layout(f), n, False) for f, n in segments], kEpilogue=e, kNorm=False, kInput=input_, kOutput=0, **x) for x in variants]
    if "attention" in parts:
        kernels += [Kernel("attention_decode", m=1, kHeads=h, kKvHeads=kv, kHeadDim=d, kRopeDims=d, kRopeKind=2, kQkNorm=False, kWindow=0, kFused=True, **x)
                    for h, kv, d, _, variants in ATTENTION_CASES.values() for x in variants]
    for broken in check.build_all(list({k.label(): k for k in kernels}.values())):
        print("COMPILE", broken)
    b = Bench()
    try:
        b.bandwidth()
        if gemvs:
            b.gemv(gemvs)
        if gemms:
            b.gemm(gemms)
        if "attention" in parts:
            b.attention(ATTENTION_CASES)
        if "prompt" in parts:
            b.prompt()
        if "step" in parts:
            for name in models:
                b.step(name, trace="trace" in parts, descend=not o.defaults)
    finally:
        if o.out:
            with open(o.out, "w") as f:
                json.dump(RESULTS, f)


if __name__ == "__main__":
    sys.exit(main())
