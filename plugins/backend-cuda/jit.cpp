#include "plugins/backend-cuda/jit.h"

#include <fmt/format.h>

#include <chrono>
#include <condition_variable>
#include <exception>
#include <map>
#include <mutex>
#include <system_error>
#include <thread>

#include "plugins/backend-cuda/failure.h"

namespace apr::cuda {

std::string compiler_version(const Nvrtc& nvrtc) {
  return fmt::format("NVRTC {}.{}", nvrtc.major, nvrtc.minor);
}

CompileFn nvrtc_compiler(const Nvrtc& nvrtc) {
  return [&nvrtc](const Specialised& source) {
    // Lines before the template's own belong to the prelude and are named so; #line gives the rest the file's name.
    Compiled compiled;
    try {
      compiled = compile(nvrtc, "prelude of " + source.name, source.source, source.headers, source.options);
    } catch (const Failure& e) {
      if (source.rule.empty()) throw;
      throw failure(e.status(), "{}: the kernel that this rule chose cannot be built: {}", source.rule,
                    e.what());
    }
    return BuiltKernel{std::move(compiled.cubin), std::move(compiled.ptx), source.source, source.summary};
  };
}

namespace {

struct Job {
  const Specialised* source;
  std::string key;
  std::vector<size_t> wanted_by;  // indices of the caller's sources
};

// Two rounds over the jobs. The first takes what no other process is building just now; the second waits for the rest.
// So eight processes that start together share the work instead of queueing for the first kernel.
class Builder {
 public:
  Builder(std::vector<Job>& jobs, KernelCache& cache, const CompileFn& compile,
          std::vector<KernelImage>& images, JitReport& report)
      : jobs_(jobs), cache_(cache), compile_(compile), images_(images), report_(report) {}

  void work() {
    for (size_t i; take(i);) {
      const bool second = i >= jobs_.size();
      Job* job = &jobs_[second ? i - jobs_.size() : i];
      try {
        run(*job, second);
      } catch (...) {
        const std::lock_guard lock(mutex_);
        if (!failure_) failure_ = std::current_exception();
      }
    }
    const std::lock_guard lock(mutex_);
    ++ended_;
    changed_.notify_all();
  }

  void watch(unsigned threads, const std::function<void(size_t, size_t)>& progress) {
    std::unique_lock lock(mutex_);
    size_t shown = 0;
    while (ended_ < threads) {
      changed_.wait(lock, [&] { return done_ != shown || ended_ == threads; });
      shown = done_;
      if (!progress) continue;
      lock.unlock();
      progress(shown, jobs_.size());
      lock.lock();
    }
    const size_t done = done_;
    lock.unlock();
    if (failure_) std::rethrow_exception(failure_);
    if (progress) progress(done, jobs_.size());
  }

 private:
  bool take(size_t& i) {
    const std::lock_guard lock(mutex_);
    if (failure_) return false;
    if (next_ < jobs_.size()) return i = next_++, true;
    if (busy_.empty()) return false;
    i = busy_.back() + jobs_.size();
    busy_.pop_back();
    return true;
  }

  void run(Job& job, bool wait) {
    if (job.source->literal) {
      finish(job, {"", job.source->source, "", ""}, KernelCache::Source::Cached);
      return;
    }
    KernelCache::Result result = cache_.get(
        job.key, [&] { return compile_(*job.source); }, wait);
    if (result.source == KernelCache::Source::Busy) {
      const std::lock_guard lock(mutex_);
      busy_.push_back(static_cast<size_t>(&job - jobs_.data()));
      return;
    }
    finish(job, std::move(result.kernel), result.source);
  }

  void finish(const Job& job, BuiltKernel kernel, KernelCache::Source source) {
    const std::lock_guard lock(mutex_);
    for (const size_t i : job.wanted_by) images_[i] = {kernel.cubin, kernel.cubin.empty() ? kernel.ptx : ""};
    // A literal template is neither: the driver has its own cache.
    if (!job.source->literal) ++(source == KernelCache::Source::Built ? report_.compiled : report_.cached);
    ++done_;
    changed_.notify_all();
  }

  std::vector<Job>& jobs_;
  KernelCache& cache_;
  const CompileFn& compile_;
  std::vector<KernelImage>& images_;
  JitReport& report_;
  std::mutex mutex_;
  std::condition_variable changed_;
  size_t next_ = 0;           // first job that the first round has not taken
  std::vector<size_t> busy_;  // for the second round
  size_t done_ = 0;
  unsigned ended_ = 0;  // threads
  std::exception_ptr failure_;
};

}  // namespace

std::vector<KernelImage> build_kernels(const std::vector<Specialised>& sources, KernelCache& cache,
                                       const CompileFn& compile, const std::string& compiler,
                                       unsigned threads,
                                       const std::function<void(size_t done, size_t total)>& progress,
                                       JitReport& report) {
  const auto start = std::chrono::steady_clock::now();
  std::vector<Job> jobs;
  std::map<std::string, size_t> by_key;
  for (size_t i = 0; i < sources.size(); ++i) {
    const std::string key = cache_key(sources[i], compiler);
    const auto [at, fresh] = by_key.emplace(key, jobs.size());
    if (fresh) jobs.push_back({&sources[i], key, {}});
    jobs[at->second].wanted_by.push_back(i);
  }
  std::vector<KernelImage> images(sources.size());
  if (jobs.empty()) return images;
  threads = std::max(1u, std::min<unsigned>(threads, static_cast<unsigned>(jobs.size())));
  Builder builder(jobs, cache, compile, images, report);
  std::vector<std::thread> workers;
  workers.reserve(threads);
  try {
    while (workers.size() < threads) workers.emplace_back([&] { builder.work(); });
  } catch (const std::system_error&) {
    // A limit on threads: those that run do all the work, and without one this thread does it.
    if (workers.empty()) builder.work();
  }
  std::exception_ptr failure;
  try {
    builder.watch(std::max(1u, static_cast<unsigned>(workers.size())), progress);
  } catch (...) {
    failure = std::current_exception();
  }
  for (std::thread& worker : workers) worker.join();
  if (failure) std::rethrow_exception(failure);
  report.seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return images;
}

}  // namespace apr::cuda
