// Threads that work on one step together.
//
// A step is one job for all threads; inside it they meet at a barrier after each parallel section. A decode step of a small
// model has hundreds of sections of 20 to 500 microseconds, so a barrier must cost well under one: threads spin for a
// while, and sleep only when a wait turns out long.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

namespace apr::cpu {

// Tells a thread that waits whether to keep spinning.
class SpinBudget {
 public:
  explicit SpinBudget(uint32_t microseconds) : microseconds_(microseconds) {}
  // One pause; false when the time is used up.
  bool spin();

 private:
  uint32_t microseconds_, turns_ = 0;
  uint64_t start_ = 0;
};

// All threads wait for the last one, which runs `completion` before it lets them go. Arrivals are counted in groups of
// eight, so that a cache line is fought over by at most eight threads.
class Barrier {
 public:
  Barrier(uint32_t threads, uint32_t spin_microseconds);

  template <class Completion>
  void wait(uint32_t thread, Completion&& completion) {
    const uint32_t generation = generation_.load(std::memory_order_relaxed);
    if (last_to_arrive(thread)) {
      completion();
      generation_.store(generation + 1, std::memory_order_release);
      generation_.notify_all();
    } else {
      await(generation);
    }
  }

 private:
  bool last_to_arrive(uint32_t thread);
  void await(uint32_t generation);

  struct alignas(64) Count {
    std::atomic<uint32_t> arrived{0};
    uint32_t members = 0;
  };
  static constexpr uint32_t kGroup = 8;
  std::vector<Count> groups_;
  Count root_;
  uint32_t spin_microseconds_;
  alignas(64) std::atomic<uint32_t> generation_{0};
};

// Shares out tasks 0..n of one section. Each thread begins with its own part of the range, so that it meets the same
// weights in every step, and takes from the others' when it is done. Claims shrink towards the end.
// Sections alternate between two sets of cursors: a thread resets its cursor for the next section while in this one.
class TaskRanges {
 public:
  explicit TaskRanges(uint32_t threads);

  // Every thread calls this when it enters a section, before the barrier that ends the previous one lets anyone pass.
  void prepare(uint32_t thread, uint32_t section, uint64_t tasks);
  // The next tasks [begin, end) of a section for this thread; false when none are left. share: a claim is at most this
  // fraction of what is left of a range (1: single tasks).
  bool claim(uint32_t thread, uint32_t section, uint32_t share, uint64_t& begin, uint64_t& end);

 private:
  struct alignas(64) Cursor {
    std::atomic<uint64_t> next{0};
    uint64_t end = 0;
  };
  uint32_t threads_;
  std::vector<Cursor> cursors_[2];
};

class ThreadPool {
 public:
  ThreadPool(uint32_t threads, uint32_t available_cpus);
  ~ThreadPool();

  uint32_t threads() const { return static_cast<uint32_t>(workers_.size()) + 1; }
  // Calls job(thread) on all threads at once, the caller being thread 0; returns when all are done. Jobs do not throw.
  using Job = void (*)(void* context, uint32_t thread);
  void run(Job job, void* context);
  template <class Fn>
  void run(Fn&& fn) {
    run([](void* context, uint32_t thread) { (*static_cast<std::remove_reference_t<Fn>*>(context))(thread); },
        &fn);
  }
  // For use inside a job.
  Barrier& barrier() { return barrier_; }

 private:
  void work(uint32_t thread);

  uint32_t spin_microseconds_;
  Barrier barrier_;
  Job job_ = nullptr;
  void* context_ = nullptr;
  bool stop_ = false;
  alignas(64) std::atomic<uint32_t> generation_{0};
  alignas(64) std::atomic<uint32_t> done_{0};
  std::vector<std::thread> workers_;
};

}  // namespace apr::cpu
