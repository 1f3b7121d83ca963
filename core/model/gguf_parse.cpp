#include "core/model/gguf_parse.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <unordered_set>

#include "core/base/error.h"
#include "core/base/format.h"
#include "core/model/gguf_cursor.h"
#include "core/model/gguf_format.h"

namespace apr {

namespace {

// --- the first bytes ---

// People often have one of these in place of the model, so the error says which.
const char* what_instead(std::string_view head) {
  if (head.starts_with("version https://git-lfs"))
    return "a Git LFS pointer, not the model; fetch it with 'git lfs pull'";
  if (head.starts_with("<")) return "a web page; the download went wrong (a login or a moved address?)";
  if (head.starts_with("PK\x03\x04")) return "a ZIP archive (a PyTorch checkpoint?); convert it to GGUF";
  if (head.starts_with("lmgg") || head.starts_with("fmgg") || head.starts_with("tjgg") ||
      head.starts_with("algg")) {
    return "a GGML file of the time before GGUF; convert the original model again";
  }
  if (head.starts_with("FUGG")) return "a GGUF file with reversed bytes";
  if (head.size() > 8 && head[8] == '{') return "a SafeTensors file; this reader takes GGUF";
  return nullptr;
}

struct Counts {
  uint64_t tensors;
  uint64_t keys;
};

Counts read_preamble(GgufCursor& cursor, std::span<const std::byte> bytes, const std::string& origin) {
  const std::string_view head(reinterpret_cast<const char*>(bytes.data()),
                              std::min<size_t>(bytes.size(), 64));
  if (!head.starts_with(kGgufMagic)) {
    if (const char* instead = what_instead(head)) throw Error("{}: this is {}", origin, instead);
    throw Error("{}: not a GGUF file: it begins with '{}', not '{}'", origin, printable(head.substr(0, 4)),
                kGgufMagic);
  }
  (void)cursor.read<uint32_t>([] { return std::string("the magic"); });
  const auto version = cursor.read<uint32_t>([] { return std::string("the version"); });
  // A big-endian writer's 2 or 3 reads as 0x02000000 or 0x03000000.
  if (version != 0 && (version & 0xFFFFU) == 0) {
    throw Error(
        "{}: this is a big-endian GGUF file (version field {:#010x}); convert it to little-endian with "
        "gguf_convert_endian.py",
        origin, version);
  }
  if (version < kGgufOldestVersion || version > kGgufVersion) {
    throw Error("{}: GGUF version {} is not supported; versions {} and {} are{}", origin, version,
                kGgufOldestVersion, kGgufVersion, version == 1 ? ". Convert the original model again" : "");
  }
  Counts counts{};
  counts.tensors = cursor.read<uint64_t>([] { return std::string("the number of tensors"); });
  counts.keys = cursor.read<uint64_t>([] { return std::string("the number of metadata keys"); });
  // The smallest key: length, one byte, type, one byte of value. The smallest tensor: length, one byte of
  // name, number of dims, one dim, type, offset.
  constexpr uint64_t kSmallestKey = 8 + 1 + 4 + 1;
  constexpr uint64_t kSmallestTensor = 8 + 1 + 4 + 8 + 4 + 8;
  cursor.need_elements(counts.keys, kSmallestKey, [] { return std::string("the metadata"); });
  cursor.need_elements(counts.tensors, kSmallestTensor, [] { return std::string("the list of tensors"); });
  return counts;
}

// --- tensors ---

struct Extension {
  std::string name;
  QuantGeometry geometry;
};

std::vector<Extension> read_extensions(const Metadata& meta) {
  if (!meta.has(kGgufExtensionFormats)) return {};
  const std::vector<std::string>& names = meta.get_strings(kGgufExtensionFormats);
  const std::vector<int64_t> elements = meta.get_ints(kGgufExtensionElements);
  const std::vector<int64_t> bytes = meta.get_ints(kGgufExtensionBytes);
  if (names.size() != elements.size() || names.size() != bytes.size() || names.size() > kGgufMaxExtensions) {
    throw Error(
        "{}: {} has {} names, but there are {} block sizes in elements and {} in bytes (at most {} formats "
        "are possible)",
        meta.origin(), kGgufExtensionFormats, names.size(), elements.size(), bytes.size(),
        kGgufMaxExtensions);
  }
  // Anything out of 32 bits becomes 0, which the check below refuses with the format's name.
  const auto narrow = [](int64_t v) {
    return v < 0 || v > std::numeric_limits<uint32_t>::max() ? 0U : static_cast<uint32_t>(v);
  };
  std::vector<Extension> extensions;
  for (size_t i = 0; i < names.size(); ++i) {
    Extension extension{names[i], {narrow(elements[i]), narrow(bytes[i])}};
    check_gguf_extension(meta.origin(), extension.name, extension.geometry);
    extensions.push_back(std::move(extension));
  }
  return extensions;
}

// ggml's other types, so that the error can say what the file has.
const char* other_ggml_type(uint32_t number) {
  switch (number) {
    case 4:
      return "q4_2, removed from ggml in 2023";
    case 5:
      return "q4_3, removed from ggml in 2023";
    case 9:
      return "q8_1, an activation format";
    case 15:
      return "q8_k, an activation format";
    case 16:
      return "iq2_xxs";
    case 17:
      return "iq2_xs";
    case 18:
      return "iq3_xxs";
    case 19:
      return "iq1_s";
    case 21:
      return "iq3_s";
    case 22:
      return "iq2_s";
    case 24:
      return "i8";
    case 25:
      return "i16";
    case 26:
      return "i32";
    case 27:
      return "i64";
    case 28:
      return "f64";
    case 29:
      return "iq1_m";
    case 31:
      return "q4_0_4_4, removed from ggml: use q4_0";
    case 32:
      return "q4_0_4_8, removed from ggml: use q4_0";
    case 33:
      return "q4_0_8_8, removed from ggml: use q4_0";
    case 34:
      return "tq1_0";
    case 35:
      return "tq2_0";
    case 36:
      return "iq4_nl_4_4, removed from ggml: use iq4_nl";
    case 37:
      return "iq4_nl_4_8, removed from ggml: use iq4_nl";
    case 38:
      return "iq4_nl_8_8, removed from ggml: use iq4_nl";
    default:
      return nullptr;
  }
}

struct DeclaredType {
  WeightQuantType qtype;
  std::string format;
  QuantGeometry geometry;
};

DeclaredType declared_type(uint32_t number, const std::vector<Extension>& extensions,
                           const std::string& where) {
  if (number >= kGgufExtensionType && number - kGgufExtensionType < kGgufMaxExtensions) {
    const uint32_t index = number - kGgufExtensionType;
    if (index >= extensions.size()) {
      throw Error("{}: its type is extension {}, but {} lists {} formats", where, index,
                  kGgufExtensionFormats, extensions.size());
    }
    const Extension& extension = extensions[index];
    // A well-known format that GGUF does not number travels the same way, and keeps its own type.
    return {parse_qtype(extension.name).value_or(WeightQuantType::Extension), extension.name,
            extension.geometry};
  }
  if (const auto qtype = qtype_of_gguf(number)) {
    if (const auto known = geometry(*qtype)) return {*qtype, std::string(name(*qtype)), *known};
  }
  if (const char* other = other_ggml_type(number)) {
    throw Error("{}: its type is {} ({}), which this program does not read", where, number, other);
  }
  throw Error("{}: its type number {} is unknown; the file is damaged, or newer than this program", where,
              number);
}

struct Placed {
  Tensor tensor;
  uint64_t offset;  // bytes from the start of the data section
};

Placed read_tensor(GgufCursor& cursor, uint64_t number, const std::vector<Extension>& extensions,
                   uint64_t alignment, const std::string& origin) {
  const uint64_t at = cursor.at();
  const auto what = [&] { return fmt::format("the description of tensor {}", number); };
  const std::string_view tensor_name = cursor.read_string(what);
  check_gguf_name(fmt::format("{}: tensor {} at byte {}", origin, number, at), "tensor name", tensor_name);
  const std::string where =
      fmt::format("{}: tensor '{}' (described at byte {})", origin, printable(tensor_name), at);

  const auto dim_count = cursor.read<uint32_t>(what);
  if (dim_count == 0 || dim_count > kGgufMaxDims) {
    throw Error("{}: it has {} dimensions; 1 to {} are possible", where, dim_count, kGgufMaxDims);
  }
  std::vector<uint64_t> dims(dim_count);
  for (uint64_t& dim : dims) dim = cursor.read<uint64_t>(what);
  DeclaredType type = declared_type(cursor.read<uint32_t>(what), extensions, where);
  const auto offset = cursor.read<uint64_t>(what);
  if (offset % alignment != 0) {
    throw Error("{}: its data begins at offset {}, which is not a multiple of the alignment {}", where,
                offset, alignment);
  }
  const uint64_t bytes = gguf_packed_bytes(where, dims, type.format, type.geometry);
  return {Tensor{std::string(tensor_name), type.qtype, std::move(type.format), std::move(dims), nullptr,
                 bytes, 0},
          offset};
}

// Sets each tensor's data. The tensors, in the order of their offsets, must fill the data section with
// nothing but alignment between them: a size that disagrees with the declared type and shape then shows at
// once, as an overlap or a hole, where a tolerant reader would decode other bytes than the writer meant.
void place_tensors(std::vector<Placed>& placed, std::span<const std::byte> bytes, uint64_t header_end,
                   uint64_t alignment, const std::string& origin) {
  const uint64_t data_start = align_up(header_end, alignment);
  const uint64_t data_size = bytes.size() > data_start ? bytes.size() - data_start : 0;

  std::vector<Placed*> order;
  order.reserve(placed.size());
  for (Placed& one : placed) order.push_back(&one);
  std::stable_sort(order.begin(), order.end(),
                   [](const Placed* a, const Placed* b) { return a->offset < b->offset; });

  uint64_t expected = 0;  // where the next tensor's data must begin
  const Tensor* before = nullptr;
  for (Placed* one : order) {
    Tensor& tensor = one->tensor;
    const auto describe = [&] {
      return fmt::format("{}: tensor '{}' ({} [{}], {} bytes at offset {})", origin, printable(tensor.name),
                         printable(tensor.format), joined(tensor.dims), tensor.bytes, one->offset);
    };
    if (one->offset > data_size || tensor.bytes > data_size - one->offset) {
      throw Error(
          "{} runs past the end of the file: the data section begins at byte {} and has {} bytes; the file "
          "is cut short or damaged",
          describe(), data_start, data_size);
    }
    if (one->offset != expected) {
      if (before == nullptr)
        throw Error("{}: {} bytes before it belong to no tensor", describe(), one->offset);
      if (one->offset < expected) {
        throw Error(
            "{} overlaps tensor '{}' ({} [{}], {} bytes); the type or shape that the file declares for one "
            "of them is wrong",
            describe(), printable(before->name), printable(before->format), joined(before->dims),
            before->bytes);
      }
      throw Error(
          "{}: the file leaves {} bytes more before it than tensor '{}' ({} [{}], {} bytes) needs; the type "
          "or shape that the file declares for '{}' is wrong",
          describe(), one->offset - expected, printable(before->name), printable(before->format),
          joined(before->dims), before->bytes, printable(before->name));
    }
    tensor.data = bytes.data() + data_start + one->offset;
    before = &tensor;
    expected = align_up(one->offset + tensor.bytes, alignment);
  }
  // Some writers pad the last tensor, some do not.
  if (data_size > expected) {
    const std::string last =
        before == nullptr ? std::string("the header, which lists no tensor")
                          : fmt::format("the last tensor, '{}' ({} [{}], {} bytes)", printable(before->name),
                                        printable(before->format), joined(before->dims), before->bytes);
    throw Error(
        "{}: {} bytes follow {}; either a type or shape that the file declares is wrong, or something was "
        "appended to the file",
        origin, data_size - expected, last);
  }
}

}  // namespace

GgufPart parse_gguf(std::span<const std::byte> bytes, const std::string& origin) {
  const std::string shown = printable(origin, kLongPath);
  GgufCursor cursor(bytes, shown);
  const Counts counts = read_preamble(cursor, bytes, shown);

  GgufPart part{read_gguf_metadata(cursor, counts.keys, shown), {}};

  const uint64_t alignment =
      part.meta.get_uint_or(kGgufAlignmentKey, std::numeric_limits<uint64_t>::max(), kGgufDefaultAlignment);
  check_gguf_alignment(shown, alignment);
  const std::vector<Extension> extensions = read_extensions(part.meta);

  std::vector<Placed> placed;
  std::unordered_set<std::string> names;
  for (uint64_t i = 0; i < counts.tensors; ++i) {
    placed.push_back(read_tensor(cursor, i, extensions, alignment, shown));
    if (!names.insert(placed.back().tensor.name).second) {
      throw Error("{}: tensor '{}' is listed twice", shown, printable(placed.back().tensor.name));
    }
  }
  place_tensors(placed, bytes, cursor.at(), alignment, shown);

  part.tensors.reserve(placed.size());
  for (Placed& one : placed) part.tensors.push_back(std::move(one.tensor));
  return part;
}

}  // namespace apr
