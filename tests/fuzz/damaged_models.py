"""Damaged model files through the program: one clear error and exit 1, or an answer; no crash, no hang, little memory.

usage: damaged_models.py FUZZ_MODEL [--rounds N] [--seconds S] [--seed N] [--fields --step N]
                         [--sanitized] [MODEL.gguf ...]
APRCTL is the program. FUZZ_MODEL (tests/fuzz) damages the files; without models, its own samples and the golden ones
that APR_TEST_GOLDEN names.
"""
import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
import time

APRCTL = os.environ["APRCTL"]
MOST_SECONDS = 60  # of one command; the slowest takes about a second, under a sanitizer
MOST_MIB = 1500    # resident; a sanitizer takes several times what the program does
BATCH = 20         # damaged files on disk at a time

sanitized = False
failures = 0
commands = answers = refusals = 0


def fail(what):
    global failures
    failures += 1
    if failures <= 20:
        print("FAILED:", what, flush=True)


def limits():
    # A sanitizer reserves terabytes of address space, so only the plain program can be bounded by it.
    if not sanitized:
        resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def run(args, what):
    """One command on one damaged file, judged."""
    global commands, answers, refusals
    env = {k: v for k, v in os.environ.items() if not k.startswith("APR_")}
    env["ASAN_OPTIONS"] = env.get("ASAN_OPTIONS", "") + ":max_allocation_size_mb=1024"
    commands += 1
    try:
        done = subprocess.run([APRCTL, *args], capture_output=True, env=env, timeout=MOST_SECONDS, preexec_fn=limits)
    except subprocess.TimeoutExpired:
        fail(f"{what}: aprctl {args[0]}: no end after {MOST_SECONDS} s")
        return
    err = done.stderr.decode("utf-8", "replace")
    errors = [line for line in err.split("\n") if line.startswith("error: ")]
    where = f"{what}: aprctl {' '.join(args)}: exit {done.returncode}:\n{err[-3000:]}"
    if "Sanitizer" in err or "runtime error:" in err or done.returncode < 0:
        fail("crash: " + where)
    elif done.returncode == 0:
        answers += 1
        if errors:
            fail("an error, and exit 0: " + where)
    else:
        refusals += 1
        # Ids that a smaller vocabulary has not are the command line's fault.
        usage = done.returncode == 2 and "ids" in err
        if done.returncode != 1 and not usage:
            fail("another exit code: " + where)
        if len(errors) != 1 or not errors[0].strip() or len(errors[0]) > 2000:
            fail("not one clear error: " + where)
        elif re.search("[\x00-\x08\x0b-\x1f\x7f]", errors[0]):
            fail("control characters: " + where)
        elif not usage and not re.search(r"\.gguf|tensor|blk\.|logits", errors[0]):
            fail("an error that names neither file nor tensor: " + where)


def judge(path, what):
    run(["inspect", path], what)
    run(["tokenize", "-m", path, "-p", "Hello w\u00f6rld <s> 123", "--ids"], what)
    run(["logits", "-m", path, "--ids", "1,2,3", "--ctx", "16", "--threads", "1", "--out", path + ".f32"], what)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("fuzz_model")
    parser.add_argument("models", nargs="*")
    parser.add_argument("--rounds", type=int, default=0, help="damaged files of each model")
    parser.add_argument("--seconds", type=float, default=0, help="go on for so long")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--fields", action="store_true", help="every step-th absurd field")
    parser.add_argument("--step", type=int, default=1)
    parser.add_argument("--sanitized", action="store_true", help="APRCTL was built with a sanitizer")
    args = parser.parse_args()
    global sanitized
    sanitized = args.sanitized
    models = [[m] for m in args.models]
    if not models:
        golden = os.environ.get("APR_TEST_GOLDEN")
        names = ("tiny-Q4_K_M", "tiny-qwen2", "tiny-Q8_0") if golden else ()
        models = [[]] + [[os.path.join(golden, name + ".gguf")] for name in names]
    end = time.monotonic() + args.seconds

    def damage(folder, how, model):
        done = subprocess.run([args.fuzz_model, *how, "--write", folder, *model], capture_output=True, text=True)
        if done.returncode != 0:
            fail(f"fuzz_model {' '.join(how)} {model}: {done.stdout}{done.stderr}")
        for name in sorted(os.listdir(folder)):
            path = os.path.join(folder, name)
            judge(path, f"fuzz_model {' '.join(how)} {' '.join(model)}: {name}")
            os.remove(path)
            if os.path.exists(path + ".f32"):
                os.remove(path + ".f32")

    with tempfile.TemporaryDirectory() as folder:
        if args.fields:
            for model in models:
                damage(folder, ["--fields", "--step", str(args.step)], model)
        seed, first = args.seed, True
        while (first and args.rounds) or time.monotonic() < end:
            for model in models:
                left = args.rounds if first else BATCH
                for at in range(0, left, BATCH):
                    damage(folder, ["--rounds", str(min(BATCH, left - at)), "--seed", str(seed + at)], model)
            seed += max(args.rounds if first else 0, BATCH)
            first = False
    # The largest of all children: one that took much shows here.
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    if most > MOST_MIB:
        fail(f"a command took {most} MiB")
    print(f"{commands} commands: {answers} answers, {refusals} refusals; {failures} failures; at most {most} MiB")
    return 1 if failures else 0


sys.exit(main())
