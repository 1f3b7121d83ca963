"""From a trained model to GGUF files: the metadata, the F16 file, and the Q4_K_M file made from the F16 one.

usage: export.py IN-f16.gguf OUT-q4_k_m.gguf
"""
import sys

import numpy as np

import gguf_io
import kquants
from gguf_io import ARR, BOOL, F32, I32, STR, U32

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] +"
    " '<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{%"
    " endif %}"
)
DESCRIPTION = (
    "A small model of the Merrow Isles and of quantization, trained from scratch on text that the apr"
    " project's own generator wrote. It ships with apr, so that a broken kernel shows to the eye."
)


def metadata(cfg, tokenizer, file_type):
    """cfg: a dict of the model's dimensions, as train.py has it."""
    tokens, types, merges = tokenizer.gguf()
    ids = {t: i for i, t in enumerate(tokens)}
    return {
        "general.architecture": (STR, "llama"),
        "general.type": (STR, "model"),
        "general.name": (STR, "Skerry 7M"),
        "general.basename": (STR, "skerry"),
        "general.size_label": (STR, "7M"),
        "general.version": (STR, "1"),
        "general.organization": (STR, "apr"),
        "general.description": (STR, DESCRIPTION),
        "general.license": (STR, "cc0-1.0"),
        "general.languages": (ARR, (STR, ["en"])),
        "general.tags": (ARR, (STR, ["text-generation"])),
        "general.file_type": (U32, file_type),
        "general.alignment": (U32, gguf_io.ALIGN),
        "llama.block_count": (U32, cfg["layers"]),
        "llama.context_length": (U32, cfg["context"]),
        "llama.embedding_length": (U32, cfg["dim"]),
        "llama.feed_forward_length": (U32, cfg["ffn"]),
        "llama.attention.head_count": (U32, cfg["heads"]),
        "llama.attention.head_count_kv": (U32, cfg["kv_heads"]),
        "llama.attention.key_length": (U32, cfg["head"]),
        "llama.attention.value_length": (U32, cfg["head"]),
        "llama.rope.dimension_count": (U32, cfg["head"]),
        "llama.rope.freq_base": (F32, cfg["theta"]),
        "llama.attention.layer_norm_rms_epsilon": (F32, cfg["eps"]),
        "llama.vocab_size": (U32, len(tokens)),
        "tokenizer.ggml.model": (STR, "gpt2"),
        "tokenizer.ggml.pre": (STR, "qwen2"),
        "tokenizer.ggml.tokens": (ARR, (STR, tokens)),
        "tokenizer.ggml.token_type": (ARR, (I32, types)),
        "tokenizer.ggml.merges": (ARR, (STR, merges)),
        "tokenizer.ggml.bos_token_id": (U32, ids["<|endoftext|>"]),
        "tokenizer.ggml.eos_token_id": (U32, ids["<|endoftext|>"]),
        "tokenizer.ggml.eot_token_id": (U32, ids["<|im_end|>"]),
        "tokenizer.ggml.padding_token_id": (U32, ids["<|endoftext|>"]),
        "tokenizer.ggml.add_bos_token": (BOOL, True),
        "tokenizer.ggml.add_eos_token": (BOOL, False),
        "tokenizer.ggml.add_space_prefix": (BOOL, False),
        "tokenizer.chat_template": (STR, CHAT_TEMPLATE),
    }


def write_f16(path, cfg, tokenizer, weights):
    """weights: {GGUF tensor name: float array}. Matrices become F16, vectors stay F32."""
    tensors = []
    for name, w in weights.items():
        w = np.ascontiguousarray(w, np.float32)
        kind = "F16" if w.ndim == 2 else "F32"
        if kind == "F16" and np.abs(w).max() > 65504:
            raise ValueError(f"{name}: a weight is too large for F16")
        tensors.append(
            (name, w.shape, kind, w.astype(np.float16).tobytes() if kind == "F16" else w.tobytes())
        )
    gguf_io.write(path, metadata(cfg, tokenizer, 1), tensors)


def recipe_q4_k_m(name, layers):
    """Tensor type in the usual Q4_K_M mix: the head (here the tied embedding) Q6_K; attn_v and ffn_down Q6_K
    in the first and last eighth of the layers and in every third between; every other matrix Q4_K."""
    if name in ("token_embd.weight", "output.weight"):
        return "Q6_K"
    i, e = int(name.split(".")[1]), layers // 8
    more = i < e or i >= 7 * layers // 8 or (i - e) % 3 == 2
    return "Q6_K" if more and name.split(".")[2] in ("attn_v", "ffn_down") else "Q4_K"


def quantize(source, target):
    """Writes the Q4_K_M file of an F16 one; returns [(name, type, relative root mean square error)]."""
    g = gguf_io.Reader(source)
    layers = g.get("llama.block_count")
    meta = {k: v for k, v in g.metadata.items()}
    meta["general.file_type"] = (U32, 15)
    meta["general.quantization_version"] = (U32, 2)
    tensors, report = [], []
    for name, (shape, kind, data) in g.tensors.items():
        if len(shape) == 1:
            tensors.append((name, shape, "F32", data))
            continue
        w = np.frombuffer(data, np.float16).astype(np.float64)
        kind = recipe_q4_k_m(name, layers)
        packed = (kquants.quantize_q4_k if kind == "Q4_K" else kquants.quantize_q6_k)(w.reshape(shape))
        back = (kquants.dequantize_q4_k if kind == "Q4_K" else kquants.dequantize_q6_k)(packed)
        report.append((name, kind, float(np.sqrt(((back - w) ** 2).sum() / (w**2).sum()))))
        tensors.append((name, shape, kind, packed))
    gguf_io.write(target, meta, tensors)
    return report


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__.strip())
    report = quantize(sys.argv[1], sys.argv[2])
    for kind in ("Q4_K", "Q6_K"):
        errors = [e for _, k, e in report if k == kind]
        print(f"{kind}: {len(errors)} matrices, relative rms error {min(errors):.4f} to {max(errors):.4f}")


if __name__ == "__main__":
    main()
