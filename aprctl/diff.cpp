// `aprctl diff A B`: how far apart two things of one kind are, and what the difference looks like.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <tuple>

#include "aprctl/command_line.h"
#include "aprctl/commands.h"
#include "aprctl/diff_sources.h"
#include "aprctl/model_options.h"
#include "aprctl/probe_report.h"
#include "core/base/error.h"
#include "core/base/format.h"
#include "core/base/log.h"
#include "core/base/thread_pool.h"
#include "core/base/wrap.h"
#include "core/compare/verdict.h"
#include "core/quantize/source_rows.h"

namespace apr::ctl {
namespace {

using nlohmann::ordered_json;

// One line of the result.
struct Row {
  std::string what;     // tensor, stage, position
  std::string problem;  // "only in A", "shapes differ": then there is no comparison
  uint64_t rows = 0, cols = 0;
  std::string formats;  // of tensors: "q4_k f16"
  Comparison comparison;
  std::optional<uint32_t> top;  // logits: of the k largest, how many are the same
  bool fine() const { return problem.empty() && harmless(comparison.verdict); }
};

ordered_json finite(double value) {
  return std::isfinite(value) ? ordered_json(value) : ordered_json(nullptr);
}

ordered_json row_json(const Row& row) {
  ordered_json out = {{"what", printable(row.what, kLongPath)}};
  if (!row.problem.empty()) {
    out["verdict"] = "missing";
    out["problem"] = row.problem;
    return out;
  }
  const Comparison& c = row.comparison;
  const Measure& m = c.measure;
  out.update(
      {{"verdict", to_string(c.verdict)},
       {"text", describe(c)},
       {"rows", row.rows},
       {"columns", row.cols},
       {"cosine", finite(m.cosine())},
       {"nmse", finite(m.nmse())},
       {"relative_error", finite(std::sqrt(m.nmse()))},
       {"rms_difference", finite(m.rms())},
       {"max_difference", finite(m.max_abs)},
       {"max_at", {m.max_at / std::max<uint64_t>(row.cols, 1), m.max_at % std::max<uint64_t>(row.cols, 1)}},
       {"max_a", finite(m.max_a)},
       {"max_b", finite(m.max_b)},
       {"unequal", m.n_unequal},
       {"not_finite", m.not_finite},
       {"bound", c.bound},
       {"scale", finite(m.scale())},
       {"row_shift", c.row_shift},
       {"column_shift", c.column_shift},
       {"where", c.where}});
  if (!row.formats.empty()) out["formats"] = row.formats;
  if (row.top) out["top_k_same"] = *row.top;
  return out;
}

void print_rows(const std::vector<Row>& rows, const char* what, uint32_t top_k) {
  const bool logits = std::any_of(rows.begin(), rows.end(), [](const Row& r) { return r.top.has_value(); });
  const size_t width = logits ? 20 : 26;
  fmt::print("{} {:>9} {:>8} {:>9} {:>9}  {}\n", first_column(what, width), "cosine", "nmse", "rms diff",
             "max diff", logits ? fmt::format("top {}, verdict", top_k) : "verdict");
  for (const Row& row : rows) {
    const std::string name = first_column(printable(row.what), width);
    if (!row.problem.empty()) {
      fmt::print("{}{}", name, wrapped(row.problem, width + 1).substr(width));
      continue;
    }
    const Measure& m = row.comparison.measure;
    fmt::print("{} {:>9.6f} {:>8.1e} {:>9.2e} {:>9.2e}  {}{}\n", name, m.cosine(), m.nmse(), m.rms(),
               m.max_abs, row.top ? fmt::format("{:>3}  ", *row.top) : "", to_string(row.comparison.verdict));
    const std::string text = describe(row.comparison);
    if (text != to_string(row.comparison.verdict)) fmt::print("{}", wrapped(text, width + 1));
  }
}

// ---- models
// ------------------------------------------------------------------------------------------------------------

Row tensor_row(const std::string& name, const Model& model_a, const Tensor& given_a, const Model& model_b,
               const Tensor& given_b, Catalog& catalog, std::optional<double> bound, ThreadPool& pool) {
  // The same order of rows, whatever container they come from.
  const SourceRows rows_a = source_rows(model_a, given_a, catalog),
                   rows_b = source_rows(model_b, given_b, catalog);
  const Tensor &a = rows_a.tensor, &b = rows_b.tensor;
  Row row;
  row.what = name;
  if (a.dims != b.dims) {
    row.problem = fmt::format("shapes differ: [{}] and [{}]", joined(a.dims), joined(b.dims));
    return row;
  }
  const apr_quant_format &fa = catalog.format(a.qtype, a.format, a.name),
                         &fb = catalog.format(b.qtype, b.format, b.name);
  row.rows = a.n(), row.cols = a.k();
  row.formats = a.format == b.format ? a.format : a.format + " " + b.format;
  row.comparison =
      compare(tensor_matrix(a, fa), tensor_matrix(b, fb), bound.value_or(packing_bound(a, fa, b, fb)), pool);
  return row;
}

std::vector<Row> diff_models(const Model& a, const Model& b, Catalog& catalog, std::optional<double> bound,
                             ThreadPool& pool) {
  std::vector<Row> rows;
  for (const Tensor& tensor : a.tensors) {
    if (const Tensor* other = b.find(tensor.name)) {
      rows.push_back(tensor_row(tensor.name, a, tensor, b, *other, catalog, bound, pool));
    } else {
      rows.push_back({tensor.name, "only in A", 0, 0, "", {}, {}});
    }
  }
  for (const Tensor& tensor : b.tensors)
    if (!a.find(tensor.name)) rows.push_back({tensor.name, "only in B", 0, 0, "", {}, {}});
  return rows;
}

// ---- stage dumps
// ---------------------------------------------------------------------------------------------------------

// What rounding may make of a stage at depth `index` of a dump: each stage before it may have added the noise
// of one input rounded to 8 bits on either side (core/gate/parity.cpp derives 4.7e-5), with a margin of 4,
// and no depth excuses more than 2%.
double stage_bound(size_t index) { return std::min(0.02, 4 * 2 * 4.7e-5 * static_cast<double>(index + 1)); }

struct DumpDiff {
  std::string model_a, model_b;  // sha256
  std::vector<Row> rows;
};

DumpDiff diff_dumps(const std::filesystem::path& a, const std::filesystem::path& b,
                    std::optional<double> bound, ThreadPool& pool) {
  using Key = std::tuple<std::string, int32_t, int32_t, uint32_t>;
  const auto key = [](const DumpedRow& row) {
    return Key(row.stage, row.sequence, row.position, row.occurrence);
  };
  std::map<Key, const DumpedRow*> others;
  const DumpedRows dump_a = dumped_rows(a), dump_b = dumped_rows(b);
  if (dump_a.model != dump_b.model)
    log_warning(
        "the dumps are of different models (sha256 {:.12}... and {:.12}...): what differs may be the weights",
        printable(dump_a.model), printable(dump_b.model));
  for (const DumpedRow& row : dump_b.rows) others[key(row)] = &row;

  // Rows of a stage that both dumps have, in the order of A.
  struct Stage {
    std::vector<float> a, b;
    uint32_t width = 0, only_a = 0;
    std::string problem;
  };
  std::vector<std::string> order;
  std::map<std::string, Stage> stages;
  // The file that is being read on a side: rows of one come one after the other.
  struct Reader {
    std::filesystem::path file;
    StageRecord record;
    const StageRecord& at(const std::filesystem::path& wanted) {
      if (file != wanted) record = read_stage(wanted), file = wanted;
      return record;
    }
  } reader_a, reader_b;
  for (const DumpedRow& row : dump_a.rows) {
    if (!stages.contains(row.stage)) order.push_back(row.stage);
    Stage& stage = stages[row.stage];
    const auto found = others.find(key(row));
    if (found == others.end()) {
      ++stage.only_a;
      continue;
    }
    const StageRecord& ra = reader_a.at(row.file);
    const StageRecord& rb = reader_b.at(found->second->file);
    if (ra.width != rb.width || (stage.width != 0 && stage.width != ra.width)) {
      stage.problem = fmt::format("widths differ: {} and {}", ra.width, rb.width);
      continue;
    }
    stage.width = ra.width;
    stage.a.insert(stage.a.end(), ra.data.begin() + int64_t{row.row} * ra.width,
                   ra.data.begin() + int64_t{row.row + 1} * ra.width);
    stage.b.insert(stage.b.end(), rb.data.begin() + int64_t{found->second->row} * rb.width,
                   rb.data.begin() + int64_t{found->second->row + 1} * rb.width);
  }
  std::vector<Row> result;
  size_t not_in_b = 0, partly = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    const Stage& stage = stages[order[i]];
    // A backend that fused a stage away does not report it: that is no difference.
    if (stage.width == 0 && stage.problem.empty()) {
      ++not_in_b;
      continue;
    }
    partly += stage.only_a > 0 ? 1 : 0;
    Row row;
    row.what = order[i];
    row.problem = stage.problem;
    if (stage.problem.empty()) {
      row.cols = stage.width, row.rows = stage.a.size() / stage.width;
      row.comparison =
          compare(matrix_of(stage.a.data(), row.rows, row.cols),
                  matrix_of(stage.b.data(), row.rows, row.cols), bound.value_or(stage_bound(i)), pool);
    }
    result.push_back(std::move(row));
  }
  if (result.empty()) throw Error("the dumps have no stage at a common position");
  if (not_in_b > 0) log_info("{} stages of A are not in B: fused away, or not of this plan", not_in_b);
  if (partly > 0) log_info("{} stages have rows in A at positions that B lacks", partly);
  return {dump_a.model, dump_b.model, std::move(result)};
}

// ---- raw logits
// --------------------------------------------------------------------------------------------------------

std::vector<float> read_floats(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary | std::ios::ate);
  const auto bytes = static_cast<uint64_t>(std::max<std::streamoff>(in.tellg(), 0));
  if (!in || bytes == 0 || bytes % sizeof(float) != 0)
    throw Error("{}: {} bytes are no whole number of float32; write logits with `aprctl logits`",
                path.native(), bytes);
  std::vector<float> values(bytes / sizeof(float));
  in.seekg(0);
  in.read(reinterpret_cast<char*>(values.data()), static_cast<std::streamsize>(bytes));
  if (!in) throw Error("{}: cannot be read", path.native());
  return values;
}

uint32_t same_of_largest(const float* a, const float* b, uint64_t n, uint32_t k) {
  const auto largest = [n, k](const float* row) {
    std::vector<uint32_t> index(n);
    for (uint64_t i = 0; i < n; ++i) index[i] = static_cast<uint32_t>(i);
    std::partial_sort(index.begin(), index.begin() + k, index.end(),
                      [row](uint32_t x, uint32_t y) { return row[x] != row[y] ? row[x] > row[y] : x < y; });
    index.resize(k);
    std::sort(index.begin(), index.end());
    return index;
  };
  const std::vector<uint32_t> of_a = largest(a), of_b = largest(b);
  std::vector<uint32_t> both;
  std::set_intersection(of_a.begin(), of_a.end(), of_b.begin(), of_b.end(), std::back_inserter(both));
  return static_cast<uint32_t>(both.size());
}

std::vector<Row> diff_logits(const Source& a, const Source& b, uint64_t vocab, uint32_t top_k,
                             std::optional<double> bound, ThreadPool& pool) {
  const std::vector<float> x = read_floats(a.path), y = read_floats(b.path);
  if (x.size() != y.size()) throw Error("{} has {} floats and {} has {}", a.name, x.size(), b.name, y.size());
  const uint64_t width = vocab == 0 ? x.size() : vocab;
  if (x.size() % width != 0)
    throw Error("{}: {} floats are no whole number of rows of {}; see --vocab", a.name, x.size(), width);
  const uint64_t rows = x.size() / width;
  const double limit = bound.value_or(0.02);  // the most that the parity gate allows, at any depth
  std::vector<Row> result;
  for (uint64_t r = 0; r < rows && rows > 1; ++r) {
    Row row{fmt::format("row {}", r),
            "",
            1,
            width,
            "",
            compare(matrix_of(x.data() + r * width, 1, width), matrix_of(y.data() + r * width, 1, width),
                    limit, pool),
            {}};
    row.top = same_of_largest(x.data() + r * width, y.data() + r * width, width,
                              static_cast<uint32_t>(std::min<uint64_t>(top_k, width)));
    result.push_back(std::move(row));
  }
  Row whole{"all", "",
            rows,  width,
            "",    compare(matrix_of(x.data(), rows, width), matrix_of(y.data(), rows, width), limit, pool),
            {}};
  result.push_back(std::move(whole));
  return result;
}

}  // namespace

int diff_main(const Arguments& args) {
  CommandLine line("diff",
                   "Compare two models, two tensors (MODEL:TENSOR), two stage dumps (APR_STAGE_DUMP) or two "
                   "files of raw logits: cosine, "
                   "normalised squared error, RMS and largest difference, and what the difference looks "
                   "like: identical, rounding, scaled, "
                   "sign-flipped, transposed, shifted, not finite or different. Exit 0: all identical or "
                   "rounding; 4: not so.",
                   "aprctl diff a.gguf b.gguf\n"
                   "aprctl diff dump/cpu dump/cuda\n"
                   "aprctl diff a.f32 b.f32 --vocab 512");
  namespace po = boost::program_options;
  line.options().add_options()("a", po::value<std::string>()->required(), "what is compared with")(
      "b", po::value<std::string>()->required(), "what is compared")(
      "vocab", po::value<uint64_t>()->default_value(0), "raw logits: floats of a row, 0: one row")(
      "top", po::value<uint32_t>()->default_value(10), "raw logits: how many of the largest are compared")(
      "bound", po::value<double>(),
      "normalised squared error that counts as rounding, instead of the derived one")(
      "all", po::bool_switch(), "print identical rows too")("json", po::bool_switch(), "print JSON");
  line.positional("a", 1);
  line.positional("b", 1);
  PluginOptions::add(line);
  if (!line.parse(args)) return kExitOk;
  const Probes& probes = probes_in_force();
  const Source a = open_source(line.get<std::string>("a")), b = open_source(line.get<std::string>("b"));
  if (a.kind != b.kind)
    throw usage_error("aprctl diff: {} is a {} and {} a {}; two of one kind can be compared", a.name,
                      to_string(a.kind), b.name, to_string(b.kind));
  const uint32_t top = line.get<uint32_t>("top");
  if (top == 0) throw usage_error("aprctl diff: --top must be at least 1");
  const auto bound = line.find<double>("bound");
  if (bound && !(*bound >= 0)) throw usage_error("aprctl diff: --bound must not be negative");
  ThreadPool pool;
  std::vector<Row> rows;
  std::optional<DumpDiff> dumps;
  const char* what = "";
  switch (a.kind) {
    case SourceKind::Model: {
      Catalog catalog(PluginOptions::search_paths(line, probes));
      rows = diff_models(*a.model, *b.model, catalog, bound, pool);
      what = "tensor";
      break;
    }
    case SourceKind::Tensor: {
      Catalog catalog(PluginOptions::search_paths(line, probes));
      rows = {tensor_row(a.tensor->name, *a.model, *a.tensor, *b.model, *b.tensor, catalog, bound, pool)};
      what = "tensor";
      break;
    }
    case SourceKind::Dump:
      dumps = diff_dumps(a.path, b.path, bound, pool);
      rows = std::move(dumps->rows);
      what = "stage";
      break;
    case SourceKind::Logits:
      rows = diff_logits(a, b, line.get<uint64_t>("vocab"), top, bound, pool);
      what = "row";
      break;
  }
  const auto first = std::find_if(rows.begin(), rows.end(), [](const Row& row) { return !row.fine(); });
  std::map<std::string, size_t> counts;
  for (const Row& row : rows)
    ++counts[row.problem.empty() ? to_string(row.comparison.verdict) : "missing or of another shape"];
  if (line.flag("json")) {
    ordered_json out = {{"a", a.name},
                        {"b", b.name},
                        {"kind", to_string(a.kind)},
                        {"probes", probes_json(probes)},
                        {"counts", counts}};
    if (dumps)
      out["models"] = {{"a", printable(dumps->model_a)},
                       {"b", printable(dumps->model_b)},
                       {"same", dumps->model_a == dumps->model_b}};
    out["first_difference"] =
        first == rows.end() ? ordered_json(nullptr) : ordered_json(printable(first->what, kLongPath));
    out["rows"] = ordered_json::array();
    for (const Row& row : rows) out["rows"].push_back(row_json(row));
    fmt::print("{}\n", out.dump(2, ' ', false, ordered_json::error_handler_t::replace));
  } else {
    std::vector<Row> shown;
    for (const Row& row : rows)
      if (line.flag("all") || rows.size() == 1 || !row.problem.empty() ||
          row.comparison.verdict != Verdict::Identical)
        shown.push_back(row);
    if (!shown.empty()) print_rows(shown, what, top);
    std::string summary;
    for (const auto& [verdict, count] : counts)
      summary += fmt::format("{}{} {}", summary.empty() ? "" : ", ", count, verdict);
    fmt::print("{} compared: {}\n", rows.size(), summary);
    if (dumps && dumps->model_a != dumps->model_b)
      fmt::print("of different models: {:.12}... and {:.12}...\n", printable(dumps->model_a),
                 printable(dumps->model_b));
    if (first != rows.end())
      fmt::print("{}",
                 wrapped(fmt::format("first difference: {}: {}", printable(first->what),
                                     first->problem.empty() ? describe(first->comparison) : first->problem),
                         0, 2));
  }
  return first == rows.end() ? kExitOk : kExitGate;
}

}  // namespace apr::ctl
