#include "bench.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>

#include "core/dispatch/isa.h"
#include "formats_under_test.h"

namespace apr::test {
namespace {

// Processor time of this thread: what others run on the same cores is not counted.
double now() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// The median seconds of several runs of `work`, after one to warm up; about a tenth of a second in all.
template <typename Work>
double median_seconds(Work work) {
  work();
  std::vector<double> seconds;
  double total = 0;
  while (seconds.size() < 5 || (total < 0.1 && seconds.size() < 1000)) {
    const double start = now();
    work();
    seconds.push_back(now() - start);
    total += seconds.back();
  }
  std::nth_element(seconds.begin(), seconds.begin() + static_cast<long>(seconds.size() / 2), seconds.end());
  return seconds[seconds.size() / 2];
}

struct Matrix {
  uint64_t n, k;
  std::vector<uint8_t> rows;
};

Matrix make_matrix(const apr_quant_format& f, uint64_t k, uint64_t bytes) {
  Random random(1);
  const auto tile =
      normal_rows(f, 16, k, random);  // no subnormals: a processor takes hundreds of cycles for one
  Matrix matrix{0, k, {}};
  while (matrix.rows.size() < bytes) {
    matrix.rows.insert(matrix.rows.end(), tile.begin(), tile.end());
    matrix.n += 16;
  }
  return matrix;
}

}  // namespace

int run_benchmarks(const std::vector<std::string>& names) {
  constexpr uint64_t kK = 2048;
  constexpr uint64_t kMaxM = APR_CPU_GEMV_MAX_M;
  auto* x = static_cast<float*>(std::aligned_alloc(64, kMaxM * kK * sizeof(float)));
  auto* q = static_cast<int8_t*>(std::aligned_alloc(64, kMaxM * kK));
  for (uint64_t i = 0; i < kMaxM * kK; ++i) x[i] = 0.5f, q[i] = static_cast<int8_t>(i % 255 - 127);
  const std::vector<float> scale(kMaxM * kK / 32, 0.01f), sum(kMaxM * kK / 16, 0.1f);
  // A dependent addition takes one cycle: what the clock is while others use the machine too.
  const double start = now();
  uint64_t counter = 0;
  for (int i = 0; i < 100'000'000; ++i) asm volatile("" : "+r"(counter) : "r"(++counter));
  std::printf("clock about %.2f GHz of this thread's time\n", 0.1 / (now() - start));
  std::printf(
      "GB/s of packed weights on one core. memory: a matrix of 384 MiB; L2: one of 512 KiB; K = %llu\n",
      static_cast<unsigned long long>(kK));
  std::printf("%-7s %-8s %-28s %9s %8s %8s %8s %8s | %9s %9s\n", "format", "isa", "origin", "gemv", "memory",
              "L2", "L2 m=2", "L2 m=4", "unpack_i", "unpack_f");
  for (const auto* f : formats()) {
    if (!names.empty() && std::find(names.begin(), names.end(), f->name) == names.end()) continue;
    const Matrix big = make_matrix(*f, kK, 384u << 20), small = make_matrix(*f, kK, 512u << 10);
    std::vector<float> y(kMaxM * big.n);
    for (const auto* kernels : runnable(*f)) {
      const auto gemv = [&](const Matrix& matrix, void (*kernel)(const apr_cpu_gemv*), uint32_t m) {
        apr_cpu_gemv a{};
        a.struct_size = sizeof(a);
        a.m = m;
        a.n = matrix.n;
        a.k = kK;
        a.w = matrix.rows.data();
        a.row_bytes = row_bytes(*f, kK);
        a.x = x;
        a.x_stride = kK;
        a.q = q;
        a.scale = scale.data();
        a.sum = sum.data();
        a.y = y.data();
        a.y_stride = big.n;
        return static_cast<double>(matrix.rows.size()) / 1e9 / median_seconds([&] { kernel(&a); });
      };
      std::vector<int8_t> unpacked(kK + 64);
      std::vector<float> unpacked_float(kK + 64), scales(kK / 16 + 16), offsets(kK / 16 + 16);
      const double row_gigabytes = static_cast<double>(small.rows.size()) / 1e9;
      const auto rows_of = [&](auto work) {
        return row_gigabytes / median_seconds([&] {
                 for (uint64_t n = 0; n < small.n; ++n) work(small.rows.data() + n * row_bytes(*f, kK));
               });
      };
      const double unpack_int = kernels->unpack_int ? rows_of([&](const uint8_t* row) {
        kernels->unpack_int(row, 0, kK, unpacked.data(), scales.data(), offsets.data());
      })
                                                    : 0.0;
      const double unpack_float =
          rows_of([&](const uint8_t* row) { kernels->unpack_float(row, 0, kK, unpacked_float.data()); });
      for (const bool integer : {true, false}) {
        const auto kernel = integer ? kernels->gemv_int : kernels->gemv_float;
        if (!kernel) continue;
        std::printf("%-7s %-8s %-28s %9s %8.2f %8.2f %8.2f %8.2f | %9.2f %9.2f\n", f->name,
                    apr::name(kernels->isa).data(), kernels->origin, integer ? "int" : "float",
                    gemv(big, kernel, 1), gemv(small, kernel, 1), gemv(small, kernel, 2),
                    gemv(small, kernel, 4), unpack_int, unpack_float);
        std::fflush(stdout);
      }
    }
  }
  std::free(x);
  std::free(q);
  return 0;
}

}  // namespace apr::test
