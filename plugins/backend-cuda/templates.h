// Kernel templates: self-describing files in one folder. A template's first comment is TOML that says what it computes
// and which parameters may be tuned; a new kernel is a new file. docs/kernels.md is the author's manual.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "plugins/backend-cuda/compiler.h"

namespace apr::cuda {

enum class Op {
  Embed,
  RmsNorm,
  Convert,
  Linear,
  Rope,
  RopeKv,
  Attention,
  Add,
  Swiglu,
  Gather,
  Argmax,
  TopK,
  ReadBandwidth,
  WeightRange,
};
constexpr int kOps = 14;

// Which view of a codec a kernel eats.
enum class View { None, Int, Float };

const char* to_string(Op op);
const char* to_string(View view);

struct TemplateParam {
  std::string name;  // becomes a constant of this name
  std::vector<int64_t> values;
  int64_t preset;  // one of the values
  std::string meaning;
};

// Parameters measured to be best for some shapes. Ranges are inclusive; the first preset whose ranges hold is taken.
struct TemplatePreset {
  struct Range {
    std::string
        what;  // m, k, n (rows of all segments together), segments, bits (of a weight, rounded), capability
    int64_t least, most;
  };
  std::vector<Range> ranges;
  std::vector<std::pair<std::string, int64_t>> params;
  std::string why;
};

struct Template {
  std::string name;
  Op op;
  View view;
  uint32_t m_min, m_max;             // tokens that it serves, inclusive; m_max = 0: unbounded
  std::vector<std::string> layouts;  // in order of preference; empty for kernels without weights
  int arch;                          // least compute capability, 80 = 8.0
  bool arch_specific;  // feature "a": needs exactly this architecture's own instructions (sm_90a)
  std::string summary;
  std::vector<TemplateParam> params;
  std::vector<TemplatePreset> presets;
  // What a literal one is limited to: it cannot splice a codec in, so it names the formats whose bytes it reads.
  std::vector<std::string> formats;    // empty: any
  std::vector<std::string> epilogues;  // "none", "residual", "swiglu"; empty: any
  uint32_t max_segments;
  bool norm;                              // can fold a norm in
  bool literal;                           // PTX with {{placeholders}}, compiled by the driver
  std::string file;                       // path, for messages
  std::string text;                       // the whole file
  std::vector<std::string> placeholders;  // of a literal one, each once
};

// Reads the TOML comment of one template. Throws apr::Error with file and line for anything that is missing, unknown or
// of a wrong type.
Template parse_template(const std::string& file, const std::string& text);

// All templates and the headers that they may include.
struct Registry {
  std::string folder;
  std::vector<Template> templates;  // by name
  std::vector<NamedText> headers;   // *.h of the folder, by name
};

// Reads a folder. Throws apr::Error when it cannot be read, has no template, or two of one name.
Registry read_registry(const std::string& folder);

// Where the templates are: `setting` (the setting data_dir: the folder that holds ptx-templates) when it is not empty, else
// relative to this library: the build tree, a bundle, an installation. Throws apr::Error with the places searched.
std::string find_template_folder(const std::string& setting);

}  // namespace apr::cuda
