"""The float64 reference of the shipped model: numpy, straight from the GGUF file, no shortcut.

usage: reference.py generate MODEL.gguf -p TEXT [--chat] [-n 128]
       reference.py perplexity MODEL.gguf FILE [--window 512]
       reference.py logits MODEL.gguf --ids 1,2,3 --out FILE      raw float32 [tokens, vocab]
       reference.py golden MODEL.gguf OUT.json
Needs only numpy. Architecture llama: RMSNorm, rotary pairs (2i, 2i+1), grouped-query attention, SwiGLU.
"""
import argparse
import hashlib
import json
import os
import time

import numpy as np

import bpe
import gguf_io
import kquants


def tokenizer_of(g):
    """The byte-level BPE that a GGUF file's metadata describes, if it is the kind that bpe.py writes."""
    tokens = g.get("tokenizer.ggml.tokens")[1]
    merges = [m.split(" ") for m in g.get("tokenizer.ggml.merges")[1]]
    ids = {t: i for i, t in enumerate(tokens)}
    t = bpe.Tokenizer([(ids[a], ids[b]) for a, b in merges])
    if t.gguf()[0] != tokens:
        raise ValueError("the vocabulary's order is not bytes, merges, special tokens")
    return t


class Model:
    def __init__(self, path):
        self.path = path
        g = self.gguf = gguf_io.Reader(path)
        if g.get("general.architecture") != "llama":
            raise ValueError(f"{path}: architecture {g.get('general.architecture')}, expected llama")
        p = lambda key, default=None: g.get("llama." + key, default)
        self.layers, self.dim, self.heads = p("block_count"), p("embedding_length"), p("attention.head_count")
        self.kv_heads, self.eps, self.theta = (
            p("attention.head_count_kv"),
            p("attention.layer_norm_rms_epsilon"),
            p("rope.freq_base"),
        )
        self.head = p("attention.key_length", self.dim // self.heads)
        self.w = {}
        for name, (shape, kind, data) in g.tensors.items():
            if kind == 0:
                a = np.frombuffer(data, np.float32).astype(np.float64)
            elif kind == 1:
                a = np.frombuffer(data, np.float16).astype(np.float64)
            else:
                a = (kquants.dequantize_q4_k if kind == 12 else kquants.dequantize_q6_k)(data)
            self.w[name] = a.reshape(shape)
        self.w.setdefault("output.weight", self.w["token_embd.weight"])
        self.vocab = len(self.w["output.weight"])

    def norm(self, x, name):
        return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + self.eps) * self.w[name]

    def rope(self, x, pos):
        """x[tokens, heads, head]; pair i turns by position * theta^(-2i/head)."""
        angle = pos[:, None] * self.theta ** (-np.arange(0, self.head, 2) / self.head)
        c, s = np.cos(angle)[:, None], np.sin(angle)[:, None]
        out = np.empty_like(x)
        out[..., 0::2], out[..., 1::2] = (
            x[..., 0::2] * c - x[..., 1::2] * s,
            x[..., 0::2] * s + x[..., 1::2] * c,
        )
        return out

    def forward(self, ids, cache=None):
        """Logits[tokens, vocab] after each id. cache: a list that keeps the keys and values of earlier
        calls."""
        past = cache[0][0].shape[0] if cache else 0
        pos = np.arange(past, past + len(ids))
        x, w, group = self.w["token_embd.weight"][ids], self.w, self.heads // self.kv_heads
        for i in range(self.layers):
            b = f"blk.{i}."
            h = self.norm(x, b + "attn_norm.weight")
            q = self.rope((h @ w[b + "attn_q.weight"].T).reshape(len(ids), self.heads, self.head), pos)
            k = self.rope((h @ w[b + "attn_k.weight"].T).reshape(len(ids), self.kv_heads, self.head), pos)
            v = (h @ w[b + "attn_v.weight"].T).reshape(len(ids), self.kv_heads, self.head)
            if cache is not None:
                if past:
                    k, v = np.concatenate([cache[i][0], k]), np.concatenate([cache[i][1], v])
                    cache[i] = (k, v)
                else:
                    cache.append((k, v))
            kh, vh = (np.repeat(a, group, axis=1).transpose(1, 0, 2) for a in (k, v))  # [heads, tokens, head]
            score = q.transpose(1, 0, 2) @ kh.transpose(0, 2, 1) / np.sqrt(self.head)
            score[:, np.arange(len(k))[None, :] > pos[:, None]] = -np.inf
            score = np.exp(score - score.max(axis=-1, keepdims=True))
            score /= score.sum(axis=-1, keepdims=True)
            o = (score @ vh).transpose(1, 0, 2).reshape(len(ids), -1)
            x = x + o @ w[b + "attn_output.weight"].T
            h = self.norm(x, b + "ffn_norm.weight")
            gate = h @ w[b + "ffn_gate.weight"].T
            x = x + (gate / (1 + np.exp(-gate)) * (h @ w[b + "ffn_up.weight"].T)) @ w[b + "ffn_down.weight"].T
        return self.norm(x, "output_norm.weight") @ w["output.weight"].T

    def greedy(self, ids, n, stop=()):
        """The n best tokens after ids, and the logits that each was chosen from."""
        cache, out, rows = [], [], []
        logits = self.forward(np.array(ids), cache)[-1]
        while len(out) < n:
            out.append(int(logits.argmax()))
            rows.append(logits)
            if out[-1] in stop or len(out) == n:
                break
            logits = self.forward(np.array(out[-1:]), cache)[-1]
        return out, rows


def ends(g):
    """The id that begins a text, and those that end one."""
    name = "tokenizer.ggml.{}_token_id".format
    return g.get(name("bos")), (g.get(name("eos")), g.get(name("eot")))


def chat_prompt(text):
    return f"{bpe.IM_START}user\n{text}{bpe.IM_END}\n{bpe.IM_START}assistant\n"


def perplexity(model, tok, text, window):
    """The text's tokens in windows of window-1, each after a BOS; every token is scored. Returns perplexity,
    bits per byte, tokens."""
    ids, bos = tok.encode(text), model.gguf.get("tokenizer.ggml.bos_token_id")
    nll = 0.0
    for i in range(0, len(ids), window - 1):
        part = ids[i : i + window - 1]
        z = model.forward(np.array([bos] + part[:-1]))
        z -= z.max(axis=-1, keepdims=True)
        nll += float((np.log(np.exp(z).sum(axis=-1)) - z[np.arange(len(part)), part]).sum())
    return np.exp(nll / len(ids)), nll / np.log(2) / len(text.encode()), len(ids)


def top(row, n=10):
    best = np.argsort(-row, kind="stable")[:n]
    return {"ids": best.tolist(), "logits": [round(float(v), 5) for v in row[best]]}


GOLDEN_TEXT = ["The lighthouse keeper", "Strokes of the station bell\n\n1:"]
GOLDEN_CHAT = [
    "Which is taller, Northing or Kelp End?",
    "How many bytes does a row of 4096 weights take in Q6_K?",
    "List the lighthouses.",
    "What is 58 - 19?",
    "Tell me a story about Nell Farrow.",
]


def golden(model, tok, path, n=96):
    """A record for tests: prompts, the ids of the greedy continuation, the lead in logits of each over the
    second best, and the ten largest logits at some positions. The generator's text has places where two words
    are equally likely; there the lead is small, and an engine that rounds differently may rightly choose the
    other. Where smallest_lead is large, every correct engine gives exactly these ids."""
    g = model.gguf
    bos, stop = ends(g)
    cases = []
    for prompt, chat in [(p, False) for p in GOLDEN_TEXT] + [(p, True) for p in GOLDEN_CHAT]:
        ids = [bos] + tok.encode(chat_prompt(prompt) if chat else prompt)
        out, rows = model.greedy(ids, n, stop)
        lead = [float(np.sort(r)[-1] - np.sort(r)[-2]) for r in rows]
        whole = model.forward(np.array(ids + out[:-1]))
        if max(np.abs(whole[len(ids) - 1 + i] - r).max() for i, r in enumerate(rows)) > 1e-8:
            raise AssertionError("whole-prompt and token-by-token logits disagree")
        where = sorted({0, len(ids) // 2, len(ids) - 1, len(ids) + len(out) // 2, len(ids) + len(out) - 2})
        text = tok.decode(out[:-1] if out[-1] in stop else out)
        cases.append(
            {
                "prompt": prompt,
                "chat": chat,
                "ids": ids,
                "greedy_ids": out,
                "greedy_text": text,
                "smallest_lead": round(min(lead), 3),
                "leads": [round(v, 3) for v in lead],
                "top10": [{"position": p, **top(whole[p])} for p in where],
            }
        )
    with open(model.path, "rb") as f:
        sha = hashlib.sha256(f.read()).hexdigest()
    with open(path, "w") as f:
        head = {
            "model": os.path.basename(model.path),
            "sha256": sha,
            "arithmetic": "numpy float64 on the dequantized weights, no KV rounding",
            "top10": "logits after the token at `position` of ids + greedy_ids",
        }
        f.write(
            "{\n"
            + "".join(f" {json.dumps(k)}: {json.dumps(v)},\n" for k, v in head.items())
            + ' "cases": [\n'
        )
        f.write(
            ",\n".join(
                "  {" + ",\n   ".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in c.items()) + "}"
                for c in cases
            )
            + "\n ]\n}\n"
        )
    return cases


def main():
    ap = argparse.ArgumentParser(description="Float64 reference of a llama-shaped GGUF.")
    ap.add_argument("command", choices=["generate", "perplexity", "logits", "golden"])
    ap.add_argument("model")
    ap.add_argument("file", nargs="?", help="perplexity: the text; golden: the record to write")
    ap.add_argument("-p", "--prompt", default="The lighthouse keeper")
    ap.add_argument("-n", "--tokens", type=int, default=128)
    ap.add_argument("--chat", action="store_true")
    ap.add_argument("--window", type=int, default=512)
    ap.add_argument("--ids")
    ap.add_argument("--out")
    a = ap.parse_args()
    start, model = time.time(), Model(a.model)
    if a.command == "logits":
        model.forward(np.array([int(i) for i in a.ids.split(",")])).astype("<f4").tofile(a.out)
        return
    tok = tokenizer_of(model.gguf)
    bos, stop = ends(model.gguf)
    if a.command == "generate":
        out, _ = model.greedy(
            [bos] + tok.encode(chat_prompt(a.prompt) if a.chat else a.prompt), a.tokens, stop
        )
        print(("" if a.chat else a.prompt) + tok.decode(out[:-1] if out[-1] in stop else out))
    elif a.command == "perplexity":
        with open(a.file) as f:
            ppl, bpb, n = perplexity(model, tok, f.read(), a.window)
        print(
            f"{os.path.basename(a.model)}: perplexity {ppl:.4f} over {n} tokens, {bpb:.4f} bits per byte,"
            f" window {a.window} ({time.time() - start:.0f} s)"
        )
    else:
        for c in golden(model, tok, a.file):
            print(f"--- {c['prompt']!r}: smallest lead {c['smallest_lead']}\n{c['greedy_text']}")


if __name__ == "__main__":
    main()
