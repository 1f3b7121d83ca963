// Where a decode step's time goes: every kernel timed alone with events, in the order of the step, then summed by kernel,
// beside the step's own time as a graph. Usage: gpu_profile MODEL.gguf PLUGIN_DIR DATA_DIR [DEPTH [TOKENS]]; TOKENS > 1 profiles a prompt.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <map>
#include <vector>

#include "core/model/model.h"
#include "core/plan/plan.h"
#include "core/plugin/catalog.h"
#include "core/runtime/session.h"

namespace {

using namespace apr;

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

struct Run {
  double milliseconds;  // of a step
  std::vector<apr_kernel_info> kernels;
};

Run run(const apr_backend& backend, const apr_plan& plan, const std::string& data, bool timed, uint32_t depth,
        uint32_t tokens, bool print) {
  DeviceRequest request;
  request.settings = {{"data_dir", data}};
  if (timed) request.settings.emplace_back("time_kernels", "1");
  const Device device(backend, request);
  LoadRequest load;
  load.n_ctx = depth + 256 + tokens, load.n_batch = std::max(tokens, 512u);
  Session session(device, plan, load);
  const apr_session_info info = session.info();
  if (!timed)
    fmt::print("load {:.2f} s (kernels {:.2f} s: {} compiled, {} cached; weights {:.2f} s)\n",
               info.load_seconds, info.compile_seconds, info.kernels_compiled, info.kernels_cached,
               info.upload_seconds);
  const std::vector<int32_t> context(depth, 100), step(tokens, 101);
  if (depth > 0) session.feed_argmax(context, 0);
  const int repeats = tokens == 1 ? 64 : 5;
  const auto once = [&] { return session.feed_argmax(step, static_cast<int32_t>(depth)); };
  for (int i = 0; i < 3; ++i) once();
  const double start = seconds();
  for (int i = 0; i < repeats; ++i) once();
  Run result{(seconds() - start) / repeats * 1e3, {}};
  if (!print) return result;
  struct Sum {
    double microseconds = 0;
    uint64_t bytes = 0;
    int launches = 0;
  };
  std::map<std::string, Sum> sums;
  double total = 0;
  const std::string wanted_m = tokens == 1 ? "m=1 " : "m=any";
  int64_t last = -1;
  for (const apr_kernel_info& k : session.kernels()) {
    const std::string config = k.config;
    if (config.compare(0, wanted_m.size(), wanted_m) != 0) continue;
    const bool same = k.launch == last;  // segments of one launch, which share its time
    last = k.launch;
    const std::string stage = k.stage;
    const size_t dot = stage.rfind('.');
    Sum& sum = sums[fmt::format("{:<18} {:<4} {}", dot == std::string::npos ? stage : stage.substr(dot + 1),
                                k.format, k.kernel)];
    sum.bytes += k.bytes;
    sum.microseconds += k.microseconds, total += k.microseconds;
    if (!same) ++sum.launches;
    if (stage.compare(0, 4, "blk.") != 0 || stage.compare(0, 6, "blk.0.") == 0)
      fmt::print("  {:<22} {:<26} {:<5} {:<16} {:>8.2f} us {:>7.0f} GB/s  {}\n", stage, k.weight, k.format,
                 k.kernel, k.microseconds,
                 k.microseconds > 0 ? static_cast<double>(k.bytes) / k.microseconds / 1e3 : 0.0, config);
  }
  fmt::print("sums over all layers (kernels one by one, {:.0f} us together):\n", total);
  for (const auto& [name, sum] : sums)
    fmt::print("  {:<45} {:>4} x {:>8.2f} us = {:>9.1f} us {:>7.0f} GB/s\n", name, sum.launches,
               sum.launches == 0 ? 0.0 : sum.microseconds / sum.launches, sum.microseconds,
               sum.microseconds > 0 ? static_cast<double>(sum.bytes) / sum.microseconds / 1e3 : 0.0);
  return result;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4)
    return fmt::print(stderr, "usage: gpu_profile MODEL PLUGIN_DIR DATA_DIR [DEPTH [TOKENS]]\n"), 2;
  try {
    const Model model = open_gguf(argv[1]);
    Catalog catalog({{argv[2], "--plugin-path", true}});
    const auto plan = build_plan(model, catalog, {});
    const apr_backend& backend = catalog.backend("cuda");
    const uint32_t depth = argc > 4 ? static_cast<uint32_t>(std::atoi(argv[4])) : 0,
                   tokens = argc > 5 ? static_cast<uint32_t>(std::atoi(argv[5])) : 1;
    const Run whole = run(backend, plan->c(), argv[3], false, depth, tokens, false);
    fmt::print("{}: {:.3f} ms a step as it runs, {:.0f} tokens/s\n", argv[1], whole.milliseconds,
               tokens * 1e3 / whole.milliseconds);
    run(backend, plan->c(), argv[3], true, depth, tokens, true);
  } catch (const std::exception& e) {
    fmt::print(stderr, "gpu_profile: {}\n", e.what());
    return 1;
  }
  return 0;
}
