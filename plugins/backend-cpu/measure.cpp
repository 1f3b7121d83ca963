// Candidates for a product, run alone: random activations, the weights of all layers in turn, caches filled
// with something else before every run.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <random>

#include "failure.h"
#include "memory.h"
#include "row_ops.h"
#include "session.h"

using namespace apr::cpu;

namespace {

// Reads more than the last-level cache holds, on all threads.
class Flusher {
 public:
  Flusher(ThreadPool& pool, uint64_t cache_bytes)
      : pool_(pool),
        words_(std::clamp<uint64_t>(2 * cache_bytes, 64u << 20, 512u << 20) / 8 / pool.threads()),
        memory_(words_ * 8 * pool.threads(), "what fills the caches between measurements") {
    pool_.run([&](uint32_t t) { std::fill_n(memory_.as<uint64_t>() + t * words_, words_, t + 1); });
  }
  void run() {
    pool_.run([&](uint32_t t) {
      uint64_t sum = 0;
      const uint64_t* from = memory_.as<uint64_t>() + t * words_;
      for (uint64_t i = 0; i < words_; i += 8) sum += from[i];
      if (sum == 0) sink_ = sum;  // never, but the compiler does not know
    });
  }

 private:
  ThreadPool& pool_;
  uint64_t words_;
  Memory memory_;
  volatile uint64_t sink_ = 0;
};

double quantile(std::vector<double> values, double q) {
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(q * static_cast<double>(values.size() - 1))];
}

const LinearPart& part_of(const Program& program, uint32_t op) {
  for (const LinearUnit& u : program.phases[static_cast<size_t>(program.op_phase[op])].units) {
    if (u.part.op == op) return u.part;
    if (u.act && u.up.op == op) return u.up;
  }
  fail(APR_FAILED, "internal error: a product without a phase");
}

}  // namespace

double apr_session::run_alone(const Phase& phase) {
  ThreadPool& pool = *device_.pool;
  const Section s = section_of(phase, 0);
  for (uint32_t t = 0; t < pool.threads(); ++t) ranges_.prepare(t, 0, s.tasks);
  const auto start = std::chrono::steady_clock::now();
  pool.run([&](uint32_t thread) {
    for (uint64_t begin, end; ranges_.claim(thread, 0, s.share, begin, end);)
      run_tasks(phase, s, thread, begin, end);
  });
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count();
}

void apr_session::measure(uint32_t index, uint32_t repetitions, const apr_kernel_rule* const* candidates,
                          uint32_t n, apr_measurement* results) {
  if (index >= choices_.size()) fail(APR_INVALID, "kernel %u of %zu", index, choices_.size());
  if (repetitions == 0) fail(APR_INVALID, "0 repetitions");
  const Choice& wanted = choices_[index];
  if (wanted.op_name != "linear")
    fail(APR_UNSUPPORTED, "%s: only products are measured alone", wanted.stage.c_str());
  // The same product in every layer.
  std::vector<uint32_t> ops;
  for (const Choice& c : choices_)
    if (c.spec == wanted.spec && c.kernel == wanted.kernel) ops.push_back(c.op);
  const bool head = program_.phases[static_cast<size_t>(program_.op_phase[wanted.op])].head;
  state_.rows = state_.head_rows =
      wanted.many ? std::min(wanted.most, head ? program_.head_rows : wanted.most) : 1;
  state_.tapped = false;
  if (wanted.many && state_.rows <= APR_CPU_GEMV_MAX_M)
    fail(APR_UNSUPPORTED, "%s: no batch is large enough", wanted.stage.c_str());

  // Random activations, in both forms that the product may eat. The session may hold only the 8-bit one.
  Value floats = part_of(program_, ops[0]).quantized ? *part_of(program_, ops[0]).quantized->value
                                                     : *part_of(program_, ops[0]).in;
  const Memory floats_memory(uint64_t{state_.rows} * floats.stride * sizeof(float),
                             "activations to measure with");
  floats.data = floats_memory.as<float>();
  for (const uint32_t op : ops) {
    const LinearPart& part = part_of(program_, op);
    const Value& in = part.quantized ? *part.quantized->value : *part.in;
    std::mt19937 random(1);  // the same for all layers, which may share a buffer
    std::normal_distribution<float> normal;
    std::vector<float> row(in.stride);
    for (uint32_t r = 0; r < state_.rows; ++r) {
      for (uint32_t i = 0; i < in.width; ++i) row[i] = normal(random);
      if (part.quantized) {
        device_.kernels->quantize(row.data(), 0, in.width, part.quantized->row(r));
        row_ops::pad_quantized(*part.quantized, r);
      }
      if (op == ops[0]) std::copy(row.begin(), row.end(), floats.data + r * floats.stride);
      if (part.in) std::copy(row.begin(), row.end(), part.in->data + r * part.in->stride);
    }
  }

  // One phase for each layer: a single product, with the kernels of the candidate.
  struct Layer {
    BoundWeight weight;
    Memory copy;
    Phase phase{};
  };
  const auto layers_of = [&](const apr_kernel_rule* rule) {
    std::vector<std::unique_ptr<Layer>> layers;
    for (const uint32_t op : ops) {
      auto layer = std::make_unique<Layer>();
      LinearPart part = part_of(program_, op);
      layer->weight = *part.weight;
      BoundWeight& w = layer->weight;
      if (rule) {
        const KernelChoice choice = chooser_.obey(*rule, w.weight, "linear", wanted.least, wanted.most);
        if (choice.eats != (wanted.many ? w.gemm.choice : w.gemv.choice).eats) {
          if (choice.eats == Eats::Int8)
            fail(APR_UNSUPPORTED, "%s eats 8-bit activations, and the session has floats for this product",
                 choice.name);
          part.quantized = nullptr;
          part.in = &floats;
        }
        uint64_t ignored = 0;
        if (wanted.many)
          w.gemm = bind_gemm(w.weight, choice, ignored);
        else
          w.gemv = bind_gemv(w.weight, choice, ignored);
        if (!wanted.many && choice.copied && !part.weight->gemv.choice.copied) {
          layer->copy = Memory(w.weight.bytes, "a copy of a weight");
          std::memcpy(layer->copy.as<uint8_t>(), w.data, w.weight.bytes);
          w.data = layer->copy.as<uint8_t>();
        } else if (!wanted.many && !choice.copied) {
          w.data = static_cast<const uint8_t*>(w.weight.data);
        }
      }
      part.weight = &w;
      layer->phase.kind = PhaseKind::Linear;
      layer->phase.head = head;
      LinearUnit unit;
      unit.part = part;
      layer->phase.units = {unit};
      number_tasks(layer->phase);
      layers.push_back(std::move(layer));
    }
    return layers;
  };
  const auto result_of = [&](const Layer& layer) {
    const Value& out = *layer.phase.units[0].part.out;
    std::vector<float> all;
    for (uint32_t r = 0; r < state_.rows; ++r)
      all.insert(all.end(), out.data + r * out.stride, out.data + r * out.stride + out.width);
    return all;
  };

  // Wider blocking than any weight of the session has.
  uint64_t k_step = program_.k_step;
  std::vector<std::vector<std::unique_ptr<Layer>>> built(n);
  std::vector<apr_measurement> measured(n);
  for (uint32_t i = 0; i < n; ++i) {
    try {
      built[i] = layers_of(candidates[i]);
      for (const auto& layer : built[i]) k_step = std::max(k_step, layer->weight.gemm.k_step);
    } catch (const Failure& f) {
      measured[i].status = f.status();
      copy_text(measured[i].message, sizeof measured[i].message, f.what());
    }
  }
  if (k_step > linear_[0].k_step) {
    const auto n_batch = static_cast<uint32_t>(std::max(wanted.most, state_.rows));
    linear_.clear();
    for (uint32_t t = 0; t < device_.pool->threads(); ++t) linear_.emplace_back(k_step, n_batch);
  }

  const auto own = layers_of(nullptr);
  run_alone(own[0]->phase);
  const std::vector<float> reference = result_of(*own[0]);
  double norm = 0;
  for (const float v : reference) norm += double{v} * v;
  Flusher flusher(*device_.pool, device_.topology.cache_bytes);
  std::vector<std::vector<double>> times(n);
  // Turn by turn, so that what else the machine does meets all candidates alike.
  for (uint32_t r = 0; r <= repetitions; ++r)
    for (uint32_t i = 0; i < n; ++i) {
      if (measured[i].status != APR_OK) continue;
      const Layer& layer = *built[i][r % built[i].size()];
      flusher.run();
      const double microseconds = run_alone(layer.phase);
      if (r > 0) times[i].push_back(microseconds);
      if (r > 0) continue;
      const std::vector<float> result = result_of(layer);
      double error = 0;
      for (size_t v = 0; v < result.size(); ++v)
        error += (double{result[v]} - reference[v]) * (double{result[v]} - reference[v]);
      measured[i].error = norm > 0 ? error / norm : error;
    }
  for (uint32_t i = 0; i < n; ++i) {
    apr_measurement& m = measured[i];
    m.bytes = wanted.bytes;
    if (m.status == APR_OK) {
      m.microseconds = quantile(times[i], 0.5);
      m.spread = 0.5 * (quantile(times[i], 0.75) - quantile(times[i], 0.25));
      const BoundWeight& w = built[i][0]->weight;
      const std::string config =
          std::string("isa=") + isa_name(wanted.many ? w.gemm.choice.isa : w.gemv.choice.isa) +
          (wanted.many ? " columns=" + std::to_string(w.gemm.choice.columns)
                       : " task_kib=" + std::to_string(w.gemv.choice.task_bytes >> 10) +
                             (w.gemv.choice.copied ? " memory=copied" : " memory=mapped"));
      copy_text(m.config, sizeof m.config, config.c_str());
    }
    write_struct(m, &results[i], "a measurement");
  }
  batches_.forget();
}
