// A session of the CUDA backend under test, spoken to as the program does: through the waist.
#pragma once

#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "apr/backend.h"

namespace apr::test {

// The backend of the built plugin (found by its file, as the program would).
const apr_backend& cuda_backend();

// Whether there is a device at all, and whether it is the fake one, which computes in float64.
bool have_gpu(std::string* reason);
bool on_fake_gpu();

struct StatusError : std::runtime_error {
  StatusError(apr_status s, const std::string& message) : std::runtime_error(message), status(s) {}
  apr_status status;
};

using SettingList = std::vector<std::pair<std::string, std::string>>;

class TestSession {
 public:
  struct Options {
    uint32_t n_ctx = 64, n_sequences = 2, n_batch = 32;
    bool precise = false;
    uint32_t n_top = 0;
    SettingList settings;
    std::vector<const apr_kernel_rule*> rules;
  };
  TestSession(const apr_plan& plan, const Options& options);
  TestSession(const TestSession&) = delete;
  TestSession& operator=(const TestSession&) = delete;
  ~TestSession();

  // Logits [n][n_vocab] of all tokens.
  std::vector<float> step(const std::vector<int32_t>& tokens, const std::vector<int32_t>& positions,
                          const std::vector<int32_t>& sequences, uint32_t flags = 0);
  // One sequence from a position on, in one batch.
  std::vector<float> feed(const std::vector<int32_t>& tokens, int32_t first = 0, int32_t sequence = 0,
                          uint32_t flags = 0);
  // The same, token by token.
  std::vector<float> feed_single(const std::vector<int32_t>& tokens, int32_t first = 0, int32_t sequence = 0,
                                 uint32_t flags = 0);
  std::vector<int32_t> argmax(const std::vector<int32_t>& tokens, int32_t first = 0, int32_t sequence = 0,
                              uint32_t flags = 0);

  // [n][n_top] of all tokens.
  std::vector<apr_candidate> top(const std::vector<int32_t>& tokens, int32_t first = 0, int32_t sequence = 0,
                                 uint32_t flags = 0);

  apr_session_info info() const;
  std::vector<apr_kernel_info> kernels() const;
  apr_session* session() const { return session_; }
  apr_device* device() const { return device_; }
  std::vector<std::string>& log() { return log_; }

 private:
  // A step of one sequence that wants all its tokens.
  void run(const std::vector<int32_t>& tokens, int32_t first, int32_t sequence, uint32_t flags,
           apr_step_output output);

  const apr_plan& plan_;
  uint32_t n_top_;
  const std::thread::id thread_ = std::this_thread::get_id();
  apr_device* device_ = nullptr;
  apr_session* session_ = nullptr;
  std::vector<std::string> log_;
};

// Token ids that repeat for a seed.
std::vector<int32_t> random_tokens(uint32_t n, uint32_t n_vocab, uint32_t seed);

}  // namespace apr::test
