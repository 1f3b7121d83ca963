// What tuning leaves behind: rules, and the journal of a run that may be interrupted.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "core/base/atomic_file.h"
#include "core/base/error.h"
#include "core/tune/tune.h"

namespace apr {

namespace {

// What a rule may ask of a tensor to tell demands apart.
struct TensorKey {
  std::string role, format;
  uint64_t n, k;
  bool operator<(const TensorKey& o) const {
    return std::tie(role, format, n, k) < std::tie(o.role, o.format, o.n, o.k);
  }
};

std::set<TensorKey> keys_of(const TuneSpec& spec) {
  std::set<TensorKey> keys;
  for (const auto& launch : spec.launches)
    for (const TuneSpec::Tensor& t : launch) keys.insert({t.role, t.format, t.n, t.k});
  return keys;
}

bool has(const std::vector<TuneSpec::Tensor>& launch, const TensorKey& key) {
  return std::any_of(launch.begin(), launch.end(), [&](const TuneSpec::Tensor& t) {
    return t.role == key.role && t.format == key.format && t.n == key.n && t.k == key.k;
  });
}

RuleRange exactly(uint64_t value) { return {value, value, 1}; }

}  // namespace

std::vector<ProfileRule> rules_of(const TuneOutcome& outcome, const std::string& backend,
                                  const std::vector<KernelTemplate>& templates) {
  std::vector<ProfileRule> rules;
  for (size_t i = 0; i < outcome.specs.size(); ++i) {
    const TuneSpec& spec = outcome.specs[i];
    if (!outcome.found[i]) continue;
    const TunedSpec& found = *outcome.found[i];
    if (found.kernel.empty() && found.params.empty()) continue;
    ProfileRule rule;
    rule.backend = backend;
    rule.op = "linear";
    rule.kernel = found.kernel.empty() ? spec.kernel : found.kernel;
    rule.m = {spec.m_min, spec.most ? UINT32_MAX : spec.m_max, 1};
    rule.why = fmt::format("{:.1f} us instead of {:.1f}", found.best_us, found.base_us);
    const KernelTemplate* kernel = find_template(templates, *rule.kernel);
    for (const auto& [name, value] : found.params) {
      const auto param = std::find_if(kernel->params.begin(), kernel->params.end(),
                                      [&name = name](const KernelParam& p) { return p.name == name; });
      if (param->value_names.empty())
        rule.params.push_back({name, value, 0});
      else
        rule.params.push_back({name, param->text(value), 0});
    }
    // By tensors that no other demand of the same tokens has, as few as cover its launches; the rest by name.
    std::set<TensorKey> others;
    for (size_t j = 0; j < outcome.specs.size(); ++j)
      if (j != i && outcome.specs[j].m_min <= spec.m_max && spec.m_min <= outcome.specs[j].m_max)
        others.merge(keys_of(outcome.specs[j]));
    auto open = spec.launches;
    for (const TensorKey& key : keys_of(spec)) {
      if (others.count(key) ||
          std::none_of(open.begin(), open.end(), [&](const auto& launch) { return has(launch, key); }))
        continue;
      std::erase_if(open, [&](const auto& launch) { return has(launch, key); });
      ProfileRule by_shape = rule;
      by_shape.role = key.role, by_shape.qtype = key.format;
      by_shape.n = exactly(key.n), by_shape.k = exactly(key.k);
      rules.push_back(std::move(by_shape));
    }
    for (const auto& launch : open) {
      rule.tensor = launch[0].name;
      rules.push_back(rule);
    }
  }
  return rules;
}

bool slower(const std::vector<double>& before, const std::vector<double>& after) {
  constexpr double kNoise = 1.02;
  const auto sorted = [](std::vector<double> values) {
    return std::sort(values.begin(), values.end()), values;
  };
  const std::vector<double> b = sorted(before), a = sorted(after);
  return a.front() > kNoise * b.front() && a[a.size() / 2] > kNoise * b[b.size() / 2];
}

std::map<std::string, TunedSpec> read_journal(const std::string& file, const std::string& identity) {
  std::map<std::string, TunedSpec> found;
  std::ifstream in(file, std::ios::binary);
  std::ostringstream text;
  if (!in || !(text << in.rdbuf())) return found;
  const nlohmann::json journal = nlohmann::json::parse(text.str(), nullptr, false);
  // A damaged journal, or one of another device, model or program, says nothing.
  if (!journal.is_object() || journal.value("identity", "") != identity || !journal.contains("found"))
    return found;
  try {
    for (const auto& entry : journal["found"]) {
      TunedSpec spec;
      spec.key = entry.at("key");
      spec.base_us = entry.at("base_us"), spec.best_us = entry.at("best_us");
      spec.kernel = entry.at("kernel");
      spec.params = entry.at("params").get<std::map<std::string, int64_t>>();
      spec.config = entry.at("config"), spec.note = entry.at("note");
      spec.tried = entry.at("tried"), spec.failed = entry.at("failed"), spec.inexact = entry.at("inexact");
      spec.finished = entry.at("finished");
      spec.seconds = entry.at("seconds");
      for (const auto& one : entry.at("candidates"))
        spec.tries.push_back({one.at("kernel"), one.at("params"), one.at("us")});
      found[spec.key] = spec;
    }
  } catch (const nlohmann::json::exception&) {
    found.clear();
  }
  return found;
}

void write_journal(const std::string& file, const std::string& identity,
                   const std::map<std::string, TunedSpec>& found) {
  nlohmann::json journal = {{"identity", identity}, {"found", nlohmann::json::array()}};
  for (const auto& [key, spec] : found) {
    nlohmann::json candidates = nlohmann::json::array();
    for (const TunedTry& one : spec.tries)
      candidates.push_back({{"kernel", one.kernel}, {"params", one.params}, {"us", one.us}});
    journal["found"].push_back({{"key", key},
                                {"base_us", spec.base_us},
                                {"best_us", spec.best_us},
                                {"kernel", spec.kernel},
                                {"params", spec.params},
                                {"config", spec.config},
                                {"note", spec.note},
                                {"tried", spec.tried},
                                {"failed", spec.failed},
                                {"inexact", spec.inexact},
                                {"finished", spec.finished},
                                {"seconds", spec.seconds},
                                {"candidates", candidates}});
  }
  write_file_atomically(file, journal.dump(1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
}

}  // namespace apr
