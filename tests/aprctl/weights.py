"""Files of weights: written in other formats, judged, and checked when they are loaded.

usage: weights.py SUITE     quantize | eval | fp8
APRCTL is the program; APR_TEST_GOLDEN is the folder of golden models. Exits with 77 when what a suite needs is not there.
"""
import array
import json
import math
import os
import resource
import signal
import subprocess
import tempfile
import time

from calls import APRCTL, SHIPPED_MODEL, aprctl, check, expect, folder_or_skip, main


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
        limited = subprocess.run([APRCTL, "quantize", model, os.path.join(scratch, "big.gguf"), "--type", "q8_0"], capture_output=True, timeout=60,
                                 preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536)))
        check(limited.returncode == 1 and b"big.gguf" in limited.stderr, f"beyond the limit of file sizes: {limited.returncode}, {limited.stderr}")
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


main({"quantize": quantize, "eval": evaluate, "fp8": fp8})
