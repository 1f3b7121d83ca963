"""The program as its users meet it: commands, exit codes, messages, and figures on stdout.

usage: cli.py SUITE     commands | fp8 | quantize | eval | kernels | golden | vocab | shipped
APRCTL is the program; APR_TEST_GOLDEN and APR_TEST_VOCAB are the folders of golden models and vocabularies.
Exits with 77 when what a suite needs is not there.
"""
import array
import json
import math
import os
import re
import signal
import struct
import subprocess
import sys
import tempfile
import time

APRCTL = os.environ["APRCTL"]
# In the build folder, beside the program's.
SHIPPED_MODEL = os.path.join(os.path.dirname(APRCTL), "..", "models", "skerry-7m-q4_k_m.gguf")
failures = 0


def aprctl(*args, env=None, stdin=None):
    """(exit code, stdout, stderr) of one call."""
    full = {k: v for k, v in os.environ.items() if not k.startswith("APR_") or k.startswith("APR_TEST_")}
    full.update(env or {})
    done = subprocess.run([APRCTL, *args], capture_output=True, env=full, input=stdin, timeout=250)
    return done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")


def check(condition, what):
    global failures
    if not condition:
        failures += 1
        print("FAILED:", what)


def expect(code, args, *needles, **how):
    """The call ends with this code, and its output has each needle."""
    got, out, err = aprctl(*args, **how)
    check(got == code, f"aprctl {' '.join(args)}: exit {got}, expected {code}\n{out}{err}")
    for needle in needles:
        check(needle in out + err, f"aprctl {' '.join(args)}: no '{needle}' in\n{out}{err}")
    return out


def folder_or_skip(variable):
    folder = os.environ.get(variable)
    if not folder:
        print(f"skipped: {variable} is not set")
        sys.exit(77)
    return folder


def commands():
    names = "qa doctor run bench inspect kernels plugins tune tokenize logits parity diff cache probes quantize eval".split()
    listing = expect(0, ["--help"])
    for name in names:
        check(name in listing, f"--help does not list {name}")
        expect(0, [name, "--help"], f"usage: aprctl {name}", "example:", "options:")
        expect(2, [name, "--no-such-option"], "no-such-option", "--help")
    expect(2, [], "usage")
    expect(2, ["frobnicate"], "no command 'frobnicate'")
    expect(0, ["--version"], "apr ")
    expect(0, ["plugins"], "quant-q4k", "backend-cpu", "searched")
    listed = json.loads(expect(0, ["plugins", "--json"]))
    check(any("q4_k" in plugin["provides"] for plugin in listed["plugins"]), "q4_k is not in plugins --json")
    expect(0, ["plugins", "info", "q4_k"], "block_elements", "256", "gemv_int")
    expect(0, ["plugins", "info", "cpu"], "backend-cpu", "devices")
    expect(1, ["plugins", "info", "q9_z"], "q9_z")
    expect(2, ["plugins", "frob"], "list, info, check and new")
    expect(0, ["plugins", "check", "--help"], "usage: aprctl plugins check", "example:", "--backend")
    expect(0, ["plugins", "check", "q4_0", "--format", "q4_0"], "q4_0 on cpu", "gemv_int portable", "verdict: pass")
    judged = json.loads(expect(0, ["plugins", "check", "quant-q4k", "--json"]))
    check(judged["verdict"] == "pass" and judged["passed"] > 30, "quant-q4k does not pass plugins check --json")
    expect(0, ["plugins", "new", "--help"], "usage: aprctl plugins new", "example:", "--directory")
    expect(2, ["plugins", "new"], "vendor.name")
    for name in ("int4", "Acme.int4", "acme.int4.x", "acme.", ".int4", "acme.4bit", "acme/x.y", "acme.int4 ", "a." + "b" * 70):
        expect(2, ["plugins", "new", name], "vendor.name")
    with tempfile.TemporaryDirectory() as scratch:
        made = os.path.join(scratch, "deep", "er")
        expect(0, ["plugins", "new", "acme.int4-b_2", "-d", made], "codec.h", "meson setup build")
        codec = open(os.path.join(made, "codec.h")).read()
        check("AcmeInt4B2" in codec and "@" not in codec, "codec.h is not filled in")
        before = {f: os.stat(os.path.join(made, f)).st_mtime_ns for f in os.listdir(made)}
        expect(1, ["plugins", "new", "acme.other", "-d", made], made, "is there already")
        check(before == {f: os.stat(os.path.join(made, f)).st_mtime_ns for f in os.listdir(made)}, "plugins new touched a project")
        empty = os.path.join(scratch, "empty")
        os.mkdir(empty)
        listed = json.loads(expect(0, ["plugins", "new", "acme.x", "-d", empty, "--json"]))
        check(sorted(listed["files"]) == sorted(os.listdir(empty)) and "plugin.toml" in listed["files"], f"plugins new --json: {listed}")
        expect(1, ["plugins", "new", "acme.x", "-d", "/proc/here"], "/proc/here")
        check(sorted(os.listdir(scratch)) == ["deep", "empty"], f"left behind: {os.listdir(scratch)}")
    expect(2, ["plugins", "check"], "name a library")
    expect(2, ["plugins", "check", "q4_k", "--format", "q9_z"], "quant-q4k provides q4_k")
    expect(1, ["plugins", "check", "/tmp"], "no plugin.toml there")
    expect(1, ["plugins", "check", "q9_z"], "q9_z")
    expect(2, ["plugins", "--plugin-path", "/no/such/folder"], "/no/such/folder")
    expect(0, ["probes"], "APR_PLUGIN_PATH")
    json.loads(expect(0, ["probes", "--json"]))
    expect(2, ["probes"], "APR_CPU_ISA", "avx2", env={"APR_CPU_ISA": "mmx"})
    expect(0, ["probes"], "APR_CPU_ISO", "APR_CPU_ISA", env={"APR_CPU_ISO": "avx2"})
    expect(1, ["inspect", "/no/such/model.gguf"], "/no/such/model.gguf")
    expect(1, ["inspect", "/tmp"], "/tmp")
    expect(2, ["bench", "-r", "0"], "repetitions")
    expect(2, ["run", "-p", "x", "--temp", "-1"], "temp")
    expect(2, ["run", "-p", "x", "-f", "y"], "--prompt", "--file")
    expect(2, ["cache", "frob"], "list, verify and clear")
    for args in (["plugins"], ["probes", "--json"], ["run", "--help"], ["--help"]):
        with open("/dev/full", "wb") as full:
            done = subprocess.run([APRCTL, *args], stdout=full, stderr=subprocess.PIPE, timeout=60)
        check(done.returncode == 1 and b"error: " in done.stderr, f"aprctl {' '.join(args)} > /dev/full: exit {done.returncode}, {done.stderr}")
    with tempfile.TemporaryDirectory() as folder:
        cache = {"APR_KERNEL_CACHE": folder}
        expect(0, ["cache", "list"], "0 kernels", env=cache)
        expect(0, ["cache", "verify"], "every checksum agrees", env=cache)
        expect(0, ["cache", "clear"], "removed 0 kernels", env=cache)
        broken = os.path.join(folder, "broken.gguf")
        with open(broken, "wb") as f:
            f.write(b"GGUF" + b"\xff" * 60)
        expect(1, ["inspect", broken], "broken.gguf")
        with open(broken, "wb") as f:
            f.write(b"PK\x03\x04 not a model")
        expect(1, ["run", broken, "-p", "x"], "broken.gguf")


def kernels():
    expect(0, ["kernels", "list"], "gemv_int", "task_kib")
    listed = json.loads(expect(0, ["kernels", "list", "--json"]))
    gemv = next(k for k in listed["kernels"] if k["name"] == "gemv_int")
    check(gemv["op"] == "linear" and any(p["name"] == "isa" for p in gemv["params"]), f"kernels list --json: {gemv}")
    text = expect(0, ["kernels", "explain"], "blk.*.ffn_down", "gemv_int", "because:", "not gemv_float:")
    check(all(len(line) <= 80 for line in text.split("\n")), "kernels explain is wider than 80 columns")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "mine.toml")

        def profile(rule):
            with open(path, "w") as f:
                f.write("[[rules]]\n" + rule)
            return ["--profile", path]

        rule = profile("role = 'ffn_down'\ntemplate = 'gemv_float'\nparams = { task_kib = 32 }\n")
        report = json.loads(expect(0, ["kernels", "explain", "--json", *rule]))
        check(report["profile"]["rules_used"] == [path + ":1"], f"profile in the report: {report['profile']}")
        for k in report["kernels"]:
            by_rule = "ffn_down" in k["tensor"] and k["m_max"] <= 4
            check((k["kernel"] == "gemv_float" and k["rule"] == path + ":1") == by_rule, f"rule and tensor: {k}")
        timed = json.loads(expect(0, ["kernels", "explain", "--run", "--json", *rule]))
        # A prompt's head computes one row, which is no GEMM.
        check(all(k["us"] for k in timed["kernels"] if k["op"] == "linear" and k["tensor"].startswith("blk.")), "explain --run has no times")
        check(timed["peak_gbs"] > 0, "explain --run has no bandwidth")
        expect(0, ["kernels", "show", "--name", "blk.0.ffn_down", *rule], "gemv_float of", "libapr-quant-")
        expect(1, ["kernels", "show", "--name", "blk.99.ffn_down"], "blk.99.ffn_down")
        expect(1, ["run", "-p", "x", "-n", "1", *profile("role = 'ffn_down'\ntemplate = 'gemv_flat'\n")], path + ":1", "gemv_float")
        expect(1, ["run", "-p", "x", "-n", "1", *profile("rule = 'ffn_down'\n")], path + ":2: unknown key 'rule'", "role")
        expect(2, ["run", "-p", "x", "-n", "1", "--profile", "no-such"], "no profile 'no-such'", "default", "precise")
        profile("layout = 'row_major'\n")
        expect(0, ["run", "-p", "x", "-n", "1"], f"profile {path}: 1 of 1 rules", env={"APR_PROFILE": path})
    precise = json.loads(expect(0, ["kernels", "explain", "--json", "--profile", "precise"]))
    flag = json.loads(expect(0, ["kernels", "explain", "--json", "--precise"]))
    check(precise["precise"] and precise["kernels"] == flag["kernels"], "--profile precise and --precise differ")
    expect(0, ["run", "-p", "x", "-n", "2"], "APR_FORCE_KERNEL=ffn_down=gemv_float", env={"APR_FORCE_KERNEL": "ffn_down=gemv_float"})
    expect(2, ["run", "-p", "x", "-n", "2"], "gemv_int, gemv_float", env={"APR_FORCE_KERNEL": "ffn_down=gemv"})
    expect(2, ["run", "-p", "x", "-n", "2"], "chose no kernel", env={"APR_FORCE_KERNEL": "ffn_dwn=gemv_int"})
    expect(2, ["kernels", "frob"], "list, explain and show")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "tuned.toml")
        tuned = json.loads(expect(0, ["tune", "-o", path, "--seconds", "3", "-r", "2", "--batch", "1", "--threads", "1", "--json"]))
        check(tuned["output"] == path and len(tuned["specs"]) > 3, f"tune --json: {tuned['output']}")
        check(not (tuned["complete"] and os.path.exists(path + ".journal")), "a journal stays behind a finished run")
        for spec in tuned["specs"]:
            if spec["searched"]:
                check(spec["best_us"] <= spec["default_us"], f"slower than the default: {spec}")
        with open(path, "a") as f:
            f.write("[[rules]]\nrole = 'ffn_down'\nm = [100, 200]\ntemplate = 'gemm_int'\n")
        expect(0, ["run", "-p", "x", "-n", "1", "--threads", "1", "--profile", path], "rules chose")
        expect(0, ["run", "-p", "x", "-n", "1", "--threads", "2", "--profile", path], "rules are not used", "2 threads", "instead of 1 thread")
    expect(2, ["tune", "-r", "0"], "repetitions")
    # Rules for other devices than this one are no obstacle.
    expect(0, ["run", "-p", "x", "-n", "1", "--profile", "cpu-avx512"], "0 of 2 rules", env={"APR_CPU_ISA": "portable"})


def cuda():
    """The CUDA backend's side of the commands, on a fake GPU (tests/cuda): what is chosen, by which rule, what was rejected."""
    text = expect(0, ["kernels", "explain", "--backend", "cuda"], "blk.*.ffn_down", "gemv_int", "because: ", "not gemv_float: ", "attention_decode")
    check(all(len(line) <= 80 for line in text.split("\n")), "kernels explain --backend cuda is wider than 80 columns")
    report = json.loads(expect(0, ["kernels", "explain", "--backend", "cuda", "--json"]))
    check(report["device"] == "Fake GPU" and report["arch"] == "sm_90a", f"another device: {report['device']} {report['arch']}")
    down = [k for k in report["kernels"] if k["tensor"] == "blk.0.ffn_down.weight"]
    check({k["m_min"] for k in down} >= {1, 9}, f"ffn_down has no kernels for one token and for prompts: {down}")
    for k in down:
        check(k["kernel"] == ("gemm" if k["m_min"] == 9 else "gemv_int") and k["layout"] == "planar" and k["rejected"], f"ffn_down: {k}")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "mine.toml")
        with open(path, "w") as f:
            f.write('[[rules]]\nrole = "ffn_down"\ntemplate = "gemv_float"\nm = [1, 1]\nparams = { rows = 2 }\nwhy = "a test"\n')
        expect(0, ["kernels", "explain", "--backend", "cuda", "--profile", path], "mine.toml:1: a test", "rows=2",
               "1 of 1 rules chose 8 of")
        # Where there are no 16-bit activations a GEMM would read what is not there.
        with open(path, "w") as f:
            f.write('[[rules]]\nrole = "ffn_down"\ntemplate = "gemm"\n')
        expect(1, ["kernels", "explain", "--backend", "cuda", "--profile", path], "gemm cannot serve", "view", env={})
        expect(1, ["kernels", "explain", "--backend", "cuda", "--profile", path], "gemm cannot serve", "m = [9, 1000000]",
               env={"APR_FORCE_QTYPE": "blk.*.ffn_down=f16"})
    expect(0, ["kernels", "show", "--backend", "cuda", os.path.join(os.path.dirname(APRCTL), "..", "models", "skerry-7m-q4_k_m.gguf"),
               "blk.0.ffn_down"], "gemv_int", "namespace apr::spec")
    # The graph path and the unfused one are both judged, and told apart.
    report = json.loads(expect(0, ["parity", "--backend", "cuda", "--bisect", "--json", "--ids", "1,300,301,302,5,77,410,411,259,500"]))
    passes = report["bisect"][0]["passes"]
    check([p["what"] for p in passes] == ["as it runs", "unfused", "float activations"], f"passes: {[p['what'] for p in passes]}")
    stages = [{s["stage"] for s in p["stages"] if s["form"] == "mixed"} for p in passes]
    check("blk.0.attn_norm" not in stages[0] and "blk.0.attn_norm" in stages[1], "the unfused pass does not see what fusion hides")


# NMSE of llama.cpp v0.5.0 on its CPU against the float64 logits (the golden folder's README.md).
PEER_NMSE = {"tiny-F32": 3.5e-07, "tiny-F16": 5.7e-07, "tiny-BF16": 1.3e-05, "tiny-Q8_0": 1.1e-04, "tiny-Q4_0": 5.5e-06,
             "tiny-Q4_1": 1.3e-04, "tiny-Q5_0": 1.3e-04, "tiny-Q5_1": 1.3e-04, "tiny-Q4_K": 2.9e-04, "tiny-Q5_K": 3.4e-04,
             "tiny-Q6_K": 2.6e-04, "tiny-Q4_K_M": 2.8e-04, "tiny-qwen2": 2.5e-04, "tiny-qwen3": 3.1e-04}
GOLDEN_IDS = "1,300,301,302,5,77,410,411,259,500,12,13,14,15,400,399,398,397,396,395,260,261,262,263"


def floats(path):
    values = array.array("f")
    with open(path, "rb") as f:
        values.frombytes(f.read())
    return values


def nmse(a, b):
    check(len(a) == len(b), f"{len(a)} logits, expected {len(b)}")
    return sum((x - y) ** 2 for x, y in zip(a, b)) / sum(y * y for y in b)


def golden():
    folder = folder_or_skip("APR_TEST_GOLDEN")
    with tempfile.TemporaryDirectory() as scratch:
        out = os.path.join(scratch, "logits.f32")

        def logits(model, *args):
            expect(0, ["logits", "-m", model, "--ids", GOLDEN_IDS, "--out", out, *args])
            return floats(out)

        print(f"{'model':<12} {'int':>9} {'bound':>9} {'single':>9} {'precise':>9}")
        for name, peer in PEER_NMSE.items():
            model = os.path.join(folder, name + ".gguf")
            reference = floats(os.path.join(folder, name + ".logits.f32"))
            whole, single, precise = logits(model), logits(model, "--single"), logits(model, "--precise")
            n_int, n_single, n_precise = nmse(whole, reference), nmse(single, reference), nmse(precise, reference)
            print(f"{name:<12} {n_int:9.2e} {1.2 * peer:9.2e} {n_single:9.2e} {n_precise:9.2e}")
            check(n_int <= 1.2 * peer, f"{name}: NMSE {n_int:.2e} over {1.2 * peer:.2e}")
            check(n_single <= 1.2 * peer, f"{name} --single: NMSE {n_single:.2e} over {1.2 * peer:.2e}")
            check(n_precise <= 1e-5, f"{name} --precise: NMSE {n_precise:.2e} over 1e-5")
            # With float activations a batch and single tokens agree to rounding. With 8-bit ones a sum that was added up in
            # another order may round an activation the other way, so they agree as well as each agrees with the truth.
            both = nmse(logits(model, "--precise", "--single"), precise)
            check(both <= 1e-10, f"{name} --precise: batch and token by token differ: {both:.2e}")
            check(nmse(single, whole) <= n_int, f"{name}: batch and token by token differ: {nmse(single, whole):.2e}")
        model = os.path.join(folder, "tiny-Q4_K_M.gguf")
        # Forced formats go through other kernels and give nearly the same logits; a wrong one is refused with the good ones.
        base = logits(model)
        expect(0, ["logits", "-m", model, "--ids", GOLDEN_IDS, "--out", out], "APR_LM_HEAD_FORCE_QTYPE",
               env={"APR_LM_HEAD_FORCE_QTYPE": "f32"})
        check(0 < nmse(floats(out), base) < 1e-3, "a head forced to f32 is not a small change")
        expect(2, ["logits", "-m", model, "--ids", "1", "--out", out, "--ctx", "x"], "ctx")
        expect(2, ["logits", "-m", model, "--ids", "1,512", "--out", out], "512", "511")
        expect(1, ["logits", "-m", model, "--ids", "1", "--out", "/no/such/folder/x"], "/no/such/folder/x")
        report = json.loads(expect(0, ["bench", "-m", model, "-p", "16", "-n", "8", "-r", "2", "--json"]))
        check([(t["n_prompt"], t["n_gen"]) for t in report] == [(16, 0), (0, 8)], "bench does not report pp and tg")
        for test in report:
            check(len(test["samples_ts"]) == 2 and test["avg_ts"] > 0, "bench has no samples")
            check(test["dispatches_after_load"] == 0 and test["compiles_after_load"] == 0, "work after load")
        check(report[1]["gbs"] > 0 and 0 < report[1]["share_of_peak"] and report[0]["ttft_ms"] > 0, "bench figures missing")
        run = ["run", model, "-p", "t300t301", "-n", "12", "--json"]
        greedy = json.loads(expect(0, run))
        check(len(greedy["ids"]) <= 12 and greedy["prompt_ids"][0] == 1, "run --json ids")
        hot = [*run, "--temp", "1.5", "--top-k", "0", "--seed"]
        a, b, c = (json.loads(expect(0, [*hot, seed]))["ids"] for seed in ("7", "7", "8"))
        check(a == b, "the same seed gave another text")
        check(a != c, "another seed gave the same text")
        expect(1, ["run", model, "-p", "t300" * 50, "--ctx", "16"], "context")
        # The model's first answer token, written as SentencePiece writes " A": a chat's answer does not begin with its space,
        # and keeps the space of a later one.
        with open(os.path.join(folder, "tiny-Q8_0.gguf"), "rb") as f:
            content = f.read()
        name = struct.pack("<Q", 4) + b"t443"
        check(content.count(name) == 1, "tiny-Q8_0 has no token t443")
        spaced = os.path.join(scratch, "spaced.gguf")
        with open(spaced, "wb") as f:
            f.write(content.replace(name, name[:8] + "\u2581A".encode()))
        answer = json.loads(expect(0, ["run", spaced, "--chat", "--chat-template", "zephyr", "-p", "hi", "-n", "6", "--json", "--precise"]))
        check(answer["ids"].count(443) == 2 and answer["ids"][0] == 443, f"another answer than expected: {answer['ids']}")
        check(answer["text"].startswith("At") and " A" in answer["text"], f"spaces of a chat's answer: {answer['text']!r}")


def vocab():
    folder = folder_or_skip("APR_TEST_VOCAB")
    with tempfile.TemporaryDirectory() as scratch:
        path = os.path.join(scratch, "text")
        for name in sorted(f for f in os.listdir(folder) if f.endswith(".gguf")):
            model = os.path.join(folder, name)
            with open(model + ".inp", "rb") as f:
                texts = f.read().split(b"\n__ggml_vocab_test__\n")
            with open(model + ".out") as f:
                wanted = [line.split() for line in f.read().split("\n")]
            good = 0
            for text, ids in zip(texts, wanted):
                with open(path, "wb") as f:
                    f.write(text)
                got = expect(0, ["tokenize", "-m", model, "-f", path, "--ids", "--no-bos"]).split()
                good += got == ids
                check(got == ids, f"{name}: {text!r}: {got}, expected {ids}")
            print(f"{name}: {good} of {len(texts)}")


def shipped():
    models = os.path.join(os.path.dirname(APRCTL), "..", "models")
    records = [f for f in os.listdir(models) if f.endswith(".golden.json")] if os.path.isdir(models) else []
    if not records:
        print("skipped: no model ships with this build")
        sys.exit(77)
    with open(os.path.join(models, records[0])) as f:
        golden = json.load(f)
    for case in golden["cases"]:
        wanted = case["greedy_ids"]
        how = ["--chat"] if case["chat"] else []
        args = ["run", "-p", case["prompt"], "-n", str(len(wanted)), "--json", *how]
        precise = json.loads(expect(0, [*args, "--precise"]))
        check(precise["prompt_ids"] == case["ids"], f"{case['prompt']}: other prompt tokens: {precise['prompt_ids']}")
        # The token that ended the answer is not part of it.
        answer = wanted[:-1] if precise["finish"] == "end of text" else wanted
        check(precise["ids"] == answer, f"greedy text differs:\n  {precise['text']}\n  {case['greedy_text']}")
        # With 8-bit activations a near tie may fall the other way; up to the first one the text is the same.
        sure = next((i for i, lead in enumerate(case["leads"]) if lead < 0.5), len(answer))
        rounded = json.loads(expect(0, args))
        check(rounded["ids"][:sure] == answer[:sure], f"{case['prompt']}: the first {sure} tokens differ: {rounded['text']}")
    text = golden["cases"][0]["prompt"]
    said = expect(0, ["run", "-p", text, "-n", "8"])
    check(len(said.strip()) > 0 and re.search(r"[a-z]", said), "no text")
    quiet = aprctl("run", "-p", text, "-n", "8", "-q")
    check(quiet[2] == "", f"--quiet wrote to stderr: {quiet[2]}")
    piped = aprctl("run", "-q", "-n", "8", stdin=text.encode())
    check(piped[1] == quiet[1], "a prompt from standard input gives another text")
    stopped = json.loads(expect(0, ["run", "-p", text, "-n", "64", "--stop", ".", "--json"]))
    check("." not in stopped["text"], "--stop did not stop")
    chat = aprctl("run", "--chat", "-q", "-n", "32", "-p", "Who keeps the light?")
    check(chat[0] == 0 and chat[1].strip() != "", f"no answer in a chat: {chat}")


def quantize():
    """Quantised files: types, fallbacks, provenance, and that no failure leaves a file."""
    folder = folder_or_skip("APR_TEST_GOLDEN")
    model = os.path.join(folder, "tiny-F16.gguf")
    with tempfile.TemporaryDirectory() as scratch:
        out = os.path.join(scratch, "out.gguf")
        made = json.loads(expect(0, ["quantize", model, out, "--type", "Q4_K_M", "--json"]))
        peer = json.loads(expect(0, ["inspect", os.path.join(folder, "tiny-Q4_K_M.gguf"), "--json"]))
        mine = json.loads(expect(0, ["inspect", out, "--json", "--sha256"]))
        check(mine["sha256"] == made["sha256"], "the reported sha256 is not the file's")
        check(mine["metadata"]["general.file_type"] == 15, "general.file_type is not Q4_K_M")
        check(mine["metadata"]["apr.quantize.source_sha256"] == made["input_sha256"], "the source's hash is not recorded")
        kinds = {t["format"] for t in mine["tensors"]}
        check(kinds == {t["format"] for t in peer["tensors"]}, f"a Q4_K_M has {kinds}")
        check(0.02 < made["relative_error"] < 0.1, f"relative error {made['relative_error']}")
        one = json.loads(expect(0, ["quantize", model, out, "--type", "q4_k_m", "--json", "-t", "1"]))
        check(one["sha256"] == made["sha256"], "one thread writes another file than several")
        expect(0, ["run", out, "-p", "t300t301", "-n", "4"])
        expect(1, ["quantize", out, out + "2", "--type", "q8_0"], "quantised already", "--requantize")
        expect(0, ["quantize", out, out + "2", "--type", "q8_0", "--requantize"], "quantised already")
        os.remove(out + "2")
        rules = os.path.join(scratch, "rules.toml")
        with open(rules, "w") as f:
            f.write('[[rule]]\nmatch = "ffn_down"\ntype = "q8_0"\n[[rule]]\nmatch = "nothing"\ntype = "f16"\n')
        own = json.loads(expect(0, ["quantize", model, "--dry-run", "--type", "q4_k", "--rules", rules, "--json"]))
        check(all(t["to"] == "q8_0" for t in own["tensors"] if "ffn_down" in t["name"]), "--rules did not decide")
        check(own["unmatched_rules"] == ["rules.toml:4"], f"unmatched rules: {own['unmatched_rules']}")
        expect(2, ["quantize", model, out, "--type", "q9_z"], "q9_z", "q4_k_m")
        expect(2, ["quantize", model, out], "--type")
        expect(2, ["quantize", model, model, "--type", "q8_0"], "is the model itself")
        expect(1, ["quantize", model, "/dev/full", "--type", "q8_0"], "/dev/full")
        expect(1, ["quantize", model, "/no/such/folder/x.gguf", "--type", "q8_0"], "/no/such/folder/x.gguf")
        expect(0, ["quantize", "--list"], "q4_k_m", "iq4_xs")
        check(sorted(os.listdir(scratch)) == ["out.gguf", "rules.toml"], f"left behind: {os.listdir(scratch)}")


def evaluate():
    models = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "models")
    q4, f16 = (os.path.join(models, f"skerry-7m-{t}.gguf") for t in ("q4_k_m", "f16"))
    text = os.path.join(models, "heldout.txt")
    with tempfile.TemporaryDirectory() as scratch:
        place = {"XDG_CACHE_HOME": scratch}
        path = lambda name: os.path.join(scratch, name)

        def figures(*args, code=0):
            return json.loads(expect(code, ["eval", *args, "--text", text, "--json"], env=place))

        few = ["--ctx", "128", "--windows", "6"]
        alone = figures(q4, *few)
        live = figures(q4, *few, "--reference", f16)
        check(alone["predictions"] == 6 * 63, f"predictions: {alone['predictions']}")
        check(1.0 < alone["perplexity"]["value"] < 2 and alone["perplexity"]["error"] > 0, f"perplexity {alone['perplexity']}")
        check(live["perplexity"] == alone["perplexity"], "a reference changes the perplexity")
        kl = live["kl_divergence"]
        check(0 < kl["mean"]["value"] < 1e-3 and kl["median"]["value"] < kl["p90"]["value"] < kl["p99"]["value"] <= kl["max"]["value"], f"kl {kl}")
        check(live["top1_agreement"]["value"] > 0.9, f"top-1 {live['top1_agreement']}")
        # Windows side by side in a step compute the same as one by one.
        wide = figures(q4, *few, "--batch", "2048")
        check(abs(wide["nll"]["value"] - alone["nll"]["value"]) < 1e-6, "the batch changes the result")
        itself = figures(f16, *few, "--reference", f16)
        check(itself["kl_divergence"]["max"]["value"] == 0 and itself["top1_agreement"]["value"] == 1, "a model differs from itself")
        # Kept log-probabilities stand for the model.
        kept = path("f16.logp")
        expect(0, ["eval", f16, "--text", text, *few, "--save-reference", kept], env=place)
        saved = figures(q4, *few, "--reference", kept)
        for figure in ("perplexity", "kl_divergence", "top1_agreement", "dp_rms"):
            check(saved[figure] == live[figure], f"{figure} of kept log-probabilities: {saved[figure]}, {live[figure]}")
        expect(2, ["eval", q4, "--text", text, "--ctx", "64", "--windows", "6", "--reference", kept], "--ctx 128", env=place)
        expect(2, ["eval", q4, "--text", text, "--ctx", "128", "--windows", "7", "--reference", kept], "6 windows", env=place)
        with open(kept, "r+b") as f:
            f.truncate(os.path.getsize(kept) - 100)
        expect(1, ["eval", q4, "--text", text, *few, "--reference", kept], kept, "cut off", env=place)

        # The command's figures against the definitions, from logits of `aprctl logits`.
        ids = [int(i) for i in expect(0, ["tokenize", "-m", f16, "--ids", "-f", text]).replace(",", " ").split()][:33]
        rows = {}
        for name, model in (("p", q4), ("q", f16)):
            expect(0, ["logits", "-m", model, "--ids", ",".join(map(str, ids)), "--out", path(name)])
            with open(path(name), "rb") as f:
                flat = array.array("f", f.read())
            width = len(flat) // len(ids)
            rows[name] = []
            for i in range(16, 32):
                row = flat[i * width:(i + 1) * width]
                norm = math.log(math.fsum(map(math.exp, row)))
                rows[name].append([x - norm for x in row])
        nll = [-row[ids[i + 17]] for i, row in enumerate(rows["p"])]
        kls = [math.fsum(math.exp(b) * (b - a) for a, b in zip(x, y)) for x, y in zip(rows["p"], rows["q"])]
        small = figures(q4, "--ctx", "33", "--windows", "1", "--reference", f16)
        check(small["predictions"] == len(nll), f"{small['predictions']} predictions, {len(nll)} by definition")
        check(abs(small["nll"]["value"] - sum(nll) / len(nll)) < 1e-5, f"nll {small['nll']}, {sum(nll) / len(nll)} by definition")
        check(abs(small["kl_divergence"]["mean"]["value"] - sum(kls) / len(kls)) < 1e-6, f"kl {small['kl_divergence']}, {sum(kls) / len(kls)} by definition")

        # Interrupted by Ctrl-C or killed: the same command continues, to the same figures.
        slow = ["eval", q4, "--text", text, "--ctx", "256", "--windows", "24", "--reference", f16, "--json"]
        whole = json.loads(expect(0, slow, env=place))
        clean = {k: v for k, v in os.environ.items() if not k.startswith("APR_")} | place
        for ending, code, message in ((signal.SIGINT, 1, b"the same command continues"), (signal.SIGKILL, -signal.SIGKILL, b"")):
            state = path(f"own.{ending}")
            running = subprocess.Popen([APRCTL, *slow, "--state", state], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean)
            until = time.monotonic() + 60
            while not os.path.exists(state) and running.poll() is None and time.monotonic() < until:
                time.sleep(0.01)
            running.send_signal(ending)
            _, err = running.communicate(timeout=60)
            check(running.returncode == code and message in err, f"signal {ending}: exit {running.returncode}, {err}")
            expect(1, [*slow[:-1], "--state", state, "--precise"], "another evaluation", env=place)
            again = json.loads(expect(0, [*slow, "--state", state], env=place))
            check(0 < again["windows"]["resumed_at"] < 24, f"resumed at {again['windows']['resumed_at']}")
            for figure in ("perplexity", "kl_divergence", "top1_agreement", "dp_rms"):
                check(again[figure] == whole[figure], f"{figure} after an interruption: {again[figure]}, {whole[figure]}")
            check(not os.path.exists(state), "the state is left behind")
        check(os.listdir(os.path.join(scratch, "apr", "eval")) == [], "states are left in the cache folder")

        picture = path("plot.svg")
        compare = ["eval", "--compare", f16, q4, "--reference", f16, "--text", text, *few, "--plot", picture]
        table = expect(0, [*compare, "-r", "0"], "skerry-7m-q4_k_m", "4.954", "16.010", env=place)
        check(all(len(row) <= 80 for row in table.split("\n")), f"the table is wider than 80 columns\n{table}")
        with open(picture) as f:
            svg = f.read()
        check("skerry-7m-q4_k_m" in svg and "bits per weight" in svg and "not drawn: skerry-7m-f16 (0)" in svg, f"the plot: {svg}")
        both = json.loads(expect(0, [*compare, "-r", "1", "--json"], env=place))
        check([m["kl_divergence"] for m in both] == [itself["kl_divergence"], kl], "--compare has other figures than one by one")
        check(all(m["pp512"]["avg_ts"] > 0 and m["tg128"]["avg_ts"] > 0 for m in both), "--compare measured no speed")
        expect(2, ["eval", q4, "--text", text, "--plot", picture], "--compare")
        expect(2, ["eval", "-m", q4, "--compare", q4, "--text", text], "--compare")
        check(os.listdir(os.path.join(scratch, "apr", "eval")) == [], "--compare leaves states in the cache folder")

        empty, short = path("empty.txt"), path("short.txt")
        open(empty, "w").close()
        with open(short, "w") as f:
            f.write("The lighthouse keeper")
        expect(2, ["eval", q4], "--text is missing")
        expect(1, ["eval", q4, "--text", path("none.txt")], "none.txt", "No such file")
        expect(1, ["eval", q4, "--text", scratch], "is a directory")
        expect(1, ["eval", q4, "--text", empty], "empty.txt", "is empty")
        expect(1, ["eval", q4, "--text", short], "short.txt", "a window takes 512")
        expect(1, ["eval", path("none.gguf"), "--text", text], "none.gguf")
        expect(1, ["eval", q4, "--text", text, "--reference", path("none.gguf")], "none.gguf")
        expect(2, ["eval", q4, "--text", text, "--stride", "600"], "stride of 600")
        expect(2, ["eval", q4, "--text", text, "--skip", "511"], "511")
        expect(2, ["eval", q4, "--text", text, "--ctx", "1"], "predicts nothing")
        expect(2, ["eval", q4, "--text", text, "--windows", "0"], "0 windows")
        expect(2, ["eval", q4, "--text", text, "--reference", f16, "--save-reference", kept], "--save-reference")
        expect(1, ["eval", q4, "--text", text, *few, "--save-reference", "/no/such/folder/x"], "/no/such/folder/x", env=place)
        expect(1, ["eval", q4, "--text", text, *few, "--state", "/no/such/folder/x"], "/no/such/folder/x", env=place)
        vocab = os.environ.get("APR_TEST_GOLDEN")
        if vocab:
            other = os.path.join(vocab, "tiny-F16.gguf")
            expect(1, ["eval", q4, "--text", text, "--reference", other], "different vocabularies", q4, other, env=place)


def fp8():
    """8-bit floats are checked when they are loaded: what is damaged is named, and the probe leaves the check out."""
    with tempfile.TemporaryDirectory() as scratch:
        path = os.path.join(scratch, "f8.gguf")
        expect(0, ["quantize", SHIPPED_MODEL, path, "--type", "f8_e4m3", "--requantize"])
        tensors = json.loads(expect(0, ["inspect", path, "--json"]))["tensors"]
        floats = [t for t in tensors if t["format"] == "f8_e4m3"]
        step = ["bench", path, "-p", "4", "-n", "2", "-r", "1", "--json"]

        def warm_up(**how):
            return json.loads(expect(0, step, **how))[0]["fp8_warm_up"]

        done = warm_up()
        check(done["tensors"] == len(floats) and done["bytes"] == sum(t["bytes"] for t in floats), f"fp8_warm_up: {done}")
        check(not done["skipped"] and done["seconds"] > 0, f"fp8_warm_up: {done}")
        expect(0, ["run", path, "-p", "The", "-n", "1"], f"8-bit floats: {len(floats)} tensors", "checked in")
        skip = {"APR_SKIP_FP8_WARMUP": "1"}
        left_out = warm_up(env=skip)
        check(left_out["skipped"] and left_out["seconds"] == 0 and left_out["tensors"] == len(floats), f"skipped: {left_out}")
        none = json.loads(expect(0, ["bench", "-p", "4", "-n", "2", "-r", "1", "--json"]))[0]["fp8_warm_up"]
        check(none["tensors"] == 0 and not none["skipped"], f"a model without 8-bit floats: {none}")

        last = tensors[-1]
        check(last["format"] == "f8_e4m3", f"the last tensor is {last}")
        row, block = last["k"] // 128 * 132, 132
        for byte, value, what in ((5 * row + block + 7, b"\x7f", "row 5 block 1 decodes to NaN or infinity at column 135"),
                                  (9 * row + 131, b"\xbf", "row 9 block 0: its scale is negative")):
            with open(path, "r+b") as f:
                at = os.path.getsize(path) - (last["bytes"] + 31) // 32 * 32 + byte
                f.seek(at)
                was = f.read(1)
                f.seek(at)
                f.write(value)
            expect(1, ["run", path, "-p", "The", "-n", "1"], f"tensor '{last['name']}' is damaged", what, "APR_SKIP_FP8_WARMUP")
            code, out, err = aprctl("run", path, "-p", "The", "-n", "1", env=skip)
            check("is damaged" not in err and "not checked" in err, f"with the probe: exit {code}\n{out}{err}")
            with open(path, "r+b") as f:
                f.seek(at)
                f.write(was)
        expect(0, ["run", path, "-p", "The", "-n", "1"])


{"commands": commands, "cuda": cuda, "fp8": fp8, "quantize": quantize, "eval": evaluate, "kernels": kernels, "golden": golden, "vocab": vocab, "shipped": shipped}[sys.argv[1]]()
print("failures:", failures)
sys.exit(1 if failures else 0)
