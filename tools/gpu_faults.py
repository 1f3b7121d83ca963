#!/usr/bin/env python3
"""Planted faults on a GPU: each in its own copy of the kernel templates; the gate must fail every one, and
`aprctl parity --bisect` must name the stage. A healthy control comes first and must pass.

usage: gpu_faults.py BUNDLE --golden DIR [--out DIR] [--only NAME,...] [--jobs N]
       gpu_faults.py --check TEMPLATES

BUNDLE    what `./dev bundle` made
--golden  the small golden models (APR_TEST_GOLDEN of the tests)
--out     folder for the reports and logs; a temporary one without it
--check   plants every fault in a copy of the folder of templates and runs nothing

A fault is an exact edit of a template's text. When the text to be edited is not there exactly as often as
expected, the script fails: a fault that was not planted proves nothing.

Exit 0: the control passed, and every fault was caught and named; 1: not; 2: usage, or a fault could not be
planted.
"""
import argparse
import concurrent.futures
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

START = time.time()
HERE = os.path.dirname(os.path.abspath(__file__))
PLANTED = os.path.join(HERE, "..", "tests", "gpu", "faults")


class Fault:
    """edits: (file, text, replacement, occurrences); files: templates replaced as a whole.
    stage: what --bisect must name; result: how ("stage" by itself, "fused group" where only a fused kernel has
    the fault); forms: of the step, in which that stage must fail; looks: pattern of what it must look like."""

    def __init__(self, name, model, stage, edits=(), files=(), result="stage", forms=("prefill", "mixed"), looks=""):
        self.name, self.model, self.stage, self.edits, self.files = name, model, stage, edits, files
        self.result, self.forms, self.looks = result, list(forms), looks


FAULTS = [
    Fault("W read transposed", "tiny-F32", "blk.0.attn_q", files=["gemv_float.cu"], forms=["mixed"], looks="transposed"),
    Fault("scale off by one block", "tiny-Q8_0", "blk.0.attn_q", forms=["mixed"], edits=[
        ("tile_gemv.h", "                                                          row * S::kBlocks + block);\n",
         "                                                          row * S::kBlocks + block);\n"
         "      constexpr int kLast = Segment::Layout::kPlanes - 1;\n"
         "      constexpr uint32_t kScale = Segment::Layout::kPlaneBytes[kLast];\n"
         "      if (kLast > 0 && row * S::kBlocks + block > 0) rows.at[r].p[kLast] -= kScale;\n", 1)]),
    Fault("sign of one nibble", "tiny-Q4_K", "blk.0.attn_q", forms=["mixed"], edits=[
        ("gemv_int.cu", "    Segment::Layout::decode(raw, chunk, out);\n",
         "    Segment::Layout::decode(raw, chunk, out);\n"
         "    if (chunk == 0) out.q[0][0] = (out.q[0][0] & 0xffffff00u) | ((0u - (out.q[0][0] & 255u)) & 255u);\n", 1)]),
    Fault("rope off by one position", "tiny-Q4_K_M", "blk.0.attn_q_rope", looks=r"off by \+1", edits=[
        ("tile_rope.h", "static_cast<double>(position) *", "static_cast<double>(position + 1) *", 1)]),
    Fault("rope off by one position, fused kernel", "tiny-Q4_K_M", "blk.0.attn_out", result="fused group", forms=["mixed"], looks=r"off by \+1", edits=[
        ("attention_decode.cu", "angles.set(args.inv_freq, position);", "angles.set(args.inv_freq, position + 1);", 1)]),
    Fault("uninitialised tail, GEMV", "tiny-Q4_K_M", "blk.0.attn_q", forms=["mixed"], edits=[
        ("tile_gemv.h", "part() == 0 && out_row < Segment::kN;", "part() == 0 && out_row < Segment::kN - 1;", 1)]),
    Fault("uninitialised tail, GEMM", "tiny-Q4_K_M", "blk.0.attn_q", forms=["prefill"], edits=[
        ("tile_gemm.h", "if (column >= Segment::kN) return;", "if (column >= Segment::kN - 1) return;", 1)]),
    Fault("stale KV slot", "tiny-Q4_K_M", "blk.0.attn_out", looks="KV slot 5", edits=[
        ("rope_kv.cu", "  RopeAngles<spec::kRopeKind, spec::kRopeDims> angles;\n",
         "  if (position == 5 && work >= spec::kHeads) return;\n"
         "  RopeAngles<spec::kRopeKind, spec::kRopeDims> angles;\n", 1)]),
    Fault("stale KV slot, fused kernel", "tiny-Q4_K_M", "blk.0.attn_out", result="fused group", forms=["mixed"], edits=[
        ("attention_decode.cu", "if (side == 0) out[d] = half;", "if (side == 0 && position != 13) out[d] = half;", 2)]),
    Fault("epsilon of another model", "tiny-Q4_K_M", "blk.0.attn_norm", looks="epsilon 1.0e-05 instead of 1.0e-06", edits=[
        ("rms_norm.cu", "+ args.eps)", "+ 1e-5f)", 2), ("gemv_int.cu", "+ args.eps)", "+ 1e-5f)", 1),
        ("gemv_float.cu", "+ args.eps)", "+ 1e-5f)", 1)]),
]


def plant(bundle, fault, folder):
    """A copy of the bundle with the fault in its templates. Other files are links: nobody writes them."""
    def link(source, target):
        try:
            os.link(source, target)
        except OSError:
            shutil.copy2(source, target)

    templates = os.path.join("share", "apr", "ptx-templates")
    shutil.copytree(bundle, folder, symlinks=True, copy_function=link, ignore=shutil.ignore_patterns("ptx-templates"))
    shutil.copytree(os.path.join(bundle, templates), os.path.join(folder, templates))
    spoil(os.path.join(folder, templates), fault)


def spoil(templates, fault):
    for name in fault.files:
        shutil.copyfile(os.path.join(PLANTED, name), os.path.join(templates, name))
    for name, text, replacement, occurrences in fault.edits:
        path = os.path.join(templates, name)
        with open(path) as f:
            content = f.read()
        if content.count(text) != occurrences:
            sys.exit(f"gpu_faults.py: '{fault.name}' cannot be planted: {name} has {content.count(text)} times instead of "
                     f"{occurrences} times the text\n{text}")
        with open(path, "w") as f:
            f.write(content.replace(text, replacement))


def aprctl(bundle, args, env, log):
    full = {k: v for k, v in os.environ.items() if not k.startswith("APR_")} | env
    try:
        done = subprocess.run([os.path.join(bundle, "bin", "aprctl"), *args], capture_output=True, env=full, timeout=150)
        code, out, err = done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")
    except subprocess.TimeoutExpired:
        code, out, err = 124, "", "timed out after 150 s"
    with open(log, "a") as f:
        f.write(f"$ aprctl {' '.join(args)}   exit {code}\n{err}{out}\n")
    return code, out, err


def slug(text):
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


class Trial:
    """One bundle, healthy or faulty: the gate before a first answer, and the bisection."""

    def __init__(self, bundle, model, home, log):
        env = {"XDG_CACHE_HOME": home, "APR_KERNEL_CACHE": os.path.join(os.path.dirname(home), "kernels")}
        # Golden vocabularies are placeholders: a token's text is its number.
        self.run, _, self.run_err = aprctl(bundle, ["run", model, "-p", "t300t301t302t77t410t411", "-n", "2", "--backend", "cuda"], env, log)
        self.parity, out, self.parity_err = aprctl(bundle, ["parity", "-m", model, "--backend", "cuda", "--bisect", "--json"], env, log)
        try:
            self.report = json.loads(out)
            self.device = self.report["bisect"][0]
        except (ValueError, KeyError, IndexError):
            self.report, self.device = None, None

    def passes(self):
        return (self.run, self.parity) == (0, 0) and self.report is not None and all(
            side["result"] == "nothing" for side in self.report["bisect"])

    def wrong(self, fault):
        """What is not as it must be; none: the fault was caught and named."""
        wrong = []
        if self.run != 4:
            wrong.append(f"run: exit {self.run}, not 4")
        if self.parity != 4:
            wrong.append(f"parity: exit {self.parity}, not 4")
        if self.device is None:
            return wrong + ["no report: " + (self.parity_err.strip().splitlines() or [""])[-1][:160]]
        for key, wanted in (("result", fault.result), ("stage", fault.stage), ("forms", fault.forms)):
            if self.device.get(key) != wanted:
                wrong.append(f"{key}: {self.device.get(key)}, not {wanted}")
        looks = self.device.get("verdict", {}).get("looks_like", "")
        if not re.search(fault.looks, looks):
            wrong.append(f"looks like: {looks}, not {fault.looks}")
        if not self.device.get("try_next"):
            wrong.append("no probe to try next")
        if self.report["bisect"][1]["result"] != "nothing":
            wrong.append("the reference is blamed too: " + self.report["bisect"][1]["text"])
        return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", nargs="?")
    parser.add_argument("--golden")
    parser.add_argument("--check", metavar="TEMPLATES")
    parser.add_argument("--out")
    parser.add_argument("--only", help="names of faults, or parts of them, separated by commas")
    parser.add_argument("--jobs", type=int, default=5, help="faults at once")
    options = parser.parse_args()
    if options.check:
        for fault in FAULTS:
            with tempfile.TemporaryDirectory() as scratch:
                spoil(shutil.copytree(options.check, os.path.join(scratch, "ptx-templates")), fault)
        print(f"{len(FAULTS)} faults can be planted")
        return
    if not options.bundle or not options.golden:
        parser.error("a bundle and --golden are needed")
    bundle = os.path.abspath(options.bundle)
    if not os.path.exists(os.path.join(bundle, "bin", "aprctl")):
        parser.error(f"{bundle} has no bin/aprctl; `./dev bundle` makes one")
    wanted = [part.strip() for part in (options.only or "").split(",")]
    faults = [f for f in FAULTS if any(part in f.name for part in wanted)]
    models = {f.model: os.path.join(options.golden, f.model + ".gguf") for f in faults}
    for path in models.values():
        if not os.path.exists(path):
            parser.error(f"there is no {path}")
    scratch = tempfile.mkdtemp(prefix="apr-faults-")
    out = options.out or os.path.join(scratch, "out")
    os.makedirs(out, exist_ok=True)
    bundles = {}
    for i, fault in enumerate(faults):
        bundles[i] = os.path.join(scratch, f"fault{i}")
        plant(bundle, fault, bundles[i])

    def trial(bundle, model, name):
        home = os.path.join(scratch, "home-" + name)
        os.makedirs(home, exist_ok=True)
        return Trial(bundle, models[model], home, os.path.join(out, name + ".log"))

    failed = 0
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for model, control in zip(models, pool.map(lambda m: trial(bundle, m, "control-" + m), models)):
            good = control.passes()
            failed += not good
            print(f"[{time.time() - START:3.0f} s] {'ok' if good else 'FAILED':<7} no fault, {model}: run exit {control.run}, parity exit "
                  f"{control.parity}" + ("" if good else f"\n        {control.run_err[-300:]}{control.parity_err[-300:]}"), flush=True)
        trials = pool.map(lambda i: trial(bundles[i], faults[i].model, f"{i:02}-" + slug(faults[i].name)), range(len(faults)))
        for fault, found in zip(faults, trials):
            wrong = found.wrong(fault)
            failed += bool(wrong)
            print(f"[{time.time() - START:3.0f} s] {'FAILED' if wrong else 'ok':<7} {fault.name} ({fault.model}, {fault.stage})", flush=True)
            if found.report:
                print(f"        gate: {found.report['fault']}; {found.device['text']}")
                print(f"        kernel: {(found.device.get('kernel') or '').split('; ')[0]}; try: {'; '.join(found.device.get('try_next', []))}")
            for line in wrong:
                print(f"        WRONG {line}")
    print(f"{len(faults)} faults and {len(models)} controls, {failed} not as they must be, {time.time() - START:.0f} s; logs in {out}")
    if not options.out and failed == 0:
        shutil.rmtree(scratch)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
