#!/usr/bin/env python3
"""Seven faults, each in a copy of one plugin (plant.py), on the CPU: the gate must fail every one, and
`aprctl parity --bisect` must name the stage. What judges a stage is the plan's definition of it in float64, with
weights from the format's `dequantize`. So a fault in a backend or in a format's kernels is the gate's to find;
one in the codec, from which dequantisation comes too, is `aprctl plugins check`'s. Both are tested.

Environment: APRCTL, and APR_TEST_FAULTY, the folder of libfaulty-NAME.so.
"""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

APRCTL, FAULTY = os.environ["APRCTL"], os.environ["APR_TEST_FAULTY"]
PLUGINS = os.path.join(os.path.dirname(APRCTL), "..", "plugins")
failures = 0


def check(good, what):
    global failures
    if not good:
        failures += 1
        print("FAILED:", what, flush=True)


def aprctl(args, env=None, program=APRCTL, scratch=None):
    full = {k: v for k, v in os.environ.items() if not k.startswith("APR_")} | (env or {}) | {"XDG_CACHE_HOME": scratch}
    done = subprocess.run([program, *args], capture_output=True, env=full, timeout=120)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def put_plugin(folder, fault, name, kind, provides):
    os.makedirs(folder)
    shutil.copy(os.path.join(FAULTY, f"libfaulty-{fault}.so"), folder)
    with open(os.path.join(folder, "plugin.toml"), "w") as f:
        f.write(f'name = "{name}"\nkind = "{kind}"\nabi = "1.0"\nversion = "0.1.0"\nprovides = ["{provides}"]\n'
                f'file = "libfaulty-{fault}.so"\n')


def without_plugin(folder, name):
    """A copy of the program among links to all plugins but one, so that another may take its place."""
    os.makedirs(os.path.join(folder, "bin", "plugins"))
    for plugin in os.listdir(PLUGINS):
        if plugin != name and os.path.exists(os.path.join(PLUGINS, plugin, "plugin.toml")):
            os.symlink(os.path.realpath(os.path.join(PLUGINS, plugin)), os.path.join(folder, "bin", "plugins", plugin))
    for data in ("models", "profiles"):
        os.symlink(os.path.realpath(os.path.join(os.path.dirname(APRCTL), "..", data)), os.path.join(folder, data))
    shutil.copy(APRCTL, os.path.join(folder, "bin", "aprctl"))
    return os.path.join(folder, "bin", "aprctl")


# Fault, stage, forms of the step in which that stage fails, what it looks like, environment.
BACKEND_FAULTS = [
    ("transposed", "blk.0.ffn_down", ["mixed"], "transposed", {"APR_FORCE_QTYPE": "blk.*.ffn_down=f32"}),
    ("rope", "blk.0.attn_q_rope", ["prefill", "mixed"], r"off by \+1", {}),
    ("tail", "blk.0.attn_residual", ["prefill", "mixed"], "column", {}),
    ("stale", "blk.0.attn_out", ["prefill", "mixed"], "KV slot 7", {}),
    ("epsilon", "blk.0.attn_norm", ["prefill", "mixed"], "epsilon 1.0e-06 instead of 1.0e-05", {}),
]
FORMAT_FAULTS = [
    ("scale", "blk.0.ffn_down", ["mixed"], "", {"APR_FORCE_QTYPE": "blk.*.ffn_down=q4_k"}),
    ("nibble", "blk.0.attn_q", ["prefill"], "", {}),
]


def judge(fault, code, out, err, stage, forms, looks):
    check(code == 4, f"{fault}: parity --bisect exits {code}: {err}")
    if code != 4:
        return None
    report = json.loads(out)
    found = report["bisect"][0]
    print(f"{fault:<12} gate: {report['fault']}; {found['text']}\n             kernel: {found.get('kernel')}\n             "
          f"try: {'; '.join(found.get('try_next', []))}", flush=True)
    check(report["verdict"] == "fail", f"{fault}: verdict {report['verdict']}")
    check(found["result"] == "stage" and found.get("stage") == stage, f"{fault}: {found['result']} {found.get('stage')}, not {stage}")
    check(found.get("forms") == forms, f"{fault}: forms {found.get('forms')}, not {forms}")
    check(re.search(looks, found.get("verdict", {}).get("looks_like", "")), f"{fault}: does not look like {looks}")
    check(found.get("try_next"), f"{fault}: no probe to try next")
    return report


def main():
    with tempfile.TemporaryDirectory() as scratch:
        code, out, err = aprctl(["parity", "--backend", "cpu", "--bisect", "--json"], scratch=scratch)
        check(code == 0 and all(side["result"] == "nothing" for side in json.loads(out)["bisect"]), f"no fault: exit {code}: {err}")
        for fault, stage, forms, looks, env in BACKEND_FAULTS:
            path = os.path.join(scratch, "plugins-" + fault)
            put_plugin(os.path.join(path, "it"), fault, f"backend-cpu-{fault}", "backend", f"cpu-{fault}")
            backend = ["--plugin-path", path, "--backend", "cpu-" + fault]
            report = judge(fault, *aprctl(["parity", *backend, "--bisect", "--json"], env, scratch=scratch), stage, forms, looks)
            check(report is None or report["bisect"][1]["result"] == "nothing", f"{fault}: the reference is blamed too")
            code, out, err = aprctl(["run", "-p", "The lighthouse", "-n", "2", *backend], env, scratch=scratch)
            check(code == 4 and out == "" and "parity gate failed" in err, f"{fault}: run exits {code} and writes {out!r}: {err}")
        program = without_plugin(os.path.join(scratch, "program"), "quant-q4k")
        for fault, stage, forms, looks, env in FORMAT_FAULTS:
            path = os.path.join(scratch, "plugins-" + fault)
            put_plugin(os.path.join(path, "it"), fault, "quant-q4k", "quant", "q4_k")
            call = ["parity", "--plugin-path", path, "--backend", "cpu", "--bisect", "--json"]
            judge(fault, *aprctl(call, env, program, scratch), stage, forms, looks)
            code, out, err = aprctl(["plugins", "check", os.path.join(path, "it")], program=program, scratch=scratch)
            check(code == 4, f"{fault}: plugins check exits {code}: {out}{err}")
        # In the definition itself: both sides agree, and conformance must tell.
        path = os.path.join(scratch, "plugins-codec")
        put_plugin(os.path.join(path, "it"), "codec", "quant-q4k", "quant", "q4_k")
        code, out, err = aprctl(["plugins", "check", os.path.join(path, "it")], program=program, scratch=scratch)
        check(code == 4, f"codec: plugins check exits {code}: {out}{err}")
    print("failures:", failures)
    sys.exit(1 if failures else 0)


main()
