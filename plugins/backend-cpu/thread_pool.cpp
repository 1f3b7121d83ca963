#include "thread_pool.h"

#include <algorithm>
#include <chrono>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace apr::cpu {
namespace {

// Longer than nearly all waits inside a step, shorter than what anyone would notice of a busy processor.
constexpr uint32_t kSpinMicroseconds = 200;

uint64_t now_microseconds() {
  using namespace std::chrono;
  return static_cast<uint64_t>(duration_cast<microseconds>(steady_clock::now().time_since_epoch()).count());
}

void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb");
#endif
}

}  // namespace

bool SpinBudget::spin() {
  if (microseconds_ == 0) return false;
  pause();
  if (++turns_ % 32 != 0) return true;
  const uint64_t now = now_microseconds();
  if (start_ == 0) start_ = now;
  return now - start_ < microseconds_;
}

Barrier::Barrier(uint32_t threads, uint32_t spin_microseconds)
    : groups_((threads + kGroup - 1) / kGroup), spin_microseconds_(spin_microseconds) {
  for (uint32_t t = 0; t < threads; ++t) ++groups_[t / kGroup].members;
  root_.members = static_cast<uint32_t>(groups_.size());
}

bool Barrier::last_to_arrive(uint32_t thread) {
  // Counts are set back before anyone can pass, so the next round finds them at zero.
  const auto last = [](Count& c) {
    if (c.arrived.fetch_add(1, std::memory_order_acq_rel) + 1 < c.members) return false;
    c.arrived.store(0, std::memory_order_relaxed);
    return true;
  };
  return last(groups_[thread / kGroup]) && last(root_);
}

void Barrier::await(uint32_t generation) {
  SpinBudget budget(spin_microseconds_);
  while (generation_.load(std::memory_order_acquire) == generation)
    if (!budget.spin()) generation_.wait(generation, std::memory_order_acquire);
}

TaskRanges::TaskRanges(uint32_t threads)
    : threads_(threads), cursors_{std::vector<Cursor>(threads), std::vector<Cursor>(threads)} {}

void TaskRanges::prepare(uint32_t thread, uint32_t section, uint64_t tasks) {
  Cursor& c = cursors_[section % 2][thread];
  c.next.store(tasks * thread / threads_, std::memory_order_relaxed);
  c.end = tasks * (thread + 1) / threads_;
}

bool TaskRanges::claim(uint32_t thread, uint32_t section, uint32_t share, uint64_t& begin, uint64_t& end) {
  std::vector<Cursor>& cursors = cursors_[section % 2];
  for (uint32_t i = 0; i < threads_; ++i) {
    Cursor& c = cursors[(thread + i) % threads_];
    uint64_t next = c.next.load(std::memory_order_relaxed);
    while (next < c.end) {
      const uint64_t n = std::max<uint64_t>(1, (c.end - next) / share);
      if (!c.next.compare_exchange_weak(next, next + n, std::memory_order_relaxed)) continue;
      begin = next;
      end = next + n;
      return true;
    }
  }
  return false;
}

// More threads than processors: one that spins keeps the one it waits for from running.
ThreadPool::ThreadPool(uint32_t threads, uint32_t available_cpus)
    : spin_microseconds_(threads <= available_cpus ? kSpinMicroseconds : 0),
      barrier_(threads, spin_microseconds_) {
  workers_.reserve(threads - 1);
  try {
    for (uint32_t t = 1; t < threads; ++t) workers_.emplace_back([this, t] { work(t); });
  } catch (...) {  // a limit on threads: those that were made have to end before this object does
    stop_ = true;
    generation_.fetch_add(1, std::memory_order_release);
    generation_.notify_all();
    for (std::thread& w : workers_) w.join();
    throw;
  }
}

ThreadPool::~ThreadPool() {
  stop_ = true;
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  for (std::thread& w : workers_) w.join();
}

void ThreadPool::run(Job job, void* context) {
  job_ = job;
  context_ = context;
  done_.store(0, std::memory_order_relaxed);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  job(context, 0);
  const auto others = static_cast<uint32_t>(workers_.size());
  SpinBudget budget(spin_microseconds_);
  for (uint32_t n; (n = done_.load(std::memory_order_acquire)) < others;)
    if (!budget.spin()) done_.wait(n, std::memory_order_acquire);
}

void ThreadPool::work(uint32_t thread) {
  for (uint32_t seen = 0;;) {
    SpinBudget budget(spin_microseconds_);
    while (generation_.load(std::memory_order_acquire) == seen)
      if (!budget.spin()) generation_.wait(seen, std::memory_order_acquire);
    ++seen;
    if (stop_) return;
    job_(context_, thread);
    if (done_.fetch_add(1, std::memory_order_release) + 1 == workers_.size()) done_.notify_one();
  }
}

}  // namespace apr::cpu
