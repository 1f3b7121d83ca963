#!/usr/bin/env python3
"""Everything that needs a GPU, in one call: correctness first, then the sanitizer, then speed; a short table last.

usage: gpu_check.py BUNDLE --out DIR [--golden DIR] [--generate GEN_GGUF.PY] [--tests TEST_GPU] [--sanitize-tests S] [--models DIR] [--seconds N]

BUNDLE      what `./dev bundle` made
--golden    golden models with their float64 logits (APR_TEST_GOLDEN of the tests)
--generate  script that writes a GGUF of a published shape with random weights; without it nothing is timed
--tests     the test_gpu program of the build
--sanitize-tests S  run each of their cases under every tool of compute-sanitizer too, S seconds in all
--models    folder for the generated models, which stay there and are used again
--seconds   stop starting new steps after this long

Exit 0: every check passed; 1: one failed. Figures and logs are in DIR; the models go to a temporary folder.
"""
import argparse
import array
import concurrent.futures
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

import gpu_sanitize

START = time.time()
GOLDEN_IDS = "1,300,301,302,5,77,410,411,259,500,12,13,14,15,400,399,398,397,396,395,260,261,262,263"
# NMSE of llama.cpp v0.5.0 on its CPU against the float64 logits.
PEER_NMSE = {"tiny-F32": 3.5e-07, "tiny-F16": 5.7e-07, "tiny-BF16": 1.3e-05, "tiny-Q8_0": 1.1e-04, "tiny-Q4_0": 5.5e-06,
             "tiny-Q4_1": 1.3e-04, "tiny-Q5_0": 1.3e-04, "tiny-Q5_1": 1.3e-04, "tiny-Q4_K": 2.9e-04, "tiny-Q5_K": 3.4e-04,
             "tiny-Q6_K": 2.6e-04, "tiny-Q4_K_M": 2.8e-04, "tiny-qwen2": 2.5e-04, "tiny-qwen3": 3.1e-04}
# Shape, type, vocabulary; least tok/s asked of a prompt of 512 tokens and of 128 decoded ones on one H200.
MODELS = [("qwen2.5-7b", "Q4_K_M", 152064, 6615, 500), ("qwen2.5-7b", "Q8_0", 152064, 7819, 414),
          ("qwen2.5-1.5b", "Q4_K_M", 151936, 17472, 922), ("qwen2.5-1.5b", "F16", 151936, 31710, 704),
          ("qwen2.5-1.5b", "F32", 151936, 29778, 624), ("qwen2.5-0.5b", "Q4_K_M", 151936, 29722, 1451)]
rows, failed = [], 0


def row(what, ok, detail):
    global failed
    failed += not ok
    rows.append(f"{'ok' if ok else 'FAILED':<7} {what:<26} {detail}")
    print(f"[{time.time() - START:5.0f} s] {rows[-1]}", flush=True)


class Program:
    def __init__(self, bundle, out):
        self.bundle, self.out, self.calls = bundle, out, 0

    def __call__(self, *args, bundle=None, env=None, timeout=120, wrap=()):
        """(exit code, stdout, stderr) of one aprctl; its output is kept."""
        self.calls += 1
        full = {k: v for k, v in os.environ.items() if not k.startswith("APR_")} | (env or {})
        try:
            done = subprocess.run([*wrap, os.path.join(bundle or self.bundle, "bin/aprctl"), *args], capture_output=True, env=full,
                                  timeout=timeout)
            code, out, err = done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")
        except subprocess.TimeoutExpired as late:
            code, out, err = 124, (late.stdout or b"").decode("utf-8", "replace"), (late.stderr or b"").decode("utf-8", "replace")
        with open(os.path.join(self.out, "log.txt"), "a") as log:
            log.write(f"$ aprctl {' '.join(args)}   [{env or ''}]   exit {code}\n{err}{out if len(out) < 4000 else out[:4000]}\n")
        return code, out, err


def floats(path):
    values = array.array("f")
    with open(path, "rb") as f:
        values.frombytes(f.read())
    return values


def nmse(a, b):
    return sum((x - y) ** 2 for x, y in zip(a, b)) / sum(y * y for y in b) if len(a) == len(b) else float("inf")


def golden(aprctl, folder, scratch):
    for name, bound in PEER_NMSE.items():
        if not os.path.exists(os.path.join(folder, name + ".gguf")):
            continue
        model = os.path.join(folder, name + ".gguf")
        reference = floats(os.path.join(folder, name + ".logits.f32"))
        found = {}
        for form, extra, env in (("batch", [], {}), ("graph", ["--single"], {}), ("eager", ["--single"], {"APR_NO_GRAPH": "1"})):
            out = os.path.join(scratch, f"{name}.{form}")
            code, _, err = aprctl("logits", "-m", model, "--ids", GOLDEN_IDS, "--out", out, "--backend", "cuda", *extra, env=env)
            if code != 0:
                row("golden " + name, False, f"{form}: exit {code}: {err.strip().splitlines()[-1:]}")
                break
            found[form] = floats(out)
        else:
            batch, single = nmse(found["batch"], reference), nmse(found["graph"], reference)
            same = found["graph"].tobytes() == found["eager"].tobytes()
            row("golden " + name, batch <= bound and single <= bound and same,
                f"NMSE batch {batch:.1e}, single {single:.1e}, bound {bound:.1e}; graph {'=' if same else '!='} eager")


def cache(aprctl, scratch):
    folder = os.path.join(scratch, "kernels")
    env = {"APR_KERNEL_CACHE": folder, "APR_SKIP_PARITY_GATE": "1"}
    call = ["run", "-p", "The lighthouse keeper", "-n", "24", "--backend", "cuda", "--json"]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(lambda _: aprctl(*call, env=env), range(8)))
    good = [json.loads(out) for code, out, _ in runs if code == 0]
    compiled = sum(r["kernels_compiled"] for r in good)
    entries = len(json.loads(aprctl("cache", "list", "--json", env=env)[1])["entries"])
    same = len({r["text"] for r in good}) == 1
    row("eight at once", len(good) == 8 and compiled == entries and same,
        f"{len(good)} of 8 ran, {compiled} compilations for {entries} kernels")
    text = good[0]["text"] if good else ""
    warm = json.loads(aprctl(*call, env=env)[1] or "{}")
    row("warm start", warm.get("kernels_compiled") == 0 and warm.get("text") == text,
        f"{warm.get('kernels_compiled')} compiled, load {warm.get('load_seconds', 0):.2f} s")
    cubins = [os.path.join(d, f) for d, _, fs in os.walk(folder) for f in fs if f.endswith(".cubin")]
    for i, path in enumerate(cubins[:6]):
        with open(path, "r+b") as f:
            if i % 2:
                f.truncate(os.path.getsize(path) // 2)
            else:
                f.seek(100)
                f.write(b"rubbish" * 20)
    code, out, err = aprctl(*call, env=env)
    again = json.loads(out or "{}")
    row("damaged cache", code == 0 and again.get("text") == text and again.get("kernels_compiled") == 6 and "damage" in err.lower(),
        f"{again.get('kernels_compiled')} rebuilt of 6 damaged; said: {'damage' in err.lower()}")
    nowhere = {"APR_KERNEL_CACHE": "/proc/apr-cannot-write-here", "APR_SKIP_PARITY_GATE": "1"}
    code, out, err = aprctl(*call, env=nowhere)
    said = [line for line in err.splitlines() if "/proc/apr-cannot" in line and "APR_KERNEL_CACHE=" not in line]
    row("cache not writable", code == 0 and json.loads(out or "{}").get("text") == text and len(said) == 1, f"said {len(said)} time(s)")


def gate(aprctl, scratch):
    home = {"XDG_CACHE_HOME": os.path.join(scratch, "home")}
    call = ["run", "-p", "The lighthouse keeper", "-n", "40", "--backend", "cuda"]
    code, out, err = aprctl(*call, env=home)
    row("gate", code == 0 and "gate: pass" in err, out.strip().replace("\n", " ")[:70])
    code, _, err = aprctl(*call, env=home)
    row("gate receipt", code == 0 and "receipt" in err, "a pass is not repeated" if "receipt" in err else err[-200:])
    # Planted: heads are rotated the wrong way round. Right at position 0, wrong after it.
    faulty = os.path.join(scratch, "faulty")
    shutil.copytree(aprctl.bundle, faulty, symlinks=True)
    path = os.path.join(faulty, "share/apr/ptx-templates/tile_rope.h")
    with open(path) as f:
        text = f.read()
    wrong = text.replace("s = angles.sine[n]", "s = -angles.sine[n]")
    with open(path, "w") as f:
        f.write(wrong)
    code, _, err = aprctl(*call, env=home, bundle=faulty)
    row("gate, planted fault", code == 4 and wrong != text, f"exit {code}: " + (err.strip().splitlines() or [""])[0][:60])


def suite(tests, env, out, seconds):
    """The gpu suite under every sanitizer; kernels come from the cache that the plain run filled."""
    try:
        for tool, ok, text in gpu_sanitize.sanitize(tests, env, os.path.join(out, "suite"), seconds):
            row(f"suite gpu, {tool}", ok, text)
    except RuntimeError as error:
        row("suite gpu, sanitizers", False, str(error))


def sanitizer(aprctl, golden_folder, scratch):
    tool = gpu_sanitize.find_sanitizer()
    if tool is None:
        row("compute-sanitizer", False, "not on this machine")
        return
    model = os.path.join(golden_folder, "tiny-Q4_K_M.gguf")

    def check(mode):
        args = ["logits", "-m", model, "--ids", GOLDEN_IDS, "--out", os.path.join(scratch, "s." + mode), "--backend", "cuda"]
        results = []
        for extra in ([], ["--single"]):
            code, out, err = aprctl(*args, *extra, wrap=[tool, "--tool", mode, "--error-exitcode", "9"], timeout=150)
            results.append((code, gpu_sanitize.summary_of(out + err)))
        return results

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for mode, results in zip(gpu_sanitize.TOOLS, pool.map(check, gpu_sanitize.TOOLS)):
            row(mode, all(code == 0 for code, _ in results), "; ".join(text for _, text in results))


def bench(aprctl, path, shape, qtype, least_pp, least_tg):
    name = f"{shape} {qtype}"
    code, out, err = aprctl("bench", "-m", path, "-p", "512", "-n", "128", "-r", "3", "--json", "--backend", "cuda", timeout=200)
    if code != 0:
        row(name, False, f"exit {code}: {(err.strip().splitlines() or [''])[-1][:100]}")
        return
    with open(os.path.join(aprctl.out, f"bench-{shape}-{qtype}.json"), "w") as f:
        f.write(out)
    pp, tg = json.loads(out)
    row(name, pp["avg_ts"] >= least_pp and tg["avg_ts"] >= least_tg,
        f"pp512 {pp['avg_ts']:7.0f} (>= {least_pp}) tg128 {tg['avg_ts']:6.1f} (>= {least_tg}), {100 * tg['share_of_peak']:.0f}% of "
        f"{tg['peak_gbs']:.0f} GB/s, gate {pp['parity_gate']}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle")
    parser.add_argument("--out", required=True)
    parser.add_argument("--golden")
    parser.add_argument("--generate")
    parser.add_argument("--tests")
    parser.add_argument("--models")
    parser.add_argument("--sanitize-tests", type=float, metavar="SECONDS")
    parser.add_argument("--seconds", type=float, default=3600)
    options = parser.parse_args()
    os.makedirs(options.out, exist_ok=True)
    aprctl = Program(os.path.abspath(options.bundle), options.out)
    scratch = tempfile.mkdtemp(prefix="apr-gpu-")
    time_left = lambda: options.seconds - (time.time() - START)
    making = {}
    if options.generate:
        for shape, qtype, vocab, _, _ in MODELS:
            path = os.path.join(options.models or scratch, f"{shape}-{qtype}.gguf")
            command = [sys.executable, options.generate, shape, qtype, f"placeholder:{vocab}", path]
            making[shape, qtype] = path, subprocess.Popen(["true"] if os.path.exists(path) else command, stderr=subprocess.DEVNULL)
    code, out, err = aprctl("plugins", "info", "cuda")
    row("device", code == 0 and "sm_" in out, " ".join((out + err).split())[-100:])

    if options.golden:
        golden(aprctl, options.golden, scratch)
    cache(aprctl, scratch)
    gate(aprctl, scratch)
    if options.tests and time_left() > 60:
        libraries = os.path.join(aprctl.bundle, "lib")
        env = os.environ | {"LD_LIBRARY_PATH": libraries, "APR_TEST_PLUGINS": os.path.join(libraries, "apr/plugins")}
        if options.golden:
            env["APR_TEST_GOLDEN"] = options.golden
        with open(os.path.join(options.out, "test_gpu.txt"), "w") as log:
            code = subprocess.run([options.tests], env=env, stdout=log, stderr=subprocess.STDOUT).returncode
        with open(os.path.join(options.out, "test_gpu.txt")) as log:
            row("suite gpu", code == 0, " ".join(log.read().split()[-18:]))
        if options.sanitize_tests:
            suite(options.tests, env, options.out, options.sanitize_tests)
    for shape, qtype, _, least_pp, least_tg in MODELS:
        if (shape, qtype) in making:
            path, process = making[shape, qtype]
            if time_left() < 25:
                row(f"{shape} {qtype}", False, "no time left")
                process.kill()
                continue
            process.wait()
            bench(aprctl, path, shape, qtype, least_pp, least_tg)
            if (shape, qtype) == ("qwen2.5-7b", "Q4_K_M") and time_left() > 30:
                for start in ("cold kernels", "warm"):
                    env = {"APR_KERNEL_CACHE": os.path.join(scratch, "start")}
                    _, out, _ = aprctl("run", path, "-p", "a", "-n", "2", "--json", "--backend", "cuda", env=env | {"APR_SKIP_PARITY_GATE": "1"})
                    report = json.loads(out or "{}")
                    first = report.get("timings", {}).get("start_to_first_token_ms", 1e9)
                    row(f"7B first token, {start}", first <= (2500 if start == "warm" else 8500),
                        f"{first:.0f} ms from program start; {report.get('kernels_compiled')} compiled in "
                        f"{report.get('compile_seconds', 0):.2f} s, weights {report.get('upload_seconds', 0):.2f} s")
            if not options.models:
                os.remove(path)
    if options.golden and time_left() > 60:
        sanitizer(aprctl, options.golden, scratch)

    shutil.rmtree(scratch, ignore_errors=True)
    table = "\n".join(rows)
    with open(os.path.join(options.out, "table.txt"), "w") as f:
        f.write(table + "\n")
    print(f"\n{table}\n{len(rows)} checks, {failed} failed, {time.time() - START:.0f} s")
    return 1 if failed else 0


sys.exit(main())
