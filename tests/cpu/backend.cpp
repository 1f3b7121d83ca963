#include "backend.h"

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>

namespace apr::test {

const apr_backend& backend() {
  static const apr_backend* const found = [] {
    void* library = dlopen(APR_TEST_BACKEND, RTLD_NOW | RTLD_LOCAL);
    const auto* plugin =
        library ? static_cast<const apr_plugin*>(dlsym(library, APR_PLUGIN_SYMBOL)) : nullptr;
    if (!plugin || plugin->n_backends != 1) {
      std::fprintf(stderr, "cannot use %s: %s\n", APR_TEST_BACKEND, library ? "no backend in it" : dlerror());
      std::exit(1);
    }
    return plugin->backends[0];
  }();
  return *found;
}

namespace {
apr_device* open_device(const DeviceOptions& options, std::string& error) {
  const apr_setting settings[] = {{"weights", options.weights.c_str()}, {"isa", options.isa.c_str()}};
  apr_device_options o{};
  o.struct_size = sizeof(o);
  o.threads = options.threads;
  o.settings = settings;
  o.n_settings = options.isa.empty() ? 1 : 2;
  apr_error e{};
  e.struct_size = sizeof(e);
  apr_device* device = nullptr;
  if (backend().open(&o, &device, &e) != APR_OK) error = e.message;
  return device;
}
}  // namespace

std::vector<std::string> instruction_sets() {
  static const std::vector<std::string> sets = [] {
    std::vector<std::string> found;
    for (const char* isa : {"portable", "avx2", "avx512"}) {
      std::string error;
      apr_device* device = open_device({isa, 1, "mapped"}, error);
      apr_device_info info{};
      info.struct_size = sizeof(info);
      apr_error e{};
      e.struct_size = sizeof(e);
      if (device && backend().device_info(device, &info, &e) == APR_OK && std::string(info.arch) == isa)
        found.push_back(isa);
      backend().close(device);
    }
    return found;
  }();
  return sets;
}

apr_kernel_rule any_rule(const char* kernel) {
  apr_kernel_rule rule{};
  rule.struct_size = sizeof(rule);
  rule.origin = "test.toml:1";
  rule.why = "";
  rule.m[1] = UINT32_MAX;
  rule.n[1] = rule.k[1] = UINT64_MAX;
  rule.kernel = kernel;
  return rule;
}

Loaded::Loaded(const apr_plan& plan, const DeviceOptions& device, const SessionOptions& session)
    : n_vocab_(plan.n_vocab), n_top_(session.n_top) {
  device_ = open_device(device, error_);
  if (!device_) {
    status_ = APR_FAILED;
    return;
  }
  apr_load_options o{};
  o.struct_size = sizeof(o);
  o.n_ctx = session.n_ctx;
  o.n_sequences = session.n_sequences;
  o.n_batch = session.n_batch;
  o.precise = session.precise;
  o.n_top = session.n_top;
  o.rules = session.rules.data();
  o.n_rules = static_cast<uint32_t>(session.rules.size());
  apr_error e{};
  e.struct_size = sizeof(e);
  status_ = backend().load(device_, &plan, &o, &session_, &e);
  if (status_ != APR_OK) error_ = e.message;
}

Loaded::~Loaded() {
  backend().unload(session_);
  backend().close(device_);
}

Result Loaded::step(const std::vector<Token>& tokens, bool logits, bool argmax) {
  std::vector<int32_t> ids, positions, sequences;
  std::vector<uint8_t> want;
  size_t wanted = 0;
  for (const Token& t : tokens) {
    ids.push_back(t.token);
    positions.push_back(t.position);
    sequences.push_back(t.sequence);
    want.push_back(t.want);
    wanted += t.want;
  }
  apr_batch b{};
  b.struct_size = sizeof(b);
  b.n = static_cast<uint32_t>(tokens.size());
  b.tokens = ids.data();
  b.positions = positions.data();
  b.sequences = sequences.data();
  b.want = want.data();
  Result r;
  // Poisoned: every logit has to be written.
  if (logits) r.logits.assign(wanted * n_vocab_, __builtin_nanf(""));
  if (argmax) r.argmax.assign(wanted, -7);
  apr_step_output out{};
  out.struct_size = sizeof(out);
  out.logits = logits ? r.logits.data() : nullptr;
  out.argmax = argmax ? r.argmax.data() : nullptr;
  r.top.assign(wanted * n_top_, {0, -7});
  out.top = n_top_ > 0 ? r.top.data() : nullptr;
  apr_error e{};
  e.struct_size = sizeof(e);
  r.status = backend().step(session_, &b, &out, &e);
  if (r.status != APR_OK) r.error = e.message;
  return r;
}

std::map<std::string, std::vector<float>> Loaded::taps(const std::vector<Token>& tokens) {
  std::map<std::string, std::vector<float>> stages;
  const auto fn = [](void* user, const char* stage, const float* data, uint32_t rows, uint32_t width) {
    auto& to = (*static_cast<decltype(stages)*>(user))[stage];
    to.insert(to.end(), data, data + size_t{rows} * width);
  };
  apr_error e{};
  e.struct_size = sizeof(e);
  backend().tap(session_, fn, &stages, &e);
  const Result r = step(tokens);
  backend().tap(session_, nullptr, nullptr, &e);
  if (r.status != APR_OK) stages["error: " + r.error] = {};
  return stages;
}

apr_session_info Loaded::info() {
  apr_session_info info{};
  info.struct_size = sizeof(info);
  apr_error e{};
  e.struct_size = sizeof(e);
  backend().session_info(session_, &info, &e);
  return info;
}

std::vector<apr_kernel_info> Loaded::kernels() {
  std::vector<apr_kernel_info> all(info().n_kernels);
  apr_error e{};
  e.struct_size = sizeof(e);
  for (uint32_t i = 0; i < all.size(); ++i) {
    all[i].struct_size = sizeof(apr_kernel_info);
    backend().kernel(session_, i, &all[i], &e);
  }
  return all;
}

int32_t PlanMaker::value(uint32_t width) {
  values.push_back({sizeof(apr_value), width});
  return static_cast<int32_t>(values.size()) - 1;
}

int32_t PlanMaker::weight(const Packed& w, const std::string& name) {
  packed_.push_back(w);
  Packed& p = packed_.back();
  // One byte off: weights may lie anywhere in a file.
  p.bytes.insert(p.bytes.begin(), 0);
  names_.push_back(name.empty() ? "w" + std::to_string(weights.size()) : name);
  weights.push_back({sizeof(apr_weight), names_.back().c_str(), "test", -1, p.format, p.n, p.k,
                     p.bytes.data() + 1, p.bytes.size() - 1});
  return static_cast<int32_t>(weights.size()) - 1;
}

int32_t PlanMaker::vector(const std::vector<float>& data) {
  floats_.push_back(data);
  vectors.push_back({sizeof(apr_vector), "vector", data.size(), floats_.back().data()});
  return static_cast<int32_t>(vectors.size()) - 1;
}

apr_op& PlanMaker::op(apr_op_kind kind, const std::string& stage, uint32_t width) {
  names_.push_back(stage);
  apr_op o{};
  o.struct_size = sizeof(o);
  o.kind = kind;
  o.stage = names_.back().c_str();
  o.layer = -1;
  for (int32_t& in : o.in) in = -1;
  for (int32_t& w : o.weight) w = -1;
  for (int32_t& v : o.vector) v = -1;
  o.out = value(width);
  o.n_heads = 1;
  o.scale = 1.0f;
  ops.push_back(o);
  return ops.back();
}

int32_t PlanMaker::embed(const std::string& stage, int32_t weight) {
  apr_op& o = op(APR_OP_EMBED, stage, static_cast<uint32_t>(weights[static_cast<size_t>(weight)].k));
  o.weight[0] = weight;
  return o.out;
}
int32_t PlanMaker::norm(const std::string& stage, int32_t in, int32_t weights_of, uint32_t groups,
                        float eps) {
  apr_op& o = op(APR_OP_RMS_NORM, stage, values[static_cast<size_t>(in)].width);
  o.in[0] = in;
  o.vector[0] = weights_of;
  o.n_heads = groups;
  o.head_dim = values[static_cast<size_t>(in)].width / groups;
  o.eps = eps;
  return o.out;
}
int32_t PlanMaker::linear(const std::string& stage, int32_t in, int32_t weight, int32_t bias) {
  apr_op& o = op(APR_OP_LINEAR, stage, static_cast<uint32_t>(weights[static_cast<size_t>(weight)].n));
  o.in[0] = in;
  o.weight[0] = weight;
  o.vector[0] = bias;
  return o.out;
}
int32_t PlanMaker::rope(const std::string& stage, int32_t in, int32_t frequencies, uint32_t heads,
                        apr_rope_kind kind, float scale) {
  const uint32_t width = values[static_cast<size_t>(in)].width;
  apr_op& o = op(APR_OP_ROPE, stage, width);
  o.in[0] = in;
  o.vector[0] = frequencies;
  o.n_heads = heads;
  o.head_dim = width / heads;
  o.rope_dims = static_cast<uint32_t>(2 * vectors[static_cast<size_t>(frequencies)].n);
  o.rope = kind;
  o.scale = scale;
  return o.out;
}
int32_t PlanMaker::attention(const std::string& stage, int32_t q, int32_t k, int32_t v, uint32_t heads,
                             uint32_t kv_heads, float scale, uint32_t window) {
  const uint32_t width = values[static_cast<size_t>(q)].width;
  apr_op& o = op(APR_OP_ATTENTION, stage, width);
  o.in[0] = q;
  o.in[1] = k;
  o.in[2] = v;
  o.n_heads = heads;
  o.n_kv_heads = kv_heads;
  o.head_dim = width / heads;
  o.scale = scale;
  o.window = window;
  return o.out;
}
int32_t PlanMaker::add(const std::string& stage, int32_t a, int32_t b) {
  apr_op& o = op(APR_OP_ADD, stage, values[static_cast<size_t>(a)].width);
  o.in[0] = a;
  o.in[1] = b;
  return o.out;
}
int32_t PlanMaker::swiglu(const std::string& stage, int32_t gate, int32_t up) {
  apr_op& o = op(APR_OP_SWIGLU, stage, values[static_cast<size_t>(gate)].width);
  o.in[0] = gate;
  o.in[1] = up;
  return o.out;
}

const apr_plan& PlanMaker::plan() {
  const auto list = [](const auto& from, auto& to) {
    to.clear();
    for (const auto& x : from) to.push_back(&x);
  };
  list(ops, op_list_);
  list(weights, weight_list_);
  list(values, value_list_);
  list(vectors, vector_list_);
  c.struct_size = sizeof(c);
  c.arch = "test";
  c.model_name = "made by hand";
  c.n_layers = 1;
  c.logits = ops.back().out;
  c.n_vocab = values[static_cast<size_t>(c.logits)].width;
  c.n_ctx_train = 4096;
  c.ops = op_list_.data();
  c.n_ops = static_cast<uint32_t>(op_list_.size());
  c.weights = weight_list_.data();
  c.n_weights = static_cast<uint32_t>(weight_list_.size());
  c.values = value_list_.data();
  c.n_values = static_cast<uint32_t>(value_list_.size());
  c.vectors = vector_list_.data();
  c.n_vectors = static_cast<uint32_t>(vector_list_.size());
  c.head_op = head_op_ == UINT32_MAX ? c.n_ops - 1 : head_op_;
  return c;
}

}  // namespace apr::test
