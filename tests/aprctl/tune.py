"""`aprctl tune` as its users meet it: the profile that it writes, its time, and what happens when it is interrupted.

usage: tune.py tune
APRCTL is the program. Exits with 77 when no model ships with this build.
"""
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

from calls import APRCTL, SHIPPED_MODEL, check, expect, main

# One thread: two of them on one free core wait for each other.
QUICK = ["--batch", "1", "--threads", "1"]


def candidates(journal):
    """What a journal holds: {product: its candidates, as text}."""
    with open(journal) as f:
        return {found["key"]: [json.dumps([one["kernel"], one["params"]]) for one in found["candidates"]] for found in json.load(f)["found"]}


def interrupted(args, when, wait=60):
    """A run that is sent a SIGINT as soon as when() is true: (exit code, stdout, stderr)."""
    run = subprocess.Popen([APRCTL, "tune", *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + wait
    while not when() and time.monotonic() < end and run.poll() is None:
        time.sleep(0.005)
    run.send_signal(signal.SIGINT)
    out, err = run.communicate(timeout=60)
    return run.returncode, out, err


def whole(folder, journal, args):
    """What is faster alone and makes the whole slower has no place in the profile: here the slowest instruction set, which the
    journal says to be the best."""
    with open(journal) as f:
        claims = json.load(f)
    claims["found"] = [{**found, "params": {"isa": 0}, "base_us": 100.0, "best_us": 50.0, "finished": True} for found in claims["found"]]
    slow = os.path.join(folder, "slow.toml")
    with open(slow + ".journal", "w") as f:
        json.dump(claims, f)
    tuned = json.loads(expect(0, ["tune", "-o", slow, "--seconds", "6", *args[4:], "--json"], f"taken from {slow}.journal"))
    check(any(spec.get("params") == {"isa": 0} for spec in tuned["specs"]), f"the journal was not believed: {tuned['specs']}")
    check(tuned["whole"]["measured"] and tuned["whole"]["decode"]["slower"], f"the whole model: {tuned['whole']}")
    check(tuned["rules_written"] == 0 and tuned["rules_left_out"] > 0, f"slow rules: {tuned['rules_written']} written, {tuned['rules_left_out']} left out")
    with open(slow) as f:
        text = f.read()
    check("are left out" in text and "[[rules]]" not in text, f"the profile: {text}")


def tune():
    if not os.path.exists(SHIPPED_MODEL):
        print("skipped: no model ships with this build")
        sys.exit(77)
    expect(2, ["tune", "-r", "0"], "repetitions")
    expect(2, ["tune", "--seconds", "0"], "--seconds")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "tuned.toml")
        journal = path + ".journal"
        tuned = json.loads(expect(0, ["tune", "-o", path, "--seconds", "4", "-r", "2", *QUICK, "--json"]))
        check(tuned["output"] == path and len(tuned["specs"]) > 3, f"tune --json: {tuned['output']}")
        if tuned["complete"] or any(spec["searched"] for spec in tuned["specs"]):
            check(tuned["complete"] != os.path.exists(journal), "a journal stays behind a finished run, or an unfinished one left none")
        for spec in tuned["specs"]:
            if spec["searched"]:
                check(spec["best_us"] <= spec["default_us"], f"slower than the default: {spec}")
        check(tuned["whole"]["measured"] != bool(tuned["whole"]["why_not"]), f"the whole model: {tuned['whole']}")
        with open(path, "a") as f:
            f.write("[[rules]]\nrole = 'ffn_down'\nm = [100, 200]\ntemplate = 'gemm_int'\n")
        expect(0, ["run", "-p", "x", "-n", "1", "--threads", "1", "--profile", path], "rules chose")
        expect(0, ["run", "-p", "x", "-n", "1", "--threads", "2", "--profile", path], "rules are not used", "2 threads", "instead of 1 thread")

        # Before anything is measured: nothing is written, and that is said.
        path = os.path.join(folder, "none.toml")
        code, out, err = interrupted(["-o", path, *QUICK], lambda: True, 0)
        if code != -signal.SIGINT:  # it came before the program had begun
            check(code == 1 and out == "" and err.count("error: interrupted before anything was measured") == 1, f"interrupted at once: {code} {out} {err}")
        check(not os.path.exists(path), "an interrupted run wrote a profile")

        # In the first round of the first product: the journal has it, and the next run does not measure it again.
        path = os.path.join(folder, "early.toml")
        journal = path + ".journal"
        args = ["-o", path, "--seconds", "60", "-r", "2", *QUICK]
        code, out, err = interrupted(args, lambda: os.path.exists(journal))
        check(code == 1 and out == "" and err.count("interrupted") == 1, f"interrupted early: exit {code}\n{out}{err}")
        check(journal in err and "the same command goes on" in err, f"the message does not tell what to do: {err}")
        check(sorted(os.listdir(folder)) == ["early.toml.journal"] + [f for f in sorted(os.listdir(folder)) if f.startswith("tuned")],
              f"left behind: {os.listdir(folder)}")
        first = candidates(journal)
        check(1 <= len(first) <= 2, f"not in the first round: {first}")

        # Once more, later: what was there stays, and nothing is there twice.
        before = os.stat(journal).st_mtime_ns
        more = lambda: os.stat(journal).st_mtime_ns != before and sum(map(len, candidates(journal).values())) > sum(map(len, first.values())) + 3
        code, out, err = interrupted(args, more)
        check(code == 1 and f"{len(first)} taken from {journal}" in err, f"interrupted again: exit {code}\n{out}{err}")
        second = candidates(journal)
        for product, tried in second.items():
            check(len(tried) == len(set(tried)), f"measured twice: {product}: {tried}")
        for product, tried in first.items():
            check(second[product][:len(tried)] == tried, f"lost or measured again: {product}: {tried}, then {second[product]}")

        with open("/proc/cpuinfo") as f:
            if " avx2 " in f.read():
                whole(folder, journal, args)

        # The end says it too.
        last = expect(0, ["tune", *args[:2], "--seconds", "4", *args[4:]], f"{len(second)} taken from {journal}")
        check(last.count("taken from") == 1, f"the last line: {last}")
        expect(0, ["run", "-p", "x", "-n", "1", "--threads", "1", "--profile", path])


main({"tune": tune})
