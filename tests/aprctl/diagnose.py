"""How faults are found: `qa`, `doctor`, probes in every JSON, stage dumps.

usage: diagnose.py SUITE     probes | qa | doctor
APRCTL is the program. Exits with 77 when what a suite needs is not there.
"""
import json
import os
import struct
import sys
import tempfile

from calls import DATA, SHIPPED_MODEL as MODEL, aprctl, check, expect, main, narrow


def probes():
    """Every command's JSON has the probes in force; unknown names are warned of; wrong values list the good ones."""
    with tempfile.TemporaryDirectory() as scratch:
        env = {"APR_CPU_ISA": "portable", "APR_KERNEL_CACHE": scratch + "/kernels", "XDG_STATE_HOME": scratch}
        wanted = {"APR_CPU_ISA": "portable", "APR_KERNEL_CACHE": scratch + "/kernels"}
        out = os.path.join(scratch, "out")
        for args in (["run", "-p", "x", "-n", "1"], ["logits", "--ids", "1,2", "--out", out], ["bench", "-p", "2", "-n", "2", "-r", "1", "-t", "1"],
                     ["inspect"], ["tokenize", "-p", "x"], ["parity", "--ids", "1,2,3", "-t", "1"], ["diff", MODEL, MODEL], ["kernels", "list"],
                     ["kernels", "explain"], ["kernels", "show", "--name", "blk.0.ffn_down"], ["plugins"], ["plugins", "info", "q8_0"],
                     ["plugins", "check", "q8_0", "--format", "q8_0"], ["cache"], ["cache", "verify"], ["cache", "clear"], ["probes"],
                     ["quantize", MODEL, "--type", "q8_0", "--dry-run", "--requantize"],
                     ["tune", "-o", out + ".toml", "--seconds", "1", "-r", "1", "--batch", "1", "--threads", "1"],
                     ["qa", "--list"], ["qa", "--min-share", "0", "-t", "1", "--skip", "parity", "--skip", "golden"], ["doctor"]):
            code, text, err = aprctl(*args, "--json", env=env)
            try:
                report = json.loads(text)
            except ValueError:
                check(False, f"aprctl {' '.join(args)} --json: exit {code}, no JSON: {text[:500]}{err}")
                continue
            for part in report if isinstance(report, list) else [report]:
                check(part.get("probes") == wanted, f"aprctl {' '.join(args)} --json: probes are {part.get('probes')}")
            check("probe APR_CPU_ISA=portable is set" in err, f"aprctl {' '.join(args)}: the probe is not announced")
            check(err.count("probe APR_CPU_ISA") == 1, f"aprctl {' '.join(args)}: announced {err.count('probe APR_CPU_ISA')} times")
        narrow(expect(0, ["probes"]), "probes")
        listed = json.loads(expect(0, ["probes", "--json"], "did you mean APR_NO_GRAPH", env={"APR_NO_GRAF": "1"}))
        check(listed["unknown"] == ["APR_NO_GRAF"] and listed["probes"] == {}, f"unknown probes: {listed['unknown']}")
        for args in (["inspect"], ["tokenize", "-p", "x"], ["plugins"], ["doctor"]):
            expect(0, args, "APR_NO_FUSIN", "did you mean APR_NO_FUSION", env={"APR_NO_FUSIN": "1"})
        run = ["run", "-p", "x", "-n", "1"]
        expect(2, run, "APR_NO_GRAPH=maybe", "1, true, on, yes or 0, false, off, no", env={"APR_NO_GRAPH": "maybe"})
        expect(2, run, "q9_z", "q8_0", "q4_k", env={"APR_FORCE_QTYPE": "ffn_down=q9_z"})
        expect(2, run, "q9_z", "q8_0", "q4_k", env={"APR_LM_HEAD_FORCE_QTYPE": "q9_z"})
        expect(1, run, "acme.nf4", "found are:", "q8_0", env={"APR_LM_HEAD_FORCE_QTYPE": "acme.nf4"})
        expect(2, run, "pattern 'ffn_dwn' matches no weight", env={"APR_FORCE_QTYPE": "ffn_dwn=q8_0"})
        # The shipped model's head is its embedding. Forcing the head leaves the embedding as it is, whichever way it is forced.
        stages = {}
        for name, probe in {"plain": {}, "head": {"APR_LM_HEAD_FORCE_QTYPE": "f32"}, "pattern": {"APR_FORCE_QTYPE": "output=f32"},
                            "all": {"APR_FORCE_QTYPE": "token_embd=f16"}}.items():
            folder = os.path.join(scratch, "dump-" + name)
            expect(0, ["logits", "--ids", "5,6,7", "--out", out, "--precise"], env={**probe, "APR_STAGE_DUMP": folder})
            found = {}
            for root, _, files in os.walk(folder):
                for file in files:
                    with open(os.path.join(root, file), "rb") as f:
                        header = json.loads(f.readline())
                        found[header["stage"]] = (header, f.read())
            stages[name] = found
        for name in ("head", "pattern"):
            for stage in ("embed", "output_norm"):
                check(stages[name][stage][1] == stages["plain"][stage][1], f"{name}: forcing the head changes {stage}")
        check(stages["head"]["logits"][1] == stages["pattern"]["logits"][1], "the head by its probe and by a pattern differ")
        check(stages["all"]["embed"][1] != stages["plain"]["embed"][1], "token_embd=f16 does not change the embedding")
        # What a dump says of itself.
        header = stages["plain"]["blk.0.attn_q"][0]
        sha256 = json.loads(expect(0, ["inspect", "--sha256", "--json"]))["sha256"]
        check(header["model"] == sha256, f"a dump names its model {header['model']}")
        check(header["dtype"] == "f32" and header["shape"] == [3, 256] and header["positions"] == [0, 1, 2] and header["backend"] == "cpu",
              f"a dump's header: {header}")
        plain = os.path.join(scratch, "dump-plain")
        expect(0, ["diff", plain, plain], "identical")
        other = os.path.join(scratch, "dump-other")
        expect(0, ["logits", "-m", os.path.join(DATA, "..", "models", "skerry-7m-f16.gguf"), "--ids", "5,6,7", "--out", out, "--precise"],
               env={"APR_STAGE_DUMP": other})
        diff = aprctl("diff", plain, other)
        check("different models" in diff[1] and "different models" in diff[2], f"diff of two models' dumps: {diff}")
        both = json.loads(aprctl("diff", plain, other, "--json")[1])
        check(both["models"]["same"] is False and both["models"]["a"] == sha256, f"diff --json of two models' dumps: {both['models']}")
        expect(0, ["parity", "--ids", "1,2,3"], "writes no dump", env={"APR_STAGE_DUMP": os.path.join(scratch, "none")})
        check(not os.path.exists(os.path.join(scratch, "none")), "parity made a dump's folder")


def qa():
    if not os.path.exists(MODEL):
        print("skipped: no model ships with this build")
        sys.exit(77)
    with open(MODEL, "rb") as f:
        content = f.read()
    with tempfile.TemporaryDirectory() as scratch:
        env = {"XDG_STATE_HOME": scratch + "/state"}
        # The machine may be busy: speed is not what is tested here, and two threads on one free core wait for each other.
        easy = ["--min-share", "0", "--regression", "0.95", "--threads", "1"]

        def judge(code, *args, **how):
            out = json.loads(expect(code, ["qa", *args, "--json"], env={**env, **how}))
            return out, {gate["gate"]: gate for gate in out["gates"]}

        first, gates = judge(0, *easy)
        check(first["verdict"] == "pass" and first["failed"] == 0, f"the shipped model fails: {first['reason']}")
        for name in ("header", "metadata", "tokenizer", "weights", "load", "golden", "parity", "isolation", "prefill", "speed"):
            check(gates[name]["verdict"] == "pass", f"gate {name} of the shipped model: {gates[name]}")
            check(gates[name]["seconds"] >= 0 and gates[name]["value"] is not None, f"gate {name} has no time or value: {gates[name]}")
        for name in ("graph", "formats", "regression", "cache"):
            check(gates[name]["verdict"] == "not-run" and gates[name]["text"], f"gate {name}: {gates[name]}")
        check(first["executed"] == 10 and first["not_run"] == 4, f"{first['executed']} executed")
        # The second time there is a last report; a claim that it was a thousand times faster is a regression.
        again, gates = judge(0, *easy, "--skip", "parity")
        check(gates["regression"]["verdict"] == "pass", f"regression against the last report: {gates['regression']}")
        check(gates["parity"]["verdict"] == "not-run" and gates["parity"]["text"] == "--skip", f"--skip: {gates['parity']}")
        report = os.path.join(scratch, "report.json")
        first["tokens_per_second"] *= 1000
        with open(report, "w") as f:
            json.dump(first, f)
        slow, gates = judge(4, *easy, "--skip", "parity", "--report", report)
        check(gates["regression"]["verdict"] == "fail" and slow["reason"] == "failed: regression", f"a regression: {gates['regression']}")
        first["speed_identity"] = "another"
        with open(report, "w") as f:
            json.dump(first, f)
        _, gates = judge(0, *easy, "--skip", "parity", "--report", report)
        check(gates["regression"]["verdict"] == "not-run" and "another model" in gates["regression"]["text"], f"{gates['regression']}")
        expect(1, ["qa", "--report", "/no/such/report"], "/no/such/report")
        expect(2, ["qa", "--skip", "golden-text"], "no gate 'golden-text'", "golden")
        expect(1, ["qa", "/no/such/model.gguf"], "/no/such/model.gguf")
        few, _ = judge(4, *easy, "--skip", "parity", "--min-executed", "14")
        check("14 were asked for" in few["reason"], f"--min-executed: {few['reason']}")
        text = expect(0, ["qa", *easy, "--skip", "parity"], "verdict: pass", "golden", env=env)
        narrow(text.split("\n", 1)[1], "qa")
        narrow(expect(0, ["qa", "--list"]), "qa --list")
        # A backend that was asked for and is not there is no pass.
        absent, gates = judge(4, "--backend", "quantum")
        check(gates["load"]["verdict"] == "fail" and gates["parity"]["verdict"] == "not-run", f"an absent backend: {gates['load']}")

        # Models broken on purpose: the right gate says so, and only it.
        def broken(name, data, *args):
            path = os.path.join(scratch, name)
            with open(path, "wb") as f:
                f.write(data)
            out, gates = judge(4, path, *easy, "--skip", "speed", *args)
            return {g for g in gates if gates[g]["verdict"] == "fail"}, gates

        def with_float(key, value):
            at = content.index(key.encode()) + len(key)
            assert struct.unpack_from("<I", content, at) == (6,)
            return content[:at + 4] + struct.pack("<f", value) + content[at + 8:]

        def with_uint(key, value):
            at = content.index(key.encode()) + len(key)
            assert struct.unpack_from("<I", content, at) == (4,)
            return content[:at + 4] + struct.pack("<I", value) + content[at + 8:]

        failed, gates = broken("eps.gguf", with_float("llama.attention.layer_norm_rms_epsilon", 0.01), "--skip", "parity")
        check(failed == {"metadata"} and "layer_norm_rms_epsilon is 0.01" in gates["metadata"]["text"], f"eps 0.01: {failed}")
        failed, gates = broken("base.gguf", with_float("llama.rope.freq_base", 3.0))
        check(failed == {"metadata"} and "freq_base is 3" in gates["metadata"]["text"], f"rope base 3: {failed}")
        failed, gates = broken("eos.gguf", with_uint("tokenizer.ggml.eos_token_id", 300))
        check(failed == {"metadata"} and "eos_token_id is 300" in gates["metadata"]["text"], f"eos 300: {failed} {gates['metadata']}")
        failed, gates = broken("heads.gguf", with_uint("llama.attention.head_count", 3))
        check({"header", "metadata"} <= failed, f"3 heads: {failed}")
        # A plausible epsilon of another model: what is recorded beside the file, and another file of the weights, tell.
        with open(MODEL[:-5] + ".golden.json") as f, open(os.path.join(scratch, "alike.golden.json"), "w") as g:
            g.write(f.read())
        failed, gates = broken("alike.gguf", with_float("llama.attention.layer_norm_rms_epsilon", 1e-6), "--other", MODEL)
        check(failed == {"golden", "formats"}, f"eps 1e-6: {failed}")
        check("layer_norm_rms_epsilon is 1e-06 here and 1e-05 there" in gates["formats"]["text"], f"{gates['formats']}")
        check("sha256" in gates["golden"]["text"], f"{gates['golden']}")
        # Tensors lie one after the other, each aligned to 32 bytes, up to the end of the file.
        tensors = json.loads(expect(0, ["inspect", MODEL, "--json"]))["tensors"]
        sizes = [(t["bytes"] + 31) // 32 * 32 for t in tensors]
        at = len(content) - sum(sizes)
        for tensor, size in zip(tensors, sizes):
            if tensor["name"] == "blk.3.attn_k.weight":
                break
            at += size
        check(tensor["format"] == "q4_k", f"blk.3.attn_k.weight is {tensor['format']}")
        nan = content[:at] + b"\x00\x7e" + content[at + 2:]  # the first block's d
        failed, gates = broken("nan.gguf", nan, "--skip", "parity")
        check("weights" in failed and "header" not in failed, f"a NaN: {failed}")
        check("blk.3.attn_k.weight" in gates["weights"]["details"][0], f"a NaN: {gates['weights']}")
        zero = content[:at] + bytes(tensor["bytes"]) + content[at + tensor["bytes"]:]
        failed, gates = broken("zero.gguf", zero, "--other", MODEL)
        check("formats" in failed and "blk.3.attn_k.weight" in gates["formats"]["text"], f"a tensor of zeros: {gates['formats']}")
        failed, gates = broken("cut.gguf", content[:-5000])
        check(failed == {"header"} and gates["parity"]["verdict"] == "not-run", f"a cut file: {failed}")
        failed, gates = broken("rubbish.gguf", b"PK\x03\x04" * 100)
        check(failed == {"header"}, f"no model: {failed}")
        # The same weights in two formats.
        source = os.path.join(DATA, "..", "models", "skerry-7m-f16.gguf")
        if os.path.exists(source):
            q8 = os.path.join(scratch, "q8.gguf")
            expect(0, ["quantize", source, q8, "--type", "q8_0"])
            for other in (q8, MODEL):
                _, gates = judge(0, source, "--other", other, *easy, *"--skip parity --skip tokenizer --skip speed".split())
                check(gates["formats"]["verdict"] == "pass", f"formats, {other}: {gates['formats']}")
                print(os.path.basename(other), gates["formats"]["value"], "bound", gates["formats"]["bound"])


def doctor():
    with tempfile.TemporaryDirectory() as scratch:
        env = {"XDG_CACHE_HOME": scratch, "XDG_DATA_HOME": scratch + "/data"}
        found = json.loads(expect(0, ["doctor", "--json"], env=env))
        check(found["cpu_usable"] is True, f"doctor: {found}")

        def finding(report, area, what):
            return next((f for f in report["findings"] if f["area"] == area and f["what"] == what), None)

        check(finding(found, "cpu", "bandwidth")["value"] > 0, "no bandwidth measured")
        check(finding(found, "cpu", "instruction sets")["level"] == "ok", f"instruction sets: {finding(found, 'cpu', 'instruction sets')}")
        check(finding(found, "model", "shipped")["level"] == "ok", f"shipped model: {finding(found, 'model', 'shipped')}")
        check(finding(found, "cache", "folder")["level"] == "ok", f"cache: {finding(found, 'cache', 'folder')}")
        narrow(expect(0, ["doctor"], "can run on the CPU", env=env), "doctor")
        unknown = json.loads(expect(0, ["doctor", "--json"], env={**env, "APR_NO_GRAF": "1"}))
        check(unknown["problems"] == found["problems"] + 1 and finding(unknown, "probes", "APR_NO_GRAF"), "an unknown probe is no finding")
        # A refused plugin and a cache that is a file are problems, and no reason not to run on the CPU.
        bad = os.path.join(scratch, "bad", "plug")
        os.makedirs(bad)
        with open(os.path.join(bad, "plugin.toml"), "w") as f:
            f.write("name = 3\n")
        os.chmod(os.path.join(scratch, "bad"), 0o755)
        os.chmod(bad, 0o755)
        os.chmod(os.path.join(bad, "plugin.toml"), 0o644)
        with open(os.path.join(scratch, "file"), "w"):
            pass
        report = json.loads(expect(0, ["doctor", "--json", "--plugin-path", os.path.join(scratch, "bad")],
                                   env={**env, "APR_KERNEL_CACHE": os.path.join(scratch, "file", "kernels")}))
        refused = finding(report, "plugins", "refused")
        check(refused and refused["level"] == "problem" and "plugin.toml" in refused["found"] and refused["advice"], f"a refused plugin: {refused}")
        folder = finding(report, "cache", "folder")
        check(folder["level"] == "problem" and "APR_KERNEL_CACHE" in folder["advice"], f"a cache below a file: {folder}")


main({"probes": probes, "qa": qa, "doctor": doctor})
