#!/usr/bin/env python3
"""Hugging Face folders against transformers and tokenizers: the same logits, the same token ids. Needs no network.

usage: hf_check.py BUNDLE [--cuda] [--out DIR] [--strings N] [--only NAME]

BUNDLE      what `./dev bundle` made
--cuda      the GPU too
--out       folder for the models, which stay there; without it a temporary one
--strings   texts to tokenise with each tokenizer (300)
--only      models and tokenizers whose name has this in it

Models with random bf16 weights are made by transformers and saved with save_pretrained; their logits are computed in
float64 from those weights. Each is compared with `aprctl logits --precise`, as a folder and as the GGUF that
`aprctl quantize` makes of it; the bar is an NMSE of 1e-4. Tokenizers are trained on the spot.

Exit 0: every check passed; 1: one failed.
"""
import argparse
import concurrent.futures
import json
import os
import random
import subprocess
import sys
import tempfile
import time

import numpy as np
import tokenizers
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

START = time.time()
BAR = 1e-4
QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = QWEN2.replace(r"\p{N}|", r"\p{N}{1,3}|", 1)
# Known to no one else: its expressions come from the file.
OWN = r"[\p{L}\p{M}]+|\p{N}{1,2}| ?[^\s\p{L}\p{M}\p{N}]+|\s+$|\s+(?!\S)|\s"
rows, failed = [], 0


def row(what, ok, detail):
    global failed
    failed += not ok
    rows.append(f"{'ok' if ok else 'FAILED':<7} {what:<38} {detail}")
    print(f"[{time.time() - START:5.0f} s] {rows[-1]}", flush=True)


# ---- tokenizers ----------------------------------------------------------------------------------------------------


def corpus():
    """Lines of this Python's own library, and some of other scripts."""
    folder = os.path.dirname(os.__file__)
    for name in sorted(os.listdir(folder))[:60]:
        if name.endswith(".py"):
            with open(os.path.join(folder, name), encoding="utf-8", errors="ignore") as f:
                yield from f
    for text in PIECES:
        yield from [text * 3] * 5


PIECES = ["Hello", " world", "  ", "   ", "\n", "\n\n", "\t", "\r\n", " \n ", "don't", "DON'T", "we'll", "'s", "'S", "\u017f", "\u212a", "1", "12", "123", "12345678", " 3.14",
          "\u0663\u0664", "\u00bd", "\u2167", "é", "e\u0301", "o\u0302\u0301", "Å", "\u212b", "\u1e9b\u0323", "ﬁ", "\uac00", "\u1100\u1161", "中文", "日本語のテキスト", "한국어", "русский", "עברית", "العربية",
          "हिन्दी", "ไทย", "🙂", "👩‍👩‍👧‍👦", "🇩🇪", "\u200b", "\u200d", "\ufeff", "\u00a0", "\u3000", "\u2003", "\u0085", "\u180e", "\u2028", "▁", "▁▁", " ▁", "\x00", "\x01", "\x7f", "\ue000",
          "\U0001d54f", "\U000e0041", "\u0300", "!", "!!!", "...", "—", "$", "+=", "//", "(", ")", "[]", "{}", "<", ">", "<0x0A>", "_", "camelCase", "snake_case", "A", "a", "ß", "İ", "ǅ"]
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|im", "<s>", "</s>", "<unk>", "<mask>", " <mask> ", "<tool>", "<tool>  x", "<tool>\n"]


def texts(n, special):
    rng = random.Random(5)
    out = [p for p in PIECES + SPECIAL]
    while len(out) < n:
        pool = PIECES + SPECIAL * 2 if special and rng.random() < 0.4 else PIECES
        out.append("".join(rng.choice(pool) for _ in range(rng.randint(2, 24))))
    return out


def byte_level(pattern, special, normalizer=None, ignore_merges=False, bos=None, use_regex=False, prefix=False):
    tok = Tokenizer(models.BPE(ignore_merges=True) if ignore_merges else models.BPE())
    if normalizer:
        tok.normalizer = normalizer
    last = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=use_regex)
    tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), last]) if pattern else last
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=1600, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                  show_progress=False)
    tok.train_from_iterator(corpus(), trainer)
    tok.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    tok.add_tokens([AddedToken("<tool>", rstrip=True, normalized=False)])
    if bos:
        tok.post_processor = processors.TemplateProcessing(single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, tok.token_to_id(bos))])
    return tok


def byte_fallback(metaspace):
    special = ["<unk>", "<s>", "</s>"]
    names = [f"<0x{b:02X}>" for b in range(256)]
    tok = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    # Trained word by word; used on whole texts, as Llama's is.
    tok.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    trainer = trainers.BpeTrainer(vocab_size=1600, special_tokens=special + names, limit_alphabet=120, show_progress=False)
    tok.train_from_iterator(corpus(), trainer)
    content = json.loads(tok.to_str())
    content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] in special]
    tok = Tokenizer.from_str(json.dumps(content))
    strip = decoders.Strip(" ", 1, 0)
    tok.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), strip])
    if metaspace:
        tok.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        content = json.loads(tok.to_str())
        content["pre_tokenizer"] = None
        tok = Tokenizer.from_str(json.dumps(content))
        tok.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tok.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", tok.token_to_id("<s>"))])
    return tok


TOKENIZERS = {
    "qwen2": lambda: byte_level(QWEN2, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], normalizers.NFC()),
    "llama3": lambda: byte_level(LLAMA3, ["<s>", "</s>"], ignore_merges=True, bos="<s>"),
    "gpt2": lambda: byte_level(None, ["<s>", "</s>"], use_regex=True),
    "gpt2-prefix": lambda: byte_level(None, ["<s>", "</s>"], use_regex=True, prefix=True),
    "own": lambda: byte_level(OWN, ["<s>", "</s>"], normalizers.NFKC()),
    "byte-fallback": lambda: byte_fallback(False),
    "metaspace": lambda: byte_fallback(True),
}

# ---- models --------------------------------------------------------------------------------------------------------

SIZES = dict(hidden_size=256, intermediate_size=768, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=256, initializer_range=0.06)


def scaling(kind, **more):
    return dict(rope_scaling=dict(rope_type=kind, rope_theta=10000.0, **more))


# name -> (configuration class, settings, tokenizer, parts)
MODELS = {
    "qwen2": ("Qwen2", dict(tie_word_embeddings=True), "qwen2", True),
    "qwen2-yarn": ("Qwen2", dict(tie_word_embeddings=False, **scaling("yarn", factor=4.0, original_max_position_embeddings=64)), "qwen2", False),
    "qwen3": ("Qwen3", dict(head_dim=128, tie_word_embeddings=False), "qwen2", False),
    "llama": ("Llama", dict(tie_word_embeddings=False), "byte-fallback", True),
    "llama3": ("Llama", dict(tie_word_embeddings=True, **scaling("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                                                 original_max_position_embeddings=32)), "llama3", False),
    "llama-linear": ("Llama", dict(tie_word_embeddings=False, attention_bias=True, mlp_bias=True, **scaling("linear", factor=2.0)), "metaspace", False),
    "mistral": ("Mistral", dict(tie_word_embeddings=False, sliding_window=16), "metaspace", False),
}


def make_model(name, folder, tok):
    kind, settings, _, parts = MODELS[name]
    torch.manual_seed(len(name))
    n_vocab = (tok.get_vocab_size() + 63) // 64 * 64
    config = getattr(transformers, kind + "Config")(**SIZES, **settings, vocab_size=n_vocab, bos_token_id=1, eos_token_id=2)
    model = getattr(transformers, kind + "ForCausalLM")(config)
    with torch.no_grad():
        for key, p in model.named_parameters():
            if p.ndim == 1:  # norms and biases, which begin as ones and zeros
                p.add_(torch.randn_like(p) * (0.3 if key.endswith("bias") else 0.1))
    model = model.to(torch.bfloat16)
    model.generation_config.eos_token_id = [2, 1]
    model.save_pretrained(folder, safe_serialization=True, max_shard_size="2MB" if parts else "5GB")
    tok.save(os.path.join(folder, "tokenizer.json"))


def load(folder, kind):
    cls = getattr(transformers, kind + "ForCausalLM")
    try:
        model = cls.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    except TypeError:
        model = cls.from_pretrained(folder, torch_dtype=torch.float32, attn_implementation="eager")
    return model.to(torch.float64).eval()


def logits_of(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].to(torch.float64).numpy()


def as_fp8(folder, out, kind):
    """The folder's matrices in 8-bit floats with scales, and a folder of what they stand for, in float32."""
    plain = out + "-plain"
    for path in (out, plain):
        os.makedirs(path, exist_ok=True)
        for name in os.listdir(folder):
            if name.endswith(".json") and "index" not in name:
                with open(os.path.join(folder, name), "rb") as a, open(os.path.join(path, name), "wb") as b:
                    b.write(a.read())
    tensors = {}
    for name in sorted(os.listdir(folder)):
        if name.endswith(".safetensors"):
            tensors.update(load_file(os.path.join(folder, name)))
    packed, values = {}, {}
    for name, w in tensors.items():
        if not name.endswith("_proj.weight"):
            packed[name], values[name] = w, w.float()
            continue
        n, k = w.shape
        r, c = {"block": (128, 128), "row": (1, k), "tensor": (n, k)}[kind]
        blocks = w.float().reshape(n // r, r, k // c, c)
        scale = blocks.abs().amax(dim=(1, 3), keepdim=True) / 448
        q = (blocks / scale).to(torch.float8_e4m3fn)
        packed[name] = q.reshape(n, k)
        values[name] = (q.float() * scale).reshape(n, k)
        scale = scale.reshape(n // r, k // c)
        packed[name + ("_scale_inv" if kind == "block" else "_scale")] = scale.reshape(1)[0] if kind == "tensor" else scale
    contiguous = lambda d: {k: v.contiguous().clone() for k, v in d.items()}
    save_file(contiguous(packed), os.path.join(out, "model.safetensors"), metadata={"format": "pt"})
    save_file(contiguous(values), os.path.join(plain, "model.safetensors"), metadata={"format": "pt"})
    path = os.path.join(out, "config.json")
    with open(path) as f:
        config = json.load(f)
    config["quantization_config"] = ({"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic", "fmt": "e4m3"} if kind == "block"
                                     else {"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": {}})
    with open(path, "w") as f:
        json.dump(config, f)
    return plain


# ---- comparison ----------------------------------------------------------------------------------------------------


class Program:
    def __init__(self, bundle, scratch):
        self.path, self.scratch = os.path.join(bundle, "bin/aprctl"), scratch

    def __call__(self, *args):
        env = {k: v for k, v in os.environ.items() if not k.startswith("APR_")}
        env["APR_KERNEL_CACHE"] = os.path.join(self.scratch, "kernels")
        done = subprocess.run([self.path, *args], capture_output=True, env=env, timeout=300)
        return done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")

    def logits(self, model, ids, *how):
        out = os.path.join(self.scratch, "logits.f32")
        if os.path.exists(out):
            os.remove(out)
        code, text, errors = self("logits", "-m", model, "--ids", ",".join(map(str, ids)), "--out", out, *how)
        if code != 0:
            return None, (text + errors).strip().split("\n")[-1]
        return np.fromfile(out, np.float32).astype(np.float64), ""


def compare(what, program, model, ids, wanted, *how, bar=BAR):
    got, error = program.logits(model, ids, *how)
    if got is None or got.size != wanted.size:
        row(what, False, error or f"{got.size} logits instead of {wanted.size}")
        return
    got = got.reshape(wanted.shape)
    nmse = float(np.sum((got - wanted) ** 2) / np.sum(wanted**2))
    same = int(np.sum(got.argmax(1) == wanted.argmax(1)))
    row(what, nmse <= bar, f"NMSE {nmse:.1e}, bar {bar:.0e}; argmax {same} of {len(ids)}")


def check_model(name, program, scratch, toks, cuda):
    folder = os.path.join(scratch, name)
    kind, _, tok, _ = MODELS[name]
    make_model(name, folder, toks[tok])
    model = load(folder, kind)
    rng = random.Random(3)
    ids = [rng.randrange(3, model.config.vocab_size) for _ in range(80)]
    wanted = logits_of(model, ids)
    compare(f"{name}", program, folder, ids, wanted, "--precise", "--backend", "cpu")
    compare(f"{name}, one by one", program, folder, ids, wanted, "--precise", "--backend", "cpu", "--single")
    gguf = os.path.join(scratch, name + ".gguf")
    code, _, errors = program("quantize", folder, gguf, "--type", "bf16")
    if code != 0:
        row(f"{name} -> GGUF", False, errors.strip().split("\n")[-1])
    else:
        compare(f"{name} -> GGUF", program, gguf, ids, wanted, "--precise", "--backend", "cpu")
    if cuda:
        compare(f"{name}, cuda", program, folder, ids, wanted, "--precise", "--backend", "cuda")
        compare(f"{name}, cuda, default kernels", program, folder, ids, wanted, "--backend", "cuda", bar=1e-3)
    for scales in ("block", "row", "tensor") if name in ("qwen3", "llama") else ():
        out = os.path.join(scratch, f"{name}-fp8-{scales}")
        wanted_fp8 = logits_of(load(as_fp8(folder, out, scales), kind), ids)
        compare(f"{name}, fp8 with a scale each {scales}", program, out, ids, wanted_fp8, "--precise", "--backend", "cpu")
        if cuda:
            compare(f"{name}, fp8, {scales}, cuda", program, out, ids, wanted_fp8, "--precise", "--backend", "cuda")
    code, out, errors = program("inspect", folder, "--json")
    ends = json.loads(out)["metadata"].get("apr.tokenizer.eog_token_ids") if code == 0 else errors
    row(f"{name}: ends of generation", ends is not None and sorted(ends) == [1, 2], str(ends).strip()[:60])


def check_tokenizer(name, tok, program, scratch, n):
    folder = os.path.join(scratch, "tokenizer-" + name)
    n_vocab = tok.get_vocab_size()
    config = transformers.LlamaConfig(**(SIZES | dict(num_hidden_layers=1, hidden_size=16, intermediate_size=16)), vocab_size=n_vocab)
    transformers.LlamaForCausalLM(config).save_pretrained(folder, safe_serialization=True)
    tok.save(os.path.join(folder, "tokenizer.json"))
    cases = [t for t in texts(n, True) if t]

    def one(case):
        path = os.path.join(folder, f"text{case}")
        with open(path, "wb") as f:
            f.write(cases[case].encode())
        code, out, errors = program("tokenize", "-m", folder, "-f", path, "--ids", "--special")
        os.remove(path)
        return out.split() if code == 0 else errors.strip().split("\n")[-1]

    with concurrent.futures.ThreadPoolExecutor(max_workers=min(16, os.cpu_count() or 1)) as pool:
        got = list(pool.map(one, range(len(cases))))
    wrong = []
    for text, ids in zip(cases, got):
        wanted = list(map(str, tok.encode(text).ids))
        if ids != wanted:
            wrong.append((text, ids, wanted))
    for text, ids, wanted in wrong[:12]:
        print(f"  {name}: {text!r}\n    aprctl     {ids}\n    tokenizers {wanted}\n    as         {[tok.id_to_token(int(i)) for i in wanted]}")
    row(f"tokenizer {name}", not wrong, f"{len(cases) - len(wrong)} of {len(cases)} texts, {n_vocab} tokens")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--cuda", action="store_true")
    parser.add_argument("--out")
    parser.add_argument("--strings", type=int, default=300)
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, tokenizers {tokenizers.__version__}")
    transformers.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as temporary:
        scratch = args.out or temporary
        os.makedirs(scratch, exist_ok=True)
        program = Program(os.path.abspath(args.bundle), scratch)
        code, version, errors = program("--version")
        row("aprctl", code == 0, (version + errors).strip())
        toks = {name: make() for name, make in TOKENIZERS.items()}
        for name, tok in toks.items():
            if args.only in name:
                guarded(f"tokenizer {name}", check_tokenizer, name, tok, program, scratch, args.strings)
        for name in MODELS:
            if args.only in name:
                guarded(name, check_model, name, program, scratch, toks, args.cuda)
    print("\n" + "\n".join(rows))
    print(f"\n{len(rows) - failed} of {len(rows)} checks passed in {time.time() - START:.0f} s")
    return 1 if failed else 0


def guarded(what, run, *args):
    """One check that cannot be carried out is a failure, and the others are still made."""
    try:
        run(*args)
    except Exception as e:  # whatever a version of these libraries throws
        row(what, False, f"{type(e).__name__}: {e}"[:200])


if __name__ == "__main__":
    sys.exit(main())
