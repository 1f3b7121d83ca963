// profile_cpu MODEL.gguf [prompt=128] [tokens=32] [depth=0] [threads=0] [isa] [--precise]
// Where a step's time goes: best of three prompts and median decode step, then microseconds by kind of operation.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

#include "model.h"

using namespace apr;
using namespace apr::test;

namespace {

double seconds(std::chrono::steady_clock::time_point from) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - from).count();
}

// Stages without their layer, by time.
void print_kernels(const Session& session, const char* title) {
  struct Sum {
    double microseconds = 0;
    uint64_t bytes = 0;
  };
  std::map<std::string, Sum> kinds;
  double total = 0;
  for (const apr_kernel_info& k : session.kernels()) {
    const char* stage = k.stage;
    if (std::strncmp(stage, "blk.", 4) == 0) stage = std::strchr(stage + 4, '.') + 1;
    Sum& sum = kinds[std::string(stage) + " " + k.format];
    sum.microseconds += k.microseconds;
    sum.bytes += k.bytes;
    total += k.microseconds;
  }
  std::vector<std::pair<std::string, Sum>> sorted(kinds.begin(), kinds.end());
  std::sort(sorted.begin(), sorted.end(),
            [](const auto& a, const auto& b) { return a.second.microseconds > b.second.microseconds; });
  std::printf("%s: %.0f us\n", title, total);
  for (const auto& [name, sum] : sorted)
    std::printf("  %-24s %9.0f us %5.1f%%  %6.1f GB/s\n", name.c_str(), sum.microseconds,
                100 * sum.microseconds / total, static_cast<double>(sum.bytes) / sum.microseconds * 1e-3);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(
        stderr,
        "usage: profile_cpu MODEL.gguf [prompt=128] [tokens=32] [depth=0] [threads=0] [isa] [--precise]\n");
    return 2;
  }
  const auto number = [&](int i, int otherwise) { return argc > i ? std::atoi(argv[i]) : otherwise; };
  const int prompt = number(2, 128), tokens = number(3, 32), depth = number(4, 0);
  LoadRequest request;
  request.n_ctx = static_cast<uint32_t>(depth + std::max(prompt, 1) + tokens + 1);
  request.n_batch = static_cast<uint32_t>(std::max({prompt, 1, std::min(depth, 512)}));
  request.precise = std::strcmp(argv[argc - 1], "--precise") == 0;
  try {
    const std::string isa = argc > 6 && std::strncmp(argv[6], "--", 2) != 0 ? argv[6] : "";
    const LoadedModel m = load_model(argv[1], isa, static_cast<uint32_t>(number(5, 0)), request);
    const apr_session_info info = m.session->info();
    std::printf("%s; load %.2f s (%.2f s reading weights); weights %.0f MiB, kv %.0f MiB, scratch %.0f MiB\n",
                m.device->info().detail, info.load_seconds, info.upload_seconds,
                info.weight_bytes / 1048576.0, info.kv_bytes / 1048576.0, info.scratch_bytes / 1048576.0);
    const auto token = [&](int i) {
      return static_cast<int32_t>((100 + i * 7919) % (m.session->vocab() - 1));
    };
    std::vector<int32_t> ids;
    for (int i = 0; i < std::max(depth, prompt); ++i) ids.push_back(token(i));
    for (int at = 0; at < depth; at += 512)
      m.session->feed(
          std::span(ids).subspan(static_cast<size_t>(at), static_cast<size_t>(std::min(512, depth - at))),
          at);
    double best = 1e9;
    for (int r = 0; r < 3 && prompt > 0; ++r) {
      const auto start = std::chrono::steady_clock::now();
      m.session->feed(std::span(ids).first(static_cast<size_t>(prompt)), depth);
      best = std::min(best, seconds(start));
    }
    if (prompt > 0) {
      std::printf("prompt of %d at %d: %.1f tok/s\n", prompt, depth, prompt / best);
      print_kernels(*m.session, "last prompt");
    }
    std::vector<double> times;
    for (int i = 0; i < tokens; ++i) {
      const auto start = std::chrono::steady_clock::now();
      const int32_t id = token(1000 + i);
      m.session->feed_argmax(std::span(&id, 1), depth + prompt + i);
      times.push_back(seconds(start));
    }
    if (tokens > 0) {
      std::sort(times.begin(), times.end());
      const double median = times[times.size() / 2];
      std::printf("decode at %d: median %.1f tok/s, best %.1f; %.1f GB/s of weights\n", depth + prompt,
                  1 / median, 1 / times[0], static_cast<double>(info.token_bytes) / median * 1e-9);
      print_kernels(*m.session, "last token");
    }
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
