// What is asked of a kernel (KernelSpec), what was chosen for it (KernelConfig), and the source that both make. Plain,
// printable structs: the same text is the cache's summary, the explanation and the first line of the source.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "apr/quant.h"
#include "plugins/backend-cuda/rules.h"
#include "plugins/backend-cuda/templates.h"

namespace apr::cuda {

struct Constant {
  enum class Type { Int, Bool };
  std::string name;  // "kK"
  int64_t value;
  Type type = Type::Int;
};

// One matrix of a kernel.
struct SegmentSpec {
  std::string format;  // "q4_k", for people
  const apr_codec* codec;
  const apr_layout* layout;  // null: not chosen yet
  uint32_t n;                // output features
  bool bias;
};

struct KernelSpec {
  Op op;
  View view;
  uint32_t m;  // rows: exact (1..8), or 0 = any number, known at run time
  uint32_t k;  // input features, 0 where the op has none
  std::vector<SegmentSpec> segments;
  std::vector<Constant> constants;  // of the op, in the order in which they are printed
};

struct KernelConfig {
  const Template* kernel = nullptr;
  std::vector<const apr_layout*> layouts;  // per segment
  std::vector<Constant> params;
  std::string reason;    // why this template, and why these parameters
  std::string rejected;  // a line for each other template of the op: "gemv_float: eats the float view"
};

// The device that a source is specialised for.
struct Target {
  int capability;  // 90 = 9.0
  int multiprocessors;
  int max_shared;    // bytes of shared memory that one CTA may ask for
  std::string arch;  // "sm_90a"; "compute_100" when NVRTC is older than the device and the driver compiles
  std::string text() const;
};

// The architecture to compile for on a device of this capability, given what the compiler supports.
Target make_target(int capability, int multiprocessors, int max_shared, const std::vector<int>& supported);

// "linear int m=1 k=3584 q4_k:3584+bias q4_k:512+bias q6_k:512 norm epilogue=1"
std::string describe(const KernelSpec& spec);
// "rows=2 lanes=8"
std::string describe(const std::vector<Constant>& params);

// The best template for a spec: of those that can serve it, the one for the newest architecture, then the narrowest range
// of M, then the first by name; a rule that names one leaves no choice. Layouts that the spec leaves open are chosen as the
// template prefers. Nothing when no template can, or the rule's cannot; `why` then has one line per template of the op.
std::optional<KernelConfig> choose(const Registry& registry, const KernelSpec& spec, const Target& target,
                                   std::string* why, const BoundRule* rule = nullptr);

// Null: the codec has no layout of that name.
const apr_layout* find_layout(const apr_codec& codec, const std::string& name);

// A source ready for a compiler, and all that its result depends on.
struct Specialised {
  std::string name;  // "gemv_int.cu"
  std::string summary;
  std::string source;
  std::vector<NamedText> headers;    // those that the source includes, directly or not
  std::vector<std::string> options;  // of NVRTC; empty for literal PTX
  bool literal;
  std::string rule = {};  // origin of the rule that asked for it, for messages; no part of the key
};

Specialised specialise(const Registry& registry, const KernelSpec& spec, const KernelConfig& config,
                       const Target& target);

// SHA-256 over everything in it and the compiler's version.
std::string cache_key(const Specialised& source, const std::string& compiler);

// The texts of include/apr/codec.h and ptx-templates/args.h as this library was compiled with them.
std::string codec_contract();
std::string args_header();

}  // namespace apr::cuda
