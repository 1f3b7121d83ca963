#include "core/plan/builder.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "apr/rules.hpp"
#include "core/base/error.h"
#include "core/base/format.h"
#include "core/base/log.h"
#include "core/plan/pack_scaled.h"
#include "core/plan/requantize.h"

namespace apr {

namespace {

constexpr std::string_view kWeightSuffix = ".weight";

std::string weight_name(Stage stage) { return stage_name(stage) + std::string(kWeightSuffix); }

std::string shape_text(const Tensor& tensor) {
  // Slowest first, as [N,K] is written everywhere else.
  return fmt::format("[{}]", fmt::join(tensor.dims.rbegin(), tensor.dims.rend(), ","));
}

// A large model has hundreds of tensors; some of them tell which are meant.
std::string first_names(const std::vector<std::string>& names) {
  constexpr size_t kShown = 8;
  const auto end = names.begin() + static_cast<std::ptrdiff_t>(std::min(names.size(), kShown));
  return fmt::format("{}{}", fmt::join(names.begin(), end, ", "), names.size() > kShown ? ", ..." : "");
}

}  // namespace

std::string stage_name(Stage stage) {
  return stage.layer == kNone ? std::string(stage.name) : fmt::format("blk.{}.{}", stage.layer, stage.name);
}

PlanBuilder::PlanBuilder(const Model& model, Catalog& catalog, const PlanOptions& options)
    : model_(model), catalog_(catalog), options_(options), plan_(new Plan) {
  plan_->files_ = model.files;
  plan_->made_ = model.made;
}

const char* PlanBuilder::keep(std::string text) {
  return plan_->strings_.emplace_back(std::move(text)).c_str();
}

const Tensor& PlanBuilder::matrix(const std::string& name, uint64_t n, uint64_t k) {
  const Tensor& tensor = model_.require(name);
  if (tensor.dims.size() != 2 || tensor.dims[0] != k || tensor.dims[1] != n) {
    throw Error("{}: tensor '{}' has shape {}, but the hyper-parameters demand [{},{}] (N, K)",
                model_.meta.origin(), name, shape_text(tensor), n, k);
  }
  used_.insert(name);
  return tensor;
}

void PlanBuilder::check_bytes(const Tensor& tensor, const apr_quant_format& format) const {
  if (tensor.k() % format.block_elements != 0) {
    throw Error("{}: tensor '{}': rows of {} columns are no whole number of {} blocks ({} columns each)",
                model_.meta.origin(), printable(tensor.name), tensor.k(), format.name, format.block_elements);
  }
  const uint64_t expected = tensor.n() * (tensor.k() / format.block_elements) * format.block_bytes;
  if (tensor.bytes == expected) return;
  throw Error("{}: tensor '{}' has {} bytes, but {} of shape {} takes {}", model_.meta.origin(),
              printable(tensor.name), tensor.bytes, format.name, shape_text(tensor), expected);
}

std::shared_ptr<const std::vector<std::byte>> PlanBuilder::expand(Tensor& tensor) {
  PackedRows packed = pack_scaled(tensor, catalog_);
  if (packed.format->name != tensor.format) {
    note(fmt::format(
        "{}: tensor '{}' is held as {}: rows of {} columns, or scales of {} columns each, do not fit "
        "the blocks of {}",
        model_.meta.origin(), printable(tensor.name), packed.format->name, tensor.k(), tensor.scales->columns,
        tensor.format));
    tensor.qtype = scaled_block(tensor.qtype)->expanded;
    tensor.format = packed.format->name;
  }
  auto bytes = std::make_shared<const std::vector<std::byte>>(std::move(packed.bytes));
  tensor.data = bytes->data();
  tensor.bytes = bytes->size();
  tensor.scales.reset();
  return bytes;
}

std::string_view PlanBuilder::forced_format(std::string_view tensor, std::string_view role) {
  const std::string name(tensor), part(role);
  for (size_t i = 0; i < options_.force_qtype.size(); ++i) {
    if (!weight_name_matches(options_.force_qtype[i].pattern.c_str(), name.c_str(), part.c_str())) continue;
    matched_.insert(i);
    return options_.force_qtype[i].format;
  }
  return {};
}

int32_t PlanBuilder::bind(const Tensor& given, std::string_view role, int32_t layer,
                          std::string_view forced) {
  // Elements with scales become rows of blocks first; from then on they are like any other weight.
  Tensor tensor = given;
  std::shared_ptr<const std::vector<std::byte>> made;
  if (given.scales) made = expand(tensor);
  const apr_quant_format& own = catalog_.format(tensor.qtype, tensor.format, tensor.name);
  check_bytes(tensor, own);
  if (made) plan_->made_.push_back(std::move(made));
  BoundWeight& bound = plan_->weights_.emplace_back(BoundWeight{tensor, &own, {}, {}});
  if (!forced.empty() && forced != own.name) {
    bound.format = &catalog_.format(forced);
    // Some 30 million weights a second and core: a person should see why the load takes long.
    log_info("re-quantising {} from {} to {}", printable(tensor.name), own.name, bound.format->name);
    bound.owned = requantize(tensor, own, *bound.format);
    forced_[fmt::format("{} to {}", own.name, bound.format->name)].push_back(printable(tensor.name));
  }
  const bool in_place = bound.owned.empty();
  apr_weight& weight = bound.c;
  weight.struct_size = sizeof(weight);
  weight.name = bound.tensor.name.c_str();
  weight.role = keep(std::string(role));
  weight.layer = layer;
  weight.format = bound.format;
  weight.n = tensor.n();
  weight.k = tensor.k();
  weight.data = in_place ? tensor.data : bound.owned.data();
  weight.bytes = in_place ? tensor.bytes : bound.owned.size();
  return static_cast<int32_t>(plan_->weights_.size() - 1);
}

int32_t PlanBuilder::weight(Stage stage, uint64_t n, uint64_t k) {
  const std::string name = weight_name(stage);
  return bind(matrix(name, n, k), stage.name, stage.layer, forced_format(name, stage.name));
}

int32_t PlanBuilder::head(int32_t embedding, uint64_t n, uint64_t k) {
  constexpr Stage kHead = {kNone, "output"};
  const std::string name = weight_name(kHead);
  const std::string_view forced = options_.lm_head_force_qtype
                                      ? std::string_view(options_.lm_head_force_qtype->text)
                                      : std::string_view();
  const std::string_view by_pattern = forced_format(name, kHead.name);
  const std::string_view wanted = forced.empty() ? by_pattern : forced;
  if (model_.find(name)) return bind(matrix(name, n, k), kHead.name, kNone, wanted);
  // Tied: the embedding's rows are the head's. Only a format forced upon the head alone makes a second copy, so
  // that the embedding stays what it is.
  const BoundWeight& tied = plan_->weights_[static_cast<size_t>(embedding)];
  if (wanted.empty() || wanted == tied.format->name) return embedding;
  return bind(tied.tensor, kHead.name, kNone, wanted);
}

uint64_t PlanBuilder::rows_of(const std::string& name) const {
  const Tensor& tensor = model_.require(name);
  if (tensor.dims.size() != 2) {
    throw Error("{}: tensor '{}' has shape {}; a matrix is expected", model_.meta.origin(), name,
                shape_text(tensor));
  }
  return tensor.dims[1];
}

int32_t PlanBuilder::vector(const std::string& name, uint64_t n) {
  Tensor tensor = model_.require(name);
  // Trailing sizes of 1 are harmless.
  if (tensor.k() != n || tensor.n() != 1) {
    throw Error("{}: tensor '{}' has shape {}, but the hyper-parameters demand [{}]", model_.meta.origin(),
                name, shape_text(tensor), n);
  }
  used_.insert(name);
  std::shared_ptr<const std::vector<std::byte>> made;
  if (tensor.scales) made = expand(tensor);
  const apr_quant_format& format = catalog_.format(tensor.qtype, tensor.format, tensor.name);
  check_bytes(tensor, format);
  std::vector<float> data(n);
  format.dequantize(tensor.data, 1, n, data.data());
  for (uint64_t i = 0; i < n; ++i) {
    if (!std::isfinite(data[i])) {
      throw Error("{}: tensor '{}' holds {} at index {}; the file is damaged", model_.meta.origin(), name,
                  data[i], i);
    }
  }
  return own_vector(name, std::move(data));
}

int32_t PlanBuilder::vector_if_present(const std::string& name, uint64_t n) {
  return model_.find(name) ? vector(name, n) : kNone;
}

int32_t PlanBuilder::own_vector(const std::string& name, std::vector<float> data) {
  const std::vector<float>& kept = plan_->floats_.emplace_back(std::move(data));
  plan_->vectors_.push_back({sizeof(apr_vector), keep(name), kept.size(), kept.data()});
  return static_cast<int32_t>(plan_->vectors_.size() - 1);
}

const std::vector<float>& PlanBuilder::floats(int32_t vector) const {
  return plan_->floats_[static_cast<size_t>(vector)];
}

uint32_t PlanBuilder::width(int32_t value) const { return plan_->values_[static_cast<size_t>(value)].width; }

apr_op& PlanBuilder::append(Stage stage, apr_op_kind kind, uint32_t out_width) {
  plan_->values_.push_back({sizeof(apr_value), out_width});
  apr_op& op = plan_->ops_.emplace_back();
  op.struct_size = sizeof(op);
  op.kind = kind;
  op.stage = keep(stage_name(stage));
  op.layer = stage.layer;
  for (int32_t& index : op.in) index = kNone;
  for (int32_t& index : op.weight) index = kNone;
  for (int32_t& index : op.vector) index = kNone;
  op.out = static_cast<int32_t>(plan_->values_.size() - 1);
  op.rope = APR_ROPE_NONE;
  return op;
}

int32_t PlanBuilder::embed(Stage stage, int32_t weight) {
  const apr_weight& table = plan_->weights_[static_cast<size_t>(weight)].c;
  apr_op& op = append(stage, APR_OP_EMBED, static_cast<uint32_t>(table.k));
  op.weight[0] = weight;
  return op.out;
}

int32_t PlanBuilder::rms_norm(Stage stage, int32_t in, int32_t vector, HeadShape heads, float eps) {
  apr_op& op = append(stage, APR_OP_RMS_NORM, width(in));
  op.in[0] = in;
  op.vector[0] = vector;
  op.n_heads = heads.n_heads;
  op.head_dim = heads.head_dim;
  op.eps = eps;
  return op.out;
}

int32_t PlanBuilder::linear(Stage stage, int32_t in, int32_t weight, int32_t bias) {
  apr_op& op =
      append(stage, APR_OP_LINEAR, static_cast<uint32_t>(plan_->weights_[static_cast<size_t>(weight)].c.n));
  op.in[0] = in;
  op.weight[0] = weight;
  op.vector[0] = bias;
  return op.out;
}

int32_t PlanBuilder::rope(Stage stage, int32_t in, HeadShape heads, const RopeShape& rope) {
  apr_op& op = append(stage, APR_OP_ROPE, width(in));
  op.in[0] = in;
  op.vector[0] = rope.inverse_frequencies;
  op.n_heads = heads.n_heads;
  op.head_dim = heads.head_dim;
  op.rope_dims = rope.dims;
  op.rope = rope.kind;
  op.scale = rope.scale;
  return op.out;
}

int32_t PlanBuilder::attention(Stage stage, int32_t q, int32_t k, int32_t v, HeadShape heads,
                               uint32_t n_kv_heads, uint32_t window) {
  apr_op& op = append(stage, APR_OP_ATTENTION, width(q));
  op.in[0] = q;
  op.in[1] = k;
  op.in[2] = v;
  op.n_heads = heads.n_heads;
  op.n_kv_heads = n_kv_heads;
  op.head_dim = heads.head_dim;
  op.window = window;
  op.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(heads.head_dim)));
  return op.out;
}

int32_t PlanBuilder::add(Stage stage, int32_t a, int32_t b) {
  apr_op& op = append(stage, APR_OP_ADD, width(a));
  op.in[0] = a;
  op.in[1] = b;
  return op.out;
}

int32_t PlanBuilder::swiglu(Stage stage, int32_t gate, int32_t up) {
  apr_op& op = append(stage, APR_OP_SWIGLU, width(gate));
  op.in[0] = gate;
  op.in[1] = up;
  return op.out;
}

void PlanBuilder::begin_head() { head_op_ = static_cast<uint32_t>(plan_->ops_.size()); }

void PlanBuilder::note(std::string text) {
  log_warning("{}", text);
  plan_->notes_.push_back(std::move(text));
}

void PlanBuilder::note_forced() {
  for (const auto& [change, names] : forced_) {
    note(fmt::format("{} {} re-quantised from {} for this run: {}", names.size(),
                     names.size() == 1 ? "weight was" : "weights were", change, first_names(names)));
  }
}

void PlanBuilder::note_unused() {
  std::vector<std::string> unused;
  for (const Tensor& tensor : model_.tensors) {
    if (!used_.contains(tensor.name)) unused.push_back(printable(tensor.name));
  }
  if (unused.empty()) return;
  note(fmt::format("{} of the file's {} tensors are not used by this architecture: {}", unused.size(),
                   model_.tensors.size(), first_names(unused)));
}

std::unique_ptr<Plan> PlanBuilder::finish(uint32_t n_ctx_train, int32_t logits) {
  for (size_t i = 0; i < options_.force_qtype.size(); ++i) {
    if (matched_.contains(i)) continue;
    throw usage_error(
        "APR_FORCE_QTYPE: pattern '{}' matches no weight of {} that an earlier pattern left; weights are "
        "named like blk.0.attn_q.weight or blk.0.attn_q, roles like attn_q",
        printable(options_.force_qtype[i].pattern), model_.meta.origin());
  }
  note_forced();
  note_unused();
  Plan& plan = *plan_;
  plan.arch_ = model_.meta.get_string("general.architecture");
  plan.model_name_ = model_.meta.get_string_or("general.name", model_.meta.origin());
  for (const BoundWeight& weight : plan.weights_) plan.weight_list_.push_back(&weight.c);
  for (const apr_vector& vector : plan.vectors_) plan.vector_list_.push_back(&vector);
  for (const apr_value& value : plan.values_) plan.value_list_.push_back(&value);
  for (const apr_op& op : plan.ops_) plan.op_list_.push_back(&op);
  apr_plan& c = plan.c_;
  c.struct_size = sizeof(c);
  c.arch = plan.arch_.c_str();
  c.model_name = plan.model_name_.c_str();
  for (const apr_op& op : plan.ops_) c.n_layers = std::max(c.n_layers, static_cast<uint32_t>(op.layer + 1));
  c.n_vocab = width(logits);
  c.n_ctx_train = n_ctx_train;
  c.weights = plan.weight_list_.data();
  c.n_weights = static_cast<uint32_t>(plan.weight_list_.size());
  c.vectors = plan.vector_list_.data();
  c.n_vectors = static_cast<uint32_t>(plan.vector_list_.size());
  c.values = plan.value_list_.data();
  c.n_values = static_cast<uint32_t>(plan.value_list_.size());
  c.ops = plan.op_list_.data();
  c.n_ops = static_cast<uint32_t>(plan.op_list_.size());
  c.head_op = head_op_;
  c.logits = logits;
  return std::move(plan_);
}

}  // namespace apr
