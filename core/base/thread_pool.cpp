#include "core/base/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "core/base/error.h"

namespace apr {

unsigned usable_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0)
    return static_cast<unsigned>(CPU_COUNT(&set));
  // More CPUs than cpu_set_t has bits: the library asks with a larger mask.
  return std::max(1U, std::thread::hardware_concurrency());
}

namespace {

// One parallel_for. Lives on the caller's stack: every thread has left it before the caller returns.
struct Job {
  size_t count;
  size_t grain;
  const std::function<void(size_t, size_t)>* body;
  std::atomic<size_t> next{0};
  std::atomic<bool> stop{false};
  std::mutex error_mutex;
  std::exception_ptr error;

  void work() {
    while (!stop.load(std::memory_order_relaxed)) {
      // Compare-and-swap rather than add: with add, a large grain could overflow the counter.
      size_t begin = next.load(std::memory_order_relaxed);
      size_t end = 0;
      do {
        if (begin >= count) return;
        end = begin + std::min(grain, count - begin);
      } while (!next.compare_exchange_weak(begin, end, std::memory_order_relaxed));
      try {
        (*body)(begin, end);
      } catch (...) {
        const std::lock_guard lock(error_mutex);
        if (!error) error = std::current_exception();
        stop.store(true, std::memory_order_relaxed);
      }
    }
  }
};

// True while this thread runs a piece, of any pool: a nested call must not wait for threads that wait for it.
thread_local bool t_inside = false;

struct InsideScope {
  bool before = t_inside;
  InsideScope() { t_inside = true; }
  ~InsideScope() { t_inside = before; }
};

}  // namespace

struct ThreadPool::State {
  std::mutex turn;   // one parallel_for at a time
  std::mutex mutex;  // guards the rest
  std::condition_variable wake;
  std::condition_variable idle;
  Job* job = nullptr;
  uint64_t generation = 0;  // counts jobs, so that a thread joins each job once
  unsigned busy = 0;        // threads inside the current job, the caller aside
  bool quit = false;
  std::vector<std::thread> threads;

  void run() {
    uint64_t seen = 0;
    std::unique_lock lock(mutex);
    for (;;) {
      wake.wait(lock, [&] { return quit || (job != nullptr && generation != seen); });
      if (quit) return;
      seen = generation;
      Job* const mine = job;
      ++busy;
      lock.unlock();
      {
        const InsideScope inside;
        mine->work();
      }
      lock.lock();
      if (--busy == 0) idle.notify_all();
    }
  }

  void shut_down() {
    {
      const std::lock_guard lock(mutex);
      quit = true;
    }
    wake.notify_all();
    for (std::thread& thread : threads) thread.join();
  }
};

ThreadPool::ThreadPool(unsigned threads)
    : state_(std::make_unique<State>()), threads_(threads == 0 ? usable_cpus() : threads) {
  try {
    for (unsigned i = 1; i < threads_; ++i)
      state_->threads.emplace_back([state = state_.get()] { state->run(); });
  } catch (const std::system_error& problem) {
    state_->shut_down();  // the threads that did start must not outlive the state
    throw Error("cannot start {} threads: {}; ask for fewer, or raise the limit (ulimit -u)", threads_,
                problem.what());
  }
}

ThreadPool::~ThreadPool() { state_->shut_down(); }

void ThreadPool::parallel_for(size_t count, size_t grain, const std::function<void(size_t, size_t)>& body) {
  if (count == 0) return;
  Job job{.count = count,
          .grain = std::max<size_t>(grain, 1),
          .body = &body,
          .error_mutex = {},
          .error = nullptr};
  const bool alone = t_inside || state_->threads.empty() || count <= job.grain;
  if (alone) {
    const InsideScope inside;
    job.work();
  } else {
    const std::lock_guard turn(state_->turn);
    {
      const std::lock_guard lock(state_->mutex);
      state_->job = &job;
      ++state_->generation;
    }
    state_->wake.notify_all();
    {
      const InsideScope inside;
      job.work();
    }
    std::unique_lock lock(state_->mutex);
    state_->job = nullptr;  // a thread that wakes late finds nothing and sleeps on
    state_->idle.wait(lock, [&] { return state_->busy == 0; });
  }
  if (job.error) std::rethrow_exception(job.error);
}

}  // namespace apr
