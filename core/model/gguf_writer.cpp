#include "core/model/gguf_writer.h"

#include <algorithm>
#include <unordered_set>

#include "core/base/error.h"
#include "core/base/format.h"
#include "core/model/gguf_format.h"

namespace apr {

namespace {

class HeaderBuilder {
 public:
  template <typename T>
  void put(T value) {
    static_assert(std::is_arithmetic_v<T>);
    const auto* raw = reinterpret_cast<const std::byte*>(&value);
    bytes_.insert(bytes_.end(), raw, raw + sizeof value);
  }

  void put_string(std::string_view text) {
    put<uint64_t>(text.size());
    const auto* raw = reinterpret_cast<const std::byte*>(text.data());
    bytes_.insert(bytes_.end(), raw, raw + text.size());
  }

  // One number, narrowed to the stored type; Metadata has checked that it fits.
  template <typename T>
  void put_number(T value, MetaType stored) {
    switch (stored) {
      case MetaType::U8:
        return put(static_cast<uint8_t>(value));
      case MetaType::I8:
        return put(static_cast<int8_t>(value));
      case MetaType::U16:
        return put(static_cast<uint16_t>(value));
      case MetaType::I16:
        return put(static_cast<int16_t>(value));
      case MetaType::U32:
        return put(static_cast<uint32_t>(value));
      case MetaType::I32:
        return put(static_cast<int32_t>(value));
      case MetaType::U64:
        return put(static_cast<uint64_t>(value));
      case MetaType::I64:
        return put(static_cast<int64_t>(value));
      case MetaType::F32:
        return put(static_cast<float>(value));
      case MetaType::F64:
        return put(static_cast<double>(value));
      case MetaType::Bool:
        return put(static_cast<uint8_t>(value));
      case MetaType::String:
      case MetaType::Array:
        break;
    }
    throw Error("internal error: a number stored as {}", name(stored));
  }

  void put_item(uint64_t value, MetaType stored) { put_number(value, stored); }
  void put_item(int64_t value, MetaType stored) { put_number(value, stored); }
  void put_item(double value, MetaType stored) { put_number(value, stored); }
  void put_item(bool value, MetaType stored) { put_number(value ? 1U : 0U, stored); }
  void put_item(const std::string& value, MetaType) { put_string(value); }
  void put_item(const MetaArray& array, MetaType stored) {
    std::visit(
        [&](const auto& values) {
          put(static_cast<uint32_t>(stored));
          put<uint64_t>(values.size());
          using Item = typename std::decay_t<decltype(values)>::value_type;
          for (const Item& value : values) put_item(value, stored);
        },
        array);
  }

  void put_entry(std::string_view key, const MetaValue& value, MetaType stored) {
    put_string(key);
    put(static_cast<uint32_t>(std::holds_alternative<MetaArray>(value) ? MetaType::Array : stored));
    std::visit([&](const auto& v) { put_item(v, stored); }, value);
  }

  void pad_to(uint64_t alignment) { bytes_.resize(align_up(bytes_.size(), alignment)); }
  std::vector<std::byte> take() { return std::move(bytes_); }

 private:
  std::vector<std::byte> bytes_;
};

uint64_t alignment_of(const Metadata& meta) {
  const uint64_t alignment = meta.get_uint_or(kGgufAlignmentKey, UINT64_MAX, kGgufDefaultAlignment);
  check_gguf_alignment(meta.origin(), alignment);
  return alignment;
}

uint64_t checked_bytes(const GgufTensor& tensor) {
  const std::string where = fmt::format("tensor '{}' to be written", printable(tensor.name));
  check_gguf_name(where, "tensor name", tensor.name);
  if (const auto known = geometry(tensor.qtype)) {
    if (tensor.format != name(tensor.qtype) || tensor.geometry.block_elements != known->block_elements ||
        tensor.geometry.block_bytes != known->block_bytes) {
      throw Error("{}: format '{}' with blocks of {} elements in {} bytes is not {}, which has {} in {}",
                  where, printable(tensor.format), tensor.geometry.block_elements,
                  tensor.geometry.block_bytes, name(tensor.qtype), known->block_elements, known->block_bytes);
    }
  }
  if (!gguf_type(tensor.qtype)) check_gguf_extension(where, tensor.format, tensor.geometry);
  return gguf_packed_bytes(where, tensor.dims, tensor.format, tensor.geometry);
}

// The formats that GGUF does not number, in order of first use.
struct Extensions {
  std::vector<std::string> formats;
  std::vector<uint64_t> elements;
  std::vector<uint64_t> bytes;

  // The index of the tensor's format, which is added when it is new.
  uint32_t index_of(const GgufTensor& tensor) {
    const auto found = std::find(formats.begin(), formats.end(), tensor.format);
    const auto index = static_cast<size_t>(found - formats.begin());
    if (found == formats.end()) {
      formats.push_back(tensor.format);
      elements.push_back(tensor.geometry.block_elements);
      bytes.push_back(tensor.geometry.block_bytes);
    } else if (elements[index] != tensor.geometry.block_elements ||
               bytes[index] != tensor.geometry.block_bytes) {
      throw Error(
          "tensor '{}' to be written: format '{}' has blocks of {} elements in {} bytes here, and of {} in "
          "{} in an earlier tensor",
          printable(tensor.name), tensor.format, tensor.geometry.block_elements, tensor.geometry.block_bytes,
          elements[index], bytes[index]);
    }
    if (formats.size() > kGgufMaxExtensions)
      throw Error("more than {} extension formats in one file", kGgufMaxExtensions);
    return static_cast<uint32_t>(index);
  }
};

bool lists_extensions(std::string_view key) {
  return key == kGgufExtensionFormats || key == kGgufExtensionElements || key == kGgufExtensionBytes;
}

Metadata of_one_file(Metadata meta) {
  for (const std::string_view key : {kGgufSplitNo, kGgufSplitCount, kGgufSplitTensors}) meta.erase(key);
  return meta;
}

}  // namespace

GgufTensor gguf_tensor(std::string tensor_name, WeightQuantType qtype, std::vector<uint64_t> dims) {
  const auto known = geometry(qtype);
  if (!known)
    throw Error("tensor '{}': an extension format's block size is its plugin's to say",
                printable(tensor_name));
  return {std::move(tensor_name), qtype, std::string(name(qtype)), std::move(dims), *known};
}

std::vector<std::byte> gguf_header(const Metadata& meta, const std::vector<GgufTensor>& tensors) {
  const uint64_t alignment = alignment_of(meta);
  Extensions extensions;
  std::vector<uint32_t> types;
  for (const GgufTensor& tensor : tensors) {
    const auto number = gguf_type(tensor.qtype);
    types.push_back(number ? *number : kGgufExtensionType + extensions.index_of(tensor));
  }
  Metadata written(meta.origin());
  for (const auto& [key, value] : meta.entries()) {
    check_gguf_name("metadata to be written", "key", key);
    if (!lists_extensions(key)) written.add(key, value, meta.stored_type(key));
  }
  if (!extensions.formats.empty()) {
    written.add(std::string(kGgufExtensionFormats), MetaArray(extensions.formats));
    written.add(std::string(kGgufExtensionElements), MetaArray(extensions.elements));
    written.add(std::string(kGgufExtensionBytes), MetaArray(extensions.bytes));
  }

  HeaderBuilder header;
  for (const char c : kGgufMagic) header.put(c);
  header.put(kGgufVersion);
  header.put<uint64_t>(tensors.size());
  header.put<uint64_t>(written.entries().size());
  for (const auto& [key, value] : written.entries()) header.put_entry(key, value, written.stored_type(key));

  std::unordered_set<std::string_view> names;
  uint64_t offset = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const GgufTensor& tensor = tensors[i];
    if (!names.insert(tensor.name).second)
      throw Error("tensor '{}' to be written: the name appears twice", printable(tensor.name));
    header.put_string(tensor.name);
    header.put(static_cast<uint32_t>(tensor.dims.size()));
    for (const uint64_t size : tensor.dims) header.put(size);
    header.put(types[i]);
    header.put(offset);
    const uint64_t bytes = checked_bytes(tensor);
    if (bytes > (UINT64_MAX >> 1) - offset)
      throw Error("tensor '{}' to be written: the file would be too large", printable(tensor.name));
    offset = align_up(offset + bytes, alignment);
  }
  header.pad_to(alignment);
  return header.take();
}

// The header is made first: what no reader accepts is refused before there is a file.
GgufWriter::GgufWriter(const std::string& path, const Metadata& meta, std::vector<GgufTensor> tensors)
    : GgufWriter(path, gguf_header(of_one_file(meta), tensors), alignment_of(meta), tensors) {}

GgufWriter::GgufWriter(const std::string& path, const std::vector<std::byte>& header, uint64_t alignment,
                       std::vector<GgufTensor> tensors)
    : tensors_(std::move(tensors)), alignment_(alignment), file_bytes_(header.size()), file_(path) {
  for (const GgufTensor& tensor : tensors_) {
    sizes_.push_back(checked_bytes(tensor));
    file_bytes_ += align_up(sizes_.back(), alignment_);
  }
  file_.reserve(file_bytes_);
  write(header);
}

void GgufWriter::write(std::span<const std::byte> bytes) {
  hash_.update(bytes);
  file_.write(bytes);
}

void GgufWriter::append(std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  const std::string path = printable(file_.path(), kLongPath);
  if (!file_.open()) throw Error("{}: the file is finished; nothing can be appended", path);
  if (current_ == tensors_.size())
    throw Error("{}: {} bytes more than all {} tensors have", path, bytes.size(), tensors_.size());
  const uint64_t room = sizes_[current_] - written_;
  if (bytes.size() > room) {
    throw Error("{}: tensor '{}' has {} bytes; {} are written, and {} more do not fit", path,
                printable(tensors_[current_].name), sizes_[current_], written_, bytes.size());
  }
  write(bytes);
  written_ += bytes.size();
  if (written_ == sizes_[current_]) {
    const std::vector<std::byte> padding(align_up(written_, alignment_) - written_);
    write(padding);
    ++current_;
    written_ = 0;
  }
}

std::string GgufWriter::finish() {
  const std::string path = printable(file_.path(), kLongPath);
  if (!file_.open()) throw Error("{}: the file is finished already", path);
  if (current_ != tensors_.size()) {
    throw Error("{}: tensor '{}' has {} of its {} bytes; the file is not complete", path,
                printable(tensors_[current_].name), written_, sizes_[current_]);
  }
  file_.commit();
  return hash_.finish_hex();
}

}  // namespace apr
