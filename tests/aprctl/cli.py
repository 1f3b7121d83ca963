"""The program as its users meet it: commands, exit codes, messages, and figures on stdout.

usage: cli.py SUITE     commands | logits | columns | cuda | kernels | golden | vocab | shipped
APRCTL is the program; APR_TEST_GOLDEN and APR_TEST_VOCAB are the folders of golden models and vocabularies.
Exits with 77 when what a suite needs is not there.
"""
import array
import json
import os
import re
import struct
import subprocess
import sys
import tempfile

from calls import APRCTL, SHIPPED_MODEL, aprctl, check, expect, folder_or_skip, main, narrow


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
    # Boost would read -1 as the largest number.
    for args in (["run", "-p", "x", "-n", "-1"], ["run", "-p", "x", "--ctx=-5"], ["bench", "-r", "-2"], ["run", "-p", "x", "--seed", "-1"]):
        expect(2, args, "must not be negative", "--help")
    expect(2, ["run", "-p", "x", "--stop", ""], "stop string is empty")
    expect(1, ["run", "-p", "x y z", "--ctx", "2"], "tokens do not fit a context of 2; raise it with --ctx")
    check("resolved" not in aprctl("run", "-p", "x", "--stop", "")[2], "run --stop '' loads the model before it refuses")
    expect(2, ["bench", "-d", "4000000000", "-p", "4000000000"], "4000000000")
    expect(2, ["kernels", "explain", "--arch", "sm_90a"], "--arch sm_90a", "backend cpu")
    expect(1, ["run", "-p", "x", "--ctx", "4000000000"], "backend cpu: a context of 4000000000 positions; 1 to ")
    check(any(r["name"] == "q4_k_m" for r in json.loads(expect(0, ["quantize", "--list", "--json"]))["recipes"]), "q4_k_m is not in quantize --list --json")
    check(json.loads(expect(0, ["plugins", "info", "cpu", "--json"]))["backends"][0]["devices"], "the CPU is no device")
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


def logits():
    """Which ids are ids, and where the result may go."""
    with tempfile.TemporaryDirectory() as scratch:
        out = os.path.join(scratch, "out.f32")
        for ids in ("1,300,301", "1, 300 ,301,", " 1 300\n301\n"):
            made = json.loads(expect(0, ["logits", "--ids", ids, "--out", out, "--json"]))
            check(made["ids"] == [1, 300, 301], f"--ids '{ids}' is {made['ids']}")
        for ids in ("", " ", ",1", "1,,2", "1;2", "1x", "-1", "2048", "99999999999"):
            expect(2, ["logits", "--ids", ids, "--out", out], "--ids")
        # A rename onto a device or a pipe would put a file in its place.
        pipe = os.path.join(scratch, "pipe")
        os.mkfifo(pipe)
        expect(1, ["logits", "--ids", "1", "--out", pipe], pipe, "no regular file")
        expect(1, ["logits", "--ids", "1", "--out", scratch], scratch, "directory")
        check(sorted(os.listdir(scratch)) == ["out.f32", "pipe"], f"left behind: {os.listdir(scratch)}")


def with_long_names(path):
    """A file with a key and a tensor whose names are long, and values that are, too."""
    text = lambda value: struct.pack("<Q", len(value)) + value.encode()
    keys = {"general.architecture": "llama", "general.name": "a name of many words " * 6, "general.license": "other " * 20,
            "a." + "long" * 15: "short", "a.words": "one word after the other " * 9, "a.word": "w" * 150}
    with open(path, "wb") as f:
        f.write(struct.pack("<4sIQQ", b"GGUF", 3, 1, len(keys)))
        for key, value in keys.items():
            f.write(text(key) + struct.pack("<I", 8) + text(value))
        f.write(text("blk.0." + "gated_" * 8 + "projection.weight") + struct.pack("<IQQIQ", 2, 32, 4, 0, 0))
        f.write(b"\0" * (-f.tell() % 32) + struct.pack("<f", 1) * 128)


def even(text, what):
    """The paragraphs of a help text are wrapped once: no line ends though the next word would have fit."""
    usage, summary = text.split("\n\n", 1)
    summary = summary.split("\n\nexample:\n")[0]
    check(summary.strip() != "", f"{what} says nothing")
    lines = summary.split("\n")
    for line, following in zip(lines, lines[1:]):
        # A paragraph ends, and an item of a list begins.
        if line == "" or following == "" or re.match(r"  \S", following):
            continue
        check(len(line) + 1 + len(following.split()[0]) > 80, f"{what}: a ragged line: {line}")
    for line in text.split("\n"):
        check(line == line.rstrip(), f"{what}: spaces at the end: {line}")


def columns():
    """What people read fits 80 columns, whatever the names in a model are."""
    with tempfile.TemporaryDirectory() as scratch:
        long, other = os.path.join(scratch, "long.gguf"), os.path.join(scratch, "other.gguf")
        for path in (long, other):
            with_long_names(path)
        with open(other, "r+b") as f:
            f.seek(-4, os.SEEK_END)
            f.write(struct.pack("<f", -1))
        os.chdir(scratch)
        shipped = os.path.relpath(SHIPPED_MODEL, scratch)
        for args in (["inspect", "long.gguf"], ["inspect", shipped, "--sha256"], ["diff", "long.gguf", "other.gguf"], ["diff", shipped, shipped, "--all"],
                     ["quantize", "long.gguf", "--dry-run", "--type", "q8_0"], ["quantize", "--list"], ["plugins"], ["plugins", "info", "quant-fp8"],
                     ["plugins", "info", "cpu"], ["kernels", "list"], ["kernels", "explain", shipped], ["bench", shipped, "-p", "8", "-n", "4", "-r", "1"],
                     ["parity", shipped, "--ids", "1,2,3"], ["probes"]):
            narrow(aprctl(*args)[1], " ".join(args))
    commands = re.findall(r"^  (\w+) ", expect(0, ["--help"]), re.M)
    check(len(commands) >= 16, f"commands: {commands}")
    for name in commands + ["plugins check", "plugins new"]:
        text = expect(0, [*name.split(), "--help"])
        narrow(text, name + " --help")
        even(text, name + " --help")


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
            # A vocabulary alone is no model, but its tokenizer can be judged.
            skip = [arg for gate in "load weights parity speed".split() for arg in ("--skip", gate)]
            report = json.loads(expect(4, ["qa", model, "--json", *skip]))
            gate = next(gate for gate in report["gates"] if gate["gate"] == "tokenizer")
            check(gate["verdict"] == "pass" and gate["value"] == 0, f"{name}: gate tokenizer: {gate}")


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


main({"commands": commands, "logits": logits, "columns": columns, "cuda": cuda, "kernels": kernels, "golden": golden, "vocab": vocab, "shipped": shipped})
