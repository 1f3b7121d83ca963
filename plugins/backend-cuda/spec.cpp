#include "plugins/backend-cuda/spec.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/base/sha256.h"
#include "plugins/backend-cuda/failure.h"

namespace apr::cuda {

std::string codec_contract() {
  // After the line break that follows the literal's opening.
  return std::string(
#include "plugins/backend-cuda/codec_text.inc"
             )
      .substr(1);
}

std::string args_header() {
  return std::string(
#include "plugins/backend-cuda/args_text.inc"
             )
      .substr(1);
}

std::string Target::text() const { return fmt::format("{} on {} multiprocessors", arch, multiprocessors); }

Target make_target(int capability, int multiprocessors, int max_shared, const std::vector<int>& supported) {
  // From 9.0 on, each generation has instructions under a name of its own: sm_90a. They exist where the compiler knows
  // exactly this architecture.
  const bool exact = std::find(supported.begin(), supported.end(), capability) != supported.end();
  Target target{capability, multiprocessors, max_shared, ""};
  if (exact || supported.empty()) {
    target.arch = fmt::format("sm_{}{}", capability, capability >= 90 ? "a" : "");
    return target;
  }
  int best = 0;
  for (const int arch : supported)
    if (arch <= capability) best = std::max(best, arch);
  if (best == 0)
    throw failure(APR_NO_DEVICE,
                  "the device has compute capability {}.{}, which this NVRTC no longer supports; install an "
                  "older NVRTC (CUDA 12)",
                  capability / 10, capability % 10);
  // Same major: machine code for the lower minor runs (8.0 on 8.6). Otherwise PTX, which the driver compiles.
  target.arch = best / 10 == capability / 10 ? fmt::format("sm_{}", best) : fmt::format("compute_{}", best);
  return target;
}

std::string describe(const KernelSpec& spec) {
  std::string text = to_string(spec.op);
  if (spec.view != View::None) text += fmt::format(" {}", to_string(spec.view));
  text += spec.m == 0 ? " m=any" : fmt::format(" m={}", spec.m);
  if (spec.k != 0) text += fmt::format(" k={}", spec.k);
  for (const SegmentSpec& s : spec.segments)
    text += fmt::format(" {}:{}{}", s.format, s.n, s.bias ? "+bias" : "");
  for (const Constant& c : spec.constants) text += fmt::format(" {}={}", c.name.substr(1), c.value);
  return text;
}

std::string describe(const std::vector<Constant>& params) {
  std::string text;
  for (const Constant& p : params) text += fmt::format("{}{}={}", text.empty() ? "" : " ", p.name, p.value);
  return text;
}

namespace {

std::string constant_line(const Constant& c) {
  switch (c.type) {
    case Constant::Type::Int:
      return fmt::format("constexpr int {} = {};\n", c.name, c.value);
    case Constant::Type::Bool:
      return fmt::format("constexpr bool {} = {};\n", c.name, c.value != 0);
  }
  return "";
}

// A GEMM is compiled once for any number of rows.
uint32_t compiled_m(const KernelSpec& spec, const Template& t) {
  return spec.op == Op::Linear && t.m_max == 0 ? 0 : spec.m;
}

std::string fill_placeholders(const Template& t, const std::vector<Constant>& constants) {
  std::string out;
  size_t from = 0;
  for (size_t at = t.text.find("{{"); at != std::string::npos; at = t.text.find("{{", from)) {
    const size_t end = t.text.find("}}", at);
    const std::string name = t.text.substr(at + 2, end - at - 2);
    const auto found =
        std::find_if(constants.begin(), constants.end(), [&](const Constant& c) { return c.name == name; });
    if (found == constants.end()) {
      std::string known;
      for (const Constant& c : constants) known += " " + c.name;
      throw Error("{}: unknown placeholder {{{{{}}}}}; known are{}", t.file, name, known);
    }
    out.append(t.text, from, at - from);
    out += std::to_string(found->value);
    from = end + 2;
  }
  return out.append(t.text, from, std::string::npos);
}

// Names in #include "..." lines.
std::vector<std::string> included(const std::string& text) {
  std::vector<std::string> names;
  for (size_t at = text.find("#include \""); at != std::string::npos; at = text.find("#include \"", at + 1)) {
    if (at > 0 && text[at - 1] != '\n') continue;
    const size_t open = at + 10, close = text.find('"', open);
    if (close != std::string::npos) names.push_back(text.substr(open, close - open));
  }
  return names;
}

// The headers that a text reaches. The rest stays out of the compiler and of the cache's key.
std::vector<NamedText> reachable(const std::string& source, const std::vector<NamedText>& all,
                                 const std::string& file) {
  std::vector<NamedText> out;
  std::vector<std::string> open = included(source);
  while (!open.empty()) {
    const std::string name = open.back();
    open.pop_back();
    if (std::any_of(out.begin(), out.end(), [&](const NamedText& h) { return h.name == name; })) continue;
    const auto found =
        std::find_if(all.begin(), all.end(), [&](const NamedText& h) { return h.name == name; });
    if (found == all.end())
      throw Error("{}: includes \"{}\", which is neither beside it nor apr/codec.h nor a codec", file, name);
    out.push_back(*found);
    for (std::string& next : included(found->text)) open.push_back(std::move(next));
  }
  std::sort(out.begin(), out.end(), [](const NamedText& a, const NamedText& b) { return a.name < b.name; });
  return out;
}

}  // namespace

Specialised specialise(const Registry& registry, const KernelSpec& spec, const KernelConfig& config,
                       const Target& target) {
  const Template& t = *config.kernel;
  Specialised out;
  out.literal = t.literal;
  out.name = t.name + (t.literal ? ".ptx" : ".cu");
  out.summary = fmt::format("{}: {}{}{} for {}", t.name, describe(spec), config.params.empty() ? "" : "; ",
                            describe(config.params), target.arch);

  std::vector<Constant> constants = {{"kArch", target.capability, Constant::Type::Int},
                                     {"kSms", target.multiprocessors, Constant::Type::Int},
                                     {"kMaxShared", target.max_shared, Constant::Type::Int},
                                     {"kM", compiled_m(spec, t), Constant::Type::Int}};
  if (spec.k != 0) constants.push_back({"kK", spec.k, Constant::Type::Int});
  if (!spec.segments.empty())
    constants.push_back({"kSegments", static_cast<int64_t>(spec.segments.size()), Constant::Type::Int});
  constants.insert(constants.end(), spec.constants.begin(), spec.constants.end());
  constants.insert(constants.end(), config.params.begin(), config.params.end());

  if (t.literal) {
    if (!spec.segments.empty()) {
      constants.push_back({"kN", spec.segments[0].n, Constant::Type::Int});
      constants.push_back({"kBias", spec.segments[0].bias, Constant::Type::Bool});
    }
    out.source = fill_placeholders(t, constants);
    return out;
  }

  std::vector<NamedText> headers = registry.headers;
  headers.push_back({"apr/codec.h", codec_contract()});
  out.source = fmt::format("// {}\n#include \"apr/codec.h\"\n#include \"args.h\"\n", out.summary);
  // Formats of one plugin may share one text: it goes in once.
  std::vector<const char*> texts;
  for (const SegmentSpec& segment : spec.segments) {
    const std::string text = segment.codec->source;
    if (std::any_of(texts.begin(), texts.end(), [&](const char* known) { return text == known; })) continue;
    texts.push_back(segment.codec->source);
    const std::string name = fmt::format("codec/{}.h", segment.format);
    headers.push_back({name, text});
    out.source += fmt::format("#include \"{}\"\n", name);
  }
  out.source += "namespace apr::spec {\n";
  for (const Constant& c : constants) out.source += constant_line(c);
  for (size_t i = 0; i < spec.segments.size(); ++i) {
    const SegmentSpec& s = spec.segments[i];
    out.source += fmt::format(
        "struct Segment{} {{ using Codec = {}; using Layout = {}; static constexpr int kN = {}; static "
        "constexpr bool kBias = {}; }};\n",
        i, s.codec->cpp_type, config.layouts[i]->cpp_type, s.n, s.bias);
  }
  if (!spec.segments.empty()) {
    out.source += "using Segments = apr::SegmentList<";
    for (size_t i = 0; i < spec.segments.size(); ++i)
      out.source += fmt::format("{}Segment{}", i == 0 ? "" : ", ", i);
    out.source += ">;\n";
  }
  out.source += fmt::format("}}  // namespace apr::spec\n#line 1 \"{}\"\n", out.name);
  out.source += t.text;
  out.headers = reachable(out.source, headers, t.file);
  // A codec's host-only functions carry no execution space: -default-device lets NVRTC parse them. -lineinfo costs nothing at run time and lets profilers and compute-sanitizer name the template's line.
  out.options = {"--gpu-architecture=" + target.arch, "-std=c++20", "-lineinfo", "-default-device"};
  return out;
}

std::string cache_key(const Specialised& source, const std::string& compiler) {
  Sha256 hash;
  const auto add = [&](const std::string& text) {
    // Lengths keep neighbours apart: ("ab", "c") is not ("a", "bc").
    hash.update(fmt::format("{}:", text.size()));
    hash.update(text);
  };
  add("apr kernel 1");
  add(compiler);
  add(source.name);
  add(source.source);
  add(std::to_string(source.headers.size()));
  for (const NamedText& header : source.headers) add(header.name), add(header.text);
  add(std::to_string(source.options.size()));
  for (const std::string& option : source.options) add(option);
  return hash.finish_hex();
}

}  // namespace apr::cuda
