#include "tests/cuda/fake_driver/emulate.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <stdexcept>
#include <vector>

#include "plugins/quant-f16/bf16.h"
#include "plugins/quant-f16/f16.h"
#include "plugins/quant-f32/codec.h"
#include "plugins/quant-fp8/fp8.h"
#include "plugins/quant-low-k/q2_k.h"
#include "plugins/quant-low-k/q3_k.h"
#include "plugins/quant-q4-0/q4_0.h"
#include "plugins/quant-q4-0/q4_1.h"
#include "plugins/quant-q4-0/q5_0.h"
#include "plugins/quant-q4-0/q5_1.h"
#include "plugins/quant-q4-0/q8_0.h"
#include "plugins/quant-q4k/codec.h"
#include "plugins/quant-q5k/codec.h"
#include "plugins/quant-q6k/codec.h"
#include "plugins/quant-table4/iq4_nl.h"
#include "plugins/quant-table4/iq4_xs.h"
#include "plugins/quant-table4/mxfp4.h"
#include "ptx-templates/args.h"

namespace apr::fake {

namespace {

using Row = std::vector<double>;
using RowReader = std::function<Row(const Weight&, uint64_t row, int k)>;

// Any layout of any codec through the contract: what a kernel does, one block after the other.
template <class Codec, class Layout>
Row read_row(const Weight& w, uint64_t row, int k) {
  const int blocks = (k + Codec::kBlock - 1) / Codec::kBlock;
  Row values(static_cast<size_t>(blocks) * Codec::kBlock);
  for (int b = 0; b < blocks; ++b) {
    Planes<Layout::kPlanes> planes;
    for (int p = 0; p < Layout::kPlanes; ++p)
      planes.p[p] = w.plane[p] +
                    (row * static_cast<uint64_t>(blocks) + static_cast<uint64_t>(b)) * Layout::kPlaneBytes[p];
    for (int chunk = 0; chunk < Codec::kBlock / (Codec::kRuns * Codec::kRun); ++chunk) {
      const auto raw = Layout::load(planes, chunk);
      if constexpr (Codec::kInteger) {
        IntChunk<Codec::kRuns, Codec::kRun> out;
        Layout::decode(raw, chunk, out);
        for (int r = 0; r < Codec::kRuns; ++r)
          for (int i = 0; i < Codec::kRun; ++i)
            values[static_cast<size_t>(b * Codec::kBlock + Codec::col(chunk, r) + i)] =
                chunk_value<Codec::kOffset>(out, r, i);
      } else {
        FloatChunk<Codec::kRuns, Codec::kRun> out;
        Layout::decode(raw, chunk, out);
        for (int r = 0; r < Codec::kRuns; ++r)
          for (int i = 0; i < Codec::kRun; ++i)
            values[static_cast<size_t>(b * Codec::kBlock + Codec::col(chunk, r) + i)] = out.v[r][i];
      }
    }
  }
  values.resize(static_cast<size_t>(k));
  return values;
}

template <class Codec>
void add_codec(std::map<std::string, RowReader>& readers, const std::string& name) {
  readers[name + "::RowMajor"] = read_row<Codec, typename Codec::RowMajor>;
  if constexpr (requires { typename Codec::Planar; })
    readers[name + "::Planar"] = read_row<Codec, typename Codec::Planar>;
}

const RowReader& reader(const std::string& layout) {
  static const std::map<std::string, RowReader> readers = [] {
    std::map<std::string, RowReader> r;
    add_codec<F32>(r, "apr::F32");
    add_codec<F16>(r, "apr::F16");
    add_codec<BF16>(r, "apr::BF16");
    add_codec<Q4_0>(r, "apr::Q4_0");
    add_codec<Q4_1>(r, "apr::Q4_1");
    add_codec<Q5_0>(r, "apr::Q5_0");
    add_codec<Q5_1>(r, "apr::Q5_1");
    add_codec<Q8_0>(r, "apr::Q8_0");
    add_codec<Q4K>(r, "apr::Q4K");
    add_codec<Q5K>(r, "apr::Q5K");
    add_codec<Q6K>(r, "apr::Q6K");
    add_codec<Q2K>(r, "apr::Q2K");
    add_codec<Q3K>(r, "apr::Q3K");
    add_codec<IQ4_NL>(r, "apr::IQ4_NL");
    add_codec<IQ4_XS>(r, "apr::IQ4_XS");
    add_codec<MXFP4>(r, "apr::MXFP4");
    add_codec<F8_E4M3>(r, "apr::F8_E4M3");
    add_codec<F8_E5M2>(r, "apr::F8_E5M2");
    return r;
  }();
  const auto found = readers.find(layout);
  if (found == readers.end()) throw std::runtime_error("the emulator does not know layout " + layout);
  return found->second;
}

struct Segment {
  const RowReader* read;
  int n;
  bool bias;
};

// The prelude as data.
struct Spec {
  std::string op;
  bool integer = false;     // a GEMV over the integer view
  bool transposed = false;  // tests/gpu/faults: W is read as if it were [K, N]
  std::map<std::string, long> constants;
  std::vector<Segment> segments;

  int get(const char* name) const {
    const auto found = constants.find(name);
    if (found == constants.end()) throw std::runtime_error(op + ": the prelude lacks " + name);
    return static_cast<int>(found->second);
  }
};

std::string between(const std::string& text, const std::string& before, const std::string& after) {
  const size_t at = text.find(before);
  if (at == std::string::npos) throw std::runtime_error("no '" + before + "' in: " + text);
  const size_t from = at + before.size();
  return text.substr(from, text.find(after, from) - from);
}

// The first line is "// <template>: <op> ...".
std::string op_of(const std::string& source) {
  const std::string line = source.substr(0, source.find('\n'));
  const size_t from = line.find(": ") + 2;
  return line.substr(from, line.find(' ', from) - from);
}

Spec parse(const std::string& source) {
  Spec spec;
  spec.op = op_of(source);
  spec.integer = source.substr(0, source.find('\n')).find(": linear int ") != std::string::npos;
  spec.transposed = source.find("SEEDED FAULT: transposed") != std::string::npos;
  const std::string prelude = between(source, "namespace apr::spec {\n", "}  // namespace apr::spec");
  for (size_t at = 0; at < prelude.size();) {
    const std::string line = prelude.substr(at, prelude.find('\n', at) - at);
    at += line.size() + 1;
    if (line.starts_with("constexpr ")) {
      const std::string name = between(line, line.starts_with("constexpr bool") ? "bool " : "int ", " =");
      const std::string value = between(line, "= ", ";");
      spec.constants[name] = value == "true" ? 1 : value == "false" ? 0 : std::stol(value);
    } else if (line.starts_with("struct Segment")) {
      spec.segments.push_back({&reader(between(line, "using Layout = ", ";")),
                               std::stoi(between(line, "kN = ", ";")),
                               between(line, "kBias = ", ";") == "true"});
    }
  }
  return spec;
}

double silu(double x) { return x / (1.0 + std::exp(-x)); }
int padded(int k, int unit) { return (k + unit - 1) / unit * unit; }

// ---- activations in other forms: written and read here alone, so only their places must be right ------------------------

uint16_t f16_bits(double x) {
  const _Float16 h = static_cast<_Float16>(static_cast<float>(x));
  uint16_t bits;
  std::memcpy(&bits, &h, 2);
  return bits;
}
uint16_t bf16_bits(double x) {
  const uint32_t bits = float_to_bits(static_cast<float>(x));
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
}

void write_form(int form, int row, const Row& x, float* y, const ActInt8& q, const ActHalf& h) {
  const int k = static_cast<int>(x.size());
  switch (form) {
    case kOutputFloat:
      for (int i = 0; i < k; ++i) y[int64_t{row} * k + i] = static_cast<float>(x[static_cast<size_t>(i)]);
      return;
    case kOutputInt8: {
      const int stride = padded(k, 32);
      for (int b = 0; b < stride / kActBlock; ++b) {
        double amax = 0, sum = 0;
        for (int i = 0; i < kActBlock && kActBlock * b + i < k; ++i)
          amax = std::max(amax, std::fabs(x[static_cast<size_t>(kActBlock * b + i)]));
        const int64_t block = int64_t{row} * (stride / kActBlock) + b;
        q.scale[block] = static_cast<float>(amax / 127);
        for (int i = 0; i < kActBlock; ++i) {
          const int c = kActBlock * b + i;
          const double v = c < k && amax > 0 ? std::nearbyint(x[static_cast<size_t>(c)] * 127 / amax) : 0.0;
          q.q[int64_t{row} * stride + c] = static_cast<int8_t>(v);
          sum += v;
        }
        q.sum[block] = static_cast<float>(q.scale[block] * sum);
      }
      return;
    }
    case kOutputF16:
    case kOutputBf16x2:
    case kOutputF16x2: {
      const int stride = padded(k, 64);
      for (int i = 0; i < stride; ++i) {
        const double v = i < k ? x[static_cast<size_t>(i)] : 0.0;
        const int64_t at = int64_t{row} * stride + i;
        if (form == kOutputBf16x2) {
          h.term[0][at] = bf16_bits(v);
          h.term[1][at] = bf16_bits(v - bfloat_to_float(h.term[0][at]));
        } else {
          h.term[0][at] = f16_bits(v);
          if (form == kOutputF16x2) h.term[1][at] = f16_bits(v - half_to_float(h.term[0][at]));
        }
      }
      h.scale[row] = 1.0f;
      return;
    }
  }
  throw std::runtime_error("unknown form of activations");
}

Row read_form(int input, int row, int k, const LinearArgs& a) {
  Row x(static_cast<size_t>(k));
  for (int i = 0; i < k; ++i) {
    const int64_t at = int64_t{row} * padded(k, 64) + i;
    double& v = x[static_cast<size_t>(i)];
    switch (input) {
      case kInputFloat:
        v = a.x[int64_t{row} * k + i];
        break;
      case kInputInt8: {
        const int stride = padded(k, 32);
        v = static_cast<double>(a.xq.scale[int64_t{row} * (stride / kActBlock) + i / kActBlock]) *
            a.xq.q[int64_t{row} * stride + i];
        break;
      }
      case kInputF16:
        v = a.xh.scale[row] * half_to_float(a.xh.term[0][at]);
        break;
      case kInputF16x2:
        v = a.xh.scale[row] * (half_to_float(a.xh.term[0][at]) + half_to_float(a.xh.term[1][at]));
        break;
      case kInputBf16x2:
        v = a.xh.scale[row] * (bfloat_to_float(a.xh.term[0][at]) + bfloat_to_float(a.xh.term[1][at]));
        break;
      default:
        throw std::runtime_error("unknown input");
    }
  }
  return x;
}

Row normed(const Row& x, const float* weight, double eps) {
  double square = 0;
  for (const double v : x) square += v * v;
  const double factor = 1.0 / std::sqrt(square / static_cast<double>(x.size()) + eps);
  Row y(x.size());
  for (size_t i = 0; i < x.size(); ++i) y[i] = x[i] * factor * weight[i];
  return y;
}

Row rounded_to_int8(const Row& x) {
  Row y(x);
  for (size_t b = 0; b < x.size(); b += kActBlock) {
    double amax = 0;
    const size_t end = std::min(x.size(), b + kActBlock);
    for (size_t i = b; i < end; ++i) amax = std::max(amax, std::fabs(x[i]));
    for (size_t i = b; i < end && amax > 0; ++i) y[i] = std::nearbyint(x[i] * 127 / amax) * amax / 127;
  }
  return y;
}

// Row n of the result holds elements k * N + n.
std::vector<Row> read_transposed(const std::vector<Row>& matrix) {
  Row flat;
  for (const Row& row : matrix) flat.insert(flat.end(), row.begin(), row.end());
  std::vector<Row> out(matrix.size(), Row(matrix[0].size()));
  for (size_t n = 0; n < out.size(); ++n)
    for (size_t k = 0; k < out[n].size(); ++k) out[n][k] = flat[k * out.size() + n];
  return out;
}

// ---- operations --------------------------------------------------------------------------------------------------------

void linear(const Spec& spec, const LinearArgs& a) {
  const int k = spec.get("kK"), rows = spec.get("kM") > 0 ? spec.get("kM") : *a.m;
  std::vector<Row> x;
  for (int r = 0; r < rows; ++r) {
    x.push_back(read_form(spec.get("kInput"), r, k, a));
    if (spec.get("kNorm") != 0) x.back() = normed(x.back(), a.norm, a.eps);
    if (spec.integer && spec.get("kInput") == kInputFloat) x.back() = rounded_to_int8(x.back());
  }
  if (spec.get("kOutput") != kOutputFloat && spec.get("kEpilogue") != kEpilogueSwiglu)
    throw std::runtime_error("only SwiGLU quantises its result");
  std::vector<std::vector<Row>> y(spec.segments.size(), std::vector<Row>(static_cast<size_t>(rows)));
  for (size_t s = 0; s < spec.segments.size(); ++s) {
    std::vector<Row> matrix;
    for (int n = 0; n < spec.segments[s].n; ++n)
      matrix.push_back((*spec.segments[s].read)(a.w[s], static_cast<uint64_t>(n), k));
    if (spec.transposed) matrix = read_transposed(matrix);
    for (const Row& w : matrix) {
      const size_t n = y[s].empty() ? 0 : y[s][0].size();
      for (size_t r = 0; r < x.size(); ++r) {
        double sum = spec.segments[s].bias ? a.bias[s][n] : 0.0;
        for (size_t i = 0; i < w.size(); ++i) sum += w[i] * x[r][i];
        y[s][r].push_back(sum);
      }
    }
  }
  const auto store = [&](size_t out, size_t r, int n, double v) {
    a.y[out][r * a.y_stride[out] + static_cast<size_t>(n)] = static_cast<float>(v);
  };
  for (size_t r = 0; r < x.size(); ++r)
    for (size_t s = 0; s < y.size(); ++s)
      for (int n = 0; n < spec.segments[s].n; ++n) {
        const double v = y[s][r][static_cast<size_t>(n)];
        switch (spec.get("kEpilogue")) {
          case kEpilogueNone:
            store(s, r, n, v);
            break;
          case kEpilogueResidual:
            store(0, r, n, v + a.residual[r * a.y_stride[0] + static_cast<size_t>(n)]);
            break;
          case kEpilogueSwiglu:
            y[0][r][static_cast<size_t>(n)] = s == 0 ? v : silu(y[0][r][static_cast<size_t>(n)]) * v;
            break;
        }
      }
  if (spec.get("kEpilogue") == kEpilogueSwiglu)
    for (size_t r = 0; r < x.size(); ++r) {
      if (spec.get("kOutput") == kOutputInt8) {
        write_form(kOutputInt8, static_cast<int>(r), y[0][r], nullptr, a.yq, {});
        continue;
      }
      for (int n = 0; n < spec.segments[0].n; ++n) store(0, r, n, y[0][r][static_cast<size_t>(n)]);
    }
}

// Norm and rotation of one head.
Row prepared(const Spec& spec, const float* x, const float* norm, const AttentionArgs& a, int position) {
  const int dim = spec.get("kHeadDim");
  Row v(x, x + dim);
  if (spec.get("kQkNorm") != 0) v = normed(v, norm, a.eps);
  const int kind = spec.get("kRopeKind"), turned = kind == kRopeNone ? 0 : spec.get("kRopeDims");
  for (int i = 0; i < turned / 2; ++i) {
    const auto d0 = static_cast<size_t>(kind == kRopeAdjacent ? 2 * i : i),
               d1 = static_cast<size_t>(kind == kRopeAdjacent ? 2 * i + 1 : i + turned / 2);
    const double angle = position * static_cast<double>(a.inv_freq[i]), c = std::cos(angle),
                 s = std::sin(angle), p = v[d0], q = v[d1];
    v[d0] = (p * c - q * s) * a.rope_scale;
    v[d1] = (p * s + q * c) * a.rope_scale;
  }
  return v;
}

int64_t cache_at(const Spec& spec, const AttentionArgs& a, int sequence, int head, int position) {
  if (position < 0 || static_cast<uint32_t>(position) >= a.n_ctx)
    throw std::runtime_error("position outside the cache");
  return ((int64_t{sequence} * spec.get("kKvHeads") + head) * a.n_ctx + position) * spec.get("kHeadDim");
}

void store_kv(const Spec& spec, const AttentionArgs& a, int row) {
  const int dim = spec.get("kHeadDim");
  for (int h = 0; h < spec.get("kKvHeads"); ++h) {
    const Row k = prepared(spec, a.k + int64_t{row} * a.k_stride + h * dim, a.k_norm, a, a.positions[row]);
    const int64_t at = cache_at(spec, a, a.sequences[row], h, a.positions[row]);
    for (int d = 0; d < dim; ++d) {
      a.k_cache[at + d] = f16_bits(k[static_cast<size_t>(d)]);
      a.v_cache[at + d] = f16_bits(a.v[int64_t{row} * a.v_stride + h * dim + d]);
    }
  }
}

void rotate_q(const Spec& spec, const AttentionArgs& a, int row) {
  const int dim = spec.get("kHeadDim"), heads = spec.get("kHeads");
  for (int h = 0; h < heads; ++h) {
    const Row q = prepared(spec, a.q + int64_t{row} * a.q_stride + h * dim, a.q_norm, a, a.positions[row]);
    for (int d = 0; d < dim; ++d)
      a.q_out[(int64_t{row} * heads + h) * dim + d] = static_cast<float>(q[static_cast<size_t>(d)]);
  }
}

void attention(const Spec& spec, const AttentionArgs& a) {
  const int dim = spec.get("kHeadDim"), heads = spec.get("kHeads"), group = heads / spec.get("kKvHeads"),
            window = spec.get("kWindow");
  const bool fused = spec.get("kFused") != 0;
  // What a real kernel asks the L2 for must be there: both ends are read, for sanitizers to judge.
  for (const Ahead& ahead : a.ahead)
    for (const uint32_t at : {0u, ahead.bytes == 0 ? 0u : ahead.bytes - 1})
      if (ahead.bytes > 0) static_cast<void>(*const_cast<const volatile uint8_t*>(ahead.data + at));
  Row all(static_cast<size_t>(heads) * static_cast<size_t>(dim));
  for (int row = 0; row < a.state->m; ++row) {
    const int position = a.positions[row];
    if (fused) store_kv(spec, a, row);
    for (int h = 0; h < heads; ++h) {
      const float* raw = a.q + int64_t{row} * a.q_stride + h * dim;
      const Row q = fused ? prepared(spec, raw, a.q_norm, a, position) : Row(raw, raw + dim);
      const int begin = window > 0 ? std::max(0, position + 1 - window) : 0;
      Row score, out(static_cast<size_t>(dim), 0.0);
      double largest = -INFINITY, total = 0;
      for (int p = begin; p <= position; ++p) {
        const int64_t at = cache_at(spec, a, a.sequences[row], h / group, p);
        double dot = 0;
        for (int d = 0; d < dim; ++d) dot += q[static_cast<size_t>(d)] * half_to_float(a.k_cache[at + d]);
        score.push_back(a.scale * dot);
        largest = std::max(largest, score.back());
      }
      for (int p = begin; p <= position; ++p) {
        const double weight = std::exp(score[static_cast<size_t>(p - begin)] - largest);
        const int64_t at = cache_at(spec, a, a.sequences[row], h / group, p);
        total += weight;
        for (int d = 0; d < dim; ++d)
          out[static_cast<size_t>(d)] += weight * half_to_float(a.v_cache[at + d]);
      }
      for (int d = 0; d < dim; ++d)
        all[static_cast<size_t>(h * dim + d)] = out[static_cast<size_t>(d)] / total;
    }
    if (spec.get("kOutput") == kOutputInt8) {
      write_form(kOutputInt8, row, all, nullptr, a.outq, {});
      continue;
    }
    for (size_t i = 0; i < all.size(); ++i)
      a.out[int64_t{row} * a.out_stride + static_cast<int64_t>(i)] = static_cast<float>(all[i]);
  }
}

void argmax(const Spec& spec, const ArgmaxArgs& a) {
  const int n = spec.get("kN");
  for (int r = 0; r < *a.m; ++r) {
    const float* x = a.x + int64_t{r} * n;
    const bool nan = std::any_of(x, x + n, [](float v) { return std::isnan(v); });
    a.index[r] = nan ? -1 : static_cast<int32_t>(std::max_element(x, x + n) - x);
  }
  if (a.next.result == nullptr) return;
  a.next.result[*a.next.position % 2] = a.index[0];
  *a.next.token = std::max(0, a.index[0]);
  ++*a.next.position;
}

void top_k(const Spec& spec, const TopKArgs& a) {
  const int n = spec.get("kN"), k = spec.get("kTopK");
  for (int r = 0; r < *a.m; ++r) {
    const float* x = a.x + int64_t{r} * n;
    Candidate* best = a.best + int64_t{r} * k;
    std::vector<Candidate> all;
    for (int i = 0; i < n; ++i) all.push_back({x[i], i});
    std::stable_sort(all.begin(), all.end(),
                     [](const Candidate& p, const Candidate& q) { return p.value > q.value; });
    std::copy_n(all.begin(), k, best);
    if (std::any_of(x, x + n, [](float v) { return std::isnan(v); }))
      std::fill_n(best, k, Candidate{NAN, -1});
  }
}

template <typename T>
const T& as(const void* args) {
  return *static_cast<const T*>(args);
}

}  // namespace

size_t args_bytes(const std::string& source) {
  const std::string op = op_of(source);
  if (op == "linear") return sizeof(LinearArgs);
  if (op == "attention" || op == "rope_kv" || op == "rope") return sizeof(AttentionArgs);
  if (op == "argmax") return sizeof(ArgmaxArgs);
  if (op == "top_k") return sizeof(TopKArgs);
  if (op == "read_bandwidth") return sizeof(BandwidthArgs);
  if (op == "embed") return sizeof(EmbedArgs);
  if (op == "rms_norm") return sizeof(NormArgs);
  if (op == "convert") return sizeof(ConvertArgs);
  if (op == "add" || op == "swiglu" || op == "gather") return sizeof(ElementwiseArgs);
  if (op == "weight_range") return sizeof(RangeArgs);
  throw std::runtime_error("the emulator does not know operation " + op);
}

void emulate(const std::string& source, const void* args) {
  const Spec spec = parse(source);
  if (spec.op == "linear") return linear(spec, as<LinearArgs>(args));
  if (spec.op == "attention") return attention(spec, as<AttentionArgs>(args));
  if (spec.op == "argmax") return argmax(spec, as<ArgmaxArgs>(args));
  if (spec.op == "top_k") return top_k(spec, as<TopKArgs>(args));
  if (spec.op == "rope_kv" || spec.op == "rope") {
    const auto& a = as<AttentionArgs>(args);
    for (int r = 0; r < a.state->m; ++r) {
      if (spec.get("kHeads") > 0) rotate_q(spec, a, r);
      if (spec.op == "rope_kv") store_kv(spec, a, r);
    }
    return;
  }
  if (spec.op == "read_bandwidth") return;
  const int k = spec.get("kK");
  if (spec.op == "embed") {
    const auto& a = as<EmbedArgs>(args);
    for (int r = 0; r < *a.m; ++r)
      write_form(kOutputFloat, r, (*spec.segments[0].read)(a.w, static_cast<uint64_t>(a.tokens[r]), k), a.y,
                 {}, {});
  } else if (spec.op == "rms_norm") {
    const auto& a = as<NormArgs>(args);
    const int groups = spec.get("kGroups");
    for (int r = 0; r < *a.m; ++r)
      for (int g = 0; g < groups; ++g) {
        const float* x = a.x + int64_t{r} * a.x_stride + g * k;
        write_form(spec.get("kOutput"), r * groups + g, normed(Row(x, x + k), a.weight, a.eps), a.y, a.yq,
                   a.yh);
      }
  } else if (spec.op == "convert") {
    const auto& a = as<ConvertArgs>(args);
    for (int r = 0; r < *a.m; ++r) {
      Row x(a.x + int64_t{r} * k, a.x + int64_t{r} * k + k);
      for (int i = 0; spec.get("kSwiglu") != 0 && i < k; ++i)
        x[static_cast<size_t>(i)] = silu(x[static_cast<size_t>(i)]) * a.up[int64_t{r} * k + i];
      write_form(spec.get("kOutput"), r, x, nullptr, a.yq, a.yh);
    }
  } else if (spec.op == "add" || spec.op == "swiglu" || spec.op == "gather") {
    const auto& a = as<ElementwiseArgs>(args);
    for (int r = 0; r < *a.m; ++r)
      for (int i = 0; i < k; ++i) {
        const int64_t at = int64_t{r} * k + i;
        a.y[at] = spec.op == "add"      ? a.a[at] + a.b[at]
                  : spec.op == "swiglu" ? static_cast<float>(silu(a.a[at]) * a.b[at])
                                        : a.a[int64_t{a.rows[r]} * k + i];
      }
  } else if (spec.op == "weight_range") {
    const auto& a = as<RangeArgs>(args);
    float largest = 0;
    for (int n = 0; n < spec.segments[0].n; ++n)
      for (const double v : (*spec.segments[0].read)(a.w, static_cast<uint64_t>(n), k))
        largest = std::max(largest, static_cast<float>(std::fabs(v)));
    *a.bits = float_to_bits(largest);
  } else {
    throw std::runtime_error("the emulator does not know operation " + spec.op);
  }
}

}  // namespace apr::fake
