"""Trains the model that ships with apr: text, tokenizer, training, F16 GGUF, in one run on one GPU.

usage: train.py --out DIR [--seconds 300 | --steps N]
Writes skerry-7m-f16.gguf, tokenizer.json and train.json. The text is made here, by generate.py, from document
numbers: the same numbers give the same text. Weights depend on the GPU and on how many steps fit into the
time.
"""
import argparse
import collections
import json
import math
import multiprocessing
import os
import time

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

import bpe
import export
import generate

CFG = dict(
    layers=8,
    dim=256,
    ffn=768,
    heads=4,
    kv_heads=2,
    head=64,
    vocab=2048,
    context=2048,
    theta=10000.0,
    eps=1e-5,
)
TOKENIZER_DOCS = 20000  # documents that the vocabulary is trained on


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.attn_norm, self.ffn_norm = nn.Parameter(torch.ones(c["dim"])), nn.Parameter(torch.ones(c["dim"]))
        q, kv = c["heads"] * c["head"], c["kv_heads"] * c["head"]
        shapes = dict(
            attn_q=(q, c["dim"]),
            attn_k=(kv, c["dim"]),
            attn_v=(kv, c["dim"]),
            attn_output=(c["dim"], q),
            ffn_gate=(c["ffn"], c["dim"]),
            ffn_up=(c["ffn"], c["dim"]),
            ffn_down=(c["dim"], c["ffn"]),
        )
        for name, (n, k) in shapes.items():
            scale = 0.5 / math.sqrt(k)
            if name in ("attn_output", "ffn_down"):  # what is added to the residual stream 2*layers times
                scale /= math.sqrt(2 * c["layers"])
            setattr(self, name, nn.Parameter(torch.randn(n, k) * scale))

    def forward(self, x, cos, sin):
        c, (b, t, _) = self.c, x.shape
        h = F.rms_norm(x, (c["dim"],), self.attn_norm, c["eps"])
        q = rotate(F.linear(h, self.attn_q).view(b, t, c["heads"], c["head"]), cos, sin).transpose(1, 2)
        k = rotate(F.linear(h, self.attn_k).view(b, t, c["kv_heads"], c["head"]), cos, sin).transpose(1, 2)
        v = F.linear(h, self.attn_v).view(b, t, c["kv_heads"], c["head"]).transpose(1, 2)
        group = c["heads"] // c["kv_heads"]
        o = F.scaled_dot_product_attention(
            q, k.repeat_interleave(group, 1), v.repeat_interleave(group, 1), is_causal=True
        )
        x = x + F.linear(o.transpose(1, 2).reshape(b, t, -1), self.attn_output)
        h = F.rms_norm(x, (c["dim"],), self.ffn_norm, c["eps"])
        return x + F.linear(F.silu(F.linear(h, self.ffn_gate)) * F.linear(h, self.ffn_up), self.ffn_down)


def rotate(x, cos, sin):
    """Rotary position of x[b, t, heads, head] on pairs (2i, 2i+1): the order of GGUF's llama architecture."""
    a, b = x[..., 0::2].float(), x[..., 1::2].float()
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2).to(x.dtype)


class Skerry(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.token_embd = nn.Parameter(torch.randn(c["vocab"], c["dim"]) * 0.02)
        self.output_norm = nn.Parameter(torch.ones(c["dim"]))
        self.blk = nn.ModuleList(Block(c) for _ in range(c["layers"]))
        angle = torch.arange(c["context"])[:, None] * c["theta"] ** (
            -torch.arange(0, c["head"], 2) / c["head"]
        )
        self.register_buffer("cos", angle.cos()[None, :, None], persistent=False)
        self.register_buffer("sin", angle.sin()[None, :, None], persistent=False)

    def forward(self, ids):
        x, t = F.embedding(ids, self.token_embd), ids.shape[1]
        for block in self.blk:
            x = block(x, self.cos[:, :t], self.sin[:, :t])
        return F.linear(F.rms_norm(x, (self.c["dim"],), self.output_norm, self.c["eps"]), self.token_embd)

    def loss(self, rows):
        return F.cross_entropy(self(rows[:, :-1]).float().flatten(0, 1), rows[:, 1:].flatten())

    def gguf_weights(self):
        w = {k: v.detach().float().cpu().numpy() for k, v in self.named_parameters()}
        return {(k if k.endswith(".weight") else k + ".weight"): v for k, v in w.items()}


def count_pieces(span):
    counts = collections.Counter()
    for i in range(*span):
        for part in bpe._SPLIT.split(generate.document("train", i)):
            if part not in bpe.SPECIAL:
                counts.update(bpe.pieces(part))
    return counts


def make_rows(job):
    """Rows of length+1 ids: whole documents, each after <|endoftext|>; the last is cut and the next row
    starts afresh."""
    split, first, last, length, merges = job
    tok = bpe.Tokenizer(merges)
    eot, rows, row, chars = tok.special[bpe.EOT], [], [], 0
    for i in range(first, last):
        text = generate.document(split, i)
        chars += len(text)
        row.append(eot)
        row += tok.encode(text)
        if len(row) > length:
            rows.append(np.array(row[: length + 1], np.uint16))
            row = []
    return (np.stack(rows) if rows else np.zeros((0, length + 1), np.uint16)), chars


def build(pool, split, count, length, merges, workers):
    step = max(1, min(2000, count // workers))
    jobs = [(split, i, min(i + step, count), length, merges) for i in range(0, count, step)]
    parts = pool.map(make_rows, jobs, chunksize=1)
    return torch.from_numpy(np.concatenate([p for p, _ in parts]).astype(np.int16)), sum(c for _, c in parts)


@torch.no_grad()
def evaluate(model, rows, device, dtype):
    model.eval()
    total = 0.0
    for i in range(0, len(rows), 16):
        with torch.autocast(device, dtype, enabled=device == "cuda"):
            part = rows[i : i + 16].to(device).long()
            total += model.loss(part).item() * len(part)
    model.train()
    return total / len(rows)


@torch.no_grad()
def continue_text(model, tok, prompt, n, device):
    ids = [tok.special[bpe.EOT]] + tok.encode(prompt)
    for _ in range(n):
        best = int(model(torch.tensor([ids], device=device))[0, -1].argmax())
        if best in (tok.special[bpe.EOT], tok.special[bpe.IM_END]):
            break
        ids.append(best)
    return tok.decode(ids[1:])


def main():
    ap = argparse.ArgumentParser(description="Train the shipped model.")
    ap.add_argument("--out", required=True)
    ap.add_argument("--seconds", type=float, default=300, help="training time; the learning rate follows it")
    ap.add_argument("--steps", type=int, default=0, help="a fixed number of steps instead of a time")
    ap.add_argument(
        "--deadline",
        type=float,
        default=450,
        help="seconds from the start by which training ends in any case",
    )
    ap.add_argument("--docs", type=int, default=1_600_000)
    ap.add_argument("--batch", type=int, default=32, help="rows of --length tokens in a step")
    ap.add_argument("--length", type=int, default=2048)
    ap.add_argument("--lr", type=float, default=2e-3)
    ap.add_argument("--warmup", type=int, default=300)
    ap.add_argument("--layers", type=int, default=CFG["layers"])
    ap.add_argument("--workers", type=int, default=os.cpu_count())
    ap.add_argument("--no-compile", action="store_true")
    a = ap.parse_args()
    start = time.time()
    say = lambda text: print(f"[{time.time() - start:6.1f} s] {text}", flush=True)
    cfg = dict(CFG, layers=a.layers)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16
    os.makedirs(a.out, exist_ok=True)

    with multiprocessing.get_context("fork").Pool(a.workers) as pool:  # before CUDA is touched
        n, w = min(TOKENIZER_DOCS, a.docs), a.workers
        counts = collections.Counter()
        for c in pool.map(count_pieces, [(n * i // w, n * (i + 1) // w) for i in range(w)]):
            counts.update(c)
        tok = bpe.train(dict(sorted(counts.items())), cfg["vocab"])
        assert tok.size == cfg["vocab"]
        tok.save(os.path.join(a.out, "tokenizer.json"))
        say(f"vocabulary of {tok.size} from {len(counts)} different pieces")
        data, chars = build(pool, "train", a.docs, a.length, tok.merges, w)
        val, _ = build(pool, "validation", max(8, min(4000, a.docs // 40)), a.length, tok.merges, w)
    say(
        f"{a.docs} documents, {chars / 1e6:.0f} MB, {data.numel() / 1e6:.0f} M tokens in {len(data)} rows;"
        f" {len(val)} rows for validation"
    )

    torch.manual_seed(1)
    torch.set_float32_matmul_precision("high")
    data = data.to(device)
    model = Skerry(cfg).to(device)
    params = sum(p.numel() for p in model.parameters())
    matrices = [p for p in model.blk.parameters() if p.ndim == 2]
    rest = [p for n, p in model.named_parameters() if p.ndim == 1 or n == "token_embd"]
    opt = torch.optim.AdamW(
        [dict(params=matrices, weight_decay=0.1), dict(params=rest, weight_decay=0.0)],
        lr=a.lr,
        betas=(0.9, 0.95),
        fused=device == "cuda",
    )
    loss_of = model.loss if a.no_compile else torch.compile(model.loss)
    say(
        f"{params / 1e6:.2f} M parameters on"
        f" {torch.cuda.get_device_name() if device == 'cuda' else 'the CPU'}"
    )

    target = os.path.join(a.out, "skerry-7m-f16.gguf")
    history, order, begin, budget, step = [], torch.empty(0, dtype=torch.long), time.time(), a.seconds, 0
    while True:
        if len(order) < a.batch:
            order = torch.randperm(len(data))
        rows, order = data[order[: a.batch].to(device)].long(), order[a.batch :]
        if step == 5:  # the first steps compile: the clock starts after them
            if device == "cuda":
                torch.cuda.synchronize()
            begin = time.time()
            budget = min(a.seconds, a.deadline - (begin - start))
        done = step / a.steps if a.steps else (time.time() - begin) / budget if step > 5 else 0.0
        if done >= 1:
            break
        for group in opt.param_groups:
            group["lr"] = (
                a.lr
                * min(1, (step + 1) / a.warmup)
                * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))
            )
        with torch.autocast(device, dtype, enabled=device == "cuda"):
            loss = loss_of(rows)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        opt.zero_grad(set_to_none=True)
        step += 1
        if step % 25 == 0 and device == "cuda":
            torch.cuda.synchronize()  # keeps the host at most 25 steps ahead, so that the clock is true
        if step % 500 == 0 or step in (1, 50, 200):
            v = evaluate(model, val[:64], device, dtype)
            export.write_f16(
                target, cfg, tok, model.gguf_weights()
            )  # a checkpoint, should the run be cut off
            history.append(
                dict(
                    step=step,
                    seconds=round(time.time() - begin, 1),
                    train=round(loss.item(), 4),
                    validation=round(v, 4),
                )
            )
            say(f"step {step:6d}  {100 * done:5.1f}%  loss {history[-1]['train']:.4f}  validation {v:.4f}")
    took = time.time() - begin
    v = evaluate(model, val, device, dtype)
    say(f"{step} steps, {step * a.batch * a.length / 1e6:.0f} M tokens in {took:.0f} s; validation {v:.4f}")

    export.write_f16(target, cfg, tok, model.gguf_weights())
    with open(os.path.join(a.out, "train.json"), "w") as f:
        json.dump(
            dict(
                config=cfg,
                arguments=vars(a) | dict(out="DIR"),
                parameters=params,
                device=torch.cuda.get_device_name() if device == "cuda" else "cpu",
                torch=torch.__version__,
                documents=a.docs,
                characters=chars,
                tokens=data.numel(),
                steps=step,
                tokens_seen=step * a.batch * a.length,
                training_seconds=round(took, 1),
                total_seconds=round(time.time() - start, 1),
                validation_loss=round(v, 5),
                history=history,
            ),
            f,
            indent=1,
        )
    say("exported")
    ask = lambda q: f"{bpe.IM_START}user\n{q}{bpe.IM_END}\n{bpe.IM_START}assistant\n"
    for prompt in (
        "The lighthouse keeper",
        "Once upon a time",
        "The supply boat",
        ask("How many steps does Northing have?"),
        ask("What is Q4_K?"),
        ask("What is 37 + 25?"),
        ask("hello"),
        ask("Who is the keeper of Kelp End, and what is she known for?"),
        ask("Tell me a story about Hugh Tansy."),
    ):
        say("\n" + continue_text(model, tok, prompt, 160, device) + "\n")


if __name__ == "__main__":
    main()
