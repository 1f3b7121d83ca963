// Loading: programs, kernels, weights, memory, graphs. Everything that is decided is decided here.
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstring>
#include <iterator>
#include <map>
#include <thread>

#include "plugins/backend-cuda/failure.h"
#include "plugins/backend-cuda/prebuilt.h"
#include "plugins/backend-cuda/session.h"

namespace apr::cuda {

namespace {

using Clock = std::chrono::steady_clock;
double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

uint64_t round_up(uint64_t bytes) { return (bytes + 255) / 256 * 256; }

}  // namespace

Session::Session(Device& device, const apr_plan& plan, const apr_load_options& options)
    : device_(device),
      gpu_(device.gpu),
      plan_(plan),
      n_ctx_(options.n_ctx),
      n_sequences_(options.n_sequences),
      n_batch_(options.n_batch),
      n_top_(options.n_top),
      precise_(options.precise != 0),
      stored_(options.n_sequences, 0),
      next_(options.n_sequences) {
  wanted_.reserve(options.n_batch);
  const auto start = Clock::now();
  info_.struct_size = sizeof info_;
  take(options);
  build_and_upload(options);
  allocate();
  measure_weight_ranges();
  for (size_t b = 0; b < bodies_.size(); ++b) bind_program(bodies_[b], body_arena_.address(), choices_[b]);
  for (size_t h = 0; h < heads_.size(); ++h)
    bind_program(heads_[h], head_arena_.address(), choices_[bodies_.size() + h]);
  bind_gathers();
  info_.n_kernels = static_cast<uint32_t>(explained_.size());
  warm_up();
  if (!device.settings.no_graph && !device.settings.time_kernels) capture();
  gpu_.synchronize();
  loaded_ = true;
  dispatches_at_load_ = dispatches_, kernels_made_at_load_ = kernels_made_;
  info_.load_seconds = since(start);
}

Session::~Session() {
  // A step that was begun ahead may still run.
  gpu_.driver().cuStreamSynchronize(gpu_.stream());
  for (const CUgraphExec graph : graphs_)
    if (graph != nullptr) gpu_.driver().cuGraphExecDestroy(graph);
  if (continuation_ != nullptr) gpu_.driver().cuGraphExecDestroy(continuation_);
}

void Session::take(const apr_load_options& options) {
  DecideOptions how{device_.generic(), !device_.settings.no_fusion, precise_,
                    n_batch_,          device_.compiler(),          device_.log};
  Decision d = decide(plan_, options, device_.registry, device_.target, how);
  for (const bool head : {false, true})
    for (PlannedProgram& planned : head ? d.heads : d.bodies) {
      Bound bound;
      bound.program = std::move(planned.program);
      bound.rows = planned.rows;
      bound.state_layout = {bound.rows};
      (head ? heads_ : bodies_).push_back(std::move(bound));
    }
  crossing_ = std::move(d.crossing);
  choices_ = std::move(d.choices);
  gathers_ = std::move(d.gathers);
  ranges_ = std::move(d.ranges);
  layouts_ = std::move(d.layouts);
  explained_ = std::move(d.explained);
  info_.token_bytes = d.token_bytes;
  dispatches_ += d.dispatches;
}

// PTX that the driver compiles (and keeps in its own cache): one module for each kernel and shape.
void Session::build_generic() {
  const std::string folder = prebuilt_folder(device_.registry.folder);
  std::map<std::string, size_t> by_key;
  const auto build = [&](const KernelSpec& spec, Choice& choice) {
    const auto [at, fresh] = by_key.emplace(choice.key, kernels_.size());
    choice.kernel = at->second;
    if (!fresh) return;
    kernels_.emplace_back(gpu_, load_prebuilt(folder, spec), generic_name(spec));
    kernels_.back().set_generic_shape(generic_shape(spec));
    ++kernels_made_;
  };
  for (size_t p = 0; p < choices_.size(); ++p) {
    const Program& program = p < bodies_.size() ? bodies_[p].program : heads_[p - bodies_.size()].program;
    for (size_t i = 0; i < choices_[p].size(); ++i) build(program.steps[i].spec, *choices_[p][i]);
  }
  for (size_t v = 0; v < gathers_.size(); ++v)
    build({Op::Gather, View::None, 0, plan_.values[crossing_[v]]->width, {}, {}}, *gathers_[v]);
  if (device_.log)
    device_.log(
        2, fmt::format("{}; kernels that were built with the program serve: right, but many times slower",
                       device_.nvrtc == nullptr ? device_.nvrtc_reason : "setting prebuilt=1"));
}

void Session::build_and_upload(const apr_load_options& options) {
  std::vector<Choice*> all;
  if (device_.generic()) {
    const auto start = Clock::now();
    build_generic();
    info_.compile_seconds = since(start);
  }
  for (const auto& program : choices_)
    for (const auto& choice : program)
      if (!device_.generic()) all.push_back(choice.get());
  for (const auto& choice : gathers_)
    if (!device_.generic()) all.push_back(choice.get());
  for (const auto& choice : ranges_)
    if (choice != nullptr) all.push_back(choice.get());
  std::vector<Specialised> sources;
  std::map<std::string, size_t> by_key;
  std::vector<std::string> summaries;
  for (Choice* choice : all) {
    const auto [at, fresh] = by_key.emplace(choice->key, sources.size());
    if (fresh)
      sources.push_back(choice->source),
          summaries.push_back(choice->source.summary +
                              (choice->rule.empty() ? "" : fmt::format(" (rule {})", choice->rule)));
    choice->kernel = at->second;
  }

  // Kernels are built by other threads while this one moves weights.
  const auto progress = [&](const char* what, uint64_t done, uint64_t total) {
    if (options.progress != nullptr) options.progress(options.progress_user, what, done, total);
  };
  std::vector<KernelImage> images;
  JitReport report;
  std::exception_ptr failed;
  std::atomic<size_t> built{0}, total{0};
  std::atomic<bool> finished{false};
  std::thread builder([&] {
    try {
      images = device_.build(
          sources, [&](size_t done, size_t of) { total = of, built = done; }, report);
    } catch (...) {
      failed = std::current_exception();
    }
    finished = true;
  });
  const auto uploading = Clock::now();
  std::exception_ptr upload_failed;
  try {
    weights_ = DeviceWeights(gpu_, plan_, layouts_, device_.threads,
                             [&](uint64_t done, uint64_t of) { progress("weights", done, of); });
    vectors_ = DeviceVectors(gpu_, plan_);
    info_.upload_seconds = since(uploading);
    for (size_t shown = SIZE_MAX; !finished; std::this_thread::sleep_for(std::chrono::milliseconds(2)))
      if (const size_t done = built; total != 0 && shown != done) progress("kernels", shown = done, total);
  } catch (...) {
    upload_failed = std::current_exception();
  }
  builder.join();
  device_.tell_notices();
  if (upload_failed) std::rethrow_exception(upload_failed);
  if (failed) std::rethrow_exception(failed);
  if (total != 0) progress("kernels", total, total);
  info_.compile_seconds = report.seconds;
  info_.kernels_compiled = report.compiled;
  info_.kernels_cached = report.cached;
  for (size_t i = 0; i < images.size(); ++i, ++kernels_made_)
    kernels_.emplace_back(gpu_, images[i], summaries[i]);
  for (const Kernel& kernel : kernels_) {
    scratch_.emplace_back(gpu_, kernel.shape().scratch_bytes, "scratch memory of a kernel");
    info_.scratch_bytes += kernel.shape().scratch_bytes;
    if (kernel.shape().scratch_bytes > 0)
      gpu_.driver().check(gpu_.driver().cuMemsetD8Async(scratch_.back().address(), 0,
                                                        kernel.shape().scratch_bytes, gpu_.stream()),
                          "clearing scratch memory");
  }
}

void Session::allocate() {
  const auto cleared = [&](uint64_t bytes, const char* what) {
    DeviceMemory memory(gpu_, bytes, what);
    // Rows that are not in use are computed from what lies there: zeros, never a NaN from before.
    if (bytes > 0)
      gpu_.driver().check(gpu_.driver().cuMemsetD8Async(memory.address(), 0, bytes, gpu_.stream()),
                          "clearing memory");
    return memory;
  };
  uint64_t kv = 0;
  std::vector<uint64_t> offsets;
  const std::vector<CacheShape> shapes = cache_shapes(plan_);
  for (const CacheShape& shape : shapes) {
    // In floating point, where nothing wraps: a product of 64 bits that did would be a small cache.
    const double bytes = 4.0 * n_sequences_ * shape.n_kv_heads * n_ctx_ * shape.head_dim;
    if (bytes * static_cast<double>(shapes.size()) > 0x1p62)
      throw failure(
          APR_NO_MEMORY,
          "KV cache: {} sequences of {} positions need more memory than can be addressed; ask for less",
          n_sequences_, n_ctx_);
    offsets.push_back(kv);
    kv += 2 * round_up(uint64_t{n_sequences_} * shape.n_kv_heads * n_ctx_ * shape.head_dim * 2);
    info_.kv_token_bytes += uint64_t{2} * shape.n_kv_heads * shape.head_dim * 2;
  }
  kv_memory_ = cleared(kv, "KV cache");
  for (size_t i = 0; i < offsets.size(); ++i) {
    const uint64_t half = ((i + 1 < offsets.size() ? offsets[i + 1] : kv) - offsets[i]) / 2;
    caches_.push_back({kv_memory_.at<uint16_t>(offsets[i]), kv_memory_.at<uint16_t>(offsets[i] + half)});
  }

  uint64_t body_bytes = 0, head_bytes = 0, state_bytes = 0;
  uint32_t body_rows = 0, head_rows = 0;
  for (Bound& body : bodies_) {
    body_bytes = std::max(body_bytes, place_buffers(body.program, body.rows).bytes);
    body_rows = std::max(body_rows, body.rows);
    body.state = state_bytes, state_bytes += round_up(body.state_layout.bytes());
  }
  for (Bound& head : heads_) {
    head_bytes = std::max(head_bytes, place_buffers(head.program, head.rows).bytes);
    head_rows = std::max(head_rows, head.rows);
    head.state = state_bytes, state_bytes += round_up(head.state_layout.bytes());
  }
  uint64_t inlet_bytes = 0, outlet_bytes = 0;
  std::vector<uint64_t> inlet_at, outlet_at;
  for (const int32_t value : crossing_) {
    const uint64_t row = uint64_t{plan_.values[value]->width} * 4;
    inlet_at.push_back(inlet_bytes), inlet_bytes += round_up(row * head_rows);
    outlet_at.push_back(outlet_bytes), outlet_bytes += round_up(row * body_rows);
  }
  body_arena_ = cleared(body_bytes, "activations");
  head_arena_ = cleared(head_bytes, "activations of the head");
  inlets_ = cleared(inlet_bytes, "activations");
  outlets_ = cleared(outlet_bytes, "activations");
  logits_ = cleared(uint64_t{head_rows} * plan_.n_vocab * 4, "logits");
  tokens_ = cleared(uint64_t{head_rows} * 4, "tokens");
  states_ = cleared(state_bytes, "state");
  for (size_t v = 0; v < crossing_.size(); ++v)
    inlet_of_.push_back(inlets_.address() + inlet_at[v]),
        outlet_of_.push_back(outlets_.address() + outlet_at[v]);
  host_states_ = PinnedMemory(gpu_, state_bytes, "state");
  host_logits_ = PinnedMemory(gpu_, logits_.bytes(), "logits");
  host_tokens_ = PinnedMemory(gpu_, tokens_.bytes(), "tokens");
  host_results_ = PinnedMemory(gpu_, 2 * sizeof(int32_t), "results of decode steps");
  if (heads_.back().program.top)
    host_candidates_ = PinnedMemory(
        gpu_, buffer_layout(heads_.back().program.buffers.back(), head_rows).bytes, "candidates");
  std::memset(host_states_.at<char>(), 0, state_bytes);
  weight_scales_.assign(plan_.n_weights, 1.0f);

  info_.weight_bytes = weights_.bytes() + vectors_.bytes();
  info_.kv_bytes = kv;
  info_.scratch_bytes += body_bytes + head_bytes + inlet_bytes + outlet_bytes + logits_.bytes() +
                         tokens_.bytes() + states_.bytes();
}

void Session::measure_weight_ranges() {
  DeviceMemory bits(gpu_, uint64_t{plan_.n_weights} * 4, "ranges of weights");
  if (plan_.n_weights == 0) return;
  gpu_.driver().check(gpu_.driver().cuMemsetD8Async(bits.address(), 0, bits.bytes(), gpu_.stream()),
                      "clearing memory");
  for (size_t w = 0; w < ranges_.size(); ++w) {
    if (ranges_[w] == nullptr) continue;
    const RangeArgs args = {weights_.all()[w], bits.at<uint32_t>(w * 4)};
    kernels_[ranges_[w]->kernel].launch(gpu_, &args, 1, false);
  }
  std::vector<float> largest(plan_.n_weights);
  gpu_.driver().check(
      gpu_.driver().cuMemcpyDtoHAsync(largest.data(), bits.address(), bits.bytes(), gpu_.stream()),
      "reading ranges of weights");
  gpu_.synchronize();
  for (size_t w = 0; w < ranges_.size(); ++w) {
    if (ranges_[w] == nullptr) continue;
    if (!std::isfinite(largest[w]))
      throw failure(APR_INVALID, "tensor {}: it holds a NaN or infinity", plan_.weights[w]->name);
    // Brought just below 2^15: f16 ends at 65504, and below 2^-14 it loses bits.
    int exponent = 0;
    std::frexp(largest[w], &exponent);
    if (largest[w] > 0) weight_scales_[w] = std::ldexp(1.0f, 15 - exponent);
  }
}

BindContext Session::context_of(const Bound& bound) const {
  Successor next{};
  if (bound.program.head && bound.program.m == 1) {
    const Bound& body = bodies_[0];
    next.token = states_.at<int32_t>(body.state + body.state_layout.tokens());
    next.position = states_.at<int32_t>(body.state + body.state_layout.positions());
    next.result = host_results_.at<int32_t>();
  }
  return {&weights_.all(),
          &vectors_.all(),
          &caches_,
          &weight_scales_,
          n_ctx_,
          states_.address() + bound.state,
          bound.state_layout,
          next};
}

void Session::bind_program(Bound& bound, CUdeviceptr arena_base,
                           const std::vector<std::unique_ptr<Choice>>& choices) {
  const Program& program = bound.program;
  const Arena arena = place_buffers(program, bound.rows);
  for (size_t b = 0; b < program.buffers.size(); ++b) {
    const Buffer& buffer = program.buffers[b];
    CUdeviceptr base = 0;
    const auto crossing = std::find(crossing_.begin(), crossing_.end(), buffer.value) - crossing_.begin();
    switch (buffer.place) {
      case Buffer::Place::Arena:
        base = arena_base + arena.offsets[b];
        break;
      case Buffer::Place::Inlet:
        base = inlet_of_[static_cast<size_t>(crossing)];
        break;
      case Buffer::Place::Outlet:
        if (buffer.form == Form::Token)
          base = tokens_.address();
        else if (buffer.form == Form::Candidates)
          base = reinterpret_cast<CUdeviceptr>(host_candidates_.at<Candidate>());
        else if (buffer.value == plan_.logits)
          base = logits_.address();
        else  // A single token is its own selection: the head reads it where the body wrote it.
          base = (program.m == 1 ? inlet_of_ : outlet_of_)[static_cast<size_t>(crossing)];
        break;
    }
    bound.buffers.push_back({base, buffer_layout(buffer, bound.rows)});
  }
  const BindContext context = context_of(bound);
  std::map<int32_t, const char*> stage_of;
  for (uint32_t i = 0; i < plan_.n_ops; ++i) stage_of[plan_.ops[i]->out] = plan_.ops[i]->stage;
  for (size_t i = 0; i < program.steps.size(); ++i) {
    const Step& step = program.steps[i];
    const Choice& choice = *choices[i];
    Launch launch{&kernels_[choice.kernel],
                  bind_step(step, program, bound.buffers, context, scratch_[choice.kernel].address()),
                  {},
                  {}};
    if (auto* attention = std::get_if<AttentionArgs>(&launch.args)) {
      const std::vector<Ahead> ahead =
          weights_ahead(program, i, launch.kernel->shape().ahead_bytes, weights_);
      std::copy(ahead.begin(), ahead.end(), attention->ahead);
    }
    for (const int32_t out : step.outputs) {
      const Buffer& buffer = program.buffers[static_cast<size_t>(out)];
      if (buffer.value >= 0)
        launch.taps.push_back(
            {stage_of.at(buffer.value), bound.buffers[static_cast<size_t>(out)].base, buffer.width});
    }
    launch.explained = choice.explained;
    bound.launches.push_back(std::move(launch));
  }
}

void Session::bind_gathers() {
  for (size_t b = 0; b < bodies_.size(); ++b)
    for (const Bound& head : heads_)
      for (size_t v = 0; v < crossing_.size(); ++v) {
        Program program;
        program.head = true;
        const uint32_t width = plan_.values[crossing_[v]]->width;
        program.buffers = {{Form::Float, width, crossing_[v]}, {Form::Float, width, crossing_[v]}};
        Step step;
        step.spec = {Op::Gather, View::None, 0, width, {}, {}};
        step.input[0] = 0;
        step.outputs = {1};
        const std::vector<BoundBuffer> buffers = {
            {bodies_[b].program.m == 1 ? inlet_of_[v] : outlet_of_[v], {}}, {inlet_of_[v], {}}};
        const BindContext context = context_of(head);
        gather_launches_.push_back(
            {&kernels_[gathers_[v]->kernel], bind_step(step, program, buffers, context, 0), {}, {}});
      }
}

void Session::warm_up() {
  // Every kernel runs once before the first step: a launch that the device refuses shows here, and what the driver loads
  // lazily is loaded. Position 0 of sequence 0 is overwritten by its first real token.
  const int32_t zero = 0;
  for (Bound& body : bodies_) {
    const apr_batch batch = {sizeof(apr_batch), 1, &zero, &zero, &zero, nullptr, 0};
    write_body_state(body, batch);
    run(body, 1, false, false);
  }
  for (Bound& head : heads_) {
    write_head_state(head, &zero, 1);
    for (size_t v = 0; v < crossing_.size(); ++v)
      gather_launches_[v].kernel->launch(gpu_, address(gather_launches_[v].args), 1, false);
    run(head, 1, false, true);
    gpu_.synchronize();
  }
  for (Explained& entry : explained_) entry.microseconds = 0;
}

void Session::capture() {
  const auto graph_of = [&](bool continues, Leaves leaves) {
    const Driver& d = gpu_.driver();
    CUgraph graph = nullptr;
    d.check(d.cuStreamBeginCapture(gpu_.stream(), CU_STREAM_CAPTURE_MODE_THREAD_LOCAL),
            "beginning to capture a step");
    try {
      decode_work(continues, leaves);
    } catch (...) {
      d.cuStreamEndCapture(gpu_.stream(), &graph);
      if (graph != nullptr) d.cuGraphDestroy(graph);
      throw;
    }
    d.check(d.cuStreamEndCapture(gpu_.stream(), &graph), "capturing a step");
    CUgraphExec made = nullptr;
    const CUresult result = d.cuGraphInstantiateWithFlags(&made, graph, 0);
    d.cuGraphDestroy(graph);
    d.check(result, "instantiating the graph of a step");
    return made;
  };
  for (const Leaves leaves : {Leaves::Nothing, Leaves::Argmax, Leaves::Candidates, Leaves::Logits}) {
    if (leaves == Leaves::Candidates && n_top_ == 0) continue;
    graphs_[static_cast<size_t>(leaves)] = graph_of(false, leaves);
    ++info_.n_graphs;
  }
  continuation_ = graph_of(true, Leaves::Argmax);
  ++info_.n_graphs;
}

}  // namespace apr::cuda
