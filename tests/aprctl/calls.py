"""What the suites share: a call of the program, and what is expected of it."""
import os
import subprocess
import sys

APRCTL = os.environ["APRCTL"]
# In the build folder, beside the program's.
DATA = os.path.join(os.path.dirname(APRCTL), "..")
SHIPPED_MODEL = os.path.join(DATA, "models", "skerry-7m-q4_k_m.gguf")
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


def narrow(text, what):
    """No line is wider than a terminal of 80 columns."""
    for line in text.split("\n"):
        # A word that cannot be broken (a path, a library) may stand alone on a longer line.
        check(len(line) <= 80 or len(line.split()) == 1, f"{what}: wider than 80 columns: {line}")


def folder_or_skip(variable):
    folder = os.environ.get(variable)
    if not folder:
        print(f"skipped: {variable} is not set")
        sys.exit(77)
    return folder


def main(suites):
    """Runs the suite that the command line names, and exits."""
    suites[sys.argv[1]]()
    print("failures:", failures)
    sys.exit(1 if failures else 0)
