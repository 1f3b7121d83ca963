// Every CPU kernel that this processor can run, against float64, on the same random and edge-biased rows.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdlib>
#include <memory>

#include "formats_under_test.h"

namespace {

using namespace apr;
using namespace apr::test;

// Activations as a backend prepares them: rows of floats, and the same rows in int8 with their scales and
// sums, aligned to 64.
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

// The exact product and a bound for the rounding of any order of float32 operations: relative to the greatest
// weight of each 16 columns, since a kernel may split a weight into a scaled integer and an offset that
// nearly cancel.
void exact(const std::vector<float>& w, uint64_t k, uint64_t row, const Activations& a, uint64_t m,
           bool integer, double& y, double& size) {
  y = size = 0;
  for (uint64_t j0 = 0; j0 < k; j0 += 16) {
    double greatest = 0, mass = 0;
    for (uint64_t j = j0; j < j0 + 16 && j < k; ++j) {
      const double x = integer ? double{a.scale[(m * a.stride + j) / 32]} * a.q[m * a.stride + j]
                               : double{a.x[m * a.stride + j]};
      const double weight = w[row * k + j];
      y += x * weight;
      greatest = std::fmax(greatest, std::fabs(weight));
      mass += std::fabs(x);
    }
    size += greatest * mass;
  }
}

void check_gemv(const apr_quant_format& f, const apr_cpu_kernels& kernels, bool integer, Shape shape,
                Random& random) {
  const auto rows = finite_rows(f, shape.n, shape.k, random);
  std::vector<float> w(shape.n * shape.k);
  f.dequantize(rows.data(), shape.n, shape.k, w.data());
  // A mapped file promises no alignment, and nothing may be read beyond the last row: it ends where the
  // allocation does.
  const uint64_t shift = 1 + random() % 7;
  std::vector<uint8_t> file(rows.size() + shift);
  std::copy(rows.begin(), rows.end(), file.begin() + static_cast<long>(shift));
  file.shrink_to_fit();
  for (uint64_t m = 1; m <= APR_CPU_GEMV_MAX_M; ++m) {
    const Activations a(m, shape.k, random);
    const uint64_t y_stride = shape.n + 3;
    std::vector<float> y(m * y_stride + 1, NAN);
    apr_cpu_gemv args{};
    args.struct_size = sizeof(args);
    args.m = static_cast<uint32_t>(m);
    args.n = shape.n;
    args.k = shape.k;
    args.w = file.data() + shift;
    args.row_bytes = row_bytes(f, shape.k);
    args.x = a.x.get();
    args.x_stride = a.stride;
    args.q = a.q.get();
    args.scale = a.scale.data();
    args.sum = a.sum.data();
    args.y = y.data();
    args.y_stride = y_stride;
    (integer ? kernels.gemv_int : kernels.gemv_float)(&args);
    for (uint64_t i = 0; i < m; ++i)
      for (uint64_t n = 0; n < shape.n; ++n) {
        double wanted, size;
        exact(w, shape.k, n, a, i, integer, wanted, size);
        const double got = double{y[i * y_stride + n]};
        if (!(std::fabs(got - wanted) <= 4e-6 * size + 1e-30)) {
          FAIL_CHECK("m " << m << " n " << shape.n << " k " << shape.k << ": y[" << i << "][" << n << "] is "
                          << got << ", exact " << wanted << ", off by " << (got - wanted) / size
                          << " of the terms' size");
          return;
        }
      }
    for (uint64_t i = 0; i < m; ++i)  // nothing is written beyond the n columns
      for (uint64_t n = shape.n; n < y_stride && i * y_stride + n < y.size(); ++n)
        REQUIRE(std::isnan(y[i * y_stride + n]));
  }
}

std::vector<Shape> shapes(const apr_quant_format& f) {
  const uint64_t b = f.block_elements;
  if (b == 1) return {{1, 1}, {3, 7}, {5, 33}, {4, 64}, {7, 100}, {9, 256}, {2, 1000}, {17, 4101}};
  if (b <= 32)
    return {{1, b}, {3, 2 * b}, {5, 3 * b}, {6, 7 * b}, {4, 8 * b}, {7, 9 * b}, {2, 28 * b}, {17, 65 * b}};
  return {{1, b}, {3, 2 * b}, {5, 3 * b}, {4, 4 * b}, {7, 5 * b}, {9, 9 * b}, {2, 16 * b}};
}

}  // namespace

TEST_CASE("gemv_int and gemv_float of every instruction set") {
  for (const auto* f : formats())
    for (const auto* kernels : runnable(*f)) {
      CAPTURE(std::string(f->name));
      const std::string isa = isa_name(kernels->isa);
      CAPTURE(isa);
      Random random(19);
      for (int round = 0; round < 3; ++round)
        for (const Shape& shape : shapes(*f)) {
          if (kernels->gemv_int) check_gemv(*f, *kernels, true, shape, random);
          if (kernels->gemv_float) check_gemv(*f, *kernels, false, shape, random);
        }
    }
}

TEST_CASE("unpack_float has the bits of dequantize") {
  for (const auto* f : formats())
    for (const auto* kernels : runnable(*f)) {
      CAPTURE(std::string(f->name));
      const std::string isa = isa_name(kernels->isa);
      CAPTURE(isa);
      Random random(23);
      const uint64_t blocks = f->block_elements == 1 ? 300 : 19;
      const uint64_t k = blocks * f->block_elements;
      const auto row = edge_blocks(*f, blocks, random);
      std::vector<uint8_t> shifted(row.size() + 3);
      std::copy(row.begin(), row.end(), shifted.begin() + 3);
      std::vector<float> wanted(k);
      f->dequantize(row.data(), 1, k, wanted.data());
      for (int i = 0; i < 40; ++i) {
        const uint64_t first = random() % blocks,
                       count = i == 0 ? blocks - first : 1 + random() % (blocks - first);
        const uint64_t k0 = first * f->block_elements, cols = count * f->block_elements;
        std::vector<float> got(cols + 1, 77.0f);
        kernels->unpack_float(shifted.data() + 3, k0, cols, got.data());
        uint64_t wrong = 0;
        for (uint64_t j = 0; j < cols; ++j) wrong += !same(got[j], wanted[k0 + j]);
        CHECK(wrong == 0);
        CHECK(got[cols] == 77.0f);
      }
    }
}

TEST_CASE("unpack_int gives the weights' integers, scales and offsets") {
  for (const auto* f : formats())
    for (const auto* kernels : runnable(*f)) {
      if (!kernels->unpack_int) continue;
      CAPTURE(std::string(f->name));
      const std::string isa = isa_name(kernels->isa);
      CAPTURE(isa);
      Random random(29);
      const uint64_t blocks = 19, b = f->block_elements, k = blocks * b;
      const auto row = edge_blocks(*f, blocks, random);
      std::vector<uint8_t> shifted(row.size() + 3);
      std::copy(row.begin(), row.end(), shifted.begin() + 3);
      std::vector<float> wanted(k);
      f->dequantize(row.data(), 1, k, wanted.data());
      for (int i = 0; i < 40; ++i) {
        const uint64_t first = random() % blocks,
                       count = i == 0 ? blocks - first : 1 + random() % (blocks - first);
        const uint64_t k0 = first * b, cols = count * b, groups = cols / f->int_group;
        std::vector<int8_t> q(cols + 64, 99);
        std::vector<float> scale(groups + 16, 77.0f), offset(groups + 16, 77.0f);
        kernels->unpack_int(shifted.data() + 3, k0, cols, q.data(), scale.data(), offset.data());
        uint64_t wrong = 0;
        for (uint64_t j = 0; j < cols; ++j) {
          const uint64_t g = j / f->int_group;
          const float product = scale[g] * static_cast<float>(q[j]);
          const float value = product + offset[g];
          // Adding a zero offset may turn -0 into 0: that is the same number.
          wrong += !(same(value, wanted[k0 + j]) || value == wanted[k0 + j]);
        }
        CHECK(wrong == 0);
        CHECK(q[cols] == 99);
        CHECK(scale[groups] == 77.0f);
        CHECK(offset[groups] == 77.0f);
      }
    }
}
