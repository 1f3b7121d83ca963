// A few threads for work that core/ does in bulk: quantising, repacking, hashing, compiling kernels. A
// backend has its own threads, since only it knows how its loops want to be placed.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>

namespace apr {

// The CPUs that this process may use (its affinity mask), at least 1.
unsigned usable_cpus();

class ThreadPool {
 public:
  // threads counts the calling thread too; 0 means usable_cpus(). A pool of 1 starts no thread.
  explicit ThreadPool(unsigned threads = 0);
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  ~ThreadPool();

  unsigned threads() const { return threads_; }

  // Calls body(begin, end) for pieces that cover [0, count) exactly once, each of at most `grain` items
  // (grain 0 counts as 1). Pieces are handed out in ascending order as threads become free. Returns when all
  // are done; the caller works too. The first exception is rethrown here after the running pieces end; pieces
  // not begun by then are skipped. A call from inside a body runs on that thread alone; calls from several
  // outside threads take turns.
  void parallel_for(size_t count, size_t grain, const std::function<void(size_t begin, size_t end)>& body);

 private:
  struct State;
  std::unique_ptr<State> state_;
  unsigned threads_;
};

}  // namespace apr
