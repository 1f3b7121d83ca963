"""What a format's author has is an installation and nothing else. It is moved after it was installed, and each example and a
freshly made project is built against it, with Meson and with CMake, checked, and used on the shipped model.

usage: build_formats.py MESON BUILD_FOLDER EXAMPLES_FOLDER
"""
import concurrent.futures
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

meson, build, examples = sys.argv[1:4]
for tool in ("pkg-config", "ninja"):
    if shutil.which(tool) is None:
        print(f"skipped: no {tool}")
        sys.exit(77)
os.umask(0o002)  # some systems' default: the projects must work with it
start = time.monotonic()


def run(what, args, env, folder=None):
    done = subprocess.run(args, env=env, cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"FAILED ({what}): {' '.join(args)}\n{done.stdout}{done.stderr}")
    return done.stdout


with tempfile.TemporaryDirectory() as scratch:
    prefix = os.path.join(scratch, "moved")
    stage = os.path.join(scratch, "stage")
    subprocess.run([meson, "install", "-C", build, "--no-rebuild", "--quiet", "--destdir", stage], check=True, stdout=subprocess.DEVNULL)
    options = json.loads(subprocess.check_output([meson, "introspect", build, "--buildoptions"]))
    os.rename(stage + next(o["value"] for o in options if o["name"] == "prefix"), prefix)
    subprocess.run(["chmod", "-R", "go-w", prefix], check=True)
    env = {k: v for k, v in os.environ.items() if not k.startswith("APR_")}
    env.update(PKG_CONFIG_PATH=os.path.join(prefix, "lib/pkgconfig"), HOME=scratch, XDG_DATA_HOME=os.path.join(scratch, "data"))
    aprctl = os.path.join(prefix, "bin/aprctl")

    # The program finds its data and its plugins beside itself, from any folder.
    text = run("run", [aprctl, "run", "-p", "The lighthouse keeper", "-n", "12"], env, "/")
    assert len(text.strip()) > 10, text
    found = json.loads(run("plugins", [aprctl, "plugins", "--json"], env, "/"))
    assert not found["refused"] and all(p["library"].startswith(prefix) for p in found["plugins"]), found
    for folder in ("ptx-templates", "profiles", "recipes", "plugin-template", "models"):
        assert os.listdir(os.path.join(prefix, "share/apr", folder)), folder
    model = os.path.join(prefix, "share/apr/models/skerry-7m-q4_k_m.gguf")

    text_file = os.path.join(scratch, "text.txt")
    with open(os.path.join(examples, "../models/heldout.txt")) as whole, open(text_file, "w") as some:
        some.write(whole.read(2000))

    projects = {}  # format -> source folder
    for name in ("nf4", "int3"):
        projects["example." + name] = shutil.copytree(os.path.join(examples, name), os.path.join(scratch, name))
    projects["acme.int4"] = os.path.join(scratch, "acme")
    run("new", [aprctl, "plugins", "new", "acme.int4", "--directory", projects["acme.int4"]], env)

    def with_meson(name, source):
        out = source + "-meson"
        run(name, [meson, "setup", out, "-Dwerror=true"], env, source)
        run(name, [meson, "compile", "-C", out], env)
        run(name, [meson, "test", "-C", out], env)
        return out

    def with_cmake(name, source):
        out = source + "-cmake"
        run(name, ["cmake", "-G", "Ninja", "-B", out, "-S", source, "-DCMAKE_CXX_FLAGS=-Werror"], env)
        run(name, ["cmake", "--build", out], env)
        run(name, ["ctest", "--test-dir", out, "--output-on-failure"], env)
        run(name, ["cmake", "--install", out], env)  # where the program finds it by itself
        run(name, [aprctl, "plugins", "check", name, "--backend", "cpu"], env)
        return out

    def use(name, plugin):
        judged = json.loads(run(name, [aprctl, "plugins", "check", plugin, "--backend", "cpu", "--json"], {**env, "PKG_CONFIG_PATH": ""}))
        assert judged["verdict"] == "pass" and judged["failed"] == 0 and judged["passed"] > 40, judged
        path = os.path.join(scratch, name + ".gguf")
        where = ["--plugin-path", plugin]
        run(name, [aprctl, "quantize", model, path, "--type", name, "--requantize", *where], env)
        formats = json.loads(run(name, [aprctl, "inspect", path, "--json"], env))["formats"]
        assert name in formats, formats
        answer = run(name, [aprctl, "run", path, "-p", "The lighthouse keeper", "-n", "12", *where], env)
        assert len(answer.strip()) > 10, answer
        judged = json.loads(run(name, [aprctl, "eval", path, "--text", text_file, "--reference", model, "--ctx", "128", "--json", *where], env))
        assert 1 < judged["perplexity"]["value"] < 3, judged["perplexity"]
        refused = subprocess.run([aprctl, "run", path, "-p", "x", "-n", "1"], env=env, capture_output=True, text=True)
        assert refused.returncode == 1 and name in refused.stderr, refused.stderr
        return answer.strip()

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        built = {name: pool.submit(with_meson, name, source) for name, source in projects.items()}
        for name, plugin in built.items():
            print(f"{name}, meson: {use(name, plugin.result())!r}, {time.monotonic() - start:.1f} s")
        if shutil.which("cmake") is None:
            print("skipped: no cmake")
        else:
            for name, done in {n: pool.submit(with_cmake, n, s) for n, s in projects.items()}.items():
                print(f"{name}, cmake: {done.result()}, {time.monotonic() - start:.1f} s")
    for name in ("example.nf4", "example.int3"):
        lines = sum(len(open(os.path.join(projects[name], f)).readlines()) for f in ("codec.h", "plugin.cpp"))
        print(f"{name}: {lines} lines")
        assert lines <= 100, name
