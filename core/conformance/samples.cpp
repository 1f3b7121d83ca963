#include "core/conformance/samples.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <new>

#include "core/base/error.h"

namespace apr::conformance {
namespace {

void put_half(uint8_t* p, uint16_t h) { std::memcpy(p, &h, 2); }

bool moderate(std::span<const float> values) {
  return std::all_of(values.begin(), values.end(), [](float v) { return std::fabs(v) < 100.0f; });
}

// Blocks of noise that decode to moderate numbers; noise alone seldom does where a scale is a wide float.
std::vector<uint8_t> moderate_noise(const apr_quant_format& format, uint64_t n_blocks, Random& random) {
  std::vector<uint8_t> rows;
  std::vector<float> values(format.block_elements);
  for (int tries = 0; rows.size() < n_blocks * format.block_bytes; ++tries) {
    if (tries > 1000000) throw Error("{}: no block of noise decodes to numbers below 100", format.name);
    const std::vector<uint8_t> block = edge_blocks(format, 1, random);
    format.dequantize(block.data(), 1, format.block_elements, values.data());
    if (moderate(values)) rows.insert(rows.end(), block.begin(), block.end());
  }
  return rows;
}

}  // namespace

std::vector<const apr_cpu_kernels*> runnable(const apr_quant_format& format) {
  std::vector<const apr_cpu_kernels*> sets;
  for (uint32_t i = 0; i < format.n_cpu; ++i) {
    bool runs = false;
    switch (format.cpu[i]->isa) {
      case APR_ISA_PORTABLE:
        runs = true;
        break;
#if defined(__x86_64__)
      case APR_ISA_AVX2:
        runs = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
        break;
      case APR_ISA_AVX512:
        runs = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512vnni");
        break;
#else
      case APR_ISA_AVX2:
      case APR_ISA_AVX512:
        break;
#endif
    }
    if (runs) sets.push_back(format.cpu[i]);
  }
  return sets;
}

std::vector<uint8_t> edge_blocks(const apr_quant_format& format, uint64_t n_blocks, Random& random) {
  // The last two are bfloat16's infinities.
  constexpr uint16_t kHalves[] = {0x0000, 0x8000, 0x0001, 0x8001, 0x03ff, 0x0400, 0x3c00, 0xbc00,
                                  0x7bff, 0xfbff, 0x7c00, 0xfc00, 0x7e00, 0xffff, 0x7f80, 0xff80};
  const uint64_t bytes = format.block_bytes;
  std::vector<uint8_t> data(n_blocks * bytes);
  for (auto& byte : data) byte = static_cast<uint8_t>(random());
  for (uint64_t b = 0; b < n_blocks; ++b) {
    uint8_t* block = data.data() + b * bytes;
    const uint64_t dice = random() % 16;
    if (dice == 0) std::memset(block, 0x00, bytes);
    if (dice == 1) std::memset(block, 0xff, bytes);
    if (dice == 2) std::memset(block, 0x80, bytes);
    if (dice <= 10 && bytes >= 2) {
      const uint64_t places[] = {0, std::min<uint64_t>(2, bytes - 2), bytes - 2, random() % (bytes / 2) * 2};
      for (const uint64_t place : places)
        if (random() % 2) put_half(block + place, kHalves[random() % std::size(kHalves)]);
    }
    if (dice == 11) block[random() % bytes] = 0xff;
    if (dice == 12) block[random() % bytes] = 0x00;
  }
  return data;
}

std::vector<uint8_t> normal_rows(const apr_quant_format& format, uint64_t n_rows, uint64_t k,
                                 Random& random) {
  if (!format.quantize) return moderate_noise(format, n_rows * k / format.block_elements, random);
  std::normal_distribution<float> normal(0.0f, 0.5f);
  std::vector<float> source(n_rows * k);
  for (auto& x : source) x = normal(random);
  for (uint64_t i = 0; i < 4; ++i) source[random() % source.size()] = 30.0f;
  std::vector<uint8_t> rows(n_rows * row_bytes(format, k));
  Message message;
  if (format.quantize(source.data(), n_rows, k, nullptr, rows.data(), &message) != APR_OK)
    throw Error("quantize refuses normal weights with outliers of 30: {}", message.text());
  return rows;
}

std::vector<uint8_t> finite_rows(const apr_quant_format& format, uint64_t n_rows, uint64_t k,
                                 Random& random) {
  std::vector<uint8_t> rows = normal_rows(format, n_rows, k, random);
  std::vector<float> values(format.block_elements);
  for (uint64_t b = 0; b < rows.size() / format.block_bytes; ++b) {
    if (random() % 3 != 0) continue;
    const std::vector<uint8_t> noise = edge_blocks(format, 1, random);
    format.dequantize(noise.data(), 1, format.block_elements, values.data());
    if (moderate(values)) std::memcpy(rows.data() + b * format.block_bytes, noise.data(), format.block_bytes);
  }
  return rows;
}

std::vector<float> weights(Weights kind, size_t n, Random& random) {
  std::vector<float> x(n);
  std::normal_distribution<float> normal(0.0f, 0.02f);
  for (float& v : x) {
    v = normal(random);
    switch (kind) {
      case Weights::Normal:
        break;
      case Weights::HeavyTails:
        v *= std::exp(normal(random) * 60.0f);
        break;
      case Weights::Shifted:
        v = v * 0.3f + 0.02f;
        break;
    }
  }
  return x;
}

std::vector<float> dequantized(const apr_quant_format& format, const std::vector<uint8_t>& rows, uint64_t k) {
  const uint64_t n = rows.size() / row_bytes(format, k);
  std::vector<float> w(n * k);
  format.dequantize(rows.data(), n, k, w.data());
  return w;
}

int64_t first_difference(std::span<const float> a, std::span<const float> b) {
  for (size_t i = 0; i < a.size(); ++i)
    if (!same(a[i], b[i])) return static_cast<int64_t>(i);
  return -1;
}

Guarded::Guarded(size_t bytes) : bytes_(bytes) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t usable = (bytes + page - 1) / page * page;
  mapped_ = usable + page;
  void* memory = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  mapping_ = static_cast<uint8_t*>(memory);
  if (mprotect(mapping_ + usable, page, PROT_NONE) != 0) throw std::bad_alloc();
  data_ = mapping_ + usable - bytes;
}

Guarded::~Guarded() { munmap(mapping_, mapped_); }

}  // namespace apr::conformance
