"""Hugging Face folders for tests: written from a GGUF file's tensors and metadata, in any dtype, or damaged.

Own minimal readers and writers, so that the program is not judged by itself.
"""
import json
import os
import struct

import numpy as np

_VALUES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


class Gguf:
    """Metadata and the plain float tensors (F32, F16, BF16) of a GGUF file; tensors as float32 arrays."""

    def __init__(self, path):
        with open(path, "rb") as f:
            self.bytes = f.read()
        self.at = 4
        _, count, keys = self._read("<IQQ")
        self.meta = {}
        for _ in range(keys):
            key = self._string()
            self.meta[key] = self._value(self._read("<I")[0])
        infos = []
        for _ in range(count):
            name = self._string()
            dims = self._read(f"<{self._read('<I')[0]}Q")
            infos.append((name, dims, *self._read("<IQ")))
        align = self.meta.get("general.alignment", 32)
        base = -(-self.at // align) * align
        self.tensors = {}
        for name, dims, kind, offset in infos:
            n = int(np.prod(dims))
            at = base + offset
            if kind == 0:
                data = np.frombuffer(self.bytes, np.float32, n, at)
            elif kind == 1:
                data = np.frombuffer(self.bytes, np.float16, n, at).astype(np.float32)
            elif kind == 30:
                data = (np.frombuffer(self.bytes, np.uint16, n, at).astype(np.uint32) << 16).view(np.float32)
            else:
                raise ValueError(f"{path}: {name} is no plain float tensor")
            self.tensors[name] = data.reshape(dims[::-1])

    def _read(self, form):
        values = struct.unpack_from(form, self.bytes, self.at)
        self.at += struct.calcsize(form)
        return values

    def _string(self):
        n = self._read("<Q")[0]
        self.at += n
        return self.bytes[self.at - n:self.at].decode("utf-8", "surrogateescape")

    def _value(self, kind):
        if kind == 8:
            return self._string()
        if kind != 9:
            return self._read("<" + _VALUES[kind])[0]
        of, n = self._read("<IQ")
        return [self._value(of) for _ in range(n)] if of in (8, 9) else list(self._read(f"<{n}{_VALUES[of]}"))


def bf16(x):
    """Round to nearest, ties to even; bits as uint16."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def _e4m3_values():
    codes = np.arange(127)
    exponent, mantissa = codes >> 3, codes & 7
    return np.where(exponent == 0, mantissa / 8 * 2.0**-6, (1 + mantissa / 8) * 2.0 ** (exponent - 7.0))


E4M3 = _e4m3_values()  # of the codes 0 to 0x7E; the largest is 448


def e4m3(x):
    """The nearest code of each value, as uint8."""
    a = np.minimum(np.abs(x), 448)
    above = np.clip(np.searchsorted(E4M3, a), 1, 126)
    code = np.where(a - E4M3[above - 1] <= E4M3[above] - a, above - 1, above).astype(np.uint8)
    return code | np.where(np.signbit(x), 0x80, 0).astype(np.uint8)


def e4m3_value(code):
    return np.where(code & 0x80, -1, 1) * E4M3[code & 0x7F]


def write_safetensors(path, tensors, mangle=None):
    """tensors: name -> (dtype, array or bytes, shape). mangle(header) may change the header."""
    header, data = {}, b""
    for name, (dtype, array, shape) in tensors.items():
        raw = array if isinstance(array, bytes) else np.ascontiguousarray(array).tobytes()
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    header["__metadata__"] = {"format": "pt"}
    if mangle:
        mangle(header)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


def plain(dtype):
    """array -> (dtype, array in it, shape)"""
    cast = {"F32": lambda x: x.astype(np.float32), "F16": lambda x: x.astype(np.float16), "BF16": bf16}[dtype]
    def write(x):
        return dtype, cast(x), x.shape

    write.dtype = dtype
    return write


_PARTS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
          "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
          "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm", "ffn_gate": "mlp.gate_proj",
          "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
_TOP = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight",
        "output.weight": "lm_head.weight"}
CLASSES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}


def halves(rows, heads):
    """Llama's rows of q or k from adjacent pairs (GGUF) to halves (Hugging Face)."""
    shape = rows.shape
    return rows.reshape(heads, shape[0] // heads // 2, 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def hf_tensors(gguf):
    """Hugging Face's names -> float32 arrays."""
    arch = gguf.meta["general.architecture"]
    out = {}
    for name, array in gguf.tensors.items():
        if name in _TOP:
            out[_TOP[name]] = array
            continue
        _, layer, part, kind = name.split(".")
        if arch == "llama" and part in ("attn_q", "attn_k"):
            array = halves(array, gguf.meta["llama.attention.head_count" + ("" if part == "attn_q" else "_kv")])
        out[f"model.layers.{layer}.{_PARTS[part]}.{kind}"] = array
    return out


def hf_config(gguf):
    arch = gguf.meta["general.architecture"]
    get = lambda key: gguf.meta[f"{arch}.{key}"]
    return {"architectures": [CLASSES[arch]], "model_type": arch, "hidden_act": "silu",
            "num_hidden_layers": get("block_count"), "hidden_size": get("embedding_length"),
            "intermediate_size": get("feed_forward_length"), "num_attention_heads": get("attention.head_count"),
            "num_key_value_heads": get("attention.head_count_kv"), "head_dim": get("attention.key_length"),
            "max_position_embeddings": get("context_length"), "rope_theta": get("rope.freq_base"),
            "rms_norm_eps": get("attention.layer_norm_rms_epsilon"), "vocab_size": get("vocab_size"),
            "tie_word_embeddings": "output.weight" not in gguf.tensors, "bos_token_id": 1, "eos_token_id": 2,
            "torch_dtype": "bfloat16", "use_cache": True}


QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def tokenizer_files(gguf):
    """tokenizer.json and tokenizer_config.json of a byte-level vocabulary that cuts words as Qwen2 does."""
    meta = gguf.meta
    assert meta["tokenizer.ggml.model"] == "gpt2" and meta["tokenizer.ggml.pre"] == "qwen2"
    tokens, types = meta["tokenizer.ggml.tokens"], meta["tokenizer.ggml.token_type"]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    bos = meta["tokenizer.ggml.bos_token_id"]
    template = {"type": "TemplateProcessing", "pair": [],
                "single": [{"SpecialToken": {"id": tokens[bos], "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "special_tokens": {tokens[bos]: {"id": tokens[bos], "ids": [bos], "tokens": [tokens[bos]]}}}
    file = {"version": "1.0", "truncation": None, "padding": None,
            "added_tokens": [{"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
                              "special": kind == 3} for i, (t, kind) in enumerate(zip(tokens, types)) if kind in (3, 4)],
            "normalizer": {"type": "NFC"},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": QWEN2}, "behavior": "Isolated", "invert": False}, byte_level]},
            "post_processor": template, "decoder": byte_level,
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "", "end_of_word_suffix": "",
                      "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                      "vocab": {t: i for i, (t, kind) in enumerate(zip(tokens, types)) if kind == 1},
                      "merges": meta["tokenizer.ggml.merges"]}}
    config = {"bos_token": tokens[bos], "eos_token": tokens[meta["tokenizer.ggml.eos_token_id"]], "add_bos_token": True,
              "chat_template": meta["tokenizer.chat_template"], "tokenizer_class": "PreTrainedTokenizerFast"}
    return {"tokenizer.json": file, "tokenizer_config.json": config,
            "generation_config.json": {"eos_token_id": [meta["tokenizer.ggml.eos_token_id"], meta["tokenizer.ggml.eot_token_id"]]}}


def e5m2(x):
    """Codes of float16's upper halves, as uint8: rounded towards zero, and not beyond the largest, 57344."""
    return (np.clip(x, -57344, 57344).astype(np.float16).view(np.uint16) >> 8).astype(np.uint8)


def e5m2_value(code):
    return (code.astype(np.uint16) << 8).view(np.float16).astype(np.float32)


E4 = ("F8_E4M3", e4m3, e4m3_value)
E5 = ("F8_E5M2", e5m2, e5m2_value)


def fp8(scales, kind):
    """array -> (codes, scale, what they stand for); scales: "tensor", "row", or the rows and columns of a block."""
    def split(w):
        n, k = w.shape
        rows, columns = {"tensor": (n, k), "row": (1, k)}.get(scales, scales)
        padded = np.zeros((-(-n // rows) * rows, -(-k // columns) * columns), np.float32)
        padded[:n, :k] = w
        blocks = padded.reshape(padded.shape[0] // rows, rows, padded.shape[1] // columns, columns)
        scale = np.maximum(np.abs(blocks).max(axis=(1, 3), keepdims=True) / 448, 1e-12).astype(np.float32)
        codes = kind[1](blocks / scale)
        values = (kind[2](codes).astype(np.float32) * scale).astype(np.float32)
        join = lambda b: b.reshape(padded.shape)[:n, :k]
        return join(codes), scale.reshape(scale.shape[0], scale.shape[2]), join(values)

    return split


def fp8_tensors(tensors, scales=(128, 128), kind=E4):
    """Matrices of the layers in 8-bit floats; beside it the same values in float32, and quantization_config."""
    packed, values = {}, {}
    for name, array in tensors.items():
        if not name.endswith("_proj.weight"):
            packed[name] = values[name] = plain("F32")(array)
            continue
        codes, scale, value = fp8(scales, kind)(array)
        packed[name] = (kind[0], codes, codes.shape)
        values[name] = plain("F32")(value)
        if not isinstance(scales, str):
            packed[name + "_scale_inv"] = plain("F32")(scale)
        else:
            packed[name + "_scale"] = ("F32", scale, ()) if scales == "tensor" else plain("BF16")(scale)
            if scales == "row":  # rounded scales stand for other values
                rounded = (bf16(scale).astype(np.uint32) << 16).view(np.float32)
                values[name] = plain("F32")(kind[2](codes).astype(np.float32) * rounded)
    config = ({"quant_method": "fp8", "weight_block_size": list(scales)} if not isinstance(scales, str)
              else {"quant_method": "compressed-tensors", "format": "float-quantized"})
    return packed, values, config


def write_folder(folder, config, tensors, parts=1, files=None):
    """tensors: name -> (dtype, array, shape). With several parts, an index is written. files: name -> JSON."""
    os.makedirs(folder, exist_ok=True)
    for name, content in ({"config.json": config} | (files or {})).items():
        with open(os.path.join(folder, name), "w") as f:
            json.dump(content, f)
    if parts == 1:
        write_safetensors(os.path.join(folder, "model.safetensors"), tensors)
        return
    names = list(tensors)
    weight_map = {}
    for i in range(parts):
        file = f"model-{i + 1:05}-of-{parts:05}.safetensors"
        mine = names[i::parts]
        weight_map.update({name: file for name in mine})
        write_safetensors(os.path.join(folder, file), {name: tensors[name] for name in mine})
    with open(os.path.join(folder, "model.safetensors.index.json"), "w") as f:
        json.dump({"metadata": {}, "weight_map": weight_map}, f)


if __name__ == "__main__":
    import sys

    if len(sys.argv) != 4:
        sys.exit("usage: folders.py MODEL.gguf FOLDER F32|F16|BF16|FP8      MODEL of plain floats: aprctl quantize --type f32")
    gguf = Gguf(sys.argv[1])
    if sys.argv[3] == "FP8":
        tensors, _, quantization = fp8_tensors(hf_tensors(gguf))
        config = hf_config(gguf) | {"quantization_config": quantization}
    else:
        tensors, config = {name: plain(sys.argv[3])(a) for name, a in hf_tensors(gguf).items()}, hf_config(gguf)
    write_folder(sys.argv[2], config, tensors, files=tokenizer_files(gguf))
