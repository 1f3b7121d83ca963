// `aprctl cache`: the compiled kernels on disk. Needs no GPU.
#include <fmt/chrono.h>
#include <fmt/format.h>

#include <ctime>
#include <nlohmann/json.hpp>

#include "aprctl/command_line.h"
#include "aprctl/commands.h"
#include "aprctl/engine.h"
#include "aprctl/probe_report.h"
#include "core/base/error.h"
#include "core/base/format.h"
#include "core/base/wrap.h"
#include "core/kernel_cache/kernel_cache.h"
#include "core/probe/probe.h"

namespace apr::ctl {
namespace {

using nlohmann::ordered_json;

std::string date(int64_t seconds) {
  return fmt::format("{:%Y-%m-%d %H:%M}", fmt::localtime(static_cast<std::time_t>(seconds)));
}

int show(const KernelCache& cache, const std::vector<CacheEntry>& entries, bool verified, bool json) {
  uint64_t bytes = 0;
  size_t damaged = 0;
  for (const CacheEntry& entry : entries) {
    bytes += entry.bytes;
    damaged += entry.damage.empty() ? 0 : 1;
  }
  if (json) {
    ordered_json out = {{"folder", cache.folder()},
                        {"probes", probes_json(probes_in_force())},
                        {"bytes", bytes},
                        {"entries", ordered_json::array()}};
    if (verified) out["damaged"] = damaged;
    for (const CacheEntry& entry : entries) {
      ordered_json row = {{"key", entry.key},     {"summary", entry.summary}, {"compiler", entry.compiler},
                          {"bytes", entry.bytes}, {"created", entry.created}, {"used", entry.used}};
      if (verified) row["damage"] = entry.damage;
      out["entries"].push_back(row);
    }
    fmt::print("{}\n", out.dump(2, ' ', false, ordered_json::error_handler_t::replace));
  } else {
    for (const CacheEntry& entry : entries) {
      fmt::print("{}  {:>10}  {}\n{}", entry.key.substr(0, 12), human_bytes(entry.bytes), date(entry.used),
                 wrapped(printable(entry.summary, kLongPath), 2, 4));
      if (!entry.damage.empty()) fmt::print("{}", wrapped("damaged: " + entry.damage, 2, 4));
    }
    fmt::print("{} kernels, {} in {}\n", entries.size(), human_bytes(bytes), cache.folder());
    if (verified && damaged == 0) fmt::print("every checksum agrees\n");
    if (damaged > 0)
      fmt::print("{}",
                 wrapped(fmt::format("{} damaged: `aprctl cache clear --damaged` removes them; they are "
                                     "also rebuilt on use",
                                     damaged),
                         0));
  }
  return damaged == 0 ? kExitOk : kExitGate;
}

}  // namespace

int cache_main(const Arguments& args) {
  CommandLine line("cache",
                   "List, check or remove compiled kernels.\n"
                   "  list: compiled kernels, last used first.\n"
                   "  verify: compare every checksum; exit 4 when one is damaged.\n"
                   "  clear: remove all of them (they are compiled again when needed).",
                   "aprctl cache verify");
  namespace po = boost::program_options;
  line.options().add_options()("action", po::value<std::string>()->default_value("list"),
                               "list, verify or clear")(
      "damaged", po::bool_switch(), "clear: only damaged entries")("json", po::bool_switch(), "print JSON");
  line.positional("action", 1);
  if (!line.parse(args)) return kExitOk;
  const std::string action = line.get<std::string>("action");
  if (action != "list" && action != "verify" && action != "clear")
    throw usage_error("aprctl cache: no action '{}'; there are list, verify and clear", action);
  if (line.flag("damaged") && action != "clear") throw usage_error("aprctl cache: --damaged goes with clear");

  KernelCache::Options options;
  options.folder = kernel_cache_folder(probes_in_force());
  if (options.folder.empty())
    throw Error("there is no cache folder: set APR_KERNEL_CACHE, XDG_CACHE_HOME or HOME");
  KernelCache cache(options);
  if (action == "list") return show(cache, cache.list(), false, line.flag("json"));
  if (action == "verify") return show(cache, cache.verify(), true, line.flag("json"));
  const KernelCache::Cleared cleared = cache.clear(line.flag("damaged"));
  if (line.flag("json")) {
    fmt::print("{}\n", ordered_json{{"folder", cache.folder()},
                                    {"probes", probes_json(probes_in_force())},
                                    {"entries", cleared.entries},
                                    {"bytes", cleared.bytes}}
                           .dump(2));
  } else {
    fmt::print("removed {} kernels, {}, from {}\n", cleared.entries, human_bytes(cleared.bytes),
               cache.folder());
  }
  return kExitOk;
}

}  // namespace apr::ctl
