// The codec: its text, which columns its chunks cover, and what each layout decodes to.
#include <fmt/format.h>

#include <algorithm>

#include "core/conformance/format_checks.h"
#include "core/conformance/host_codec.h"
#include "core/conformance/samples.h"

namespace apr::conformance {
namespace {

// Of a compiler's report: the first error is the author's, and most of what follows comes of it.
std::string beginning(const std::string& report) {
  constexpr size_t kMost = 1200;
  if (report.size() <= kMost) return report;
  return report.substr(0, report.rfind('\n', kMost)) + "\n...";
}

// What a device's compiler is given is the text alone: it may include the contract and nothing else.
Finding text(const apr_codec& codec) {
  const std::string source = codec.source;
  size_t lines = static_cast<size_t>(std::count(source.begin(), source.end(), '\n'));
  for (size_t at = source.find("#include"); at != std::string::npos; at = source.find("#include", at + 1)) {
    const std::string line = source.substr(at, source.find('\n', at) - at);
    if (line != "#include \"apr/codec.h\"")
      return fail("includes more",
                  fmt::format("`{}`: a codec's text may include \"apr/codec.h\" and nothing else", line));
  }
  return pass(fmt::format("{} lines", lines));
}

Finding constants(const apr_quant_format& f, const HostCodec& c) {
  const apr_codec& t = *f.codec;
  std::string wrong;
  const auto compare = [&](const char* what, int64_t source, int64_t table) {
    if (source != table && wrong.empty())
      wrong = fmt::format("{} is {} in the codec's text and {} in the table", what, source, table);
  };
  compare("kBlock", c.block, t.block);
  compare("kBytes", c.bytes, t.block_bytes);
  compare("kRuns", c.runs, t.runs);
  compare("kRun", c.run, t.run);
  compare("kInteger", c.integer, t.kind == APR_CODEC_INTEGER);
  compare("kGroup", c.group, f.int_group);
  if (c.integer && (c.run <= 0 || c.group % c.run != 0))
    return fail("kGroup", fmt::format("kGroup is {}, no multiple of kRun, which is {}: a run has one scale",
                                      c.group, c.run));
  // A device layout guarantees what both the codec and its blocks allow.
  if (f.block_elements == t.block) compare("kAlign", c.align, f.block_align);
  for (uint32_t i = 0; i < t.n_layouts; ++i) {
    compare("kPlanes", c.layouts[i].planes, t.layouts[i]->n_planes);
    for (int p = 0; wrong.empty() && p < c.layouts[i].planes; ++p)
      compare("kPlaneBytes", c.layouts[i].plane_bytes[static_cast<size_t>(p)], t.layouts[i]->plane_bytes[p]);
  }
  if (!wrong.empty()) return fail("differ", wrong);
  return pass(fmt::format("aligned to {} bytes", c.align));
}

Finding coverage(const HostCodec& c) {
  if (c.block <= 0 || c.runs <= 0 || c.run <= 0 || c.block % (c.runs * c.run) != 0)
    return fail("chunks", fmt::format("{} columns are no whole number of chunks of {} runs of {}", c.block,
                                      c.runs, c.run));
  std::vector<int> seen(static_cast<size_t>(c.block));
  const int chunks = c.block / (c.runs * c.run);
  for (int chunk = 0; chunk < chunks; ++chunk)
    for (int run = 0; run < c.runs; ++run)
      for (int i = 0; i < c.run; ++i) {
        const int column = c.col(chunk, run) + i;
        if (column < 0 || column >= c.block)
          return fail(fmt::format("column {}", column),
                      fmt::format("col({}, {}) + {} is {}, outside the block's {} columns", chunk, run, i,
                                  column, c.block));
        if (++seen[static_cast<size_t>(column)] > 1)
          return fail(
              fmt::format("column {} twice", column),
              fmt::format("run {} of chunk {} has column {}, which another run has too", run, chunk, column));
      }
  return pass(fmt::format("{} chunks of {} x {}", chunks, c.runs, c.run));
}

constexpr uint64_t kBlocks = 512;

// Blocks, as the codec counts them, and what they decode to.
struct Edge {
  std::vector<uint8_t> blocks;
  std::vector<float> wanted;
  explicit Edge(const apr_quant_format& f) {
    Random random(42);
    blocks = edge_blocks(f, kBlocks * f.codec->block / f.block_elements, random);
    wanted = dequantized(f, blocks, kBlocks * f.codec->block);
  }
};

Finding decodes(const apr_codec& codec, const HostCodec& host, size_t index, const Edge& edge,
                const std::vector<const uint8_t*>& planes) {
  const HostCodec::Layout& layout = host.layouts[index];
  std::vector<float> got(codec.block);
  for (uint64_t b = 0; b < kBlocks; ++b) {
    std::vector<const uint8_t*> block;
    for (size_t p = 0; p < planes.size(); ++p)
      block.push_back(planes[p] + b * codec.layouts[index]->plane_bytes[p]);
    std::fill(got.begin(), got.end(), 77.0f);
    if (layout.decode(block.data(), got.data()) != 0)
      return fail("offsets", "the codec says kOffset = false, and a chunk's offset is not zero");
    const std::span<const float> wanted(edge.wanted.data() + b * codec.block, codec.block);
    if (const int64_t i = first_difference(got, wanted); i >= 0)
      return fail(fmt::format("column {}", i),
                  fmt::format("a block's column {} decodes to {} (bits {:08x}), dequantize gives {} ({:08x})",
                              i, got[static_cast<size_t>(i)], float_to_bits(got[static_cast<size_t>(i)]),
                              wanted[static_cast<size_t>(i)], float_to_bits(wanted[static_cast<size_t>(i)])));
  }
  return pass(fmt::format("{} blocks, same bits", kBlocks));
}

// Planes as a device has them: all bytes written, none beyond, from the blocks alone.
Finding splits(const apr_codec& codec, const apr_layout& layout, const Edge& edge,
               std::vector<std::vector<uint8_t>>& planes) {
  constexpr size_t kMargin = 64;
  std::vector<std::vector<uint8_t>> second;
  uint64_t bytes = 0;
  for (const uint8_t fill : {uint8_t{0xa5}, uint8_t{0x5a}}) {
    auto& into = fill == 0xa5 ? planes : second;
    into.clear();
    std::vector<uint8_t*> pointers;
    for (uint32_t p = 0; p < layout.n_planes; ++p)
      into.emplace_back(kBlocks * layout.plane_bytes[p] + kMargin, fill);
    for (auto& plane : into) pointers.push_back(plane.data());
    layout.split(edge.blocks.data(), kBlocks, pointers.data());
    for (uint32_t p = 0; p < layout.n_planes; ++p)
      for (size_t i = 0; i < kMargin; ++i)
        if (into[p][kBlocks * layout.plane_bytes[p] + i] != fill)
          return fail("writes beyond", fmt::format("split writes beyond the {} bytes a block of plane {}",
                                                   layout.plane_bytes[p], p));
  }
  for (uint32_t p = 0; p < layout.n_planes; ++p) {
    bytes += layout.plane_bytes[p];
    for (size_t i = 0; i < kBlocks * layout.plane_bytes[p]; ++i)
      if (planes[p][i] != second[p][i])
        return fail("not written",
                    fmt::format("split leaves byte {} of plane {} as it was", i % layout.plane_bytes[p], p));
  }
  // What a device reads for every token must not grow beyond the file's bytes by much.
  const double share = static_cast<double>(bytes) / codec.block_bytes;
  const std::string value = fmt::format("{} B of {}, {} planes", bytes, codec.block_bytes, layout.n_planes);
  if (share > 1.05)
    return fail(
        value,
        "planes hold over 5% more than the file's bytes: decoding is bound by the bytes that are read");
  return pass(value);
}

}  // namespace

void check_codec(const apr_quant_format& f, const std::string& wanted_compiler, Recorder& recorder) {
  if (!f.codec) {
    recorder.run("codec", "", [] { return not_run("the format has no codec: it runs on CPUs only"); });
    return;
  }
  const apr_codec& codec = *f.codec;
  recorder.run("codec: text", "one include", [&] { return text(codec); });
  const std::string compiler = find_compiler(wanted_compiler);
  std::optional<HostCodec> host;
  recorder.run("codec: compiles", "no warning", [&] {
    if (compiler.empty())
      return not_run(
          "no C++ compiler here ($CXX, c++, g++, clang++): the layouts were not tried on this processor");
    HostCompilation result = compile_for_host(codec, compiler);
    host = std::move(result.codec);
    if (!host) return fail("does not compile", beginning(result.log));
    if (!result.log.empty()) return fail("warnings", beginning(result.log));
    return pass(compiler);
  });
  if (!host) return;
  recorder.run("codec: constants", "as the table", [&] { return constants(f, *host); });
  if (recorder.run("codec: every column once", "", [&] { return coverage(*host); }) != Verdict::Pass) return;
  const Edge edge(f);
  for (uint32_t i = 0; i < codec.n_layouts; ++i) {
    const apr_layout& layout = *codec.layouts[i];
    std::vector<std::vector<uint8_t>> planes;
    std::vector<const uint8_t*> pointers = {edge.blocks.data()};
    if (layout.split) {
      const std::string check = fmt::format("layout {}: split", layout.name);
      if (recorder.run(check, "105%", [&] { return splits(codec, layout, edge, planes); }) != Verdict::Pass)
        continue;
      pointers.clear();
      for (const auto& plane : planes) pointers.push_back(plane.data());
    }
    recorder.run(fmt::format("layout {}: decode", layout.name), "same bits",
                 [&] { return decodes(codec, *host, i, edge, pointers); });
  }
}

}  // namespace apr::conformance
