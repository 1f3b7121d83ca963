// `aprctl inspect`: what a model file says of itself, and how its weights are packed. Opens the file, never the weights.
#include <fmt/format.h>

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "aprctl/command_line.h"
#include "aprctl/commands.h"
#include "aprctl/model_options.h"
#include "aprctl/probe_report.h"
#include "core/base/format.h"
#include "core/base/wrap.h"
#include "core/hf/open_model.h"

namespace apr::ctl {
namespace {

using nlohmann::ordered_json;

constexpr size_t kShownItems = 6;  // of an array, in the table; JSON has them all with --full

struct FormatUse {
  uint64_t tensors = 0, elements = 0, bytes = 0;
};

template <typename T>
ordered_json array_json(const std::vector<T>& items, bool full) {
  ordered_json out = ordered_json::array();
  const size_t n = full ? items.size() : std::min(items.size(), kShownItems);
  for (size_t i = 0; i < n; ++i) {
    if constexpr (std::is_same_v<T, std::string>) {
      out.push_back(printable(items[i], kLongPath));
    } else {
      out.push_back(static_cast<T>(items[i]));
    }
  }
  if (n == items.size()) return out;
  return {{"items", items.size()}, {"first", out}};
}

ordered_json value_json(const MetaValue& value, bool full) {
  return std::visit(
      [&](const auto& v) -> ordered_json {
        using T = std::decay_t<decltype(v)>;
        if constexpr (std::is_same_v<T, MetaArray>) {
          return std::visit([&](const auto& items) { return array_json(items, full); }, v);
        } else if constexpr (std::is_same_v<T, std::string>) {
          return printable(v, full ? ~size_t{0} : kLongPath);
        } else {
          return v;
        }
      },
      value);
}

std::map<std::string, FormatUse> histogram(const Model& model) {
  std::map<std::string, FormatUse> uses;
  for (const Tensor& tensor : model.tensors) {
    FormatUse& use = uses[tensor.format];
    use.tensors += 1;
    use.elements += tensor.elements();
    use.bytes += tensor.bytes;
  }
  return uses;
}

std::string shape_text(const Tensor& tensor) {
  std::string text;
  for (auto d = tensor.dims.rbegin(); d != tensor.dims.rend(); ++d)
    text += fmt::format("{}{}", text.empty() ? "" : " x ", *d);
  return text;
}

// In the order in which sha256() reads them.
std::vector<std::string> file_names(const Model& model) {
  std::vector<std::string> names;
  for (const auto& file : model.files)
    names.push_back(printable(std::filesystem::path(file->path()).filename().string(), kLongPath));
  return names;
}

ordered_json report_json(const Model& model, const std::string& path, bool full, bool sha256) {
  ordered_json out;
  out["file"] = path;
  out["parts"] = model.files.size();
  if (sha256) {
    out["sha256"] = model.sha256();
    out["sha256_of"] = file_names(model);
  }
  out["architecture"] = model.meta.find_string("general.architecture").value_or("");
  out["name"] = printable(model.meta.find_string("general.name").value_or(""));
  out["license"] = printable(model.meta.find_string("general.license").value_or(""));
  out["parameters"] = model.parameters();
  out["weight_bytes"] = model.weight_bytes();
  out["bits_per_weight"] = bits_per_weight(model.weight_bytes(), model.parameters());
  for (const auto& [format, use] : histogram(model)) {
    out["formats"][format] = {{"tensors", use.tensors},
                              {"elements", use.elements},
                              {"bytes", use.bytes},
                              {"bits_per_weight", bits_per_weight(use.bytes, use.elements)}};
  }
  for (const auto& [key, value] : model.meta.entries())
    out["metadata"][printable(key, kLongPath)] = value_json(value, full);
  out["tensors"] = ordered_json::array();
  for (const Tensor& tensor : model.tensors) {
    out["tensors"].push_back({{"name", printable(tensor.name, kLongPath)},
                              {"format", tensor.format},
                              {"n", tensor.n()},
                              {"k", tensor.k()},
                              {"bytes", tensor.bytes},
                              {"part", tensor.part == kNoPart ? ordered_json() : ordered_json(tensor.part)}});
  }
  return out;
}

void print_report(const Model& model, const std::string& path, bool sha256) {
  const auto text = [&](const char* key) {
    return printable(model.meta.find_string(key).value_or("not stated"));
  };
  fmt::print("file          {}\n", path);
  if (model.files.size() > 1) fmt::print("files         {}\n", joined(file_names(model), "\n              "));
  const auto line = [&](const char* label, const char* key) {
    fmt::print("{}", wrapped(fmt::format("{:<13} {}", label, text(key)), 0, 14));
  };
  line("architecture", "general.architecture");
  line("name", "general.name");
  line("licence", "general.license");
  fmt::print("parameters    {} ({})\n", human_count(model.parameters()), model.parameters());
  fmt::print("weights       {}, {:.3f} bits per weight\n", human_bytes(model.weight_bytes()),
             bits_per_weight(model.weight_bytes(), model.parameters()));
  if (sha256)
    fmt::print("sha256        {}{}\n", model.sha256(),
               model.files.size() > 1 ? "\n              (of these files, one after the other)" : "");

  fmt::print("\n{:<12} {:>8} {:>14} {:>12} {:>7}\n", "format", "tensors", "weights", "size", "bpw");
  for (const auto& [format, use] : histogram(model)) {
    fmt::print("{:<12} {:>8} {:>14} {:>12} {:>7.3f}\n", format, use.tensors, use.elements,
               human_bytes(use.bytes), bits_per_weight(use.bytes, use.elements));
  }

  fmt::print("\nmetadata ({} keys)\n", model.meta.entries().size());
  for (const auto& [key, value] : model.meta.entries()) {
    const std::string shown =
        value_json(value, false).dump(-1, ' ', false, ordered_json::error_handler_t::replace);
    // A value that does not fit beside its key goes below it, as much of it as a line takes.
    constexpr size_t kKeyWidth = 42, kLongValue = 72;
    const std::string beside = printable(shown, kTextWidth - kKeyWidth - 3);
    if (shown.size() <= kTextWidth - kKeyWidth - 3)
      fmt::print("  {} {}\n", first_column(printable(key), kKeyWidth), beside);
    else
      fmt::print("  {}\n      {}\n", printable(key), printable(shown, kLongValue));
  }

  fmt::print("\ntensors ({})\n", model.tensors.size());
  for (const Tensor& tensor : model.tensors) {
    fmt::print("  {} {:<12} {:>15} {:>10}\n", first_column(printable(tensor.name), 34), tensor.format,
               shape_text(tensor), human_bytes(tensor.bytes));
  }
}

}  // namespace

int inspect_main(const Arguments& args) {
  CommandLine line(
      "inspect",
      "Show a model's metadata, tensors, formats and size. Weights are not read (but for --sha256).",
      "aprctl inspect model.gguf --json | jq .formats");
  namespace po = boost::program_options;
  ModelOptions::add(line);
  line.options().add_options()("json", po::bool_switch(), "print JSON")(
      "full", po::bool_switch(), "with --json: all elements of long arrays")(
      "sha256", po::bool_switch(), "hash all files of the model (seconds per gigabyte)");
  if (!line.parse(args)) return kExitOk;

  const Probes& probes = probes_in_force();
  const std::string path = ModelOptions::path(line);
  const Model model = open_model(path);
  if (line.flag("json")) {
    ordered_json report = report_json(model, path, line.flag("full"), line.flag("sha256"));
    report["probes"] = probes_json(probes);
    fmt::print("{}\n", report.dump(2, ' ', false, ordered_json::error_handler_t::replace));
  } else {
    print_report(model, path, line.flag("sha256"));
  }
  return kExitOk;
}

}  // namespace apr::ctl
