// compare_quantisers --peer libggml-base.so: the error of every block that this program's quantisers make,
// over that of llama.cpp's on the same weights. Random weights of many kinds, and with --model real ones; with
// and without importance. Exit 4 where a block is beyond the limit. docs/quantize.md says where the library is
// found.
#include <fmt/format.h>

#include <algorithm>
#include <boost/program_options.hpp>
#include <cmath>
#include <ctime>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/base/error.h"
#include "core/base/format.h"
#include "core/hf/open_model.h"
#include "core/plugin/catalog.h"
#include "tools/quantisers/compare.h"
#include "tools/quantisers/peer.h"
#include "tools/quantisers/rows.h"

namespace apr::compare {
namespace {

namespace po = boost::program_options;
using nlohmann::ordered_json;

constexpr uint64_t kRandomColumns = 1024;  // of a row of random weights: several blocks of every format
// Rows of a tensor that are in memory at a time.
constexpr uint64_t kTensorWeights = uint64_t{1} << 22;

struct Request {
  std::string peer, model, record;
  std::vector<std::string> formats, plugin_path;
  uint64_t blocks, seed, every;
  unsigned threads;
  double limit;
  bool json, speed;
};

// Nothing when help was asked for and printed.
std::optional<Request> parse(int argc, char** argv) {
  Request r;
  po::options_description options("options", 80, 46);
  // clang-format off
  options.add_options()
    ("help,h", po::bool_switch(), "show this help")
    ("peer", po::value(&r.peer)->value_name("FILE"), "llama.cpp's libggml-base.so")
    ("formats", po::value(&r.formats)->multitoken()->value_name("NAME..."), "only these")
    ("blocks", po::value(&r.blocks)->default_value(256)->value_name("N"),
     "superblocks of 256 weights of each kind; a multiple of 4")
    ("seed", po::value(&r.seed)->default_value(1)->value_name("N"), "of the random weights")
    ("model", po::value(&r.model)->value_name("FILE"), "the matrices of this model too")
    ("every", po::value(&r.every)->default_value(1)->value_name("N"), "only every Nth row of the model's")
    ("limit", po::value(&r.limit)->default_value(1.01, "1.01")->value_name("X"), "a block may have X times the peer's error")
    ("threads,t", po::value(&r.threads)->default_value(0)->value_name("N"), "0: one for each CPU")
    ("plugin-path", po::value(&r.plugin_path)->composing()->value_name("DIR"), "look for plugins here first")
    ("record", po::value(&r.record)->value_name("FILE"),
     "write the peer's errors on the random weights, for the test that has no peer")
    ("speed", po::bool_switch(&r.speed), "how fast both are on one thread, instead of their errors")
    ("json", po::bool_switch(&r.json), "the table for programs");
  // clang-format on
  try {
    po::variables_map values;
    const int style = po::command_line_style::unix_style & ~po::command_line_style::allow_guessing;
    po::store(po::command_line_parser(argc, argv).options(options).style(style).run(), values);
    if (values["help"].as<bool>()) {
      std::cout << "usage: compare_quantisers --peer FILE [options]\n\n"
                   "The error of each block of packed weights over that of llama.cpp's quantiser on the\n"
                   "same weights: random ones of many kinds, and a model's. Exit 4: a block is beyond\n"
                   "the limit.\n\n"
                   "example:\n  compare_quantisers --peer libggml-base.so --formats q4_k q6_k\n\n"
                << options;
      return std::nullopt;
    }
    po::notify(values);
  } catch (const po::error& error) {
    throw usage_error("{}; see --help", error.what());
  }
  if (r.peer.empty()) throw usage_error("--peer FILE is needed: llama.cpp's libggml-base.so; see --help");
  if (r.blocks == 0 || r.blocks % (kRandomColumns / kSuperblock) != 0)
    throw usage_error("--blocks {}: give a positive multiple of {}", r.blocks, kRandomColumns / kSuperblock);
  if (r.every == 0) throw usage_error("--every 0: give 1 or more");
  return r;
}

std::vector<const apr_quant_format*> formats_of(const Request& request, Catalog& catalog, const Peer& peer) {
  std::vector<const apr_quant_format*> formats;
  if (!request.formats.empty()) {
    for (const std::string& name : request.formats) {
      formats.push_back(&catalog.format(name));
      if (!peer.has(*formats.back())) throw Error("the peer has no quantiser for {}", name);
    }
    return formats;
  }
  for (size_t p = 0; p < catalog.plugins().size(); ++p) {
    if (catalog.plugins()[p].manifest.kind != PluginKind::Quant) continue;
    const apr_plugin& plugin = catalog.open(p);
    for (uint32_t i = 0; i < plugin.n_formats; ++i)
      if (peer.has(*plugin.formats[i])) formats.push_back(plugin.formats[i]);
  }
  if (formats.empty())
    throw Error(
        "no plugin found has a format that the peer has too; build them (ninja compare-quantisers) or give "
        "--plugin-path");
  std::sort(formats.begin(), formats.end(), [](auto* a, auto* b) { return a->gguf_type < b->gguf_type; });
  return formats;
}

Rows random_rows(const Distribution& distribution, const Request& request) {
  return {distribution.name, make_blocks(distribution, request.blocks, request.seed),
          make_importance(kRandomColumns, request.seed), kRandomColumns};
}

// Calls body with the model's matrices, a part of their rows at a time.
template <typename Body>
void each_matrix(const Model& model, const Request& request, Catalog& catalog, Body body) {
  for (const Tensor& tensor : model.tensors) {
    const uint64_t k = tensor.k();
    if (tensor.dims.size() < 2 || k % kSuperblock != 0) continue;
    const apr_quant_format& from = catalog.format(tensor.qtype, tensor.format, tensor.name);
    const uint64_t bytes = tensor.bytes / tensor.n();
    for (uint64_t row = 0; row < tensor.n();) {
      Rows rows{fmt::format("{} from row {}", tensor.name, row), {}, make_importance(k, request.seed), k};
      for (; row < tensor.n() && rows.weights.size() < kTensorWeights; row += request.every) {
        rows.weights.resize(rows.weights.size() + k);
        from.dequantize(tensor.data + row * bytes, 1, k, rows.weights.data() + rows.weights.size() - k);
      }
      body(rows);
    }
  }
}

struct Line {
  std::string format, weights;
  Comparison plain, weighted;  // without and with importance
};

void print(const Line& line, const char* weights) {
  const auto half = [](const Comparison& c) {
    return fmt::format("{:>7.4f} {:>7.4f} {:>8}", std::sqrt(c.total()), c.worst,
                       c.over == 0 ? std::string("0")
                                   : fmt::format("{:.4f}%", 100.0 * static_cast<double>(c.over) /
                                                                static_cast<double>(c.blocks)));
  };
  fmt::print("{:<7}{:<13}{:>8}  {}  {}\n", line.format, weights, line.plain.blocks, half(line.plain),
             half(line.weighted));
  std::fflush(stdout);
}

ordered_json json_of(const Comparison& c) {
  return {{"blocks", c.blocks},
          {"rmse_ratio", std::sqrt(c.total())},
          {"worst_block_ratio", c.worst},
          {"worst_block", c.worst_at},
          {"blocks_over", c.over}};
}

// The peer's errors on a few random rows of each kind, as tests/quant reads them.
void record(const Request& request, const Peer& peer, const std::vector<const apr_quant_format*>& formats) {
  ordered_json out;
  out["peer"] = "llama.cpp's ggml " + peer.version();
  out["seed"] = request.seed;
  out["blocks"] = request.blocks;
  out["columns"] = kRandomColumns;
  const auto rounded = [](const std::vector<double>& errors) {
    ordered_json array = ordered_json::array();
    for (const double error : errors) array.push_back(std::stod(fmt::format("{:.5g}", error)));
    return array;
  };
  for (const Distribution& distribution : distributions()) {
    const Rows rows = random_rows(distribution, request);
    ordered_json& of = out["weights"][distribution.name];
    of["fingerprint"] = fingerprint(rows.weights) + fingerprint(rows.importance);
    for (const apr_quant_format* format : formats) {
      for (const bool with_importance : {false, true}) {
        const float* importance = with_importance ? rows.importance.data() : nullptr;
        const auto packed = peer.quantize(*format, rows.weights.data(), rows.n(), rows.k, importance);
        const auto decoded = peer.dequantize(*format, packed.data(), rows.weights.size());
        of[with_importance ? "with_importance" : "plain"][format->name] =
            rounded(block_errors(*format, rows, importance, decoded));
      }
    }
  }
  std::ofstream file(request.record);
  file << out.dump() << "\n";
  if (!file.flush()) throw Error("cannot write {}", request.record);
  fmt::print(stderr, "{}: written\n", request.record);
}

// Processor time of this thread: what others run on the same cores is not counted.
double thread_seconds() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// Millions of weights in a second: the best of several rounds of at least a tenth of a second in all.
template <typename Work>
double speed_of(uint64_t weights, Work work) {
  double best = 0, total = 0;
  for (int round = 0; round < 3 || total < 0.1; ++round) {
    const double start = thread_seconds();
    work();
    const double seconds = thread_seconds() - start;
    total += seconds;
    best = std::max(best, 1e-6 * static_cast<double>(weights) / seconds);
  }
  return best;
}

int speed(const Request& request, const Peer& peer, const std::vector<const apr_quant_format*>& formats) {
  ThreadPool alone(1);
  ordered_json out = ordered_json::array();
  if (!request.json)
    fmt::print(
        "millions of weights a second, one thread; llama.cpp's ggml "
        "{}\n\n{:<8}{:>24}{:>24}\n{:<8}{:>12}{:>12}{:>12}{:>12}\n",
        peer.version(), "", "without importance", "with importance", "format", "ours", "peer's", "ours",
        "peer's");
  const Rows rows = random_rows(distributions().front(), request);
  for (const apr_quant_format* format : formats) {
    double speeds[2][2];
    for (const bool with_importance : {false, true}) {
      const float* importance = with_importance ? rows.importance.data() : nullptr;
      speeds[with_importance][0] =
          speed_of(rows.weights.size(), [&] { pack(*format, rows, importance, alone); });
      speeds[with_importance][1] = speed_of(rows.weights.size(), [&] {
        peer.quantize(*format, rows.weights.data(), rows.n(), rows.k, importance);
      });
    }
    if (!request.json)
      fmt::print("{:<8}{:>12.2f}{:>12.2f}{:>12.2f}{:>12.2f}\n", format->name, speeds[0][0], speeds[0][1],
                 speeds[1][0], speeds[1][1]);
    out.push_back({{"format", format->name},
                   {"without_importance", {{"ours", speeds[0][0]}, {"peer", speeds[0][1]}}},
                   {"with_importance", {{"ours", speeds[1][0]}, {"peer", speeds[1][1]}}}});
  }
  if (request.json) std::cout << out.dump(2) << "\n";
  return 0;
}

int run(const Request& request) {
  const Peer peer(request.peer);
  Catalog catalog(plugin_search_paths({request.plugin_path.begin(), request.plugin_path.end()}, {}));
  const auto formats = formats_of(request, catalog, peer);
  if (!request.record.empty()) {
    record(request, peer, formats);
    return 0;
  }
  if (request.speed) return speed(request, peer, formats);
  ThreadPool pool(request.threads);
  std::optional<Model> model;
  if (!request.model.empty()) model = open_model(request.model);
  if (!request.json)
    fmt::print("RMSE over that of llama.cpp's ggml {}\n\n{:<28}{:^24}  {:^24}\n{:<7}{:<13}{:>8}{}{}\n",
               peer.version(), "", "without importance", "with importance", "format", "weights", "blocks",
               "    total   worst    >limit", "    total   worst    >limit");
  std::vector<Line> lines;
  Comparison all;
  for (const apr_quant_format* format : formats) {
    const auto finish = [&](Line line) {
      if (!request.json) print(line, line.weights.c_str());
      all.add(line.plain);
      all.add(line.weighted);
      lines.push_back(std::move(line));
    };
    const auto add = [&](Line& line, const Rows& rows) {
      line.plain.add(compare(*format, peer, rows, false, request.limit, pool));
      line.weighted.add(compare(*format, peer, rows, true, request.limit, pool));
    };
    for (const Distribution& distribution : distributions()) {
      Line line{format->name, distribution.name, {}, {}};
      add(line, random_rows(distribution, request));
      finish(std::move(line));
    }
    if (!model) continue;
    Line line{format->name, "model", {}, {}};
    each_matrix(*model, request, catalog, [&](const Rows& rows) { add(line, rows); });
    finish(std::move(line));
  }
  const bool passed = all.over == 0;
  if (request.json) {
    ordered_json out{{"peer", peer.version()},
                     {"limit", request.limit},
                     {"passed", passed},
                     {"lines", ordered_json::array()}};
    for (const Line& line : lines)
      out["lines"].push_back({{"format", line.format},
                              {"weights", line.weights},
                              {"without_importance", json_of(line.plain)},
                              {"with_importance", json_of(line.weighted)}});
    std::cout << out.dump(2) << "\n";
  } else {
    fmt::print("\n{} of {} blocks are beyond {}; the worst has {:.4f} ({})\n", all.over, all.blocks,
               request.limit, all.worst, all.worst_at);
  }
  return passed ? 0 : 4;
}

}  // namespace
}  // namespace apr::compare

int main(int argc, char** argv) {
  try {
    const auto request = apr::compare::parse(argc, argv);
    return request ? apr::compare::run(*request) : 0;
  } catch (const apr::Error& error) {
    fmt::print(stderr, "compare_quantisers: {}\n", error.what());
    return error.kind() == apr::ErrorKind::Usage ? 2 : 1;
  }
}
