#include "formats_under_test.h"

#include <dlfcn.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <stdexcept>

namespace apr::test {
namespace {

std::vector<const apr_quant_format*> all;

void put_half(uint8_t* p, uint16_t h) { std::memcpy(p, &h, 2); }

}  // namespace

void add_plugin(const std::string& path) {
  void* library = dlopen(std::filesystem::absolute(path).c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) throw std::runtime_error(dlerror());
  const auto* plugin = static_cast<const apr_plugin*>(dlsym(library, APR_PLUGIN_SYMBOL));
  if (!plugin) throw std::runtime_error(path + " exports no " APR_PLUGIN_SYMBOL);
  if (plugin->abi_major != APR_ABI_MAJOR) throw std::runtime_error(path + " has another ABI");
  for (uint32_t i = 0; i < plugin->n_formats; ++i) all.push_back(plugin->formats[i]);
}

const std::vector<const apr_quant_format*>& formats() { return all; }

const apr_quant_format* find_format(const std::string& name) {
  for (const auto* f : all)
    if (name == f->name) return f;
  return nullptr;
}

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

const char* isa_name(apr_isa isa) {
  switch (isa) {
    case APR_ISA_PORTABLE:
      return "portable";
    case APR_ISA_AVX2:
      return "avx2";
    case APR_ISA_AVX512:
      return "avx512";
  }
  return "unknown";
}

std::vector<uint8_t> edge_blocks(const apr_quant_format& format, uint64_t n_blocks, Random& random) {
  const uint16_t halves[] = {
      0x0000, 0x8000, 0x0001, 0x8001, 0x03ff, 0x0400, 0x3c00, 0xbc00,
      0x7bff, 0xfbff, 0x7c00, 0xfc00, 0x7e00, 0xffff, 0x7f80, 0xff80};  // the last two: bf16's infinities
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
        if (random() % 2) put_half(block + place, halves[random() % std::size(halves)]);
    }
    if (dice == 11) block[random() % bytes] = 0xff;
    if (dice == 12) block[random() % bytes] = 0x00;
  }
  return data;
}

std::vector<uint8_t> normal_rows(const apr_quant_format& format, uint64_t n_rows, uint64_t k,
                                 Random& random) {
  std::normal_distribution<float> normal(0.0f, 0.5f);
  std::vector<float> source(n_rows * k);
  for (auto& x : source) x = normal(random);
  for (uint64_t i = 0; i < 4; ++i) source[random() % source.size()] = 30.0f;
  std::vector<uint8_t> rows(n_rows * row_bytes(format, k));
  Message message;
  if (format.quantize(source.data(), n_rows, k, nullptr, rows.data(), &message) != APR_OK)
    throw std::runtime_error(message.text());
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
    bool moderate = true;
    for (const float v : values) moderate &= std::fabs(v) < 100.0f;
    if (moderate) std::memcpy(rows.data() + b * format.block_bytes, noise.data(), format.block_bytes);
  }
  return rows;
}

}  // namespace apr::test
