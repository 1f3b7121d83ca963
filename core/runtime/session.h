// C++ ownership over a backend's handles: failures become apr::Error, handles are freed, batches are plain vectors.
// A Device and its Sessions belong to one thread at a time.
#pragma once

#include <apr/backend.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/probe/stage_dump.h"

namespace apr {

using ProgressFn = std::function<void(const char* what, uint64_t done, uint64_t total)>;

struct DeviceRequest {
  uint32_t index = 0;
  uint32_t threads = 0;  // 0 = the backend's choice
  std::vector<std::pair<std::string, std::string>> settings;
};

class Device {
 public:
  // Throws apr::Error with the backend's reason; there is no other backend to fall back to.
  Device(const apr_backend& backend, const DeviceRequest& request);

  const apr_backend& backend() const { return *backend_; }
  apr_device* handle() const { return device_.get(); }
  apr_device_info info() const;
  // 1e9 bytes per second of a read-only kernel; takes up to a second.
  double measure_bandwidth() const;

 private:
  const apr_backend* backend_;
  std::unique_ptr<apr_device, void (*)(apr_device*)> device_;
};

struct LoadRequest {
  uint32_t n_ctx = 0;
  uint32_t n_sequences = 1;
  uint32_t n_batch = 512;
  bool precise = false;
  ProgressFn progress;
  const apr_kernel_rule* const* rules = nullptr;  // [n_rules], during the load only
  uint32_t n_rules = 0;
  uint32_t n_top = 0;  // apr_load_options.n_top
};

class Session {
 public:
  // The device and the plan outlive the session.
  Session(const Device& device, const apr_plan& plan, const LoadRequest& request);

  apr_session* handle() const { return session_.get(); }
  const apr_backend& backend() const { return *backend_; }
  uint32_t vocab() const { return n_vocab_; }
  uint32_t batch() const { return n_batch_; }
  uint32_t context() const { return n_ctx_; }
  uint32_t candidates() const { return n_top_; }

  // Tokens at positions first, first + 1, ... of one sequence, in as many steps as n_batch demands.
  // Logits of the last token only: [vocab].
  std::vector<float> feed(std::span<const int32_t> tokens, int32_t first, int32_t sequence = 0,
                          uint32_t flags = 0);
  // The same, with the logits of every token: [tokens][vocab].
  std::vector<float> feed_all(std::span<const int32_t> tokens, int32_t first, int32_t sequence = 0,
                              uint32_t flags = 0);
  // The same, with only the index of the last token's largest logit; nothing else leaves the device.
  int32_t feed_argmax(std::span<const int32_t> tokens, int32_t first, int32_t sequence = 0,
                      uint32_t flags = 0);
  // The same, with the session's candidates() most probable tokens after the last one, as in apr_step_output.top.
  std::vector<apr_candidate> feed_top(std::span<const int32_t> tokens, int32_t first, int32_t sequence = 0,
                                      uint32_t flags = 0);
  // One step exactly as given.
  void step(const apr_batch& batch, apr_step_output& output);

  // From now on every step reports its stages; an empty function ends it.
  using TapFn = std::function<void(const char* stage, const float* data, uint32_t rows, uint32_t width)>;
  void tap(TapFn fn);
  // From now on every step's stages go to files. Replaces a tap.
  void dump_stages(std::unique_ptr<StageDump> dump);

  apr_session_info info() const;
  std::vector<apr_kernel_info> kernels() const;

 private:
  enum class Rows { Last, All };  // that something is wanted of
  // What the output names is written: for all rows, or for that of the last token alone.
  void feed_steps(std::span<const int32_t> tokens, int32_t first, int32_t sequence, uint32_t flags, Rows rows,
                  const apr_step_output& wanted);
  [[noreturn]] void fail_nan(int32_t position) const;

  const apr_backend* backend_;
  uint32_t n_vocab_, n_batch_, n_ctx_, n_top_;
  std::unique_ptr<apr_session, void (*)(apr_session*)> session_;
  std::unique_ptr<TapFn> tap_;
  std::unique_ptr<StageDump> dump_;  // at most one of tap_ and dump_
};

}  // namespace apr
