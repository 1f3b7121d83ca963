// `aprctl plugins`: which weight formats and backends this installation has, where they were searched, what was refused
// and why. `list` reads manifests only; `info NAME` opens one library and shows its tables.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

#include "aprctl/command_line.h"
#include "aprctl/commands.h"
#include "aprctl/model_options.h"
#include "aprctl/probe_report.h"
#include "core/base/error.h"
#include "core/base/format.h"
#include "core/base/wrap.h"
#include "core/dispatch/isa.h"
#include "core/plugin/catalog.h"

namespace apr::ctl {
namespace {

using nlohmann::ordered_json;

std::string_view kind_name(apr_codec_kind kind) {
  switch (kind) {
    case APR_CODEC_INTEGER:
      return "integer";
    case APR_CODEC_FLOAT:
      return "float";
  }
  return "unknown";
}

ordered_json list_json(const Catalog& catalog) {
  ordered_json out = {{"probes", probes_json(probes_in_force())}};
  out["plugins"] = ordered_json::array();
  for (const FoundPlugin& plugin : catalog.plugins()) {
    out["plugins"].push_back(
        {{"name", plugin.manifest.name},
         {"kind", name(plugin.manifest.kind)},
         {"version", plugin.manifest.version},
         {"abi", fmt::format("{}.{}", plugin.manifest.abi_major, plugin.manifest.abi_minor)},
         {"provides", plugin.manifest.provides},
         {"library", plugin.manifest.library.string()},
         {"found_by", plugin.origin}});
  }
  out["searched"] = ordered_json::array();
  for (const SearchPath& path : catalog.searched())
    out["searched"].push_back(
        {{"path", path.path.string()}, {"origin", path.origin}, {"exists", path.exists}});
  out["refused"] = ordered_json::array();
  for (const RefusedPlugin& refused : catalog.refused())
    out["refused"].push_back({{"path", refused.path.string()}, {"reason", refused.reason}});
  return out;
}

void print_list(const Catalog& catalog) {
  fmt::print("{:<16} {:<8} {:<8} {:<5} {}\n", "plugin", "kind", "version", "abi", "provides");
  for (const FoundPlugin& plugin : catalog.plugins()) {
    fmt::print("{} {:<8} {:<8} {}.{:<3} {}", first_column(plugin.manifest.name, 16),
               name(plugin.manifest.kind), plugin.manifest.version, plugin.manifest.abi_major,
               plugin.manifest.abi_minor, wrapped(joined(plugin.manifest.provides, " "), 41).substr(41));
  }
  fmt::print("\nsearched\n");
  for (const SearchPath& path : catalog.searched())
    fmt::print("{}", wrapped(fmt::format("{} ({}{})", path.path.string(), path.origin,
                                         path.exists ? "" : "; does not exist"),
                             2, 4));
  if (!catalog.refused().empty()) fmt::print("\nrefused\n");
  for (const RefusedPlugin& refused : catalog.refused())
    fmt::print("  {}\n{}", refused.path.string(), wrapped(refused.reason, 4));
  fmt::print("\n`aprctl plugins info NAME` opens a plugin: its formats, kernels and devices.\n");
}

ordered_json format_json(const apr_quant_format& format) {
  ordered_json out = {{"name", format.name},
                      {"description", format.description},
                      {"block_elements", format.block_elements},
                      {"block_bytes", format.block_bytes},
                      {"bits_per_weight", bits_per_weight(format.block_bytes, format.block_elements)},
                      {"quantizes", format.quantize != nullptr}};
  if (format.gguf_type >= 0) out["gguf_type"] = format.gguf_type;
  for (uint32_t i = 0; i < format.n_cpu; ++i) {
    const apr_cpu_kernels& kernels = *format.cpu[i];
    ordered_json functions = ordered_json::array();
    if (kernels.gemv_int) functions.push_back("gemv_int");
    if (kernels.gemv_float) functions.push_back("gemv_float");
    if (kernels.unpack_int) functions.push_back("unpack_int");
    if (kernels.unpack_float) functions.push_back("unpack_float");
    out["cpu"].push_back(
        {{"isa", apr::name(kernels.isa)}, {"origin", kernels.origin}, {"functions", functions}});
  }
  if (format.codec) {
    out["codec"] = {{"type", format.codec->cpp_type}, {"view", kind_name(format.codec->kind)}};
    for (uint32_t i = 0; i < format.codec->n_layouts; ++i) {
      const apr_layout& layout = *format.codec->layouts[i];
      uint32_t bytes = 0;
      for (uint32_t p = 0; p < layout.n_planes; ++p) bytes += layout.plane_bytes[p];
      out["codec"]["layouts"].push_back(
          {{"name", layout.name}, {"planes", layout.n_planes}, {"block_bytes", bytes}});
    }
  }
  return out;
}

ordered_json backend_json(const apr_backend& backend) {
  ordered_json out = {{"name", backend.name}, {"description", backend.description}};
  uint32_t count = 0;
  apr_error error{};
  error.struct_size = sizeof error;
  if (backend.devices(&count, &error) != APR_OK) {
    out["devices"] = ordered_json::array();
    out["unusable_because"] = error.message;
    return out;
  }
  out["devices"] = ordered_json::array();
  for (uint32_t index = 0; index < count; ++index) {
    apr_device_options options{};
    options.struct_size = sizeof options;
    options.index = index;
    apr_device* device = nullptr;
    apr_device_info info{};
    info.struct_size = sizeof info;
    if (backend.open(&options, &device, &error) != APR_OK ||
        backend.device_info(device, &info, &error) != APR_OK) {
      out["devices"].push_back({{"index", index}, {"unusable_because", error.message}});
    } else {
      out["devices"].push_back({{"index", index},
                                {"name", info.name},
                                {"detail", info.detail},
                                {"arch", info.arch},
                                {"units", info.units},
                                {"memory_total", info.memory_total},
                                {"memory_free", info.memory_free}});
    }
    backend.close(device);
  }
  return out;
}

// Objects as indented "key  value" lines, so that the table and the JSON cannot tell different things.
void print_tree(const ordered_json& tree, int indent) {
  for (const auto& [key, value] : tree.items()) {
    const std::string label = tree.is_array() ? "-" : key;
    const auto print_value = [&](const std::string& text) {
      fmt::print("{}", wrapped(fmt::format("{:<16} {}", label, text), static_cast<size_t>(indent),
                               static_cast<size_t>(indent) + 17));
    };
    if (value.is_structured() && !(value.is_array() && !value.empty() && value[0].is_primitive())) {
      fmt::print("{:{}}{}\n", "", indent, label);
      print_tree(value, indent + 2);
    } else if (value.is_array()) {
      std::vector<std::string> items;
      for (const auto& item : value)
        items.push_back(item.is_string() ? item.get<std::string>() : item.dump());
      print_value(joined(items, " "));
    } else {
      print_value(value.is_string() ? value.get<std::string>() : value.dump());
    }
  }
}

ordered_json info_json(Catalog& catalog, const std::string& wanted) {
  for (size_t i = 0; i < catalog.plugins().size(); ++i) {
    const Manifest manifest = catalog.plugins()[i].manifest;
    if (manifest.name != wanted && !manifest.provides_name(wanted)) continue;
    const apr_plugin& plugin = catalog.open(i);
    ordered_json out = {{"name", plugin.name},
                        {"version", plugin.version},
                        {"license", plugin.license},
                        {"abi", fmt::format("{}.{}", plugin.abi_major, plugin.abi_minor)},
                        {"library", manifest.library.string()}};
    for (uint32_t f = 0; f < plugin.n_formats; ++f) out["formats"].push_back(format_json(*plugin.formats[f]));
    for (uint32_t b = 0; b < plugin.n_backends; ++b)
      out["backends"].push_back(backend_json(*plugin.backends[b]));
    return out;
  }
  throw Error("no plugin named or providing '{}'; `aprctl plugins` lists those found", wanted);
}

}  // namespace

int plugins_main(const Arguments& args) {
  if (!args.empty() && args[0] == "check") return plugins_check_main({args.begin() + 1, args.end()});
  if (!args.empty() && args[0] == "new") return plugins_new_main({args.begin() + 1, args.end()});
  CommandLine line("plugins",
                   "Weight formats and backends.\n"
                   "  list: plugins found, paths searched, plugins refused. No library is opened.\n"
                   "  info NAME: one plugin's formats and kernels, or its devices.\n"
                   "  check PLUGIN: the conformance test; see `aprctl plugins check --help`.\n"
                   "  new NAME: a project for a format of your own; see `aprctl plugins new --help`.",
                   "aprctl plugins info q4_k");
  namespace po = boost::program_options;
  PluginOptions::add(line);
  line.options().add_options()("action", po::value<std::string>()->default_value("list"),
                               "list, info, check or new")(
      "name", po::value<std::string>(), "info: a plugin's name, or the name of a format or backend")(
      "json", po::bool_switch(), "print JSON");
  line.positional("action", 1);
  line.positional("name", 1);
  if (!line.parse(args)) return kExitOk;

  Catalog catalog(PluginOptions::search_paths(line, probes_in_force()));
  const std::string action = line.get<std::string>("action");
  if (action == "list") {
    if (line.flag("json")) {
      fmt::print("{}\n", list_json(catalog).dump(2));
    } else {
      print_list(catalog);
    }
    return kExitOk;
  }
  if (action != "info")
    throw usage_error("aprctl plugins: no action '{}'; there are list, info, check and new", action);
  const auto wanted = line.find<std::string>("name");
  if (!wanted) throw usage_error("aprctl plugins info: name a plugin, a format or a backend");
  const ordered_json info = info_json(catalog, *wanted);
  if (line.flag("json")) {
    ordered_json out = info;
    out["probes"] = probes_json(probes_in_force());
    fmt::print("{}\n", out.dump(2));
  } else {
    print_tree(info, 0);
  }
  return kExitOk;
}

}  // namespace apr::ctl
