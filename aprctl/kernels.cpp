// `aprctl kernels`: which kernels there are, which one each tensor of a model gets and why, and a kernel's
// code.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "aprctl/command_line.h"
#include "aprctl/commands.h"
#include "aprctl/engine.h"
#include "aprctl/installation.h"
#include "aprctl/kernels.h"
#include "aprctl/model_options.h"
#include "aprctl/probe_report.h"
#include "core/base/error.h"
#include "core/base/format.h"
#include "core/base/wrap.h"

namespace apr::ctl {

namespace {

using nlohmann::ordered_json;

std::string tokens(uint32_t least, uint32_t most) {
  return most == 0       ? fmt::format("{} tokens and more", least)
         : least == most ? fmt::format("{} token{}", least, least == 1 ? "" : "s")
                         : fmt::format("{} to {} tokens", least, most);
}

// ---- list
// ------------------------------------------------------------------------------------------------------------------

ordered_json list_json(const std::vector<KernelTemplate>& templates) {
  ordered_json out = ordered_json::array();
  for (const KernelTemplate& t : templates) {
    ordered_json params = ordered_json::array();
    for (const KernelParam& p : t.params) {
      ordered_json values = ordered_json::array();
      for (const int64_t v : p.values)
        values.push_back(p.value_names.empty() ? ordered_json(v) : ordered_json(p.text(v)));
      params.push_back(
          {{"name", p.name},
           {"values", values},
           {"default", p.value_names.empty() ? ordered_json(p.preset) : ordered_json(p.text(p.preset))},
           {"meaning", p.meaning}});
    }
    out.push_back({{"name", t.name},
                   {"op", t.op},
                   {"view", t.view},
                   {"m_min", t.m_min},
                   {"m_max", t.m_max == 0 ? ordered_json(nullptr) : ordered_json(t.m_max)},
                   {"layouts", t.layouts},
                   {"formats", t.formats},
                   {"arch", t.arch},
                   {"summary", t.summary},
                   {"origin", t.origin},
                   {"hash", t.hash},
                   {"params", params}});
  }
  return out;
}

void print_list(const std::vector<KernelTemplate>& templates) {
  for (const KernelTemplate& t : templates) {
    fmt::print("{}\n", t.name);
    std::string facts = fmt::format("op {}, {}", t.op, tokens(t.m_min, t.m_max));
    if (t.view != "none") facts += fmt::format(", view {}", t.view);
    if (!t.layouts.empty()) facts += ", layouts " + joined(t.layouts, " ");
    if (!t.formats.empty()) facts += ", formats " + joined(t.formats, " ");
    if (!t.arch.empty()) facts += fmt::format(", from {} on", t.arch);
    fmt::print("{}{}", wrapped(t.summary, 2), wrapped(facts, 2));
    for (const KernelParam& p : t.params) {
      std::string values;
      for (const int64_t v : p.values) values += (values.empty() ? "" : " ") + p.text(v);
      fmt::print("{}",
                 wrapped(fmt::format("{} = {} (of {}): {}", p.name, p.text(p.preset), values, p.meaning), 4));
    }
    fmt::print("\n");
  }
}

int list(const CommandLine& line, const Probes& probes) {
  Catalog catalog(PluginOptions::search_paths(line, probes));
  const std::string& name = line.get<std::string>("backend");
  const auto templates = kernel_templates(catalog.backend(name), {{"data_dir", data_folder().string()}});
  if (templates.empty()) throw Error("backend {} does not tell which kernels it has", name);
  if (line.flag("json")) {
    const ordered_json out = {
        {"backend", name}, {"probes", probes_json(probes)}, {"kernels", list_json(templates)}};
    fmt::print("{}\n", out.dump(2));
  } else {
    print_list(templates);
  }
  return kExitOk;
}

// ---- explain
// ---------------------------------------------------------------------------------------------------------------

// Parameters as a person needs them: without the rows and the cache key that JSON has elsewhere.
std::string short_config(const std::string& config) {
  std::string out;
  for (size_t at = 0; at < config.size();) {
    const size_t end = std::min(config.find(' ', at), config.size());
    const std::string word = config.substr(at, end - at);
    if (!word.starts_with("m=") && !word.starts_with("key=")) out += (out.empty() ? "" : " ") + word;
    at = end + 1;
  }
  return out;
}

// "blk.12.ffn_down" -> "blk.*.ffn_down"
std::string any_layer(const std::string& stage) {
  if (!stage.starts_with("blk.")) return stage;
  const size_t dot = stage.find('.', 4);
  return dot == std::string::npos ? stage : "blk.*" + stage.substr(dot);
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    lines.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return lines;
}

ordered_json explain_json(const KernelReport& k, double peak) {
  const auto positive = [](double v) { return v > 0 ? ordered_json(v) : ordered_json(nullptr); };
  return {{"stage", k.stage},
          {"tensor", k.weight},
          {"qtype", k.format},
          {"n", k.n},
          {"k", k.k},
          {"layout", k.layout},
          {"op", k.op},
          {"m_min", k.m_min},
          {"m_max", k.m_max},
          {"kernel", k.kernel},
          {"config", k.config},
          {"rule", k.rule},
          {"reason", k.reason},
          {"rejected", lines_of(k.rejected)},
          {"bytes", k.bytes},
          {"spec", k.spec},
          {"launch", k.launch},
          {"us", positive(k.microseconds)},
          {"gbs", positive(k.gbs())},
          {"share_of_peak", positive(peak > 0 ? k.gbs() / peak : 0)}};
}

void print_group(const KernelReport& first, size_t count, double microseconds, double gbs, double peak) {
  std::string head = any_layer(first.stage);
  if (!first.format.empty())
    head += fmt::format("  {} [{},{}] {}", first.format, first.n, first.k, first.layout);
  head += fmt::format("  {}", tokens(first.m_min, first.m_max));
  if (count > 1) head += fmt::format("  x{}", count);
  fmt::print("{}\n{}", head, wrapped(first.kernel + " " + short_config(first.config), 2));
  if (first.bytes > 0 || microseconds > 0) {
    std::string cost = first.bytes > 0 ? human_bytes(first.bytes) : "";
    if (microseconds > 0) cost += fmt::format("{}{:.1f} us", cost.empty() ? "" : ", ", microseconds);
    if (count > 1 && microseconds > 0)
      cost += fmt::format(" each ({:.2f} ms in all)", 1e-3 * microseconds * static_cast<double>(count));
    if (gbs > 0) cost += fmt::format(", {:.1f} GB/s, {:.1f}% of {:.1f}", gbs, 100 * gbs / peak, peak);
    fmt::print("  {}\n", cost);
  }
  fmt::print("{}", wrapped("because: " + first.reason, 2));
  for (const std::string& rejected : lines_of(first.rejected))
    fmt::print("{}", wrapped("not " + rejected, 2));
}

void print_explanation(const std::vector<KernelReport>& kernels, double peak) {
  // Layers that are alike are told once.
  std::vector<std::string> order;
  std::map<std::string, std::vector<const KernelReport*>> groups;
  for (const KernelReport& k : kernels) {
    const std::string key =
        fmt::format("{}|{}|{}|{}|{}|{}|{}|{}|{}|{}", any_layer(k.stage), k.format, k.n, k.k, k.layout,
                    k.m_min, k.kernel, short_config(k.config), k.rule, k.rejected);
    if (groups[key].empty()) order.push_back(key);
    groups[key].push_back(&k);
  }
  for (const std::string& key : order) {
    const auto& group = groups[key];
    double microseconds = 0;
    for (const KernelReport* k : group) microseconds += k->microseconds;
    microseconds /= static_cast<double>(group.size());
    const double gbs = microseconds > 0 ? static_cast<double>(group[0]->bytes) / microseconds * 1e-3 : 0;
    print_group(*group[0], group.size(), microseconds, gbs, peak);
  }
}

// A backend ignores settings that it does not know, and would then decide for the device that is here.
void check_arch(const CommandLine& line, const Engine& engine) {
  const auto wanted = line.find<std::string>("arch");
  if (const std::string arch = engine.device().info().arch; wanted && *wanted != arch)
    throw usage_error("aprctl kernels: --arch {}: backend {} decides for the device that is here alone, {}",
                      printable(*wanted), engine.asked().backend, arch);
}

EngineRequest request_of(const CommandLine& line) {
  EngineRequest request = Engine::request(line);
  request.gate = false;
  if (const auto arch = line.find<std::string>("arch")) request.device.settings.emplace_back("arch", *arch);
  return request;
}

int explain(const CommandLine& line) {
  EngineRequest request = request_of(line);
  const bool run = line.flag("run");
  if (run && line.has("arch"))
    throw usage_error("aprctl kernels explain: --run needs a device, and --arch means that there is none");
  if (run) request.device.settings.emplace_back("time_kernels", "1");
  Engine engine(line, request);
  check_arch(line, engine);
  std::vector<KernelReport> kernels = run ? timed_kernels(engine) : kernel_reports(engine.session());
  const double peak = run ? engine.device().measure_bandwidth() : 0;
  if (!line.flag("all"))
    std::erase_if(kernels,
                  [&](const KernelReport& k) { return k.m_min > 1 && k.m_max < engine.session().batch(); });
  if (line.flag("json")) {
    ordered_json out = engine.report();
    out["peak_gbs"] = run ? ordered_json(peak) : ordered_json(nullptr);
    out["kernels"] = ordered_json::array();
    for (const KernelReport& k : kernels) out["kernels"].push_back(explain_json(k, peak));
    fmt::print("{}\n", out.dump(2, ' ', false, ordered_json::error_handler_t::replace));
  } else {
    print_explanation(kernels, peak);
  }
  return kExitOk;
}

// ---- show
// ------------------------------------------------------------------------------------------------------------------

int show(const CommandLine& line) {
  const auto wanted = line.find<std::string>("name");
  if (!wanted)
    throw usage_error(
        "aprctl kernels show: name a stage or a tensor, as `aprctl kernels explain` shows them");
  Engine engine(line, request_of(line));
  check_arch(line, engine);
  const std::vector<KernelReport> all = kernel_reports(engine.session());
  const uint32_t m = line.get<uint32_t>("tokens");
  std::string known;
  for (uint32_t i = 0; i < all.size(); ++i) {
    const KernelReport& k = all[i];
    if (*wanted != k.stage && *wanted != k.weight) continue;
    if (m < k.m_min || m > k.m_max) {
      known += fmt::format("{}{}", known.empty() ? "" : ", ", tokens(k.m_min, k.m_max));
      continue;
    }
    const CodeReport code = kernel_code(engine.session(), i);
    if (line.flag("json")) {
      const auto number = [](int32_t v) { return v < 0 ? ordered_json(nullptr) : ordered_json(v); };
      ordered_json out = explain_json(k, 0);
      out["probes"] = probes_json(engine.probes());
      out["function"] = code.function, out["isa"] = code.isa, out["key"] = code.key;
      out["registers"] = number(code.registers), out["shared_bytes"] = number(code.shared_bytes),
      out["spill_bytes"] = number(code.spill_bytes);
      out["threads"] = number(code.threads), out["ctas"] = number(code.ctas);
      out["compiler"] = code.compiler, out["source"] = code.source, out["assembly"] = code.assembly;
      fmt::print("{}\n", out.dump(2, ' ', false, ordered_json::error_handler_t::replace));
      return kExitOk;
    }
    print_group(k, 1, 0, 0, 0);
    fmt::print("{}", wrapped(fmt::format("runs {} ({})", code.function, code.isa), 2));
    const auto fact = [](const char* what, int32_t v) {
      if (v >= 0) fmt::print("  {:<24} {}\n", what, v);
    };
    fact("registers of a thread", code.registers), fact("spilled bytes", code.spill_bytes),
        fact("shared bytes of a CTA", code.shared_bytes);
    fact("threads of a CTA", code.threads), fact("CTAs", code.ctas);
    if (!code.key.empty()) fmt::print("  {:<24} {}\n", "cache key", code.key);
    if (!code.compiler.empty()) fmt::print("\n---- compiler\n{}\n", code.compiler);
    if (!code.source.empty()) fmt::print("\n---- source\n{}\n", code.source);
    if (!code.assembly.empty() && line.flag("ptx")) fmt::print("\n---- PTX\n{}\n", code.assembly);
    return kExitOk;
  }
  if (!known.empty())
    throw Error("{}: no kernel serves {} tokens; there are kernels for {}", *wanted, m, known);
  throw Error("this model has no stage or tensor '{}'; `aprctl kernels explain` shows them",
              printable(*wanted));
}

}  // namespace

int kernels_main(const Arguments& args) {
  CommandLine line(
      "kernels",
      "Which kernels there are, which of them a model gets, and their code.\n"
      "  list: the kernels that a backend can choose, with their parameters; needs no device.\n"
      "  explain MODEL: which kernel each tensor gets, why, and what was rejected; --run measures them.\n"
      "  show MODEL NAME: the code of one tensor's or stage's kernel.",
      "aprctl kernels explain model.gguf --backend cuda --arch sm_90a");
  namespace po = boost::program_options;
  line.options().add_options()("action", po::value<std::string>()->default_value("list"),
                               "list, explain or show");
  line.positional("action", 1);
  ModelOptions::add(line);
  line.positional("name", 1);
  BackendOptions::add(line);
  line.options().add_options()("name", po::value<std::string>(),
                               "show: a stage (blk.0.ffn_down) or a tensor (blk.0.ffn_down.weight)")(
      "arch", po::value<std::string>(), "decide for such a device instead of opening one: sm_90a")(
      "run", po::bool_switch(),
      "explain: measure every kernel: products in chains of themselves, others in decode steps and a prompt")(
      "all", po::bool_switch(), "explain: kernels for every number of tokens, not for 1 and the most alone")(
      "tokens", po::value<uint32_t>()->default_value(1), "show: of the kernel that serves so many tokens")(
      "ptx", po::bool_switch(), "show: PTX too")("json", po::bool_switch(), "print JSON");
  if (!line.parse(args)) return kExitOk;
  const std::string action = line.get<std::string>("action");
  if (action == "list") return list(line, probes_in_force());
  if (action == "explain") return explain(line);
  if (action == "show") return show(line);
  throw usage_error("aprctl kernels: no action '{}'; there are list, explain and show", action);
}

}  // namespace apr::ctl
