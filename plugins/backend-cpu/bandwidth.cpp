// Memory bandwidth of a read-only kernel on all threads: what decoding is held against.
#include <algorithm>
#include <chrono>

#include "device.h"
#include "memory.h"

using namespace apr::cpu;

namespace {

uint64_t sum_lines(const uint64_t* p, uint64_t words) {
  // Eight sums, so that the loads and not an addition's latency set the pace; compilers make vectors of them.
  uint64_t s[8] = {};
  for (uint64_t i = 0; i < words; i += 8)
    for (int j = 0; j < 8; ++j) s[j] += p[i + static_cast<uint64_t>(j)];
  uint64_t total = 0;
  for (const uint64_t x : s) total += x;
  return total;
}

}  // namespace

double apr_device::measure_bandwidth() {
  using Clock = std::chrono::steady_clock;
  const auto seconds = [](Clock::time_point from) {
    return std::chrono::duration<double>(Clock::now() - from).count();
  };
  // Four times the last-level cache, so that little of it is found there again; less where memory is short.
  const uint64_t wanted = std::clamp<uint64_t>(4 * topology.cache_bytes, 256u << 20, 1024u << 20);
  const uint64_t bytes = std::max<uint64_t>(std::min(wanted, read_memory().available / 4) >> 20, 16) << 20;
  const Memory memory(bytes, "the measurement of memory bandwidth");
  const uint32_t threads = pool->threads();
  const uint64_t words = bytes / 8 / threads / 8 * 8;
  volatile uint64_t sink = 0;

  const auto begin = Clock::now();
  // Written first: untouched pages are all the same page of zeros.
  pool->run([&](uint32_t t) { std::fill_n(memory.as<uint64_t>() + t * words, words, t + 1); });
  double best = 0;
  for (int pass = 0; pass < 16 && (pass < 2 || seconds(begin) < 0.8); ++pass) {
    const auto start = Clock::now();
    pool->run([&](uint32_t t) {
      // Interleaved pieces, as a model's tensors are shared out.
      constexpr uint64_t kPiece = 1 << 15;
      uint64_t sum = 0;
      const uint64_t *from = memory.as<uint64_t>() + t * words, *end = from + words;
      for (; from < end; from += kPiece)
        sum += sum_lines(from, std::min<uint64_t>(kPiece, static_cast<uint64_t>(end - from)));
      if (sum == 0) sink = sink + sum;  // never, but the compiler does not know
    });
    best = std::max(best, static_cast<double>(words) * threads * 8 / seconds(start) * 1e-9);
  }
  return best;
}
