"""A plugin is built against the installed headers alone, found by pkg-config, and passes the conformance test.

usage: build_plugin.py MESON BUILD_FOLDER PLUGIN_SOURCE_FOLDER CXX     APRCTL is the program
"""
import glob
import os
import shutil
import subprocess
import sys
import tempfile

meson, build, source, cxx = sys.argv[1:5]
if shutil.which("pkg-config") is None:
    print("skipped: no pkg-config")
    sys.exit(77)
os.umask(0o022)
with tempfile.TemporaryDirectory() as scratch:
    prefix = os.path.join(scratch, "root")
    subprocess.run([meson, "install", "-C", build, "--no-rebuild", "--quiet", "--tags", "devel", "--destdir", prefix], check=True,
                   stdout=subprocess.DEVNULL)
    folder = os.path.dirname(glob.glob(prefix + "/**/apr.pc", recursive=True)[0])

    def ask(*what):
        done = subprocess.run(["pkg-config", "--define-prefix", *what, "apr"], env={**os.environ, "PKG_CONFIG_PATH": folder},
                              check=True, capture_output=True, text=True)
        return done.stdout.split()

    assert ask("--variable=abi") == ["1.0"], ask("--variable=abi")
    assert ask("--variable=plugindir")[0].endswith("/lib/apr/plugins"), ask("--variable=plugindir")
    plugin = os.path.join(scratch, "plugin")
    shutil.copytree(source, plugin, ignore=shutil.ignore_patterns("meson.build"))
    os.chmod(plugin, 0o755)
    name = os.path.basename(os.path.normpath(source))
    subprocess.run([*cxx.split(), "-std=c++20", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-ffp-contract=off", *ask("--cflags"),
                    "-I.", "plugin.cpp", "-o", f"libapr-{name}.so"], cwd=plugin, check=True)
    subprocess.run([os.environ["APRCTL"], "plugins", "check", os.path.join(plugin, f"libapr-{name}.so"), "--backend", "cpu"], check=True)
