#include "plugins/backend-cuda/bind.h"

#include <algorithm>

#include "plugins/backend-cuda/failure.h"

namespace apr::cuda {

namespace {

class Binder {
 public:
  Binder(const Step& step, const Program& program, const std::vector<BoundBuffer>& buffers,
         const BindContext& context, CUdeviceptr scratch)
      : step_(step), program_(program), buffers_(buffers), context_(context), scratch_(scratch) {}

  Args run() const {
    switch (step_.spec.op) {
      case Op::Embed: {
        EmbedArgs a{};
        a.m = rows();
        a.tokens = state<int32_t>(context_.state_layout.tokens());
        a.w = weight(0);
        a.y = floats(step_.outputs[0]);
        return a;
      }
      case Op::RmsNorm: {
        NormArgs a{};
        a.m = rows();
        a.x = floats(step_.input[0]);
        a.weight = vector(step_.norm[0]);
        a.x_stride = width(step_.input[0]);
        a.eps = step_.eps;
        output(step_.outputs[0], &a.y, a.yq, a.yh);
        return a;
      }
      case Op::Convert: {
        ConvertArgs a{};
        a.m = rows();
        a.x = floats(step_.input[0]);
        a.up = floats(step_.input[1]);
        output(step_.outputs[0], nullptr, a.yq, a.yh);
        return a;
      }
      case Op::Linear:
        return linear();
      case Op::Rope:
      case Op::RopeKv:
      case Op::Attention:
        return attention();
      case Op::Add:
      case Op::Swiglu:
      case Op::Gather: {
        ElementwiseArgs a{};
        a.m = rows();
        a.a = floats(step_.input[0]);
        a.b = floats(step_.input[1]);
        a.rows = state<int32_t>(context_.state_layout.selected());
        a.y = floats(step_.outputs[0]);
        return a;
      }
      case Op::Argmax: {
        ArgmaxArgs a{};
        a.m = rows();
        a.x = floats(step_.input[0]);
        a.index = reinterpret_cast<int32_t*>(at(step_.outputs[0]).base);
        a.scratch = reinterpret_cast<void*>(scratch_);
        a.next = context_.next;
        return a;
      }
      case Op::TopK: {
        TopKArgs a{};
        a.m = rows();
        a.x = floats(step_.input[0]);
        a.best = reinterpret_cast<Candidate*>(at(step_.outputs[0]).base);
        a.scratch = reinterpret_cast<void*>(scratch_);
        return a;
      }
      case Op::ReadBandwidth:
      case Op::WeightRange:
        break;
    }
    throw failure(APR_FAILED, "stage {}: {} is not part of a step", step_.stage, to_string(step_.spec.op));
  }

 private:
  template <typename T>
  const T* state(uint64_t offset) const {
    return reinterpret_cast<const T*>(context_.state + offset);
  }
  // The number of rows in use: tokens of the batch, or wanted tokens.
  const int32_t* rows() const {
    const auto* s = state<StepState>(0);
    return program_.head ? &s->n_wanted : &s->m;
  }
  const BoundBuffer& at(int32_t buffer) const { return buffers_[static_cast<size_t>(buffer)]; }
  uint32_t width(int32_t buffer) const {
    return buffer < 0 ? 0 : program_.buffers[static_cast<size_t>(buffer)].width;
  }
  Form form(int32_t buffer) const { return program_.buffers[static_cast<size_t>(buffer)].form; }
  float* floats(int32_t buffer) const {
    return buffer < 0 ? nullptr : reinterpret_cast<float*>(at(buffer).base);
  }

  ActInt8 int8(int32_t buffer) const {
    const BoundBuffer& b = at(buffer);
    return {reinterpret_cast<int8_t*>(b.base), reinterpret_cast<float*>(b.base + b.layout.part[1]),
            reinterpret_cast<float*>(b.base + b.layout.part[2])};
  }
  ActHalf half(int32_t buffer, bool two) const {
    const BoundBuffer& b = at(buffer);
    return {{reinterpret_cast<uint16_t*>(b.base),
             two ? reinterpret_cast<uint16_t*>(b.base + b.layout.part[1]) : nullptr},
            reinterpret_cast<float*>(b.base + b.layout.part[2])};
  }

  void output(int32_t buffer, float** y, ActInt8& yq, ActHalf& yh) const {
    switch (form(buffer)) {
      case Form::Float:
        if (y == nullptr) break;
        *y = floats(buffer);
        return;
      case Form::Int8:
        yq = int8(buffer);
        return;
      case Form::F16:
        yh = half(buffer, false);
        return;
      case Form::Bf16x2:
      case Form::F16x2:
        yh = half(buffer, true);
        return;
      case Form::Token:
      case Form::Candidates:
        break;
    }
    throw failure(APR_FAILED, "stage {}: wrong form of result", step_.stage);
  }

  const float* vector(int32_t index) const {
    return index < 0 ? nullptr : (*context_.vectors)[static_cast<size_t>(index)];
  }
  Weight weight(size_t segment) const {
    return (*context_.weights)[static_cast<size_t>(step_.weights[segment])];
  }

  LinearArgs linear() const {
    LinearArgs a{};
    a.m = rows();
    switch (form(step_.input[0])) {
      case Form::Float:
        a.x = floats(step_.input[0]);
        break;
      case Form::Int8:
        a.xq = int8(step_.input[0]);
        break;
      case Form::F16:
        a.xh = half(step_.input[0], false);
        break;
      case Form::Bf16x2:
      case Form::F16x2:
        a.xh = half(step_.input[0], true);
        break;
      case Form::Token:
      case Form::Candidates:
        throw failure(APR_FAILED, "stage {}: results are no activations", step_.stage);
    }
    a.norm = vector(step_.norm[0]);
    a.residual = floats(step_.residual);
    a.eps = step_.eps;
    for (size_t s = 0; s < step_.weights.size(); ++s) {
      a.w[s] = weight(s);
      a.bias[s] = vector(step_.biases[s]);
      a.w_scale[s] = (*context_.weight_scales)[static_cast<size_t>(step_.weights[s])];
    }
    for (size_t o = 0; o < step_.outputs.size(); ++o) {
      if (form(step_.outputs[o]) == Form::Int8)
        a.yq = int8(step_.outputs[o]);
      else
        a.y[o] = floats(step_.outputs[o]), a.y_stride[o] = width(step_.outputs[o]);
    }
    return a;
  }

  AttentionArgs attention() const {
    AttentionArgs a{};
    a.state = state<StepState>(0);
    a.positions = state<int32_t>(context_.state_layout.positions());
    a.sequences = state<int32_t>(context_.state_layout.sequences());
    a.q = floats(step_.input[0]), a.k = floats(step_.input[1]), a.v = floats(step_.input[2]);
    a.q_stride = width(step_.input[0]), a.k_stride = width(step_.input[1]),
    a.v_stride = width(step_.input[2]);
    a.n_ctx = context_.n_ctx;
    a.q_norm = vector(step_.norm[0]);
    a.k_norm = vector(step_.norm[1]);
    a.inv_freq = vector(step_.frequencies);
    a.eps = step_.eps, a.rope_scale = step_.rope_scale, a.scale = step_.scale;
    if (step_.cache >= 0) {
      const KvCache& cache = (*context_.caches)[static_cast<size_t>(step_.cache)];
      a.k_cache = cache.k, a.v_cache = cache.v;
    }
    if (!step_.outputs.empty()) {
      if (form(step_.outputs[0]) == Form::Int8)
        a.outq = int8(step_.outputs[0]);
      else if (step_.spec.op == Op::Attention)
        a.out = floats(step_.outputs[0]), a.out_stride = width(step_.outputs[0]);
      else
        a.q_out = floats(step_.outputs[0]);
    }
    a.scratch = reinterpret_cast<void*>(scratch_);
    return a;
  }

  const Step& step_;
  const Program& program_;
  const std::vector<BoundBuffer>& buffers_;
  const BindContext& context_;
  CUdeviceptr scratch_;
};

}  // namespace

const void* address(const Args& args) {
  return std::visit([](const auto& a) -> const void* { return &a; }, args);
}

std::vector<Ahead> weights_ahead(const Program& program, size_t index, uint64_t bytes,
                                 const DeviceWeights& weights) {
  std::vector<Ahead> ahead;
  for (size_t i = index + 1; i < program.steps.size() && bytes > 0; ++i) {
    std::vector<Ahead> planes;
    uint64_t total = 0;
    for (const int32_t w : program.steps[i].weights) {
      const std::vector<uint64_t>& sizes = weights.planes(static_cast<size_t>(w));
      for (size_t p = 0; p < sizes.size(); ++p) {
        if (sizes[p] > UINT32_MAX) return ahead;
        planes.push_back({weights.all()[static_cast<size_t>(w)].plane[p], static_cast<uint32_t>(sizes[p])});
        total += sizes[p];
      }
    }
    if (ahead.size() + planes.size() > kMaxAhead) break;
    if (total > bytes)
      for (Ahead& plane : planes)
        plane.bytes = static_cast<uint32_t>(plane.bytes * bytes / total / 256 * 256);
    ahead.insert(ahead.end(), planes.begin(), planes.end());
    bytes -= std::min(bytes, total);
  }
  return ahead;
}

Args bind_step(const Step& step, const Program& program, const std::vector<BoundBuffer>& buffers,
               const BindContext& context, CUdeviceptr scratch) {
  return Binder(step, program, buffers, context, scratch).run();
}

}  // namespace apr::cuda
