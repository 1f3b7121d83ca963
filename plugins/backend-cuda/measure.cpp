// Candidates for a linear's kernel, built together and run alone: random activations, weights from memory and
// not from the L2.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>

#include "plugins/backend-cuda/failure.h"
#include "plugins/backend-cuda/session.h"

namespace apr::cuda {

namespace {

template <typename T>
T round_up(T value, T unit) {
  return (value + unit - 1) / unit * unit;
}

double quantile(std::vector<double> values, double q) {
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(q * static_cast<double>(values.size() - 1))];
}

// Launches as one graph, so that no launch waits for the host.
class Graph {
 public:
  template <typename Work>
  Graph(const Gpu& gpu, const Work& work) : gpu_(gpu) {
    const Driver& d = gpu.driver();
    d.check(d.cuStreamBeginCapture(gpu.stream(), CU_STREAM_CAPTURE_MODE_THREAD_LOCAL),
            "beginning to capture");
    CUgraph graph = nullptr;
    try {
      work();
    } catch (...) {
      d.cuStreamEndCapture(gpu.stream(), &graph);
      if (graph != nullptr) d.cuGraphDestroy(graph);
      throw;
    }
    d.check(d.cuStreamEndCapture(gpu.stream(), &graph), "capturing");
    const CUresult result = d.cuGraphInstantiateWithFlags(&exec_, graph, 0);
    d.cuGraphDestroy(graph);
    d.check(result, "instantiating a graph");
  }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  ~Graph() { gpu_.driver().cuGraphExecDestroy(exec_); }
  void launch() const {
    gpu_.driver().check(gpu_.driver().cuGraphLaunch(exec_, gpu_.stream()), "launching a graph");
  }

 private:
  const Gpu& gpu_;
  CUgraphExec exec_ = nullptr;
};

// The session's programs, seen from one kernel: the same launch of every layer, and its buffers.
struct Place {
  size_t program = 0;
  std::vector<size_t> steps;
};

// Random activations in the form that a kernel eats, as bytes of its buffer.
std::vector<uint8_t> random_activations(const Buffer& buffer, uint32_t rows, std::mt19937& random) {
  const BufferLayout layout = buffer_layout(buffer, rows);
  std::vector<uint8_t> bytes(layout.bytes, 0);
  const auto at = [&](int part) { return bytes.data() + layout.part[part]; };
  const auto halves = [&](int part, uint16_t exponent, uint16_t mantissa, uint16_t sign) {
    const uint32_t padded = round_up<uint32_t>(buffer.width, 64);
    auto* term = reinterpret_cast<uint16_t*>(at(part));
    for (uint32_t r = 0; r < rows; ++r)
      for (uint32_t c = 0; c < buffer.width; ++c)
        term[r * padded + c] =
            static_cast<uint16_t>(exponent | (random() & mantissa) | ((random() & 1u) != 0 ? sign : 0));
  };
  const auto scales = [&] { std::fill_n(reinterpret_cast<float*>(at(2)), rows, 1.0f); };
  switch (buffer.form) {
    case Form::Float: {
      std::normal_distribution<float> normal;
      std::generate_n(reinterpret_cast<float*>(at(0)), size_t{rows} * buffer.width,
                      [&] { return normal(random); });
      break;
    }
    case Form::Int8: {
      const uint32_t padded = round_up<uint32_t>(buffer.width, 32), blocks = padded / kActBlock;
      auto* q = reinterpret_cast<int8_t*>(at(0));
      auto *scale = reinterpret_cast<float*>(at(1)), *sum = reinterpret_cast<float*>(at(2));
      for (uint32_t r = 0; r < rows; ++r)
        for (uint32_t b = 0; b < blocks; ++b) {
          int total = 0;
          for (uint32_t c = b * kActBlock; c < std::min<uint32_t>((b + 1) * kActBlock, buffer.width); ++c) {
            q[r * padded + c] = static_cast<int8_t>(static_cast<int>(random() % 255) - 127);
            total += q[r * padded + c];
          }
          scale[r * blocks + b] = 0.01f;
          sum[r * blocks + b] = 0.01f * static_cast<float>(total);
        }
      break;
    }
    case Form::F16:
      halves(0, 0x3800, 0x03ff, 0x8000), scales();
      break;
    case Form::F16x2:
      halves(0, 0x3800, 0x03ff, 0x8000), halves(1, 0x0c00, 0x03ff, 0x8000), scales();
      break;
    case Form::Bf16x2:
      halves(0, 0x3f00, 0x007f, 0x8000), halves(1, 0x3b00, 0x007f, 0x8000), scales();
      break;
    case Form::Token:
    case Form::Candidates:
      throw failure(APR_FAILED, "results are no activations");
  }
  return bytes;
}

// The weights of one launch, some times over: where a model has too few launches of a kind to read more than the L2 holds,
// these are read in between.
class WeightCopies {
 public:
  WeightCopies(const Gpu& gpu, const DeviceWeights& weights, const std::vector<int32_t>& read, size_t copies)
      : copies_(copies) {
    const auto each_plane = [&](const auto& fn) {
      for (size_t segment = 0; segment < read.size(); ++segment) {
        const auto w = static_cast<size_t>(read[segment]);
        for (size_t p = 0; p < weights.planes(w).size(); ++p)
          fn(segment, p, weights.all()[w].plane[p], weights.planes(w)[p]);
      }
    };
    uint64_t bytes = 0;
    each_plane([&](size_t, size_t, const void*, uint64_t size) { bytes += round_up<uint64_t>(size, 256); });
    memory_ = DeviceMemory(gpu, bytes * copies, "copies of weights to measure with");
    uint64_t at = 0;
    for (std::vector<Weight>& copy : copies_) {
      copy.resize(read.size());
      each_plane([&](size_t segment, size_t p, const void* from, uint64_t size) {
        gpu.driver().check(
            gpu.driver().cuMemcpyDtoDAsync(memory_.address() + at, reinterpret_cast<CUdeviceptr>(from), size,
                                           gpu.stream()),
            "copying weights");
        copy[segment].plane[p] = memory_.at<uint8_t>(at);
        at += round_up<uint64_t>(size, 256);
      });
    }
  }
  // The launch with the weights of each copy.
  void append(Args launch, std::vector<Args>& all) const {
    for (const std::vector<Weight>& copy : copies_) {
      std::copy(copy.begin(), copy.end(), std::get<LinearArgs>(launch).w);
      all.push_back(launch);
    }
  }

 private:
  DeviceMemory memory_;
  std::vector<std::vector<Weight>> copies_;  // of each segment
};

// Launches in a row, at least: what a graph costs to start is some microseconds, as much as a small kernel.
constexpr size_t kChain = 32;

struct Contestant {
  std::unique_ptr<Kernel> own;  // null: the session's
  const Kernel* kernel = nullptr;
  DeviceMemory scratch;
  std::vector<Args> args;  // per step, then per copy of the first step's weights
  size_t launches = 0;     // of the graph
  std::unique_ptr<Graph> graph;
  std::vector<double> times;
};

}  // namespace

void Session::measure(uint32_t index, uint32_t repetitions, const apr_kernel_rule* const* candidates,
                      uint32_t n, apr_measurement* results) {
  drop_ahead();
  if (index >= explained_.size())
    throw failure(APR_INVALID, "there is no kernel {}: the session has {}", index, explained_.size());
  if (repetitions == 0) throw failure(APR_INVALID, "0 repetitions");
  if (device_.generic())
    throw failure(APR_UNSUPPORTED, "kernels that were built with the program have nothing to tune");
  const Choice* const wanted = explained_[index].choice;
  Place place;
  for (size_t p = 0; p < choices_.size(); ++p)
    if (std::any_of(choices_[p].begin(), choices_[p].end(), [&](const auto& c) { return c.get() == wanted; }))
      place.program = p;
  for (size_t i = 0; i < choices_[place.program].size(); ++i)
    if (choices_[place.program][i]->key == wanted->key) place.steps.push_back(i);
  Bound& bound =
      place.program < bodies_.size() ? bodies_[place.program] : heads_[place.program - bodies_.size()];
  const Program& program = bound.program;
  const Step& first = program.steps[place.steps[0]];
  if (first.spec.op != Op::Linear)
    throw failure(APR_UNSUPPORTED, "stage {}: only linears are measured alone", first.stage);
  const uint32_t rows = program.m == 0 ? bound.rows : program.m;
  const Driver& d = gpu_.driver();

  std::vector<apr_measurement> measured(n);
  std::vector<Contestant> contestants(n);
  for (apr_measurement& m : measured) m.struct_size = sizeof m;
  const auto fail = [&](uint32_t i, apr_status status, const std::string& why) {
    measured[i].status = status;
    std::snprintf(measured[i].message, sizeof measured[i].message, "%s", why.c_str());
  };

  // Sources of all, then machine code of all at once: a candidate that does not compile takes no other with
  // it.
  std::vector<std::unique_ptr<Specialised>> sources(n);
  for (uint32_t i = 0; i < n; ++i) {
    std::string config_text = wanted->params;
    if (candidates[i] != nullptr) try {
        apr_load_options options{};
        options.struct_size = sizeof options;
        options.rules = &candidates[i], options.n_rules = 1;
        const Rules rule(options, device_.registry, device_.target.arch, false);
        std::string why;
        const std::optional<KernelConfig> config =
            choose(device_.registry, first.spec, device_.target, &why, &rule.front());
        if (!config)
          throw failure(APR_UNSUPPORTED, "{} cannot serve {}:{}", candidates[i]->kernel, describe(first.spec),
                        why);
        sources[i] =
            std::make_unique<Specialised>(specialise(device_.registry, first.spec, *config, device_.target));
        config_text = describe(config->params);
      } catch (const Failure& e) {
        fail(i, e.status(), e.what());
      } catch (const Error& e) {
        fail(i, APR_FAILED, e.what());
      }
    std::snprintf(measured[i].config, sizeof measured[i].config, "%s", config_text.c_str());
  }
  std::vector<KernelImage> images(n);
  std::vector<std::string> refused(n);
  const CompileFn compile = nvrtc_compiler(*device_.nvrtc);
  device_.threads.parallel_for(n, 1, [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) {
      if (sources[i] == nullptr) continue;
      try {
        JitReport report;
        images[i] =
            build_kernels({*sources[i]}, *device_.cache, compile, device_.compiler(), 1, {}, report)[0];
      } catch (const std::exception& e) {
        refused[i] = e.what();
      }
    }
  });
  device_.tell_notices();

  // Inputs: of the first step's buffers; what other layers read there may be anything finite.
  std::mt19937 random(1);
  std::vector<std::pair<CUdeviceptr, std::vector<uint8_t>>> inputs;
  for (const int32_t b : {first.input[0], first.residual})
    if (b >= 0)
      inputs.emplace_back(bound.buffers[static_cast<size_t>(b)].base,
                          random_activations(program.buffers[static_cast<size_t>(b)], rows, random));
  const auto fill = [&] {
    for (const auto& [address, bytes] : inputs)
      d.check(d.cuMemcpyHtoDAsync(address, bytes.data(), bytes.size(), gpu_.stream()), "copying activations");
    gpu_.synchronize();
  };
  // Rows in use.
  std::memset(host_states_.at<char>(bound.state), 0, bound.state_layout.bytes());
  host_states_.at<StepState>(bound.state)->m = host_states_.at<StepState>(bound.state)->n_wanted =
      static_cast<int32_t>(rows);
  copy_state(bound);
  for (const size_t s : place.steps)
    for (const int32_t b : {program.steps[s].input[0], program.steps[s].residual})
      if (b >= 0) {
        const std::vector<uint8_t> bytes =
            random_activations(program.buffers[static_cast<size_t>(b)], rows, random);
        d.check(d.cuMemcpyHtoDAsync(bound.buffers[static_cast<size_t>(b)].base, bytes.data(), bytes.size(),
                                    gpu_.stream()),
                "copying activations");
        gpu_.synchronize();
      }

  uint64_t launch_bytes = 0;
  for (const size_t entry : wanted->explained) launch_bytes += explained_[entry].bytes;
  // Between two readings of a weight lie all others, three times what the L2 holds.
  const uint64_t cold = std::clamp<uint64_t>(3 * gpu_.l2_bytes(), 1u << 20, 512u << 20),
                 own = launch_bytes * place.steps.size();
  const size_t n_copies =
      own >= cold ? 0 : static_cast<size_t>((cold - own) / std::max<uint64_t>(launch_bytes, 1u << 16) + 1);
  const WeightCopies copies(gpu_, weights_, first.weights, n_copies);

  const BindContext context = context_of(bound);
  const auto prepare = [&](uint32_t i, Contestant& c) {
    CUdeviceptr scratch = 0;
    if (sources[i] == nullptr) {
      c.kernel = &kernels_[wanted->kernel];
      scratch = scratch_[wanted->kernel].address();
    } else {
      c.own = std::make_unique<Kernel>(gpu_, images[i], sources[i]->summary);
      c.kernel = c.own.get();
      c.scratch = DeviceMemory(gpu_, c.kernel->shape().scratch_bytes, "scratch memory of a kernel");
      if (c.scratch.bytes() > 0)
        d.check(d.cuMemsetD8Async(c.scratch.address(), 0, c.scratch.bytes(), gpu_.stream()),
                "clearing scratch memory");
      scratch = c.scratch.address();
    }
    for (const size_t s : place.steps)
      c.args.push_back(bind_step(program.steps[s], program, bound.buffers, context, scratch));
    copies.append(c.args[0], c.args);
  };
  // What the first step writes, as numbers.
  const auto result_of = [&](const Contestant& c) {
    fill();
    c.kernel->launch(gpu_, address(c.args[0]), rows, false);
    std::vector<double> all;
    for (const int32_t out : first.outputs) {
      const Buffer& buffer = program.buffers[static_cast<size_t>(out)];
      std::vector<uint8_t> bytes(buffer_layout(buffer, rows).bytes);
      d.check(d.cuMemcpyDtoHAsync(bytes.data(), bound.buffers[static_cast<size_t>(out)].base, bytes.size(),
                                  gpu_.stream()),
              "copying results");
      gpu_.synchronize();
      const BufferLayout layout = buffer_layout(buffer, rows);
      if (buffer.form == Form::Int8) {
        const uint32_t padded = round_up<uint32_t>(buffer.width, 32);
        const auto* scale = reinterpret_cast<const float*>(bytes.data() + layout.part[1]);
        for (uint32_t r = 0; r < rows; ++r)
          for (uint32_t k = 0; k < buffer.width; ++k)
            all.push_back(static_cast<double>(scale[(r * padded + k) / kActBlock]) *
                          static_cast<int8_t>(bytes[size_t{r} * padded + k]));
      } else {
        const auto* y = reinterpret_cast<const float*>(bytes.data());
        all.insert(all.end(), y, y + size_t{rows} * buffer.width);
      }
    }
    return all;
  };

  Contestant reference;
  reference.kernel = &kernels_[wanted->kernel];
  for (const size_t s : place.steps)
    reference.args.push_back(
        bind_step(program.steps[s], program, bound.buffers, context, scratch_[wanted->kernel].address()));
  const std::vector<double> truth = result_of(reference);
  double norm = 0;
  for (const double v : truth) norm += v * v;

  for (uint32_t i = 0; i < n; ++i) {
    measured[i].bytes = launch_bytes;
    if (!refused[i].empty()) fail(i, APR_FAILED, refused[i]);
    if (measured[i].status != APR_OK) continue;
    Contestant& c = contestants[i];
    try {
      prepare(i, c);
    } catch (const Error& e) {  // an image or a shape that the device does not take
      fail(i, APR_FAILED, e.what());
      continue;
    }
    const std::vector<double> result = result_of(c);
    double error = 0;
    for (size_t v = 0; v < result.size(); ++v) error += (result[v] - truth[v]) * (result[v] - truth[v]);
    measured[i].error = norm > 0 ? error / norm : error;
    // A prompt's product takes longer than any start.
    c.launches = program.m == 0 ? c.args.size() : round_up(kChain, c.args.size());
    c.graph = std::make_unique<Graph>(gpu_, [&] {
      for (size_t l = 0; l < c.launches; ++l)
        c.kernel->launch(gpu_, address(c.args[l % c.args.size()]), rows, l > 0);
    });
  }
  fill();
  const Event begin(gpu_), end(gpu_);
  // Turn by turn, so that clocks and temperature meet all alike; the first turn is for warming up.
  for (uint32_t r = 0; r <= repetitions; ++r)
    for (uint32_t i = 0; i < n; ++i) {
      if (measured[i].status != APR_OK) continue;
      Contestant& c = contestants[i];
      begin.record();
      c.graph->launch();
      end.record();
      const double microseconds = begin.until(end) / static_cast<double>(c.launches);
      if (r > 0) c.times.push_back(microseconds);
    }
  for (uint32_t i = 0; i < n; ++i) {
    if (measured[i].status == APR_OK) {
      measured[i].microseconds = quantile(contestants[i].times, 0.5);
      measured[i].spread =
          0.5 * (quantile(contestants[i].times, 0.75) - quantile(contestants[i].times, 0.25));
    }
    const uint32_t size = results[i].struct_size;
    std::memcpy(&results[i], &measured[i], std::min<size_t>(size, sizeof measured[i]));
    results[i].struct_size = size;
  }
  gpu_.synchronize();
  std::fill(stored_.begin(), stored_.end(), 0);
}

}  // namespace apr::cuda
