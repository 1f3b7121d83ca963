#include "core/runtime/session.h"

#include <algorithm>

#include "core/base/error.h"
#include "core/base/log.h"

namespace apr {
namespace {

apr_error empty_error() {
  apr_error error{};
  error.struct_size = sizeof error;
  return error;
}

void check(apr_status status, const apr_error& error, const apr_backend& backend) {
  if (status != APR_OK) throw Error("backend {}: {}", backend.name, error.message);
}

void forward_log(void*, int level, const char* message) {
  log_message(level >= 2 ? LogLevel::Warning : level == 1 ? LogLevel::Info : LogLevel::Debug, message);
}

apr_device* open_device(const apr_backend& backend, const DeviceRequest& request) {
  std::vector<apr_setting> settings;
  for (const auto& [key, value] : request.settings) settings.push_back({key.c_str(), value.c_str()});
  apr_device_options options{};
  options.struct_size = sizeof options;
  options.index = request.index;
  options.threads = request.threads;
  options.settings = settings.data();
  options.n_settings = static_cast<uint32_t>(settings.size());
  options.log = forward_log;
  apr_error error = empty_error();
  apr_device* device = nullptr;
  check(backend.open(&options, &device, &error), error, backend);
  return device;
}

apr_session* load_session(const Device& device, const apr_plan& plan, const LoadRequest& request) {
  apr_load_options options{};
  options.struct_size = sizeof options;
  options.n_ctx = request.n_ctx;
  options.n_sequences = request.n_sequences;
  options.n_batch = request.n_batch;
  options.precise = request.precise ? 1 : 0;
  if (request.progress) {
    options.progress = [](void* user, const char* what, uint64_t done, uint64_t total) {
      (*static_cast<const ProgressFn*>(user))(what, done, total);
    };
    options.progress_user = const_cast<ProgressFn*>(&request.progress);
  }
  options.rules = request.rules;
  options.n_rules = request.n_rules;
  options.n_top = request.n_top;
  apr_error error = empty_error();
  apr_session* session = nullptr;
  check(device.backend().load(device.handle(), &plan, &options, &session, &error), error, device.backend());
  return session;
}

}  // namespace

Device::Device(const apr_backend& backend, const DeviceRequest& request)
    : backend_(&backend), device_(open_device(backend, request), backend.close) {}

apr_device_info Device::info() const {
  apr_device_info info{};
  info.struct_size = sizeof info;
  apr_error error = empty_error();
  check(backend_->device_info(device_.get(), &info, &error), error, *backend_);
  return info;
}

double Device::measure_bandwidth() const {
  double gbs = 0;
  apr_error error = empty_error();
  check(backend_->measure_bandwidth(device_.get(), &gbs, &error), error, *backend_);
  return gbs;
}

Session::Session(const Device& device, const apr_plan& plan, const LoadRequest& request)
    : backend_(&device.backend()),
      n_vocab_(plan.n_vocab),
      n_batch_(request.n_batch),
      n_ctx_(request.n_ctx),
      n_top_(request.n_top),
      session_(load_session(device, plan, request), device.backend().unload) {}

void Session::step(const apr_batch& batch, apr_step_output& output) {
  if (dump_) dump_->begin_step(batch);
  apr_error error = empty_error();
  check(backend_->step(session_.get(), &batch, &output, &error), error, *backend_);
  if (dump_) dump_->end_step();
}

void Session::feed_steps(std::span<const int32_t> tokens, int32_t first, int32_t sequence, uint32_t flags,
                         Rows rows, const apr_step_output& wanted) {
  if (tokens.empty()) throw Error("a step needs at least one token");
  std::vector<int32_t> positions(n_batch_), sequences(n_batch_, sequence);
  std::vector<uint8_t> want(n_batch_, rows == Rows::All ? 1 : 0);
  for (size_t begin = 0; begin < tokens.size(); begin += n_batch_) {
    const size_t n = std::min<size_t>(n_batch_, tokens.size() - begin);
    const bool last = begin + n == tokens.size();
    for (size_t i = 0; i < n; ++i) positions[i] = first + static_cast<int32_t>(begin + i);
    if (last) want[n - 1] = 1;
    apr_batch batch{};
    batch.struct_size = sizeof batch;
    batch.n = static_cast<uint32_t>(n);
    batch.tokens = tokens.data() + begin;
    batch.positions = positions.data();
    batch.sequences = sequences.data();
    batch.want = want.data();
    batch.flags = flags;
    apr_step_output output{};
    output.struct_size = sizeof output;
    switch (rows) {
      case Rows::Last:
        if (last) output = wanted;
        break;
      case Rows::All:
        output.logits = wanted.logits + begin * n_vocab_;
        break;
    }
    step(batch, output);
  }
}

std::vector<float> Session::feed(std::span<const int32_t> tokens, int32_t first, int32_t sequence,
                                 uint32_t flags) {
  std::vector<float> logits(n_vocab_);
  feed_steps(tokens, first, sequence, flags, Rows::Last,
             {sizeof(apr_step_output), logits.data(), nullptr, nullptr});
  return logits;
}

std::vector<float> Session::feed_all(std::span<const int32_t> tokens, int32_t first, int32_t sequence,
                                     uint32_t flags) {
  std::vector<float> logits(tokens.size() * n_vocab_);
  feed_steps(tokens, first, sequence, flags, Rows::All,
             {sizeof(apr_step_output), logits.data(), nullptr, nullptr});
  return logits;
}

void Session::fail_nan(int32_t position) const {
  throw Error("backend {}: the logits after position {} are NaN", backend_->name, position);
}

int32_t Session::feed_argmax(std::span<const int32_t> tokens, int32_t first, int32_t sequence,
                             uint32_t flags) {
  int32_t argmax = -1;
  feed_steps(tokens, first, sequence, flags, Rows::Last,
             {sizeof(apr_step_output), nullptr, &argmax, nullptr});
  if (argmax < 0) fail_nan(first + static_cast<int32_t>(tokens.size()) - 1);
  return argmax;
}

std::vector<apr_candidate> Session::feed_top(std::span<const int32_t> tokens, int32_t first, int32_t sequence,
                                             uint32_t flags) {
  if (n_top_ == 0) throw Error("the session was loaded without candidates");
  std::vector<apr_candidate> top(n_top_, {0, -1});
  feed_steps(tokens, first, sequence, flags, Rows::Last,
             {sizeof(apr_step_output), nullptr, nullptr, top.data()});
  if (top.front().token < 0) fail_nan(first + static_cast<int32_t>(tokens.size()) - 1);
  return top;
}

void Session::dump_stages(std::unique_ptr<StageDump> dump) {
  apr_error error = empty_error();
  check(backend_->tap(session_.get(), StageDump::tap, dump.get(), &error), error, *backend_);
  dump_ = std::move(dump);
  tap_ = nullptr;
}

void Session::tap(TapFn fn) {
  dump_ = nullptr;
  tap_ = fn ? std::make_unique<TapFn>(std::move(fn)) : nullptr;
  const apr_tap_fn forward = [](void* user, const char* stage, const float* data, uint32_t rows,
                                uint32_t width) { (*static_cast<TapFn*>(user))(stage, data, rows, width); };
  apr_error error = empty_error();
  check(backend_->tap(session_.get(), tap_ ? forward : nullptr, tap_.get(), &error), error, *backend_);
}

apr_session_info Session::info() const {
  apr_session_info info{};
  info.struct_size = sizeof info;
  apr_error error = empty_error();
  check(backend_->session_info(session_.get(), &info, &error), error, *backend_);
  return info;
}

std::vector<apr_kernel_info> Session::kernels() const {
  std::vector<apr_kernel_info> kernels(info().n_kernels);
  for (uint32_t i = 0; i < kernels.size(); ++i) {
    kernels[i].struct_size = sizeof(apr_kernel_info);
    apr_error error = empty_error();
    check(backend_->kernel(session_.get(), i, &kernels[i], &error), error, *backend_);
  }
  return kernels;
}

}  // namespace apr
