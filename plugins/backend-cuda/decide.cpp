#include "plugins/backend-cuda/decide.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "plugins/backend-cuda/failure.h"
#include "plugins/backend-cuda/prebuilt.h"
#include "ptx-templates/args.h"

namespace apr::cuda {

namespace {

// Exact batch sizes with programs of their own: below tensor-core sizes a GEMV reads each weight once for all
// its rows.
constexpr uint32_t kExactRows[] = {1, 2, 4, 8};

class Decider {
 public:
  Decider(const apr_plan& plan, const apr_load_options& load, const Registry& registry, const Target& target,
          const DecideOptions& options)
      : plan_(plan),
        registry_(registry),
        target_(target),
        options_(options),
        n_top_(load.n_top),
        rules_(load, registry, target.arch, options.precise) {}

  Decision run() {
    d_.crossing = crossing_values(plan_);
    d_.layouts.assign(plan_.n_weights, nullptr);
    if (options_.generic)
      refuse_rules();
    else if (rules_.passed_over() > 0 && options_.log)
      options_.log(
          1, fmt::format("{} rules are not used: their kernels round activations, and the session is precise",
                         rules_.passed_over()));
    make_programs();
    choose_all();
    for (size_t p = 0; p < d_.choices.size(); ++p)
      for (size_t i = 0; i < d_.choices[p].size(); ++i)
        explain(planned(p), planned(p).program.steps[i], *d_.choices[p][i]);
    return std::move(d_);
  }

 private:
  PlannedProgram& planned(size_t p) {
    return p < d_.bodies.size() ? d_.bodies[p] : d_.heads[p - d_.bodies.size()];
  }

  // Kernels that were built with the program leave nothing to choose.
  void refuse_rules() {
    if (rules_.forced() != nullptr)
      throw failure(APR_INVALID,
                    "{}: kernels that were built with the program leave nothing to choose; rules need NVRTC",
                    rules_.forced()->origin);
    if (rules_.size() > 0 && options_.log)
      options_.log(
          2, fmt::format(
                 "{} rules are not used: kernels that were built with the program leave nothing to choose",
                 rules_.size()));
    rules_ = {};
  }

  // ---- programs
  // --------------------------------------------------------------------------------------------------------

  void make_programs() {
    for (const bool head : {false, true}) {
      std::vector<PlannedProgram>& list = head ? d_.heads : d_.bodies;
      const uint32_t most = head ? std::min<uint32_t>(options_.n_batch, kHeadRows) : options_.n_batch;
      const auto add = [&](uint32_t m, Served served) {
        LowerOptions lowering{options_.fuse, options_.precise, n_top_, &rules_, served};
        list.push_back(
            {options_.generic ? lower_generic(plan_, m, head, n_top_) : lower(plan_, m, head, lowering),
             served, std::max(m == 0 ? most : m, kLeastRows)});
      };
      if (options_.generic) {
        add(1, {1, 1});
        add(0, {2, std::max(options_.n_batch, 2u)});
        continue;
      }
      uint32_t done = 0;  // batches that are served
      for (const uint32_t m : kExactRows)
        if (m <= options_.n_batch) add(m, {done + 1, m}), done = m;
      // A batch of 3 with n_batch = 3 needs a program for 4.
      if (done < options_.n_batch && done < kExactRows[std::size(kExactRows) - 1])
        add(2 * done, {done + 1, 2 * done}), done *= 2;
      if (done < options_.n_batch) add(0, {done + 1, options_.n_batch});
    }
  }

  // ---- choices
  // ---------------------------------------------------------------------------------------------------------

  void choose_all() {
    d_.choices.resize(d_.bodies.size() + d_.heads.size());
    const auto each = [&](const auto& visit) {
      for (size_t p = 0; p < d_.choices.size(); ++p) {
        PlannedProgram& program = planned(p);
        d_.choices[p].resize(program.program.steps.size());
        for (size_t i = 0; i < program.program.steps.size(); ++i)
          visit(program, program.program.steps[i], d_.choices[p][i]);
      }
    };
    const auto gather_step = [&](int32_t value) {
      Step gather;
      gather.spec = {Op::Gather, View::None, 0, plan_.values[value]->width, {}, {}};
      gather.stage = "gather";
      return gather;
    };
    if (options_.generic) {
      each(
          [&](PlannedProgram&, Step& step, std::unique_ptr<Choice>& choice) { choice = generic_step(step); });
      for (const int32_t value : d_.crossing) d_.gathers.push_back(generic_step(gather_step(value)));
      return;
    }
    // A weight has one layout. Decode is bound by reading weights, so its GEMV picks; everyone else takes
    // what is there.
    each([&](PlannedProgram& p, Step& step, std::unique_ptr<Choice>& choice) {
      if (p.program.m == 1 && step.spec.op == Op::Linear) choice = choose_step(step, true, &p.served);
    });
    each([&](PlannedProgram& p, Step& step, std::unique_ptr<Choice>& choice) {
      if (choice == nullptr) choice = choose_step(step, true, &p.served);
    });
    for (const int32_t value : d_.crossing) {
      Step gather = gather_step(value);
      d_.gathers.push_back(choose_step(gather, false, nullptr));
    }
    d_.ranges.resize(plan_.n_weights);
    for (const PlannedProgram& body : d_.bodies) choose_ranges_of(body.program);
    for (const PlannedProgram& head : d_.heads) choose_ranges_of(head.program);
  }

  // What a rule is asked about: the launch, with every weight that it reads.
  const BoundRule* rule_of(const Step& step, Served served,
                           std::vector<KernelDemand::Tensor>& tensors) const {
    for (size_t s = 0; s < step.weights.size(); ++s) {
      const apr_weight& w = *plan_.weights[step.weights[s]];
      const apr_layout* layout = step.spec.segments[s].layout;
      tensors.push_back(
          {w.name, w.role, w.format->name, layout == nullptr ? nullptr : layout->name, w.n, w.k});
    }
    if (tensors.empty()) tensors.push_back({"", "", "", "", 0, step.spec.k});
    return rules_.match({to_string(step.spec.op), served.least, served.most, rules_.arch().c_str(),
                         tensors.data(), tensors.size()});
  }

  std::unique_ptr<Choice> choose_step(Step& step, bool fix_layouts, const Served* served) {
    for (size_t s = 0; s < step.weights.size(); ++s)
      step.spec.segments[s].layout = d_.layouts[static_cast<size_t>(step.weights[s])];
    ++d_.dispatches;
    std::vector<KernelDemand::Tensor> tensors;
    const BoundRule* bound = served == nullptr ? nullptr : rule_of(step, *served, tensors);
    KernelSpec spec = step.spec;
    if (bound != nullptr && bound->rule->layout != nullptr)
      for (size_t s = 0; s < spec.segments.size(); ++s) {
        if (spec.segments[s].layout != nullptr || !rule_tensor_matches(*bound->rule, tensors[s])) continue;
        spec.segments[s].layout = find_layout(*spec.segments[s].codec, bound->rule->layout);
        if (spec.segments[s].layout == nullptr)
          throw failure(APR_INVALID, "{}: {} is {}, which has no layout {}", bound->rule->origin,
                        tensors[s].name, tensors[s].format, bound->rule->layout);
      }
    std::string why;
    const std::optional<KernelConfig> config = choose(registry_, spec, target_, &why, bound);
    if (!config && bound != nullptr)
      throw failure(APR_INVALID, "{}: {} cannot serve {}{} ({}, {} to {} tokens):{}", bound->rule->origin,
                    bound->kernel == nullptr ? "no kernel template" : bound->kernel->name, step.stage,
                    step.weights.empty() ? "" : fmt::format(", tensor {}", tensors[0].name),
                    describe(step.spec), served->least, served->most, why);
    if (!config)
      throw failure(APR_UNSUPPORTED, "stage {}: no kernel template for {} on {}:{}", step.stage,
                    describe(step.spec), target_.arch, why);
    if (fix_layouts)
      for (size_t s = 0; s < step.weights.size(); ++s) {
        d_.layouts[static_cast<size_t>(step.weights[s])] = config->layouts[s];
        step.spec.segments[s].layout = config->layouts[s];
      }
    auto choice = std::make_unique<Choice>();
    choice->name = config->kernel->name;
    choice->params = describe(config->params);
    choice->reason = config->reason;
    choice->rejected = config->rejected;
    if (bound != nullptr) choice->rule = bound->rule->origin;
    choice->source = specialise(registry_, step.spec, *config, target_);
    choice->source.rule = choice->rule;
    choice->key = cache_key(choice->source, options_.compiler);
    return choice;
  }

  std::unique_ptr<Choice> generic_step(const Step& step) {
    ++d_.dispatches;
    for (size_t s = 0; s < step.weights.size(); ++s)
      d_.layouts[static_cast<size_t>(step.weights[s])] = step.spec.segments[s].layout;
    auto choice = std::make_unique<Choice>();
    choice->name = "generic." + std::string(to_string(step.spec.op));
    choice->reason = "there is no NVRTC: built with the program, for shapes known at run time";
    // A module holds one shape.
    const GenericShape shape = generic_shape(step.spec);
    choice->key = generic_name(step.spec) + std::string(reinterpret_cast<const char*>(&shape), sizeof shape);
    return choice;
  }

  // f16 tensor-core kernels scale a weight by a power of two so that it fits.
  void choose_ranges_of(const Program& program) {
    for (const Step& step : program.steps) {
      if (step.spec.op != Op::Linear || program.m != 0) continue;
      const Form form = program.buffers[static_cast<size_t>(step.input[0])].form;
      if (form != Form::F16 && form != Form::F16x2) continue;
      for (size_t s = 0; s < step.weights.size(); ++s) {
        const size_t w = static_cast<size_t>(step.weights[s]);
        if (d_.ranges[w] != nullptr) continue;
        Step range;
        range.spec = {Op::WeightRange, View::Float, 0, step.spec.k, {step.spec.segments[s]}, {}};
        range.spec.segments[0].bias = false;
        range.stage = plan_.weights[w]->name;
        range.weights = {static_cast<int32_t>(w)};
        d_.ranges[w] = choose_step(range, false, nullptr);
      }
    }
  }

  // ---- explanations
  // ----------------------------------------------------------------------------------------------------

  void explain(const PlannedProgram& planned, const Step& step, Choice& choice) {
    const Program& program = planned.program;
    Explained entry;
    entry.stage = step.stage;
    entry.kernel = choice.name;
    entry.config = fmt::format("{}{}{} key={}", program.m == 0 ? "m=any" : fmt::format("m={}", program.m),
                               choice.params.empty() ? "" : " ", choice.params,
                               choice.source.source.empty() ? "prebuilt" : choice.key.substr(0, 12));
    entry.reason = choice.reason;
    entry.op = to_string(step.spec.op);
    entry.spec = describe(step.spec);
    entry.rule = choice.rule;
    entry.rejected = choice.rejected;
    entry.k = step.spec.k;
    entry.m_least = planned.served.least, entry.m_most = planned.served.most;
    entry.launch = launches_++;
    entry.choice = &choice;
    for (size_t s = 0; s < std::max<size_t>(step.weights.size(), 1); ++s) {
      if (!step.weights.empty()) {
        const apr_weight& weight = *plan_.weights[step.weights[s]];
        entry.weight = weight.name;
        entry.format = weight.format->name;
        entry.layout = d_.layouts[static_cast<size_t>(step.weights[s])]->name;
        entry.n = weight.n, entry.k = weight.k;
        entry.bytes = step.spec.op == Op::Embed ? weight.bytes / weight.n : weight.bytes;
        // Of a fused kernel the first entry carries the stage of the group, the others that of their own
        // operation.
        for (const uint32_t i : step.ops)
          if (plan_.ops[i]->weight[0] == step.weights[s]) entry.stage = plan_.ops[i]->stage;
        if (program.m == 1) d_.token_bytes += entry.bytes;
      }
      choice.explained.push_back(d_.explained.size());
      d_.explained.push_back(entry);
    }
  }

  const apr_plan& plan_;
  const Registry& registry_;
  const Target& target_;
  const DecideOptions& options_;
  uint32_t n_top_;
  Rules rules_;
  Decision d_;
  uint32_t launches_ = 0;
};

}  // namespace

apr_kernel_info Explained::info() const {
  apr_kernel_info i{};
  i.struct_size = sizeof i;
  i.stage = stage.c_str(), i.weight = weight.c_str(), i.format = format.c_str(), i.layout = layout.c_str();
  i.kernel = kernel.c_str(), i.config = config.c_str(), i.reason = reason.c_str();
  i.bytes = bytes, i.microseconds = microseconds;
  i.op = op.c_str(), i.spec = spec.c_str(), i.rule = rule.c_str(), i.rejected = rejected.c_str();
  i.n = n, i.k = k, i.m_min = m_least, i.m_max = m_most, i.launch = launch;
  return i;
}

Decision decide(const apr_plan& plan, const apr_load_options& load, const Registry& registry,
                const Target& target, const DecideOptions& options) {
  return Decider(plan, load, registry, target, options).run();
}

}  // namespace apr::cuda
