#include <bit>
#include <cstring>

#include "core/base/error.h"
#include "core/base/format.h"
#include "core/dispatch/weight_quant_type.h"
#include "core/plugin/check.h"
#include "core/plugin/manifest.h"

namespace apr {

namespace {

// Sanity bounds: a block is a handful of cache lines, and products of these never overflow 64 bits.
constexpr uint32_t kMaxBlockElements = 1 << 16;
constexpr uint32_t kMaxBlockBytes = 1 << 20;

// The number in an enum that foreign code filled: to read one that is no enumerator as the enum is undefined.
template <typename E>
uint32_t raw(const E& value) {
  static_assert(sizeof(E) == sizeof(uint32_t));
  uint32_t number;
  std::memcpy(&number, &value, sizeof(number));
  return number;
}

void check_geometry(const apr_quant_format& f, const std::string& where, const std::string& of) {
  if (f.block_elements == 0 || f.block_elements > kMaxBlockElements) {
    throw Error("{}: {}: block_elements is {}; 1 to {} are allowed", where, of, f.block_elements,
                kMaxBlockElements);
  }
  if (f.block_bytes == 0 || f.block_bytes > kMaxBlockBytes) {
    throw Error("{}: {}: block_bytes is {}; 1 to {} are allowed", where, of, f.block_bytes, kMaxBlockBytes);
  }
  if (!std::has_single_bit(f.block_align) || f.block_bytes % f.block_align != 0) {
    throw Error("{}: {}: block_align is {}; it must be a power of two that divides block_bytes ({})", where,
                of, f.block_align, f.block_bytes);
  }
  if (f.int_group != 0 && f.int_group != 16 && f.int_group % 32 != 0) {
    throw Error("{}: {}: int_group is {}; it must be 16 or a multiple of 32, or 0 for a float codec", where,
                of, f.int_group);
  }
}

// Files were written with the core's geometry: a plugin that disagrees would read rubbish.
void check_known_type(const apr_quant_format& f, const std::string& where, const std::string& of,
                      WeightQuantType type) {
  const std::optional<QuantGeometry> known = geometry(type);
  if (known && (known->block_elements != f.block_elements || known->block_bytes != f.block_bytes)) {
    throw Error(
        "{}: {}: a block of {} elements in {} bytes, but this well-known type has {} elements in {} bytes",
        where, of, f.block_elements, f.block_bytes, known->block_elements, known->block_bytes);
  }
  const int64_t number = gguf_type(type) ? static_cast<int64_t>(*gguf_type(type)) : -1;
  if (f.gguf_type != number) {
    throw Error("{}: {}: gguf_type is {}, but this well-known type has {}", where, of, f.gguf_type, number);
  }
}

void check_own_name(const apr_quant_format& f, const std::string& where, const std::string& of) {
  if (!std::strchr(f.name, '.')) {
    throw Error("{}: {}: that is no well-known type; a plugin's own format is named \"vendor.name\"", where,
                of);
  }
  if (f.gguf_type >= 0) {
    throw Error("{}: {}: gguf_type is {}, but GGUF numbers only well-known types; an own format has -1",
                where, of, f.gguf_type);
  }
}

void check_cpu(const apr_quant_format& f, const std::string& where, const std::string& of) {
  constexpr uint32_t kMost = 16;
  if (f.n_cpu == 0 || f.n_cpu > kMost || !f.cpu) {
    throw Error("{}: {}: has {} sets of CPU kernels; a set for APR_ISA_PORTABLE is required", where, of,
                f.cpu ? f.n_cpu : 0);
  }
  const apr_cpu_kernels* portable = nullptr;
  uint32_t seen = 0;
  for (uint32_t i = 0; i < f.n_cpu; ++i) {
    const apr_cpu_kernels* kernels = f.cpu[i];
    if (!kernels) throw Error("{}: {}: CPU kernel set {} of {} is null", where, of, i + 1, f.n_cpu);
    check_struct_size(where, of, "apr_cpu_kernels", kernels->struct_size, sizeof(apr_cpu_kernels));
    const uint32_t isa = raw(kernels->isa);
    if (isa > APR_ISA_AVX512)
      throw Error("{}: {}: CPU kernel set {} has unknown isa {}", where, of, i + 1, isa);
    if (seen & (1u << isa)) throw Error("{}: {}: two CPU kernel sets have isa {}", where, of, isa);
    seen |= 1u << isa;
    check_text(where, of, "cpu[].origin", kernels->origin);
    if (isa == APR_ISA_PORTABLE) portable = kernels;
    if (f.int_group == 0 && (kernels->gemv_int || kernels->unpack_int)) {
      throw Error("{}: {}: int_group is 0 (a float codec), but a CPU kernel set has gemv_int or unpack_int",
                  where, of);
    }
  }
  if (!portable) throw Error("{}: {}: no CPU kernel set for APR_ISA_PORTABLE, which is required", where, of);
  check_present(where, of, "gemv_float of the portable CPU kernels", portable->gemv_float);
  check_present(where, of, "unpack_float of the portable CPU kernels", portable->unpack_float);
  if (f.int_group != 0) {
    check_present(where, of, "gemv_int of the portable CPU kernels", portable->gemv_int);
    check_present(where, of, "unpack_int of the portable CPU kernels", portable->unpack_int);
  }
}

void check_layout(const apr_layout& layout, const apr_codec& codec, bool first, const std::string& where,
                  const std::string& of) {
  check_struct_size(where, of, "apr_layout", layout.struct_size, sizeof(apr_layout));
  check_text(where, of, "layout name", layout.name);
  check_text(where, of, "layout cpp_type", layout.cpp_type);
  if (layout.n_planes == 0 || layout.n_planes > APR_MAX_PLANES || !layout.plane_bytes) {
    throw Error("{}: {}: layout '{}' has {} planes; 1 to {} are allowed", where, of, printable(layout.name),
                layout.plane_bytes ? layout.n_planes : 0, APR_MAX_PLANES);
  }
  for (uint32_t i = 0; i < layout.n_planes; ++i) {
    if (layout.plane_bytes[i] == 0 || layout.plane_bytes[i] > kMaxBlockBytes) {
      throw Error("{}: {}: layout '{}': plane {} has {} bytes a block", where, of, printable(layout.name), i,
                  layout.plane_bytes[i]);
    }
  }
  const bool row_major = std::strcmp(layout.name, "row_major") == 0;
  if (row_major != first) throw Error("{}: {}: layouts[0], and only it, must be row_major", where, of);
  if (row_major && (layout.n_planes != 1 || layout.plane_bytes[0] != codec.block_bytes)) {
    throw Error("{}: {}: layout row_major must be one plane of the codec's {} bytes a block", where, of,
                codec.block_bytes);
  }
  if (!row_major)
    check_present(where, of, fmt::format("split of layout '{}'", layout.name).c_str(), layout.split);
}

void check_codec(const apr_quant_format& f, const std::string& where, const std::string& of) {
  const apr_codec& codec = *f.codec;
  check_struct_size(where, of, "apr_codec", codec.struct_size, sizeof(apr_codec));
  const uint32_t kind = raw(codec.kind);
  if (kind != APR_CODEC_INTEGER && kind != APR_CODEC_FLOAT) {
    throw Error("{}: {}: codec kind {} is unknown", where, of, kind);
  }
  if ((kind == APR_CODEC_INTEGER) != (f.int_group != 0)) {
    throw Error("{}: {}: int_group is {}, but the codec is {}", where, of, f.int_group,
                kind == APR_CODEC_INTEGER ? "an integer codec" : "a float codec");
  }
  check_text(where, of, "codec cpp_type", codec.cpp_type);
  if (!codec.source || !*codec.source) throw Error("{}: {}: the codec's source is empty", where, of);
  if (codec.block == 0 || codec.block > kMaxBlockElements || codec.block % f.block_elements != 0 ||
      uint64_t{codec.block_bytes} != uint64_t{codec.block / f.block_elements} * f.block_bytes) {
    throw Error("{}: {}: the codec's block of {} columns in {} bytes is no multiple of the format's {} in {}",
                where, of, codec.block, codec.block_bytes, f.block_elements, f.block_bytes);
  }
  const uint64_t chunk = uint64_t{codec.runs} * codec.run;
  if (chunk == 0 || codec.run % 4 != 0 || codec.block % chunk != 0) {
    throw Error(
        "{}: {}: a chunk of {} runs of {} columns does not fit blocks of {} (runs are multiples of 4)", where,
        of, codec.runs, codec.run, codec.block);
  }
  constexpr uint32_t kMostLayouts = 8;
  if (codec.n_layouts == 0 || codec.n_layouts > kMostLayouts || !codec.layouts) {
    throw Error("{}: {}: the codec has {} layouts; 1 to {} are allowed", where, of,
                codec.layouts ? codec.n_layouts : 0, kMostLayouts);
  }
  for (uint32_t i = 0; i < codec.n_layouts; ++i) {
    if (!codec.layouts[i]) throw Error("{}: {}: layout {} of {} is null", where, of, i + 1, codec.n_layouts);
    check_layout(*codec.layouts[i], codec, i == 0, where, of);
  }
}

}  // namespace

void check_format(const apr_quant_format& f, const std::string& where) {
  if (f.struct_size < offsetof(apr_quant_format, description)) {
    throw Error("{}: a format has struct_size {}, too small to hold its name", where, f.struct_size);
  }
  check_text(where, "a format", "name", f.name);
  const std::string of = fmt::format("format '{}'", printable(f.name));
  if (!is_plugin_word(f.name)) {
    throw Error("{}: {}: that is no name; use 1 to {} of a-z 0-9 _ - and single dots between them", where, of,
                kMaxName);
  }
  check_struct_size(where, of, "apr_quant_format", f.struct_size, sizeof(apr_quant_format));
  check_text(where, of, "description", f.description);
  check_geometry(f, where, of);
  if (const std::optional<WeightQuantType> type = parse_qtype(f.name)) {
    check_known_type(f, where, of, *type);
  } else {
    check_own_name(f, where, of);
  }
  check_present(where, of, "dequantize", f.dequantize);
  check_present(where, of, "validate", f.validate);
  check_cpu(f, where, of);
  if (f.codec) check_codec(f, where, of);
}

}  // namespace apr
