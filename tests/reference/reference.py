"""Position encodings and attention windows against a second, independent computation.

usage: reference.py         APRCTL is the program

A small transformer is written out in plain Python floats (float64), straight from the published formulas: Llama 3's
frequency factors and YaRN as in Hugging Face transformers' modeling_rope_utils.py, a sliding window as in Mistral 7B
(https://arxiv.org/abs/2310.06825, section 2). Models with random float32 weights are written as GGUF and run through the
program, whole and token by token.
"""
import array
import math
import os
import random
import struct
import subprocess
import sys
import tempfile
from operator import mul

APRCTL = os.environ["APRCTL"]
LAYERS, COLUMNS, FF, HEADS, KV_HEADS, VOCAB = 2, 64, 96, 4, 2, 40
BASE, EPS, TOKENS = 10000.0, 1e-5, 40
failures = 0


# ---- the frequencies of pairs, published formulas -------------------------------------------------------------------

def plain(dims):
    return [BASE ** (-2.0 * i / dims) for i in range(dims // 2)], 1.0


def linear(dims, factor):
    return [f / factor for f in plain(dims)[0]], 1.0


def llama3_divisors(dims, factor, low, high, original):
    """What a converter writes as rope_freqs.weight."""
    out = []
    for f in plain(dims)[0]:
        wave = 2 * math.pi / f
        if wave < original / high:
            out.append(1.0)
        elif wave > original / low:
            out.append(factor)
        else:
            smooth = (original / wave - low) / (high - low)
            out.append(1 / ((1 - smooth) / factor + smooth))
    return out


def yarn(dims, factor, original, fast=32.0, slow=1.0):
    def correction(turns):
        return dims * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(BASE))

    low, high = max(math.floor(correction(fast)), 0), min(math.ceil(correction(slow)), dims - 1)
    out = []
    for i, f in enumerate(plain(dims)[0]):
        ramp = min(max((i - low) / max(high - low, 0.001), 0.0), 1.0)
        out.append(f / factor * ramp + f * (1 - ramp))
    return out, 0.1 * math.log(factor) + 1.0


# ---- the transformer ------------------------------------------------------------------------------------------------

def matvec(w, x):
    return [sum(map(mul, row, x)) for row in w]


def rms_norm(x, g):
    s = 1 / math.sqrt(sum(v * v for v in x) / len(x) + EPS)
    return [v * s * w for v, w in zip(x, g)]


def rotate(head, position, rope, halves, dims):
    frequencies, scale = rope
    out = list(head)
    for i, f in enumerate(frequencies):
        a, b = (i, i + dims // 2) if halves else (2 * i, 2 * i + 1)
        c, s = math.cos(position * f) * scale, math.sin(position * f) * scale
        out[a], out[b] = head[a] * c - head[b] * s, head[a] * s + head[b] * c
    return out


def heads_of(x, n):
    size = len(x) // n
    return [x[i * size:(i + 1) * size] for i in range(n)]


def forward(w, ids, shape, rope):
    """Logits [tokens][vocab]."""
    cache = [([], []) for _ in range(LAYERS)]
    logits = []
    for position, token in enumerate(ids):
        x = list(w["token_embd"][token])
        for layer in range(LAYERS):
            def t(name):
                return w[f"blk.{layer}.{name}"]

            def project(name, h):
                y = matvec(t(name), h)
                return [a + b for a, b in zip(y, t(name + ".bias"))] if f"blk.{layer}.{name}.bias" in w else y

            h = rms_norm(x, t("attn_norm"))
            q, k, v = (heads_of(project("attn_" + n, h), HEADS if n == "q" else KV_HEADS) for n in "qkv")
            if shape["qk_norm"]:
                q, k = [rms_norm(a, t("attn_q_norm")) for a in q], [rms_norm(a, t("attn_k_norm")) for a in k]
            q, k = ([rotate(a, position, rope, shape["halves"], shape["dims"]) for a in b] for b in (q, k))
            keys, values = cache[layer]
            keys.append(k)
            values.append(v)
            first = max(0, position + 1 - shape["window"]) if shape["window"] else 0
            out = []
            for i, a in enumerate(q):
                group = i // (HEADS // KV_HEADS)
                scores = [sum(map(mul, a, keys[j][group])) / math.sqrt(len(a)) for j in range(first, position + 1)]
                most = max(scores)
                weights = [math.exp(s - most) for s in scores]
                total = sum(weights)
                for c in range(len(a)):
                    out.append(sum(p * values[first + j][group][c] for j, p in enumerate(weights)) / total)
            x = [a + b for a, b in zip(x, matvec(t("attn_output"), out))]
            h = rms_norm(x, t("ffn_norm"))
            gate, up = matvec(t("ffn_gate"), h), matvec(t("ffn_up"), h)
            x = [a + b for a, b in zip(x, matvec(t("ffn_down"), [g / (1 + math.exp(-g)) * u for g, u in zip(gate, up)]))]
        logits.append(matvec(w.get("output", w["token_embd"]), rms_norm(x, w["output_norm"])))
    return logits


# ---- weights, as float32 and as a GGUF file -------------------------------------------------------------------------

def rounded(values):
    return list(array.array("f", values))


def make_weights(seed, shape):
    noise = random.Random(seed)
    w = {}

    def matrix(name, n, k):
        w[name] = [rounded(noise.gauss(0, 1.5 / math.sqrt(k)) for _ in range(k)) for _ in range(n)]

    def vector(name, n, around):
        w[name] = rounded(around + noise.gauss(0, 0.1) for _ in range(n))

    size = shape["head"]
    w["token_embd"] = [rounded(noise.gauss(0, 1) for _ in range(COLUMNS)) for _ in range(VOCAB)]
    if not shape["tied"]:
        matrix("output", VOCAB, COLUMNS)
    vector("output_norm", COLUMNS, 1)
    for layer in range(LAYERS):
        b = f"blk.{layer}."
        vector(b + "attn_norm", COLUMNS, 1)
        vector(b + "ffn_norm", COLUMNS, 1)
        for name, n in (("attn_q", HEADS * size), ("attn_k", KV_HEADS * size), ("attn_v", KV_HEADS * size)):
            matrix(b + name, n, COLUMNS)
            if shape["bias"]:
                vector(b + name + ".bias", n, 0)
        if shape["qk_norm"]:
            vector(b + "attn_q_norm", size, 1)
            vector(b + "attn_k_norm", size, 1)
        matrix(b + "attn_output", COLUMNS, HEADS * size)
        matrix(b + "ffn_gate", FF, COLUMNS)
        matrix(b + "ffn_up", FF, COLUMNS)
        matrix(b + "ffn_down", COLUMNS, FF)
    return w


def text(s):
    return struct.pack("<Q", len(s)) + s.encode()


def value(v):
    if isinstance(v, str):
        return struct.pack("<I", 8) + text(v)
    return struct.pack("<If", 6, v) if isinstance(v, float) else struct.pack("<II", 4, v)


def write_gguf(path, arch, keys, w):
    keys = {"general.architecture": arch, **{f"{arch}.{k}": v for k, v in keys.items()}}
    header = struct.pack("<4sIQQ", b"GGUF", 3, len(w), len(keys))
    for k, v in keys.items():
        header += text(k) + value(v)
    data = b""
    for name, rows in w.items():
        flat = [x for row in rows for x in row] if isinstance(rows[0], list) else rows
        dims = (len(rows[0]), len(rows)) if isinstance(rows[0], list) else (len(rows),)
        full = name if name.endswith(".bias") else name + ".weight"
        header += text(full) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, 0, len(data))
        data += array.array("f", flat).tobytes()
        data += b"\0" * (-len(data) % 32)
    with open(path, "wb") as f:
        f.write(header + b"\0" * (-len(header) % 32) + data)


# ---- comparison -----------------------------------------------------------------------------------------------------

def run(model, ids, *how):
    out = model + ".f32"
    subprocess.run([APRCTL, "logits", "-m", model, "--ids", ",".join(map(str, ids)), "--threads", "1", "--out", out, *how],
                   check=True, capture_output=True, timeout=120)
    values = array.array("f")
    with open(out, "rb") as f:
        values.frombytes(f.read())
    return [values[i * VOCAB:(i + 1) * VOCAB] for i in range(len(ids))]


def nmse(a, b):
    error = sum((x - y) ** 2 for p, q in zip(a, b) for x, y in zip(p, q))
    return error / sum(y * y for q in b for y in q)


def case(folder, name, arch, rope, keys=None, extra=None, **special):
    """extra: tensors that the program reads and the reference does not."""
    global failures
    shape = {"head": 16, "dims": 16, "halves": arch.startswith("qwen"), "bias": arch == "qwen2", "qk_norm": arch == "qwen3",
             "tied": False, "window": 0, **special}
    w = make_weights(name, shape)
    noise = random.Random(name + " ids")
    ids = [noise.randrange(VOCAB) for _ in range(TOKENS)]
    truth = forward(w, ids, shape, rope)
    # The same without what the case is about must be far off, or the case shows nothing.
    other = forward(w, ids, {**shape, "window": 0}, plain(shape["dims"]))
    common = {"block_count": LAYERS, "context_length": 128, "embedding_length": COLUMNS, "feed_forward_length": FF,
              "attention.head_count": HEADS, "attention.head_count_kv": KV_HEADS, "rope.freq_base": BASE,
              "attention.layer_norm_rms_epsilon": EPS, "attention.key_length": shape["head"],
              "attention.value_length": shape["head"], "rope.dimension_count": shape["dims"]}
    path = os.path.join(folder, "model.gguf")
    write_gguf(path, arch, {**common, **(keys or {})}, {**w, **(extra or {})})
    precise, single = nmse(run(path, ids, "--precise"), truth), nmse(run(path, ids, "--precise", "--single"), truth)
    rounded_path = nmse(run(path, ids), truth)
    apart = nmse(other, truth)
    print(f"{name:<34} precise {precise:.1e}  single {single:.1e}  int {rounded_path:.1e}  without it {apart:.1e}")
    plain_case = keys is None and extra is None
    if precise > 1e-10 or single > 1e-10 or rounded_path > 1e-5 or (not plain_case and apart < 1e-2):
        failures += 1
        print(f"FAILED: {name}")


with tempfile.TemporaryDirectory() as scratch:
    case(scratch, "llama", "llama", plain(16))
    case(scratch, "llama, tied head", "llama", plain(16), tied=True)
    case(scratch, "qwen2, biases", "qwen2", plain(16))
    case(scratch, "qwen3, heads of 24 columns", "qwen3", plain(24), head=24, dims=24)
    case(scratch, "llama, half of a head rotated", "llama", plain(8), dims=8)
    case(scratch, "llama, linear scaling", "llama", linear(16, 4.0), {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0})
    divisors = rounded(llama3_divisors(16, 8.0, 1.0, 4.0, 32.0))
    case(scratch, "llama 3, frequency factors", "llama", ([f / d for f, d in zip(plain(16)[0], divisors)], 1.0), {},
         {"rope_freqs": divisors})
    stretched = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 32}
    for arch in ("qwen2", "qwen3", "llama", "mistral3"):
        case(scratch, f"{arch}, yarn", arch, yarn(16, 4.0, 32.0), stretched)
    case(scratch, "qwen2, yarn with other betas", "qwen2", yarn(16, 8.0, 64.0, 8.0, 2.0),
         {"rope.scaling.type": "yarn", "rope.scaling.factor": 8.0, "rope.scaling.original_context_length": 64,
          "rope.scaling.yarn_beta_fast": 8.0, "rope.scaling.yarn_beta_slow": 2.0})
    for window in (1, 7, 16):
        case(scratch, f"llama, sliding window of {window}", "llama", plain(16), {"attention.sliding_window": window}, window=window)
print("failures:", failures)
sys.exit(1 if failures else 0)
