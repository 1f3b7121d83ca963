#include "tools/quantisers/peer.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include "core/base/error.h"

namespace apr::compare {
namespace {

// Its name of the format's decoder: dequantize_row_q4_K.
std::string decoder_of(const apr_quant_format& format) {
  std::string name = format.name;
  if (name.ends_with("_k")) name.back() = 'K';
  return "dequantize_row_" + name;
}

template <typename Function>
Function require(void* library, const std::string& path, const char* name) {
  const auto function = reinterpret_cast<Function>(dlsym(library, name));
  if (!function)
    throw Error("{}: no function {} in it; give llama.cpp's libggml-base.so of its own release", path, name);
  return function;
}

}  // namespace

Peer::Peer(const std::string& path) : library_(dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)), path_(path) {
  if (!library_) throw Error("cannot open the peer's library: {}", dlerror());
  quantize_chunk_ = require<decltype(quantize_chunk_)>(library_, path, "ggml_quantize_chunk");
  version_ = fmt::format("{} (commit {})", require<const char* (*)()>(library_, path, "ggml_version")(),
                         require<const char* (*)()>(library_, path, "ggml_commit")());
}

bool Peer::has(const apr_quant_format& format) const {
  return format.gguf_type >= 0 && format.quantize && dlsym(library_, decoder_of(format).c_str());
}

std::vector<uint8_t> Peer::quantize(const apr_quant_format& format, const float* rows, uint64_t n, uint64_t k,
                                    const float* importance) const {
  std::vector<uint8_t> packed(n * (k / format.block_elements) * format.block_bytes);
  const size_t bytes = quantize_chunk_(format.gguf_type, rows, packed.data(), 0, static_cast<int64_t>(n),
                                       static_cast<int64_t>(k), importance);
  if (bytes != packed.size())
    throw Error("{}: {} bytes of {} where {} were expected: it knows another form of this format", path_,
                bytes, format.name, packed.size());
  return packed;
}

std::vector<float> Peer::dequantize(const apr_quant_format& format, const uint8_t* packed,
                                    uint64_t elements) const {
  using Decoder = void (*)(const void* src, float* dst, int64_t n);
  const auto decode = require<Decoder>(library_, path_, decoder_of(format).c_str());
  std::vector<float> w(elements);
  decode(packed, w.data(), static_cast<int64_t>(elements));
  return w;
}

}  // namespace apr::compare
