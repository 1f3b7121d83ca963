"""Checks of this folder's own code that need nothing but numpy; exits 1 at the first failure.

usage: selftest.py [MODEL-q4_k_m.gguf GOLDEN.json]
With both: also the reference against the record (some 20 s).
"""
import collections
import json
import os
import sys
import tempfile

import numpy as np

import bpe
import generate
import gguf_io
import kquants


def check(ok, what):
    print(("ok    " if ok else "FAIL  ") + what)
    if not ok:
        sys.exit(1)


def text_and_tokenizer():
    docs = [generate.document("train", i) for i in range(1500)]
    check(
        docs == [generate.document("train", i) for i in range(1500)], "documents depend on their number alone"
    )
    check(
        all(d.isascii() and not set(d) & set("{}|") for d in docs),
        "documents are ASCII, without leftovers of a template",
    )
    counts = collections.Counter()
    for d in docs:
        for part in bpe._SPLIT.split(d):
            if part not in bpe.SPECIAL:
                counts.update(bpe.pieces(part))
    tok = bpe.train(dict(sorted(counts.items())), 1024)
    check(tok.size == 1024 and len(set(tok.bytes_of)) == len(tok.bytes_of), "1024 different tokens")
    plain = "".join(chr(c) for c in range(4, 127)) + "  \n\n x's I'LL 1234 "
    names = str.maketrans(bpe.SPECIAL)
    check(
        all(tok.decode(tok.encode(d)) == d.translate(names) for d in docs + [plain]),
        "decode(encode(text)) is the text",
    )
    check(bpe.pieces("12 + 345") == ["1", "2", " +", " ", "3", "4", "5"], "digits are single pieces")
    held = {generate.digest(d) for d in generate.heldout_docs()}
    check(
        not held & {generate.digest(d.rstrip("\n")) for d in docs},
        "no held-out document among the training documents",
    )


def formats():
    rng = np.random.default_rng(1)
    for name, quantize, dequantize, size, bound in (
        ("Q4_K", kquants.quantize_q4_k, kquants.dequantize_q4_k, 144, 0.075),
        ("Q6_K", kquants.quantize_q6_k, kquants.dequantize_q6_k, 210, 0.018),
    ):
        x = rng.standard_normal((64, 512)) * np.exp(rng.standard_normal((64, 1)))
        packed = quantize(x)
        back = dequantize(packed).reshape(x.shape)
        error = np.sqrt(((back - x) ** 2).sum() / (x**2).sum())
        check(
            len(packed) == 128 * size and error < bound,
            f"{name}: relative rms error {error:.4f} on normal weights, under {bound}",
        )
        again = dequantize(quantize(back)).reshape(x.shape)
        check(
            np.sqrt(((again - back) ** 2).sum() / (x**2).sum()) < 0.3 * error,
            f"{name}: quantizing decoded weights again changes little",
        )
        edge = np.concatenate(
            [
                np.zeros((1, 256)),
                np.full((1, 256), 0.25),
                np.full((1, 256), -0.25),
                np.full((1, 256), 1e-9),
                np.eye(256)[:1],
            ]
        )
        back = dequantize(quantize(edge)).reshape(edge.shape)
        check(
            np.isfinite(back).all() and np.abs(back - edge).max() < 0.01,
            f"{name}: zero, constant, tiny and single-weight blocks",
        )


def files():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "x.gguf")
        meta = {
            "a": (gguf_io.STR, "text"),
            "b": (gguf_io.ARR, (gguf_io.STR, ["x", ""])),
            "c": (gguf_io.F32, 0.5),
            "d": (gguf_io.BOOL, True),
        }
        w = np.arange(12, dtype=np.float32).reshape(3, 4)
        gguf_io.write(
            path,
            meta,
            [("w", w.shape, "F32", w.tobytes()), ("v", (4,), "F16", w[0].astype(np.float16).tobytes())],
        )
        g = gguf_io.Reader(path)
        check(
            g.metadata == meta and g.tensors["w"] == ((3, 4), 0, w.tobytes()) and g.tensors["v"][0] == (4,),
            "GGUF: what is written is read",
        )
        try:
            gguf_io.write(path, meta, [("w", (3, 5), "F32", w.tobytes())])
            check(False, "GGUF: a wrong size is refused")
        except ValueError as e:
            check("w:" in str(e), "GGUF: a wrong size is refused")


def model(path, record):
    import reference

    m = reference.Model(path)
    tok = reference.tokenizer_of(m.gguf)
    with open(record) as f:
        cases = json.load(f)["cases"]
    for c in cases:
        prompt = reference.chat_prompt(c["prompt"]) if c["chat"] else c["prompt"]
        check(
            [m.gguf.get("tokenizer.ggml.bos_token_id")] + tok.encode(prompt) == c["ids"],
            f"ids of {c['prompt']!r}",
        )
        logits = m.forward(np.array(c["ids"] + c["greedy_ids"][:-1]))
        check(
            logits[len(c["ids"]) - 1 :].argmax(axis=1).tolist() == c["greedy_ids"],
            f"greedy continuation, {len(c['greedy_ids'])} tokens",
        )
        worst = max(np.abs(logits[t["position"]][t["ids"]] - t["logits"]).max() for t in c["top10"])
        check(worst < 1e-4, f"logits at {len(c['top10'])} positions, largest difference {worst:.1e}")


def main():
    text_and_tokenizer()
    formats()
    files()
    if len(sys.argv) == 3:
        model(sys.argv[1], sys.argv[2])
    print("all passed")


if __name__ == "__main__":
    main()
