#!/usr/bin/env python3
"""Faulty copies of plugins' sources, made when the tests are built: the product's own sources hold no fault.

usage: plant.py FAULT SOURCE_ROOT OUTPUT_FOLDER

A fault is an exact edit of a copy. A text that is not in the source exactly as often as expected is an error:
a fault that was not planted proves nothing. A faulty backend has a name of its own, so that it stands beside
the healthy one; a faulty format has the format's name and takes its place.
"""
import os
import sys

# Fault: plugin's folder, {file: [(text, replacement, occurrences)]}
FAULTS = {
    # Reads W[K,N]; K and N differ in most matrices, so what comes out is well-scaled and plausible.
    "transposed": ("backend-cpu", {"linear.cpp": [(
        "  w.gemv.kernel.fn(&args);\n",
        "  if (w.weight.format->block_elements == 1 && w.weight.format->block_bytes == sizeof(float)) {\n"
        "    for (uint32_t i = 0; i < m; ++i)\n"
        "      for (uint64_t n = n0; n < n1; ++n) {\n"
        "        float sum = 0.0f, value;\n"
        "        for (uint64_t c = 0; c < w.weight.k; ++c) {\n"
        "          std::memcpy(&value, w.data + 4 * (c * w.weight.n + n), sizeof value);\n"
        "          sum += value * args.x[i * args.x_stride + c];\n"
        "        }\n"
        "        args.y[i * args.y_stride + n - n0] = sum;\n"
        "      }\n"
        "  } else {\n"
        "    w.gemv.kernel.fn(&args);\n"
        "  }\n", 1)]}),
    "rope": ("backend-cpu", {"row_ops.cpp": [
        ("static_cast<double>(state.positions[row]);", "static_cast<double>(state.positions[row] + 1);", 1)]}),
    # Nobody writes the last columns: they keep what the buffer had before.
    "tail": ("backend-cpu", {"row_ops.cpp": [
        ("state.kernels->add(state.in(op.a, row), state.in(op.b, row), op.out->width,",
         "state.kernels->add(state.in(op.a, row), state.in(op.b, row), op.out->width - 3,", 1)]}),
    "stale": ("backend-cpu", {"row_ops.cpp": [
        ("             position = static_cast<uint32_t>(state.positions[row]);\n",
         "             position = static_cast<uint32_t>(state.positions[row]);\n  if (position == 7) return;\n", 1)]}),
    "epsilon": ("backend-cpu", {"row_ops.cpp": [("op.out->width / op.heads, op.eps,", "op.out->width / op.heads, 1e-6f,", 1)]}),
    # The scales of a superblock are those of the one before it.
    "scale": ("quant-q4k", {"cpu.hpp": [
        ("    const KFactors factors = k_factors(block);\n", "    const KFactors factors = k_factors(k == 0 ? block : block - 144);\n", 1),
        ("    k_step<kM>(block, z, k, a, sum);\n", "    k_step<kM>(k == 0 ? block : block - 144, z, k, a, sum);\n", 1)]}),
    # One nibble of each superblock.
    "nibble": ("quant-q4k", {"cpu.hpp": [
        ("store_k_factors(block, scale + k / 32, offset + k / 32);\n",
         "store_k_factors(block, scale + k / 32, offset + k / 32);\n    q[k + 5] = static_cast<int8_t>(-q[k + 5]);\n", 2)]}),
    # In the codec itself, from which dequantisation and every kernel come: nothing is left to compare with.
    "codec": ("quant-q4k", {"codec.h": [
        ("chunk.offset[r] = -mul(", "chunk.offset[r] = (r == 1 ? 1.0f : -1.0f) * mul(", 1)]}),
}


def edited(path, edits):
    with open(path) as f:
        content = f.read()
    for text, replacement, occurrences in edits:
        if content.count(text) != occurrences:
            sys.exit(f"plant.py: {path} has {content.count(text)} times instead of {occurrences} times the text\n{text}")
        content = content.replace(text, replacement)
    return content


def main():
    fault, root, out = sys.argv[1:]
    plugin, files = FAULTS[fault]
    folder = os.path.join(root, "plugins", plugin)
    if plugin == "backend-cpu":
        (name, edits), = files.items()
        made = {f"{fault}_{name}": edited(os.path.join(folder, name), edits),
                f"{fault}_plugin.cpp": edited(os.path.join(folder, "plugin.cpp"), [
                    ('"cpu",\n', f'"cpu-{fault}",\n', 1), ('"backend-cpu",\n', f'"backend-cpu-{fault}",\n', 1)])}
    else:
        # The plugin includes its own headers by these names; each fault's have names of their own.
        names = ["codec.h", "cpu.hpp"]
        made = {f"{fault}_{name}": edited(os.path.join(folder, name), files.get(name, [])) for name in names}
        made[f"{fault}_plugin.cpp"] = edited(os.path.join(folder, "plugin.cpp"),
                                             [(f'"{name}"', f'"{fault}_{name}"', 2 if name == "codec.h" else 1) for name in names])
    for name, content in made.items():
        with open(os.path.join(out, name), "w") as f:
            f.write(content)


main()
