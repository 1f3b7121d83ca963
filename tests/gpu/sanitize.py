#!/usr/bin/env python3
"""tools/gpu_sanitize.py without a GPU: a suite of four cases, and a sanitizer that reports, fails and dawdles where it is told to.

usage: sanitize.py TEST_PROGRAM     (any program with doctest, for the form of its list)
"""
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../tools"))
import gpu_sanitize  # noqa: E402

SUITE = """#!/bin/sh
case $1 in
  --list-test-cases)
    echo "[doctest] listing all test case names"
    echo "==============================================================================="
    printf 'one\\ntwo, with a comma\\nracy\\nslow\\n'
    echo "==============================================================================="
    echo "[doctest] unskipped test cases passing the current filters: 4" ;;
  --test-case=one|"--test-case=two? with a comma"|--test-case=racy|--test-case=slow)
    echo "[doctest] test cases: 1 | 1 passed | 0 failed | 3 skipped"
    echo "[doctest] assertions: 10 | 10 passed | 0 failed |" ;;
  *) echo "[doctest] test cases: 0 | 0 passed | 0 failed | 4 skipped"; echo "[doctest] assertions: 0 | 0 passed | 0 failed |" ;;
esac
"""
SANITIZER = """#!/bin/sh
# --tool T --error-exitcode 9 SUITE FILTER
case "$2 $6" in
  "initcheck --test-case=slow") exec sleep 60 ;;
  "racecheck --test-case=racy") "$5" "$6"; echo "========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)"; exit 9 ;;
esac
"$5" "$6"
echo "========= ERROR SUMMARY: 0 errors"
"""


def script(folder, name, text):
    path = os.path.join(folder, name)
    with open(path, "w") as f:
        f.write(text)
    os.chmod(path, 0o755)
    return path


def main():
    failures = []

    def check(what, ok, seen):
        if not ok:
            failures.append(what)
            print(f"FAILED: {what}: {seen}")

    with tempfile.TemporaryDirectory() as folder:
        suite, sanitizer = script(folder, "suite", SUITE), script(folder, "sanitizer", SANITIZER)
        found = {tool: (ok, text) for tool, ok, text in
                 gpu_sanitize.sanitize(suite, dict(os.environ), os.path.join(folder, "out"), 4, sanitizer=sanitizer)}
        check("every tool is told of", list(found) == list(gpu_sanitize.TOOLS), found)
        for tool in ("memcheck", "synccheck"):
            check(f"{tool} passes", found[tool] == (True, "4 of 4 cases, 40 assertions, 0 with a report"), found[tool])
        check("a report is a failure", not found["racecheck"][0] and "1 with a report; reports: racy: exit 9: RACECHECK SUMMARY: 1 hazard" in
              found["racecheck"][1], found["racecheck"])
        check("what did not end does not pass", found["initcheck"] == (False, "3 of 4 cases, 30 assertions, 0 with a report; not ended: slow"),
              found["initcheck"])
        done = subprocess.run([sys.executable, gpu_sanitize.__file__, suite, "--out", folder, "--sanitizer", sanitizer, "--tools",
                               "racecheck", "--seconds", "20"], capture_output=True, text=True)
        check("the command's exit code and line", done.returncode == 1 and done.stdout.startswith("FAILED  racecheck  4 of 4 cases"), done)
        done = subprocess.run([sys.executable, gpu_sanitize.__file__, "/bin/false", "--out", folder, "--sanitizer", sanitizer],
                              capture_output=True, text=True)
        check("a suite that cannot be listed", done.returncode == 1 and "--list-test-cases: exit 1" in done.stderr, done)
    # The form of the list is doctest's own.
    listed = gpu_sanitize.cases_of(sys.argv[1], dict(os.environ))
    check("doctest's list", len(listed) > 3 and all(line == line.strip() and not line.startswith("[doctest]") for line in listed), listed)
    print(f"{len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
