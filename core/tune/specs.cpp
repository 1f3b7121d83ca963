// What there is to tune: the demands of a session's kernels that read weights, those that are equal taken together.
#include <algorithm>

#include "core/base/error.h"
#include "core/base/format.h"
#include "core/tune/tune.h"

namespace apr {

namespace {

std::string text(const char* t) { return t == nullptr ? "" : t; }

}  // namespace

std::vector<TuneSpec> tune_specs(const TuneRequest& request) {
  apr_error error{};
  error.struct_size = sizeof error;
  apr_session_info info{};
  info.struct_size = sizeof info;
  if (request.backend->session_info(request.session, &info, &error) != APR_OK)
    throw Error("backend {}: {}", request.backend->name, error.message);
  std::map<std::string, const apr_weight*> weights;
  for (uint32_t i = 0; i < request.plan->n_weights; ++i)
    weights[request.plan->weights[i]->name] = request.plan->weights[i];
  struct Entry {
    apr_kernel_info kernel;
    uint32_t index;
  };
  std::map<uint32_t, std::vector<Entry>> launches;  // in the session's order
  uint32_t most = 0;
  for (uint32_t i = 0; i < info.n_kernels; ++i) {
    apr_kernel_info k{};
    k.struct_size = sizeof k;
    if (request.backend->kernel(request.session, i, &k, &error) != APR_OK)
      throw Error("backend {}: {}", request.backend->name, error.message);
    most = std::max(most, k.m_max);
    launches[k.launch].push_back({k, i});
  }
  const auto others_of = [&](const apr_kernel_info& in_use,
                             const std::vector<const apr_quant_format*>& formats) {
    std::vector<std::string> names;
    for (const KernelTemplate& t : request.templates)
      if (std::all_of(formats.begin(), formats.end(),
                      [&](const auto* f) { return may_serve(t, in_use, *f); }) &&
          !formats.empty())
        names.push_back(t.name);
    return names;
  };
  std::vector<TuneSpec> specs;
  std::map<std::string, size_t> by_key;
  for (const auto& [number, entries] : launches) {
    const apr_kernel_info& first = entries[0].kernel;
    if (std::find(request.ops.begin(), request.ops.end(), text(first.op)) == request.ops.end()) continue;
    if (!request.all_tokens && first.m_min > 1 && first.m_max < most) continue;
    const KernelTemplate* kernel = find_template(request.templates, text(first.kernel));
    if (kernel == nullptr || kernel->params.empty()) continue;
    std::string key = fmt::format("{} | {}", text(first.spec), text(first.kernel));
    std::vector<TuneSpec::Tensor> tensors;
    std::vector<const apr_quant_format*> formats;
    uint64_t bytes = 0;
    for (const Entry& e : entries) {
      key += fmt::format(" {}", text(e.kernel.layout));
      bytes += e.kernel.bytes;
      const auto weight = weights.find(text(e.kernel.weight));
      if (weight != weights.end() && weight->second->format != nullptr)
        formats.push_back(weight->second->format);
      if (weight != weights.end())
        tensors.push_back(
            {weight->first, text(weight->second->role), text(e.kernel.format), e.kernel.n, e.kernel.k});
    }
    if (tensors.empty()) continue;
    const auto [at, fresh] = by_key.emplace(key, specs.size());
    if (fresh)
      specs.push_back({key,
                       text(first.spec),
                       text(first.kernel),
                       others_of(entries[0].kernel, formats),
                       entries[0].index,
                       first.m_min,
                       first.m_max,
                       first.m_max >= most,
                       {},
                       bytes});
    specs[at->second].launches.push_back(std::move(tensors));
  }
  std::stable_sort(specs.begin(), specs.end(), [](const TuneSpec& a, const TuneSpec& b) {
    if ((a.m_min == 1) != (b.m_min == 1)) return a.m_min == 1;
    return a.bytes * a.launches.size() > b.bytes * b.launches.size();
  });
  return specs;
}

}  // namespace apr
