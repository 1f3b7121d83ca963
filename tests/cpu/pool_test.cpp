// The thread pool by itself: every task once, whatever the order of arrival.
#include <doctest/doctest.h>

#include <atomic>

#include "plugins/backend-cpu/thread_pool.h"
#include "plugins/backend-cpu/topology.h"
#include "tests/base/temp_dir.h"

using namespace apr::cpu;

TEST_CASE("sections: every task once, and none before its section") {
  for (const uint32_t threads : {1u, 2u, 3u, 19u}) {
    CAPTURE(threads);
    ThreadPool pool(threads, 2);
    TaskRanges ranges(threads);
    constexpr uint32_t kSections = 50;
    std::vector<std::vector<std::atomic<uint32_t>>> seen;
    for (uint32_t s = 0; s < kSections; ++s) seen.emplace_back(s * 7 % 41);
    std::atomic<uint32_t> section{0}, wrong{0}, completions{0};
    for (uint32_t t = 0; t < threads; ++t) ranges.prepare(t, 0, seen[0].size());
    pool.run([&](uint32_t thread) {
      for (uint32_t s = 0; s < kSections; ++s) {
        if (s + 1 < kSections) ranges.prepare(thread, s + 1, seen[s + 1].size());
        for (uint64_t begin, end; ranges.claim(thread, s, 1 + s % 3 * 1000, begin, end);)
          for (; begin < end; ++begin) {
            ++seen[s][begin];
            if (section != s) ++wrong;
          }
        pool.barrier().wait(thread, [&] {
          ++section;
          ++completions;
        });
      }
    });
    CHECK(wrong == 0);
    CHECK(completions == kSections);
    for (const auto& tasks : seen)
      for (const auto& n : tasks) REQUIRE(n == 1);
    // Again and again, so that threads that sleep are woken.
    std::atomic<uint32_t> runs{0};
    for (int i = 0; i < 300; ++i) pool.run([&](uint32_t) { ++runs; });
    CHECK(runs == 300 * threads);
  }
}

TEST_CASE("memory within a control group: the page cache that fills it is available") {
  constexpr uint64_t kGiB = 1ull << 30;
  const apr_test::TempDir unified, first;
  unified.write("memory.max", std::to_string(8 * kGiB) + "\n");
  unified.write("memory.current", std::to_string(7 * kGiB) + "\n");
  unified.write("memory.stat", "anon " + std::to_string(2 * kGiB) + "\nfile " + std::to_string(5 * kGiB) +
                                   "\ninactive_file " + std::to_string(4 * kGiB) + "\nactive_file " +
                                   std::to_string(kGiB) + "\n");
  SystemMemory memory{64 * kGiB, 60 * kGiB};
  apply_memory_limit(unified.path().string(), true, memory);
  CHECK(memory.total == 8 * kGiB);
  CHECK(memory.available == 6 * kGiB);
  // An outer group's limit holds too; "max" and a folder without files are no limits.
  unified.write("memory.max", "max\n");
  apply_memory_limit(unified.path().string(), true, memory);
  apply_memory_limit(unified / "none", true, memory);
  CHECK(memory.available == 6 * kGiB);
  first.write("memory.limit_in_bytes", std::to_string(4 * kGiB) + "\n");
  first.write("memory.usage_in_bytes", std::to_string(5 * kGiB) + "\n");
  first.write("memory.stat", "total_inactive_file " + std::to_string(kGiB / 2) + "\n");
  apply_memory_limit(first.path().string(), false, memory);
  CHECK(memory.total == 4 * kGiB);
  CHECK(memory.available == 0);
}

TEST_CASE("topology of this machine") {
  const Topology t = read_topology();
  CHECK(t.cores >= 1);
  CHECK(t.cores <= t.cpus);
  CHECK(t.default_threads() >= 1);
  CHECK(t.default_threads() <= t.cores);
  CHECK_FALSE(t.model.empty());
  Topology limited = t;
  limited.cores = 16;
  limited.quota = 2.5;
  CHECK(limited.default_threads() == 3);
  limited.quota = 0;
  CHECK(limited.default_threads() == 16);
}
