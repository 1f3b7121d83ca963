// Every CPU kernel that this processor can run, against dequantize and float64, on random and edge-biased
// rows.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>

#include "core/conformance/format_checks.h"
#include "core/conformance/samples.h"
#include "core/dispatch/isa.h"

namespace apr::conformance {
namespace {

// Activations as a backend prepares them: rows of floats, and the same rows in int8 with their scales and
// sums.
struct Activations {
  uint64_t m, k, stride;
  std::unique_ptr<float[], decltype(&std::free)> x{nullptr, &std::free};
  std::unique_ptr<int8_t[], decltype(&std::free)> q{nullptr, &std::free};
  std::vector<float> scale, sum;

  Activations(uint64_t m_, uint64_t k_, Random& random) : m(m_), k(k_), stride((k_ + 63) / 64 * 64) {
    x.reset(static_cast<float*>(std::aligned_alloc(64, m * stride * sizeof(float))));
    q.reset(static_cast<int8_t*>(std::aligned_alloc(64, m * stride)));
    scale.resize(m * stride / 32);
    sum.resize(m * stride / 16);
    std::normal_distribution<float> normal(0.3f, 1.0f);  // a mean, so that a forgotten offset shows
    for (uint64_t i = 0; i < m; ++i)
      for (uint64_t b = 0; b < stride / 32; ++b) {
        const uint64_t dice = random() % 10;
        float greatest = 0.0f;
        float* block = x.get() + i * stride + 32 * b;
        for (uint64_t j = 0; j < 32; ++j) {
          block[j] = 32 * b + j < k ? normal(random) : 0.0f;
          if (dice == 0) block[j] = 0.0f;                                    // a block of zeros
          if (dice == 1 && 32 * b + j < k) block[j] = j % 2 ? 3.0f : -3.0f;  // the ends of int8 everywhere
          if (dice == 2 && 32 * b + j < k) block[j] = 3.0f;
          greatest = std::fmax(greatest, std::fabs(block[j]));
        }
        const float d = greatest / 127.0f;
        int total[2] = {};
        for (uint64_t j = 0; j < 32; ++j) {
          const float v = d > 0 ? std::nearbyint(block[j] / d) : 0.0f;
          q[i * stride + 32 * b + j] = static_cast<int8_t>(v);
          total[j / 16] += static_cast<int>(v);
        }
        scale[i * stride / 32 + b] = d;
        sum[i * stride / 16 + 2 * b] = d * static_cast<float>(total[0]);
        sum[i * stride / 16 + 2 * b + 1] = d * static_cast<float>(total[1]);
      }
  }
};

struct Shape {
  uint64_t n, k;
};

// The exact product, and the size of its terms that rounding is measured by: relative to the greatest weight
// of each 16 columns, since a kernel may split a weight into a scaled integer and an offset that nearly
// cancel.
struct Exact {
  double y = 0, size = 0;
};
Exact exact(const std::vector<float>& w, uint64_t k, uint64_t row, const Activations& a, uint64_t m,
            bool integer) {
  Exact e;
  for (uint64_t j0 = 0; j0 < k; j0 += 16) {
    double greatest = 0, mass = 0;
    for (uint64_t j = j0; j < j0 + 16 && j < k; ++j) {
      const double x = integer ? double{a.scale[(m * a.stride + j) / 32]} * a.q[m * a.stride + j]
                               : double{a.x[m * a.stride + j]};
      const double weight = w[row * k + j];
      e.y += x * weight;
      greatest = std::fmax(greatest, std::fabs(weight));
      mass += std::fabs(x);
    }
    e.size += greatest * mass;
  }
  return e;
}

constexpr double kGemvBound = 4e-6;  // float32 sums in any order, of the terms' size

// The worst error over its outputs, relative to the terms' size; `wrong` says the first place beyond the
// bound.
double gemv_error(const apr_quant_format& f, const apr_cpu_kernels& kernels, bool integer, Shape shape,
                  Random& random, std::string& wrong) {
  const auto rows = finite_rows(f, shape.n, shape.k, random);
  const std::vector<float> w = dequantized(f, rows, shape.k);
  // A mapped file promises no alignment, and nothing may be read beyond the last row.
  const uint64_t shift = random() % 8;
  const Guarded file(rows.size() + shift);
  uint8_t* first = file.as();
  std::copy(rows.begin(), rows.end(), first);
  double worst = 0;
  for (uint64_t m = 1; m <= APR_CPU_GEMV_MAX_M; ++m) {
    const Activations a(m, shape.k, random);
    const uint64_t y_stride = shape.n + 3;
    std::vector<float> y(m * y_stride + 1, NAN);
    apr_cpu_gemv args{};
    args.struct_size = sizeof(args);
    args.m = static_cast<uint32_t>(m);
    args.n = shape.n;
    args.k = shape.k;
    args.w = first;
    args.row_bytes = row_bytes(f, shape.k);
    args.x = a.x.get();
    args.x_stride = a.stride;
    args.q = a.q.get();
    args.scale = a.scale.data();
    args.sum = a.sum.data();
    args.y = y.data();
    args.y_stride = y_stride;
    (integer ? kernels.gemv_int : kernels.gemv_float)(&args);
    for (uint64_t i = 0; i < m; ++i) {
      for (uint64_t n = 0; n < shape.n; ++n) {
        const Exact e = exact(w, shape.k, n, a, i, integer);
        const double got = double{y[i * y_stride + n]}, miss = std::fabs(got - e.y);
        const double relative = miss <= 1e-30 ? 0.0 : miss / e.size;
        if (relative > worst) worst = relative;
        if (!(relative <= kGemvBound) && wrong.empty())
          wrong =
              fmt::format("M={} N={} K={}: y[{}][{}] is {}, exact {}", m, shape.n, shape.k, i, n, got, e.y);
      }
      for (uint64_t n = shape.n; n < y_stride && i * y_stride + n < y.size(); ++n)
        if (!std::isnan(y[i * y_stride + n]) && wrong.empty())
          wrong = fmt::format("M={} N={}: writes y[{}][{}]", m, shape.n, i, n);
    }
  }
  return wrong.empty() ? worst : std::max(worst, kGemvBound * 1.01);
}

// N is never K; single blocks, odd numbers of them, and a row long enough for every unrolled loop.
std::vector<Shape> shapes(const apr_quant_format& f) {
  const uint64_t b = f.block_elements;
  if (b == 1) return {{1, 1}, {3, 7}, {5, 33}, {4, 64}, {7, 100}, {9, 256}, {2, 1000}, {17, 4101}};
  if (b <= 32)
    return {{1, b}, {3, 2 * b}, {5, 3 * b}, {6, 7 * b}, {4, 8 * b}, {7, 9 * b}, {2, 28 * b}, {17, 65 * b}};
  return {{1, b}, {3, 2 * b}, {5, 3 * b}, {4, 4 * b}, {7, 5 * b}, {9, 9 * b}, {2, 16 * b}, {37, 2 * b}};
}

Finding gemv(const apr_quant_format& f, const apr_cpu_kernels& kernels, bool integer) {
  Random random(19);
  double worst = 0;
  std::string wrong;
  for (int round = 0; round < 3; ++round)
    for (const Shape& shape : shapes(f))
      worst = std::max(worst, gemv_error(f, kernels, integer, shape, random, wrong));
  const std::string value = fmt::format("{:.1e} of the terms", worst);
  return wrong.empty() ? pass(value) : fail(value, wrong);
}

// Pieces of an edge row: whole, then 40 random ones. visit(k0, cols, what `cols` columns should be) says what
// is wrong.
template <typename Visit>
Finding pieces(const apr_quant_format& f, uint64_t seed, const Visit& visit) {
  Random random(seed);
  const uint64_t blocks = f.block_elements == 1 ? 300 : 19, k = blocks * f.block_elements;
  for (int row = 0; row < 8; ++row) {
    const auto data = edge_blocks(f, blocks, random);
    const std::vector<float> wanted = dequantized(f, data, k);
    const Guarded memory(data.data(), data.size());
    for (int i = 0; i < 40; ++i) {
      const uint64_t first = i == 0 ? 0 : random() % blocks,
                     count = i == 0 ? blocks : 1 + random() % (blocks - first);
      const uint64_t k0 = first * f.block_elements, cols = count * f.block_elements;
      const std::string wrong =
          visit(memory.as(), k0, cols, std::span<const float>(wanted).subspan(k0, cols));
      if (!wrong.empty()) return fail("differs", fmt::format("columns {} to {}: {}", k0, k0 + cols, wrong));
    }
  }
  return pass(fmt::format("{} blocks in pieces", 8 * blocks));
}

Finding unpack_float(const apr_quant_format& f, const apr_cpu_kernels& kernels) {
  return pieces(f, 23, [&](const uint8_t* row, uint64_t k0, uint64_t cols, std::span<const float> wanted) {
    std::vector<float> got(cols + 1, 77.0f);
    kernels.unpack_float(row, k0, cols, got.data());
    if (got[cols] != 77.0f) return std::string("writes beyond the columns asked for");
    const int64_t i = first_difference({got.data(), cols}, wanted);
    return i < 0 ? std::string()
                 : fmt::format("column {} is {} (bits {:08x}), dequantize gives {} ({:08x})",
                               k0 + static_cast<uint64_t>(i), got[static_cast<size_t>(i)],
                               float_to_bits(got[static_cast<size_t>(i)]), wanted[static_cast<size_t>(i)],
                               float_to_bits(wanted[static_cast<size_t>(i)]));
  });
}

Finding unpack_int(const apr_quant_format& f, const apr_cpu_kernels& kernels) {
  return pieces(f, 29, [&](const uint8_t* row, uint64_t k0, uint64_t cols, std::span<const float> wanted) {
    const uint64_t groups = cols / f.int_group;
    std::vector<int8_t> q(cols + 64, 99);
    std::vector<float> scale(groups + 16, 77.0f), offset(groups + 16, 77.0f);
    kernels.unpack_int(row, k0, cols, q.data(), scale.data(), offset.data());
    if (q[cols] != 99 || scale[groups] != 77.0f || offset[groups] != 77.0f)
      return std::string("writes beyond the columns asked for");
    for (uint64_t j = 0; j < cols; ++j) {
      const uint64_t g = j / f.int_group;
      const float product = mul(scale[g], static_cast<float>(q[j])), value = add(product, offset[g]);
      // Adding a zero offset may turn -0 into 0: that is the same number.
      if (same(value, wanted[j]) || value == wanted[j]) continue;
      return fmt::format("column {}: {} * {} + {} is {}, dequantize gives {}", k0 + j, scale[g], q[j],
                         offset[g], value, wanted[j]);
    }
    return std::string();
  });
}

// Several rows at once, of every edge and in pieces, against one after the other.
Finding unpack_rows(const apr_quant_format& f, const apr_cpu_kernels& kernels) {
  Random random(31);
  const uint64_t blocks = 5, k = blocks * f.block_elements, bytes = row_bytes(f, k);
  for (const uint32_t rows : {1u, 2u, 15u, 16u, 17u, 32u, 37u}) {
    const auto data = edge_blocks(f, rows * blocks, random);
    const Guarded file(data.data(), data.size());
    const uint64_t first = random() % blocks, count = 1 + random() % (blocks - first);
    const uint64_t k0 = first * f.block_elements, cols = count * f.block_elements;
    const uint64_t groups = cols / f.int_group, q_stride = cols + 5, scale_stride = groups + 3;
    std::vector<int8_t> q(rows * q_stride, 99), one(cols);
    std::vector<float> scale(rows * scale_stride, 77.0f), offset = scale, one_scale(groups),
                                                          one_offset(groups);
    const apr_cpu_unpack args = {sizeof args, rows,     file.as(),    bytes,         k0,          cols,
                                 q.data(),    q_stride, scale.data(), offset.data(), scale_stride};
    kernels.unpack_rows(&args);
    for (uint32_t r = 0; r < rows; ++r) {
      kernels.unpack_int(file.as() + r * bytes, k0, cols, one.data(), one_scale.data(), one_offset.data());
      const std::string where = fmt::format("{} rows, columns {} to {}: row {} ", rows, k0, k0 + cols, r);
      for (uint64_t j = 0; j < q_stride; ++j)
        if (q[r * q_stride + j] != (j < cols ? one[j] : 99))
          return fail("differs", fmt::format("{}has {} in column {}, alone {}", where, q[r * q_stride + j],
                                             k0 + j, j < cols ? one[j] : 99));
      for (uint64_t g = 0; g < scale_stride; ++g) {
        const uint64_t at = r * scale_stride + g;
        if (g < groups ? same(scale[at], one_scale[g]) && same(offset[at], one_offset[g])
                       : scale[at] == 77.0f && offset[at] == 77.0f)
          continue;
        return fail("differs",
                    fmt::format("{}has scale {} and offset {} in group {}{}", where, scale[at], offset[at], g,
                                g < groups ? fmt::format(", alone {} and {}", one_scale[g], one_offset[g])
                                           : std::string(", beyond the columns asked for")));
      }
    }
  }
  return pass("1 to 37 rows");
}

}  // namespace

void check_kernels(const apr_quant_format& f, Recorder& recorder) {
  const std::vector<const apr_cpu_kernels*> sets = runnable(f);
  for (uint32_t i = 0; i < f.n_cpu; ++i) {
    const apr_cpu_kernels& kernels = *f.cpu[i];
    const std::string isa(apr::name(kernels.isa));
    if (std::find(sets.begin(), sets.end(), &kernels) == sets.end()) {
      recorder.run("kernels " + isa, "", [] { return not_run("this processor lacks the instruction set"); });
      continue;
    }
    if (kernels.unpack_float)
      recorder.run("unpack_float " + isa, "same bits", [&] { return unpack_float(f, kernels); });
    if (kernels.unpack_int)
      recorder.run("unpack_int " + isa, "same numbers", [&] { return unpack_int(f, kernels); });
    if (kernels.unpack_rows)
      recorder.run("unpack_rows " + isa, "as row by row", [&] { return unpack_rows(f, kernels); });
    const std::string bound = fmt::format("{:.0e}", kGemvBound);
    if (kernels.gemv_float) recorder.run("gemv_float " + isa, bound, [&] { return gemv(f, kernels, false); });
    if (kernels.gemv_int) recorder.run("gemv_int " + isa, bound, [&] { return gemv(f, kernels, true); });
  }
}

}  // namespace apr::conformance
