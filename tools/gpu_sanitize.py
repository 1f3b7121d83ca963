#!/usr/bin/env python3
"""Suite gpu under every tool of compute-sanitizer, a process for each test case and tool, several at once.

usage: gpu_sanitize.py TEST_GPU --out DIR [--seconds S] [--jobs N] [--tools memcheck,...] [--sanitizer PROGRAM]

TEST_GPU    the test_gpu program of the build; run it once without a sanitizer first, so that its kernels are in the cache
--out       logs, one for each tool and case
--seconds   for all of it: what has not ended then counts as not reached (default 600)
--jobs      processes at once (default 12; they share the GPU)

A tool passes when every case ended without a report and without a failed assertion. Exit 0: all tools pass; 1: one does not.
"""
import argparse
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import time

# racecheck is by far the slowest, so that it begins first.
TOOLS = ("racecheck", "initcheck", "memcheck", "synccheck")


def find_sanitizer():
    for program in (shutil.which("compute-sanitizer"), "/usr/local/cuda/bin/compute-sanitizer"):
        if program and os.path.exists(program):
            return program
    return None


def summary_of(text):
    found = [line for line in text.splitlines() if "ERROR SUMMARY" in line or "RACECHECK SUMMARY" in line]
    return (found or [text.strip()[-80:]])[-1].replace("=", "").strip()


def cases_of(tests, env):
    """Names of the test cases that run here, in the order of their files."""
    done = subprocess.run([tests, "--list-test-cases"], env=env, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    rule = [i for i, line in enumerate(lines) if set(line.strip()) == {"="}]
    if done.returncode != 0 or len(rule) < 2:
        raise RuntimeError(f"{tests} --list-test-cases: exit {done.returncode}: {(done.stdout + done.stderr).strip()[-200:]}")
    return lines[rule[0] + 1:rule[1]]


def run_case(sanitizer, tool, tests, case, env, path, end):
    """(passed, reached, assertions, what it says) of one case under one tool."""
    left = end - time.monotonic()
    if left < 1:
        return False, False, 0, "not reached"
    # A comma separates filters, a star and a question mark match anything.
    command = [sanitizer, "--tool", tool, "--error-exitcode", "9", tests, "--test-case=" + re.sub(r"[,*]", "?", case)]
    with open(path, "w") as log:
        try:
            code = subprocess.run(command, env=env, stdout=log, stderr=subprocess.STDOUT, timeout=left).returncode
        except subprocess.TimeoutExpired:
            return False, False, 0, "not ended in time"
    with open(path) as log:
        text = log.read()
    counted = re.search(r"assertions:\s*(\d+)", text)
    ran = re.search(r"test cases:\s*(\d+)", text)
    assertions = int(counted.group(1)) if counted else 0
    ok = code == 0 and ran is not None and int(ran.group(1)) > 0
    return ok, True, assertions, f"exit {code}: {summary_of(text)}"


def sanitize(tests, env, out, seconds, jobs=12, tools=TOOLS, sanitizer=None):
    """Yields (tool, passed, text) for each tool."""
    sanitizer = sanitizer or find_sanitizer()
    if sanitizer is None:
        raise RuntimeError("compute-sanitizer is not on this machine; it comes with the CUDA toolkit")
    cases = cases_of(tests, env)
    end = time.monotonic() + seconds
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        pending = {}
        for tool in tools:
            os.makedirs(os.path.join(out, tool), exist_ok=True)
            pending[tool] = [pool.submit(run_case, sanitizer, tool, tests, case, env,
                                         os.path.join(out, tool, re.sub(r"\W+", "-", case)[:60] + f"-{i}.txt"), end)
                             for i, case in enumerate(cases)]
        for tool in tools:
            results = [p.result() for p in pending[tool]]
            late = [case for case, (_, reached, _, _) in zip(cases, results) if not reached]
            bad = [f"{case}: {text}" for case, (ok, reached, _, text) in zip(cases, results) if reached and not ok]
            text = f"{len(cases) - len(late)} of {len(cases)} cases, {sum(r[2] for r in results)} assertions, {len(bad)} with a report"
            for what, names in (("not ended", late), ("reports", bad)):
                if names:
                    text += f"; {what}: " + "; ".join(names)
            yield tool, not late and not bad, text


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("tests")
    parser.add_argument("--out", required=True)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--jobs", type=int, default=12)
    parser.add_argument("--tools", default=",".join(TOOLS))
    parser.add_argument("--sanitizer")
    options = parser.parse_args()
    failed = 0
    try:
        for tool, ok, text in sanitize(os.path.abspath(options.tests), dict(os.environ), options.out, options.seconds, options.jobs,
                                       options.tools.split(","), options.sanitizer):
            failed += not ok
            print(f"{'ok' if ok else 'FAILED':<7} {tool:<10} {text}", flush=True)
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
