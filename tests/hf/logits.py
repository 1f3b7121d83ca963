"""Hugging Face folders give the logits of the same model as a GGUF file, and GGUF files made from them do too.

APRCTL is the program; APR_TEST_GOLDEN the folder of golden models. Exits with 77 without it.
"""
import json
import math
import os
import subprocess
import sys
import tempfile

import numpy as np

import folders

APRCTL = os.environ["APRCTL"]
GOLDEN = os.environ.get("APR_TEST_GOLDEN")
if not GOLDEN:
    print("skipped: APR_TEST_GOLDEN is not set")
    sys.exit(77)
PROMPT = "1,300,301,302,5,77,410,411,259,500,12,13,14,15,400,399,398,397,396,395,260,261,262,263"
failures = 0


def check(condition, what):
    global failures
    if not condition:
        failures += 1
        print("FAILED:", what)


def aprctl(*args, code=0):
    env = {k: v for k, v in os.environ.items() if not k.startswith("APR_")}
    done = subprocess.run([APRCTL, *args], capture_output=True, env=env, timeout=250)
    out, err = done.stdout.decode(), done.stderr.decode()
    check(done.returncode == code, f"aprctl {' '.join(args)}: exit {done.returncode}, expected {code}\n{out}{err}")
    return out


def logits(model, scratch):
    out = os.path.join(scratch, "logits.f32")
    aprctl("logits", "-m", model, "--ids", PROMPT, "--out", out, "--precise")
    return np.fromfile(out, np.float32).astype(np.float64)


def nmse(a, b):
    return math.inf if a.shape != b.shape else float(np.sum((a - b) ** 2) / np.sum(b**2))


def near(a, b, bar, what):
    error = nmse(a, b)
    print(f"{what:<52} NMSE {error:.1e}")
    check(error <= bar, f"{what}: NMSE {error}, bar {bar}")


def same_model(scratch):
    """Each architecture in each dtype, as one file and in parts, against GGUF and back."""
    for golden in ("tiny-F32", "tiny-qwen2", "tiny-qwen3"):
        for dtype in ("F32", "F16", "BF16"):
            gguf = os.path.join(scratch, "model.gguf")
            aprctl("quantize", os.path.join(GOLDEN, golden + ".gguf"), gguf, "--type", dtype.lower(), "--requantize")
            source = folders.Gguf(gguf)
            # GGUF keeps vectors in F32; with them in the model's dtype, as most folders have them, they are rounded.
            cast, vectors = folders.plain(dtype), folders.plain(dtype if golden == "tiny-qwen3" else "F32")
            folder = os.path.join(scratch, f"{golden}-{dtype}")
            tensors = {name: (vectors if array.ndim == 1 else cast)(array) for name, array in folders.hf_tensors(source).items()}
            folders.write_folder(folder, folders.hf_config(source), tensors, parts=3 if dtype == "F16" else 1)
            bar = 1e-12 if vectors.dtype == "F32" else {"F16": 2e-6, "BF16": 1e-4}[dtype]
            wanted = logits(gguf, scratch)
            near(logits(folder, scratch), wanted, bar, f"{golden} {dtype}")
            back = os.path.join(scratch, "back.gguf")
            aprctl("quantize", folder, back, "--type", "f32")
            near(logits(back, scratch), logits(folder, scratch), 1e-12, f"{golden} {dtype} -> GGUF")
            rows = folders.Gguf(back).tensors
            if dtype == "F32":
                for name, array in source.tensors.items():
                    check(np.array_equal(rows[name], array), f"{golden}: {name} is not what it was before it went to a folder and back")


def eight_bits(scratch):
    """8-bit floats with scales against the float32 values that they stand for; rows that no block divides too."""
    for golden in ("tiny-F32", "tiny-qwen2", "tiny-qwen3"):
        gguf = os.path.join(scratch, "model.gguf")
        aprctl("quantize", os.path.join(GOLDEN, golden + ".gguf"), gguf, "--type", "f32", "--requantize")
        source = folders.Gguf(gguf)
        usual = [((128, 128), folders.E4)]
        # In the last no block of the format fits the scales: the products are held as float32.
        more = [("tensor", folders.E4), ("row", folders.E4), ("row", folders.E5), ((48, 96), folders.E4)]
        for scales, kind in usual + more if golden == "tiny-F32" else usual:
            what = f"{golden} {kind[0]}, scales: {scales}"
            packed, values, quantization = folders.fp8_tensors(folders.hf_tensors(source), scales, kind)
            folder, plain = os.path.join(scratch, "eight-bits"), os.path.join(scratch, "plain")
            config = folders.hf_config(source)
            folders.write_folder(folder, config | {"quantization_config": quantization}, packed)
            folders.write_folder(plain, config, values)
            wanted = logits(plain, scratch)
            near(logits(folder, scratch), wanted, 1e-11, what)
            kinds = json.loads(aprctl("inspect", folder, "--json"))["formats"]
            check(kind[0].lower() in kinds, f"{what}: formats {kinds}")
            back = os.path.join(scratch, "back.gguf")
            aprctl("quantize", folder, back, "--type", "f32")
            near(logits(back, scratch), wanted, 1e-11, what + " -> GGUF")


def ropes(scratch):
    """Scalings of the rotary embedding, and Mistral's window, against the keys that GGUF has for them."""
    source = folders.Gguf(os.path.join(GOLDEN, "tiny-F32.gguf"))
    tensors = {name: folders.plain("F32")(array) for name, array in folders.hf_tensors(source).items()}
    config = folders.hf_config(source)
    plain = None
    for name, more in (("default", {}),
                       ("linear", {"rope_scaling": {"type": "linear", "factor": 4.0}}),
                       ("yarn", {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}}),
                       ("llama3", {"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                                    "original_max_position_embeddings": 64}}),
                       ("window", {"architectures": ["MistralForCausalLM"], "sliding_window": 4})):
        folder = os.path.join(scratch, "rope-" + name)
        folders.write_folder(folder, config | more, tensors)
        got, back = logits(folder, scratch), os.path.join(scratch, "back.gguf")
        aprctl("quantize", folder, back, "--type", "f32")
        near(logits(back, scratch), got, 1e-12, f"rope {name} -> GGUF")
        if plain is None:
            plain = got
        else:
            check(nmse(got, plain) > 1e-4, f"rope {name} changes nothing")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        same_model(scratch)
        eight_bits(scratch)
        ropes(scratch)
    print("failures:", failures)
    sys.exit(1 if failures else 0)
