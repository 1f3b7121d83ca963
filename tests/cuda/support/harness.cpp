#include "tests/cuda/support/harness.h"

#include <boost/dll/shared_library.hpp>
#include <random>

#include "tests/cuda/support/formats.h"

namespace apr::test {

const apr_backend& cuda_backend() {
  static const boost::dll::shared_library library(plugin_folder() + "/backend-cuda/libapr-backend-cuda.so");
  return *library.get<const apr_plugin>(APR_PLUGIN_SYMBOL).backends[0];
}

namespace {

void check(apr_status status, const apr_error& error) {
  if (status != APR_OK) throw StatusError(status, error.message);
}

}  // namespace

bool have_gpu(std::string* reason) {
  uint32_t count = 0;
  apr_error error = {sizeof(apr_error), {}};
  const bool found = cuda_backend().devices(&count, &error) == APR_OK && count > 0;
  if (!found && reason != nullptr) *reason = error.message;
  return found;
}

bool on_fake_gpu() {
  static const bool fake = [] {
    apr_device_options options{};
    options.struct_size = sizeof options;
    apr_error error = {sizeof(apr_error), {}};
    apr_device* device = nullptr;
    check(cuda_backend().open(&options, &device, &error), error);
    apr_device_info info{};
    info.struct_size = sizeof info;
    check(cuda_backend().device_info(device, &info, &error), error);
    cuda_backend().close(device);
    return std::string(info.name) == "Fake GPU";
  }();
  return fake;
}

TestSession::TestSession(const apr_plan& plan, const Options& options) : plan_(plan), n_top_(options.n_top) {
  std::vector<apr_setting> settings;
  for (const auto& [key, value] : options.settings) settings.push_back({key.c_str(), value.c_str()});
  apr_device_options device{};
  device.struct_size = sizeof device;
  device.settings = settings.data();
  device.n_settings = static_cast<uint32_t>(settings.size());
  device.log = [](void* user, int, const char* message) {
    auto* session = static_cast<TestSession*>(user);
    if (std::this_thread::get_id() != session->thread_)
      session->log_.emplace_back("logged on a thread that is not the caller's:");
    session->log_.emplace_back(message);
  };
  device.log_user = this;
  apr_error error = {sizeof(apr_error), {}};
  check(cuda_backend().open(&device, &device_, &error), error);
  apr_load_options load{};
  load.struct_size = sizeof load;
  load.n_ctx = options.n_ctx, load.n_sequences = options.n_sequences, load.n_batch = options.n_batch,
  load.precise = options.precise, load.n_top = options.n_top;
  load.rules = options.rules.data(), load.n_rules = static_cast<uint32_t>(options.rules.size());
  const apr_status status = cuda_backend().load(device_, &plan, &load, &session_, &error);
  if (status != APR_OK) cuda_backend().close(device_);
  check(status, error);
}

TestSession::~TestSession() {
  cuda_backend().unload(session_);
  cuda_backend().close(device_);
}

std::vector<float> TestSession::step(const std::vector<int32_t>& tokens,
                                     const std::vector<int32_t>& positions,
                                     const std::vector<int32_t>& sequences, uint32_t flags) {
  const std::vector<uint8_t> want(tokens.size(), 1);
  const apr_batch batch = {sizeof batch,
                           static_cast<uint32_t>(tokens.size()),
                           tokens.data(),
                           positions.data(),
                           sequences.data(),
                           want.data(),
                           flags};
  std::vector<float> logits(tokens.size() * plan_.n_vocab, -1e30f);
  apr_step_output output = {sizeof output, logits.data(), nullptr, nullptr};
  apr_error error = {sizeof(apr_error), {}};
  check(cuda_backend().step(session_, &batch, &output, &error), error);
  return logits;
}

std::vector<float> TestSession::feed(const std::vector<int32_t>& tokens, int32_t first, int32_t sequence,
                                     uint32_t flags) {
  std::vector<int32_t> positions(tokens.size());
  for (size_t i = 0; i < tokens.size(); ++i) positions[i] = first + static_cast<int32_t>(i);
  return step(tokens, positions, std::vector<int32_t>(tokens.size(), sequence), flags);
}

std::vector<float> TestSession::feed_single(const std::vector<int32_t>& tokens, int32_t first,
                                            int32_t sequence, uint32_t flags) {
  std::vector<float> all;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const std::vector<float> one = step({tokens[i]}, {first + static_cast<int32_t>(i)}, {sequence}, flags);
    all.insert(all.end(), one.begin(), one.end());
  }
  return all;
}

void TestSession::run(const std::vector<int32_t>& tokens, int32_t first, int32_t sequence, uint32_t flags,
                      apr_step_output output) {
  std::vector<int32_t> positions(tokens.size());
  for (size_t i = 0; i < tokens.size(); ++i) positions[i] = first + static_cast<int32_t>(i);
  const std::vector<int32_t> sequences(tokens.size(), sequence);
  const std::vector<uint8_t> want(tokens.size(), 1);
  const apr_batch batch = {sizeof batch,
                           static_cast<uint32_t>(tokens.size()),
                           tokens.data(),
                           positions.data(),
                           sequences.data(),
                           want.data(),
                           flags};
  apr_error error = {sizeof(apr_error), {}};
  check(cuda_backend().step(session_, &batch, &output, &error), error);
}

std::vector<int32_t> TestSession::argmax(const std::vector<int32_t>& tokens, int32_t first, int32_t sequence,
                                         uint32_t flags) {
  std::vector<int32_t> best(tokens.size(), -2);
  run(tokens, first, sequence, flags, {sizeof(apr_step_output), nullptr, best.data(), nullptr});
  return best;
}

std::vector<apr_candidate> TestSession::top(const std::vector<int32_t>& tokens, int32_t first,
                                            int32_t sequence, uint32_t flags) {
  std::vector<apr_candidate> best(tokens.size() * std::max(n_top_, 1u), {0, -2});
  run(tokens, first, sequence, flags, {sizeof(apr_step_output), nullptr, nullptr, best.data()});
  return best;
}

apr_session_info TestSession::info() const {
  apr_session_info info{};
  info.struct_size = sizeof info;
  apr_error error = {sizeof(apr_error), {}};
  check(cuda_backend().session_info(session_, &info, &error), error);
  return info;
}

std::vector<apr_kernel_info> TestSession::kernels() const {
  std::vector<apr_kernel_info> all(info().n_kernels);
  for (uint32_t i = 0; i < all.size(); ++i) {
    all[i].struct_size = sizeof all[i];
    apr_error error = {sizeof(apr_error), {}};
    check(cuda_backend().kernel(session_, i, &all[i], &error), error);
  }
  return all;
}

std::vector<int32_t> random_tokens(uint32_t n, uint32_t n_vocab, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<int32_t> tokens(n);
  for (int32_t& t : tokens) t = static_cast<int32_t>(random() % n_vocab);
  return tokens;
}

}  // namespace apr::test
