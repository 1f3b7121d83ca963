#include "core/base/thread_pool.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <limits>
#include <set>
#include <thread>
#include <vector>

#include "tests/base/expect_error.h"

using apr::ThreadPool;

TEST_CASE("every item is visited once, in pieces of at most the grain") {
  for (const unsigned threads : {1U, 2U, 5U}) {
    ThreadPool pool(threads);
    CHECK(pool.threads() == threads);
    for (const size_t count : {0, 1, 7, 64, 1000}) {
      for (const size_t grain :
           {size_t{0}, size_t{1}, size_t{3}, size_t{64}, std::numeric_limits<size_t>::max()}) {
        std::vector<std::atomic<int>> visits(count);
        std::atomic<bool> pieces_ok = true;
        pool.parallel_for(count, grain, [&](size_t begin, size_t end) {
          if (begin >= end || end > count || end - begin > std::max<size_t>(grain, 1)) pieces_ok = false;
          for (size_t i = begin; i < end; ++i) ++visits[i];
        });
        CAPTURE(threads);
        CAPTURE(count);
        CAPTURE(grain);
        CHECK(pieces_ok);
        CHECK(std::all_of(visits.begin(), visits.end(), [](const auto& v) { return v == 1; }));
      }
    }
  }
}

TEST_CASE("several threads take part") {
  ThreadPool pool(3);
  std::atomic<int> inside = 0;
  // Ends only when three threads are inside at once.
  pool.parallel_for(3, 1, [&](size_t, size_t) {
    ++inside;
    while (inside < 3) std::this_thread::yield();
  });
  CHECK(inside == 3);
}

TEST_CASE("an exception reaches the caller, and the pool works on") {
  ThreadPool pool(4);
  for (int round = 0; round < 50; ++round) {
    std::atomic<int> started = 0;
    CHECK_HAS(apr_test::error_of([&] {
                pool.parallel_for(1000000, 1, [&](size_t begin, size_t) {
                  ++started;
                  if (begin == 10) throw apr::Error("piece {}", begin);
                });
                return 0;
              }),
              "piece 10");
    CHECK(started < 1000000);
    std::atomic<size_t> sum = 0;
    pool.parallel_for(100, 7, [&](size_t begin, size_t end) { sum += end - begin; });
    CHECK(sum == 100);
  }
}

TEST_CASE("a call from inside a piece runs there, on any pool") {
  ThreadPool outer(3);
  ThreadPool inner(3);
  std::atomic<size_t> sum = 0;
  outer.parallel_for(8, 1, [&](size_t, size_t) {
    outer.parallel_for(10, 2, [&](size_t begin, size_t end) { sum += end - begin; });
    inner.parallel_for(10, 2, [&](size_t begin, size_t end) { sum += end - begin; });
  });
  CHECK(sum == 160);
}

TEST_CASE("outside threads share a pool") {
  ThreadPool pool(3);
  std::atomic<size_t> sum = 0;
  std::vector<std::thread> callers;
  for (int t = 0; t < 4; ++t) {
    callers.emplace_back([&] {
      for (int i = 0; i < 200; ++i)
        pool.parallel_for(20, 3, [&](size_t begin, size_t end) { sum += end - begin; });
    });
  }
  for (std::thread& caller : callers) caller.join();
  CHECK(sum == 4 * 200 * 20);
}

TEST_CASE("the default is one thread a CPU that this process may use") {
  CHECK(apr::usable_cpus() >= 1);
  CHECK(ThreadPool().threads() == apr::usable_cpus());
}
