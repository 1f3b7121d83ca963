// Every kernel of a program against float64, one at a time, with the inputs that it has in a step: the emulator computes the
// program on the host, and before each launch the device gets the emulator's inputs and poisoned outputs, so errors do not
// add up and each belongs to one kernel.
#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>

#include "plugins/backend-cuda/bind.h"
#include "plugins/backend-cuda/failure.h"
#include "plugins/backend-cuda/session.h"
#include "tests/cuda/fake_driver/emulate.h"
#include "tests/cuda/support/formats.h"
#include "tests/cuda/support/harness.h"
#include "tests/cuda/support/tiny_plan.h"

using namespace apr;
using namespace apr::cuda;
using namespace apr::test;

namespace {

Device& device() {
  static Device one(0,
                    [] {
                      Settings s;
                      s.cache_folder = user_cache_folder("kernels");
                      s.data_dir = data_folder();
                      return s;
                    }(),
                    {});
  return one;
}

void check(CUresult result) { device().gpu.driver().check(result, "test"); }

// The same bytes on both sides.
struct Mirror {
  std::vector<uint64_t> words;  // 8-byte aligned
  DeviceMemory memory;

  void allocate(uint64_t bytes) {
    words.assign((bytes + 7) / 8 + 1, 0);
    memory = DeviceMemory(device().gpu, words.size() * 8, "test");
  }
  template <typename T>
  T* host(uint64_t offset = 0) {
    return reinterpret_cast<T*>(reinterpret_cast<char*>(words.data()) + offset);
  }
  uint64_t bytes() const { return words.size() * 8; }
  void to_device() {
    check(device().gpu.driver().cuMemcpyHtoDAsync(memory.address(), words.data(), bytes(),
                                                  device().gpu.stream()));
    device().gpu.synchronize();
  }
  void poison_device() {
    check(device().gpu.driver().cuMemsetD8Async(memory.address(), 0xff, bytes(), device().gpu.stream()));
  }
  std::vector<uint64_t> from_device() {
    std::vector<uint64_t> copy(words.size());
    check(device().gpu.driver().cuMemcpyDtoHAsync(copy.data(), memory.address(), bytes(),
                                                  device().gpu.stream()));
    device().gpu.synchronize();
    return copy;
  }
};

// A matrix of activations as numbers, whatever its form.
std::vector<double> numbers(const Buffer& buffer, uint32_t rows, uint32_t room, const char* base) {
  const BufferLayout layout = buffer_layout(buffer, room);
  std::vector<double> out;
  const auto half = [](uint16_t bits, bool bf) {
    return static_cast<double>(bf ? bfloat_to_float(bits) : half_to_float(bits));
  };
  for (uint64_t r = 0; r < rows; ++r)
    for (uint64_t c = 0; c < buffer.width; ++c) {
      const uint64_t k32 = (buffer.width + 31) / 32 * 32, k64 = (buffer.width + 63) / 64 * 64;
      switch (buffer.form) {
        case Form::Float:
          out.push_back(reinterpret_cast<const float*>(base)[r * buffer.width + c]);
          break;
        case Form::Token:
          out.push_back(reinterpret_cast<const int32_t*>(base)[r]);
          break;
        case Form::Candidates: {
          const Candidate& candidate = reinterpret_cast<const Candidate*>(base)[r * buffer.width + c];
          out.push_back(candidate.value), out.push_back(candidate.index);
          break;
        }
        case Form::Int8:
          out.push_back(static_cast<double>(reinterpret_cast<const float*>(
                            base + layout.part[1])[r * (k32 / kActBlock) + c / kActBlock]) *
                        reinterpret_cast<const int8_t*>(base)[r * k32 + c]);
          break;
        case Form::F16:
        case Form::Bf16x2:
        case Form::F16x2: {
          const bool bf = buffer.form == Form::Bf16x2;
          double v = half(reinterpret_cast<const uint16_t*>(base)[r * k64 + c], bf);
          if (buffer.form != Form::F16)
            v += half(reinterpret_cast<const uint16_t*>(base + layout.part[1])[r * k64 + c], bf);
          out.push_back(v * static_cast<double>(reinterpret_cast<const float*>(base + layout.part[2])[r]));
          break;
        }
      }
    }
  // What a reader of 8-bit activations also uses: the sums must belong to the quants.
  if (buffer.form == Form::Int8) {
    const uint64_t k32 = (buffer.width + 31) / 32 * 32;
    for (uint64_t b = 0; b < rows * (k32 / kActBlock); ++b)
      out.push_back(reinterpret_cast<const float*>(base + layout.part[2])[b]);
  }
  return out;
}

double relative_error(const std::vector<double>& a, const std::vector<double>& b) {
  double error = 0, size = 0;
  for (size_t i = 0; i < a.size(); ++i) error += (a[i] - b[i]) * (a[i] - b[i]), size += b[i] * b[i];
  return std::sqrt(error / std::max(size, 1e-30));
}

// Rounding that a kernel may add to exact inputs, as ||out - ref|| / ||ref||.
double tolerance(const Step& step, const Program& program) {
  const Form out =
      program.buffers[static_cast<size_t>(step.outputs.empty() ? step.input[0] : step.outputs[0])].form;
  double bound = 2e-5;
  if (step.spec.op == Op::Linear && step.spec.view == View::Int)
    bound = 2e-3;  // a quant that falls on the other side of a tie
  if (step.spec.op == Op::Linear && program.m == 0)
    // W as one f16 term: 2^-12; of a codec with an offset, scale * q and the sum are rounded each, and they cancel in part.
    bound = program.buffers[static_cast<size_t>(step.input[0])].form == Form::Bf16x2 ? 5e-5 : 1e-3;
  if (step.spec.op == Op::Attention) bound = program.m == 0 ? 2e-3 : 1e-4;  // q and p as f16 terms
  switch (out) {
    case Form::Float:
    case Form::Token:
      return bound;
    case Form::Candidates:
      return 0;  // chosen, not computed
    case Form::Int8:
      return bound + 1e-2;  // half a step of 1/127, and ties
    case Form::F16:
      return bound + 5e-4;
    case Form::Bf16x2:
    case Form::F16x2:
      return bound + 1e-5;
  }
  return 0;
}

class World {
 public:
  World(const apr_plan& plan, uint32_t m, bool head, const LowerOptions& options, uint32_t rows)
      : plan_(plan),
        rows_(rows),
        room_(std::max(rows, 8u)),
        program_(lower(plan, m, head, options)),
        layouts_(plan.n_weights, nullptr) {}

  void run() {
    choose_and_build();
    place();
    for (size_t i = 0; i < program_.steps.size(); ++i) step(i);
  }

 private:
  void choose_and_build() {
    std::vector<Specialised> sources;
    for (Step& step : program_.steps) {
      for (size_t s = 0; s < step.weights.size(); ++s)
        step.spec.segments[s].layout = layouts_[static_cast<size_t>(step.weights[s])];
      std::string why;
      const auto config = choose(device().registry, step.spec, device().target, &why);
      REQUIRE_MESSAGE(config.has_value(), describe(step.spec) << why);
      for (size_t s = 0; s < step.weights.size(); ++s)
        layouts_[static_cast<size_t>(step.weights[s])] = config->layouts[s];
      sources.push_back(specialise(device().registry, step.spec, *config, device().target));
    }
    sources_ = sources;
    JitReport report;
    const auto images = device().build(sources, {}, report);
    for (size_t i = 0; i < images.size(); ++i) {
      kernels_.emplace_back(device().gpu, images[i], sources[i].summary);
      const uint64_t bytes = kernels_.back().shape().scratch_bytes;
      scratch_.emplace_back(device().gpu, std::max<uint64_t>(bytes, 256), "scratch");
      check(device().gpu.driver().cuMemsetD8Async(scratch_.back().address(), 0, scratch_.back().bytes(),
                                                  device().gpu.stream()));
    }
  }

  void place() {
    std::mt19937 random(5);
    std::normal_distribution<float> draw;
    buffers_ = std::vector<Mirror>(program_.buffers.size());
    for (size_t b = 0; b < buffers_.size(); ++b) {
      buffers_[b].allocate(buffer_layout(program_.buffers[b], room_).bytes);
      if (program_.buffers[b].place == Buffer::Place::Inlet)
        for (uint64_t i = 0; i < uint64_t{room_} * program_.buffers[b].width; ++i)
          // Mostly ordinary, some large, zero and tiny: what amax, norms and rounding are sensitive to.
          buffers_[b].host<float>()[i] = random() % 50 == 0   ? draw(random) * 1e3f
                                         : random() % 50 == 1 ? 0.0f
                                         : random() % 50 == 2 ? 1e-30f
                                                              : draw(random);
    }
    weight_memory_ = std::vector<Mirror>(plan_.n_weights);
    host_weights_.resize(plan_.n_weights), device_weights_.resize(plan_.n_weights);
    for (size_t w = 0; w < plan_.n_weights; ++w) {
      const apr_weight& weight = *plan_.weights[w];
      if (layouts_[w] == nullptr) continue;
      lay_out(weight, *layouts_[w], weight_memory_[w], host_weights_[w], device_weights_[w]);
    }
    vector_memory_ = std::vector<Mirror>(plan_.n_vectors);
    for (size_t v = 0; v < plan_.n_vectors; ++v) {
      vector_memory_[v].allocate(plan_.vectors[v]->n * 4);
      std::memcpy(vector_memory_[v].host<float>(), plan_.vectors[v]->data, plan_.vectors[v]->n * 4);
      vector_memory_[v].to_device();
      host_vectors_.push_back(vector_memory_[v].host<float>());
      device_vectors_.push_back(vector_memory_[v].memory.at<float>());
    }
    state_.allocate(StateLayout{room_}.bytes());
    auto* s = state_.host<StepState>();
    s->m = s->n_wanted = static_cast<int32_t>(rows_);
    // Two sequences; the first has history.
    for (uint32_t i = 0; i < room_; ++i) {
      const uint32_t row = std::min(i, rows_ - 1), half = rows_ / 2;
      state_.host<int32_t>(StateLayout{room_}.tokens())[i] = static_cast<int32_t>(random() % plan_.n_vocab);
      state_.host<int32_t>(StateLayout{room_}.positions())[i] =
          static_cast<int32_t>(row < half ? row : kHistory + row - half);
      state_.host<int32_t>(StateLayout{room_}.sequences())[i] = row < half ? 1 : 0;
      state_.host<int32_t>(StateLayout{room_}.selected())[i] = static_cast<int32_t>(row);
    }
    state_.to_device();
    cache_memory_ = std::vector<Mirror>(2 * cache_shapes(plan_).size());
    size_t c = 0;
    for (const CacheShape& shape : cache_shapes(plan_)) {
      for (int part = 0; part < 2; ++part) {
        Mirror& cache = cache_memory_[2 * c + static_cast<size_t>(part)];
        cache.allocate(uint64_t{2} * shape.n_kv_heads * kContext * shape.head_dim * 2);
        for (uint64_t i = 0; i < cache.bytes() / 2; ++i) {
          const _Float16 v = static_cast<_Float16>(draw(random));
          std::memcpy(cache.host<uint16_t>() + i, &v, 2);
        }
      }
      host_caches_.push_back(
          {cache_memory_[2 * c].host<uint16_t>(), cache_memory_[2 * c + 1].host<uint16_t>()});
      device_caches_.push_back(
          {cache_memory_[2 * c].memory.at<uint16_t>(), cache_memory_[2 * c + 1].memory.at<uint16_t>()});
      ++c;
    }
    scales_.assign(plan_.n_weights, 256.0f);
  }

  static void lay_out(const apr_weight& weight, const apr_layout& layout, Mirror& mirror, Weight& host,
                      Weight& on_device) {
    const apr_codec& codec = *weight.format->codec;
    const uint64_t blocks = blocks_of_row(weight),
                   row = weight.k / weight.format->block_elements * weight.format->block_bytes;
    std::vector<uint8_t> padded(weight.n * blocks * codec.block_bytes, 0);
    for (uint64_t r = 0; r < weight.n; ++r)
      std::memcpy(padded.data() + r * blocks * codec.block_bytes,
                  static_cast<const uint8_t*>(weight.data) + r * row, row);
    uint64_t offset[APR_MAX_PLANES] = {}, bytes = 0;
    for (uint32_t p = 0; p < layout.n_planes; ++p)
      offset[p] = bytes, bytes += (weight.n * blocks * layout.plane_bytes[p] + 255) / 256 * 256;
    mirror.allocate(bytes);
    uint8_t* planes[APR_MAX_PLANES] = {};
    for (uint32_t p = 0; p < layout.n_planes; ++p) planes[p] = mirror.host<uint8_t>(offset[p]);
    if (layout.split == nullptr)
      std::memcpy(planes[0], padded.data(), padded.size());
    else
      layout.split(padded.data(), weight.n * blocks, planes);
    mirror.to_device();
    for (uint32_t p = 0; p < layout.n_planes; ++p)
      host.plane[p] = planes[p], on_device.plane[p] = mirror.memory.at<uint8_t>(offset[p]);
  }

  BindContext context(bool host) {
    return {host ? &host_weights_ : &device_weights_,
            host ? &host_vectors_ : &device_vectors_,
            host ? &host_caches_ : &device_caches_,
            &scales_,
            kContext,
            host ? reinterpret_cast<CUdeviceptr>(state_.host<char>()) : state_.memory.address(),
            {room_}};
  }

  void step(size_t index) {
    const Step& step = program_.steps[index];
    std::vector<BoundBuffer> on_host, on_device;
    for (size_t b = 0; b < buffers_.size(); ++b) {
      const BufferLayout layout = buffer_layout(program_.buffers[b], room_);
      on_host.push_back({reinterpret_cast<CUdeviceptr>(buffers_[b].host<char>()), layout});
      on_device.push_back({buffers_[b].memory.address(), layout});
    }
    for (const int32_t in : step.input)
      if (in >= 0) buffers_[static_cast<size_t>(in)].to_device();
    if (step.residual >= 0) buffers_[static_cast<size_t>(step.residual)].to_device();
    for (const int32_t out : step.outputs) buffers_[static_cast<size_t>(out)].poison_device();
    if (step.cache >= 0)
      for (size_t part = 0; part < 2; ++part)
        cache_memory_[2 * static_cast<size_t>(step.cache) + part].to_device();

    const Args device_args = bind_step(step, program_, on_device, context(false), scratch_[index].address());
    const Args host_args = bind_step(step, program_, on_host, context(true), 0);
    // Twice: what a kernel leaves in its scratch memory must be as it found it.
    kernels_[index].launch(device().gpu, address(device_args), rows_, false);
    for (const int32_t out : step.outputs) buffers_[static_cast<size_t>(out)].poison_device();
    kernels_[index].launch(device().gpu, address(device_args), rows_, false);
    device().gpu.synchronize();
    fake::emulate(sources_[index].source, address(host_args));

    CAPTURE(step.stage);
    CAPTURE(sources_[index].summary);
    for (const int32_t out : step.outputs) {
      const size_t b = static_cast<size_t>(out);
      const std::vector<uint64_t> got = buffers_[b].from_device();
      const auto a = numbers(program_.buffers[b], rows_, room_, reinterpret_cast<const char*>(got.data()));
      const auto expected = numbers(program_.buffers[b], rows_, room_, buffers_[b].host<char>());
      const double error = relative_error(a, expected);
      CHECK(error <= tolerance(step, program_));
      if (!(error <= tolerance(step, program_))) show(a, expected, program_.buffers[b].width);
    }
    if (step.cache < 0) return;
    for (size_t part = 0; part < 2; ++part) {
      Mirror& cache = cache_memory_[2 * static_cast<size_t>(step.cache) + part];
      const std::vector<uint64_t> got = cache.from_device();
      std::vector<double> a, expected;
      for (uint64_t i = 0; i < cache.bytes() / 2; ++i) {
        a.push_back(half_to_float(reinterpret_cast<const uint16_t*>(got.data())[i]));
        expected.push_back(half_to_float(cache.host<uint16_t>()[i]));
      }
      const double error = relative_error(a, expected);
      CHECK(error <= 1e-4);
    }
  }

  static void show(const std::vector<double>& a, const std::vector<double>& b, uint32_t width) {
    int shown = 0;
    const double scale = std::fabs(*std::max_element(
        b.begin(), b.end(), [](double x, double y) { return std::fabs(x) < std::fabs(y); }));
    for (size_t i = 0; i < a.size() && shown < 6; ++i)
      if (!(std::fabs(a[i] - b[i]) <= 1e-2 * scale))
        ++shown, fmt::print("    row {} column {}: {} instead of {}\n", i / width, i % width, a[i], b[i]);
    std::fflush(stdout);
  }

  static constexpr uint32_t kContext = 96, kHistory = 40;
  const apr_plan& plan_;
  uint32_t rows_, room_;
  Program program_;
  std::vector<const apr_layout*> layouts_;
  std::vector<Specialised> sources_;
  std::vector<Kernel> kernels_;
  std::vector<DeviceMemory> scratch_;
  std::vector<Mirror> buffers_, weight_memory_, vector_memory_, cache_memory_;
  std::vector<Weight> host_weights_, device_weights_;
  std::vector<const float*> host_vectors_, device_vectors_;
  std::vector<KvCache> host_caches_, device_caches_;
  std::vector<float> scales_;
  Mirror state_;
};

void check_kernels(const TinyShape& shape, const LowerOptions& options = {}) {
  const TinyPlan tiny(shape);
  for (const bool head : {false, true})
    for (const uint32_t m : {1u, 2u, 8u, 0u}) {
      CAPTURE(m);
      World(tiny.plan(), m, head, options, m == 0 ? 37 : m == 8 ? 7 : m).run();
    }
}

}  // namespace

TEST_CASE("kernels of every format") {
  for (const apr_quant_format* f : formats()) {
    if (f->codec == nullptr || f->quantize == nullptr) continue;
    const std::string name = f->name;
    CAPTURE(name);
    TinyShape shape;
    shape.n_layers = 1, shape.bias = true, shape.format = name;
    check_kernels(shape);
  }
}

TEST_CASE("kernels of mixed formats, of other heads and of ragged sizes") {
  TinyShape shape;
  shape.n_layers = 1;
  shape.format = "q4_k", shape.v_format = "q6_k", shape.n_embd = 512, shape.n_ff = 1280, shape.n_vocab = 1001;
  shape.n_heads = 8, shape.n_kv_heads = 2, shape.qk_norm = true;
  check_kernels(shape, {.n_top = 40});
  check_kernels(shape, {false, false});
  check_kernels(shape, {true, true});
  shape.format = "q5_0", shape.v_format = "q8_0", shape.n_heads = 7, shape.n_kv_heads = 1,
  shape.head_dim = 128, shape.rope_dims = 128;
  shape.rope = APR_ROPE_HALVES;
  check_kernels(shape);
  TinyShape ragged;
  ragged.n_layers = 1, ragged.n_embd = 250, ragged.n_ff = 131, ragged.n_vocab = 97, ragged.head_dim = 80,
  ragged.rope_dims = 40, ragged.window = 9;
  check_kernels(ragged, {.n_top = 97});
  ragged.format = "bf16", ragged.n_heads = 8, ragged.n_kv_heads = 8, ragged.head_dim = 96,
  ragged.rope_dims = 96;
  check_kernels(ragged);
}

// Rows of every kind: ordinary, with many equal values, all equal, descending, with zeros of both signs and infinities, with
// a NaN in the last column.
TEST_CASE("candidates of whole vocabularies") {
  constexpr int kRows = 7;  // a sanitizer is slow: whole rows of equal values only in small vocabularies
  std::mt19937 random(11);
  std::normal_distribution<float> draw;
  for (const auto& [n, k] : {std::pair{151936, 64}, std::pair{9001, 1024}, std::pair{4096, 256},
                             std::pair{97, 64}, std::pair{64, 64}, std::pair{7, 7}}) {
    CAPTURE(n);
    CAPTURE(k);
    std::vector<float> x(static_cast<size_t>(kRows * n));
    const auto at = [&](int row, int i) -> float& { return x[static_cast<size_t>(row * n + i)]; };
    for (int i = 0; i < n; ++i) {
      at(0, i) = draw(random);
      at(1, i) = std::rint(2 * draw(random));
      at(2, i) = n > 10000 && i > 1000 ? 2.0f - static_cast<float>(i) : 3.0f;
      at(3, i) = static_cast<float>(-i);
      at(4, i) = i % 3 == 0 ? -1e-40f : n > 10000 && i > 3000 ? -1.0f : i % 3 == 1 ? 0.0f : -0.0f;
      at(5, i) = i % 5 == 0 ? -INFINITY : draw(random);
      at(6, i) = i == n - 1 ? NAN : draw(random);
    }
    at(4, n / 2) = INFINITY;
    KernelSpec spec;
    spec.op = Op::TopK, spec.view = View::None;
    spec.constants = {{"kN", n}, {"kTopK", k}};
    std::string why;
    const auto config = choose(device().registry, spec, device().target, &why);
    REQUIRE_MESSAGE(config.has_value(), why);
    const Specialised source = specialise(device().registry, spec, *config, device().target);
    JitReport report;
    const Kernel kernel(device().gpu, device().build({source}, {}, report).at(0), source.summary);
    DeviceMemory scratch(device().gpu, kernel.shape().scratch_bytes, "scratch");
    check(
        device().gpu.driver().cuMemsetD8Async(scratch.address(), 0, scratch.bytes(), device().gpu.stream()));
    Mirror in, best, rows;
    in.allocate(x.size() * 4);
    std::memcpy(in.host<float>(), x.data(), x.size() * 4);
    rows.allocate(4);
    *rows.host<int32_t>() = kRows;
    in.to_device(), rows.to_device();
    best.allocate(static_cast<uint64_t>(kRows * k) * sizeof(Candidate));
    const TopKArgs args = {rows.memory.at<int32_t>(), in.memory.at<float>(), best.memory.at<Candidate>(),
                           reinterpret_cast<void*>(scratch.address())};
    kernel.launch(device().gpu, &args, kRows, false);
    best.poison_device();
    kernel.launch(device().gpu, &args, kRows, false);
    const std::vector<uint64_t> got = best.from_device();
    std::vector<Candidate> expected(static_cast<size_t>(kRows * k));
    const int32_t m = kRows;
    const TopKArgs on_host = {&m, x.data(), expected.data(), nullptr};
    fake::emulate(source.source, &on_host);
    for (int row = 0; row < kRows; ++row) {
      CAPTURE(row);
      int wrong = 0;
      for (int i = 0; i < k; ++i) {
        const Candidate& a = reinterpret_cast<const Candidate*>(got.data())[row * k + i];
        const Candidate& b = expected[static_cast<size_t>(row * k + i)];
        wrong += a.index != b.index || (a.index >= 0 ? a.value != b.value : !std::isnan(a.value));
      }
      CHECK(wrong == 0);
    }
  }
}
