"""A Hugging Face folder through every command: the shipped model's weights and vocabulary, written as such a folder.

APRCTL is the program. Exits with 77 when no model ships with the build.
"""
import glob
import hashlib
import json
import os
import subprocess
import sys
import tempfile

import folders

APRCTL = os.environ["APRCTL"]
failures = 0
SHIPPED = sorted(glob.glob(os.path.join(os.path.dirname(APRCTL), "..", "models", "*.gguf")))
if not SHIPPED:
    print("skipped: no model ships with this build")
    sys.exit(77)


def check(condition, what):
    global failures
    if not condition:
        failures += 1
        print("FAILED:", what)


def aprctl(*args, code=0, stderr=False):
    env = {k: v for k, v in os.environ.items() if not k.startswith("APR_")}
    done = subprocess.run([APRCTL, *args], capture_output=True, env=env, timeout=250)
    out, err = done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")
    check(done.returncode == code, f"aprctl {' '.join(args)}: exit {done.returncode}, expected {code}\n{out}{err}")
    return err if stderr else out


def ids(model, prompt, *how):
    return json.loads(aprctl("run", model, "-p", prompt, "-n", "24", "--json", "--precise", *how))


def same_text(folder, gguf):
    for prompt, how in (("The lighthouse keeper", []), ("Who keeps the light?", ["--chat"])):
        a, b = ids(folder, prompt, *how), ids(gguf, prompt, *how)
        check(a["prompt_ids"] == b["prompt_ids"], f"{prompt}: prompt {a['prompt_ids']}, as GGUF {b['prompt_ids']}")
        check(a["text"] == b["text"] and a["finish"] == b["finish"], f"{prompt}: {a['text']!r} ({a['finish']}), as GGUF {b['text']!r} ({b['finish']})")
        check(len(a["text"]) > 10, f"{prompt}: no text: {a['text']!r}")
    text = "Zu\u0308rich 1234 don't <|im_end|>\n\n \t\u4e2d\u6587"
    for how in ([], ["--special"], ["--no-bos"]):
        check(aprctl("tokenize", folder, "-p", text, "--ids", *how) ==
              aprctl("tokenize", gguf, "-p", text.replace("u\u0308", "\u00fc"), "--ids", *how), f"tokenize {how} differs")


def commands(folder, gguf, scratch):
    shown = json.loads(aprctl("inspect", folder, "--json", "--sha256"))
    digest = hashlib.sha256()
    for name in shown["sha256_of"]:
        with open(os.path.join(folder, name), "rb") as f:
            digest.update(f.read())
    check(shown["sha256"] == digest.hexdigest(), "sha256 is not that of the files in sha256_of, one after the other")
    check(sorted(shown["sha256_of"]) == sorted(os.listdir(folder)), f"sha256 covers {shown['sha256_of']} of {os.listdir(folder)}")
    check(shown["metadata"]["general.architecture"] == "llama", "inspect: no architecture")
    table = aprctl("inspect", folder, "--sha256")
    check("sha256        " + shown["sha256"] in table and "tokenizer.json" in table, f"inspect says of the hash:\n{table[:600]}")
    bench = json.loads(aprctl("bench", folder, "-p", "16", "-n", "4", "-r", "1", "--json"))
    check(all(b["avg_ts"] > 0 for b in bench), f"bench gave no figures: {bench}")
    check("pass" in aprctl("parity", folder, "--backend", "cpu"), "parity does not pass")
    same = aprctl("diff", folder, gguf)
    check("74 compared: 74 identical" in same, f"the folder is not the GGUF's weights: {same[-200:]}")
    small = os.path.join(scratch, "small.gguf")
    aprctl("quantize", folder, small, "--type", "q4_k_m")
    keys = json.loads(aprctl("inspect", small, "--json"))["metadata"]
    check("apr.rope_pairs" not in keys and keys["tokenizer.ggml.pre"] == "qwen2", "the GGUF is none that others read")
    check(ids(small, "The lighthouse keeper")["text"][:12] == ids(gguf, "The lighthouse keeper")["text"][:12], "the q4_k_m says something else")


def refusals(folder, scratch):
    """A tokenizer that is not understood: logits are computed all the same, text is refused with the reason."""
    bent = os.path.join(scratch, "bent")
    os.makedirs(bent)
    for name in os.listdir(folder):
        if name != "tokenizer.json":
            os.symlink(os.path.join(folder, name), os.path.join(bent, name))
    expected = "tokenizer.json: no such file"
    out = os.path.join(scratch, "logits")
    for content in (None, {"normalizer": {"type": "Lowercase"}}):
        if content:
            with open(os.path.join(folder, "tokenizer.json")) as f:
                file = json.load(f)
            with open(os.path.join(bent, "tokenizer.json"), "w") as f:
                json.dump(file | content, f)
            expected = "tokenizer.json: normalizer: type 'Lowercase' is not understood"
        for args in (["tokenize", bent, "-p", "x"], ["run", bent, "-p", "x", "-n", "1"]):
            check(expected in aprctl(*args, code=1, stderr=True), f"{args[0]} does not say: {expected}")
        check(expected in aprctl("logits", "-m", bent, "--ids", "1,2", "--out", out, stderr=True), f"logits does not say: {expected}")
    # A file cut short.
    name = next(f for f in os.listdir(folder) if f.endswith(".safetensors"))
    with open(os.path.join(folder, name), "rb") as f:
        content = f.read()
    os.remove(os.path.join(bent, name))
    with open(os.path.join(bent, name), "wb") as f:
        f.write(content[:len(content) // 2])
    for args in (["inspect", bent], ["run", bent, "-p", "x"], ["quantize", bent, out + ".gguf", "--type", "q8_0"]):
        check(name in aprctl(*args, code=1, stderr=True), f"{args[0]} of a file cut short does not name it")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        gguf = os.path.join(scratch, "shipped.gguf")
        aprctl("quantize", SHIPPED[0], gguf, "--type", "f32", "--requantize")
        source = folders.Gguf(gguf)
        tensors, config = folders.hf_tensors(source), folders.hf_config(source)
        files = folders.tokenizer_files(source)
        folder = os.path.join(scratch, "shipped")
        folders.write_folder(folder, config, {name: folders.plain("F32")(a) for name, a in tensors.items()}, parts=2, files=files)
        same_text(folder, gguf)
        commands(folder, gguf, scratch)
        refusals(folder, scratch)
        # Its text survives 8-bit floats, on the usual kernels.
        packed, _, quantization = folders.fp8_tensors(tensors)
        small = os.path.join(scratch, "fp8")
        folders.write_folder(small, config | {"quantization_config": quantization}, packed, files=files)
        said = json.loads(aprctl("run", small, "-p", "The lighthouse keeper", "-n", "8", "--json"))
        check(said["text"][:4] == ids(gguf, "The lighthouse keeper")["text"][:4], f"8-bit floats say {said['text']!r}")
        check("56 rounding" in aprctl("diff", small, folder), "8-bit floats are not the rounded weights")
    print("failures:", failures)
    sys.exit(1 if failures else 0)
