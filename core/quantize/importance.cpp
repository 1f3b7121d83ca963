#include "core/quantize/importance.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>

#include "core/base/error.h"
#include "core/base/format.h"
#include "core/base/mapped_file.h"
#include "core/model/gguf_format.h"

namespace apr {

namespace {

constexpr std::string_view kSums = ".in_sum2";
constexpr std::string_view kCounts = ".counts";
// A column that the text never used still matters a little: with weight 0 any value would do for it.
constexpr double kFloor = 1e-5;  // of the mean over the columns

// Values of the older form, each checked against the end first.
class Cursor {
 public:
  Cursor(std::span<const std::byte> bytes, const std::string& path) : bytes_(bytes), path_(path) {}

  bool at_end() const { return at_ == bytes_.size(); }
  int32_t number(const char* what) {
    int32_t value = 0;
    take(&value, sizeof value, what);
    return value;
  }
  // A count that at least `each` bytes per item must follow.
  size_t count(const char* what, size_t each) {
    const int32_t value = number(what);
    if (value < 0 || static_cast<size_t>(value) > (bytes_.size() - at_) / each)
      throw Error("{}: {} at byte {} is {}, more than the file holds: it is damaged, or no importance matrix",
                  path_, what, at_ - sizeof(int32_t), value);
    return static_cast<size_t>(value);
  }
  void take(void* to, size_t bytes, const char* what) {
    if (bytes > bytes_.size() - at_)
      throw Error("{}: it ends at byte {}, within {}", path_, bytes_.size(), what);
    std::memcpy(to, bytes_.data() + at_, bytes);
    at_ += bytes;
  }

 private:
  std::span<const std::byte> bytes_;
  const std::string& path_;
  size_t at_ = 0;
};

std::vector<float> floats_of(const Tensor& tensor, const std::string& path) {
  if (tensor.qtype != WeightQuantType::F32)
    throw Error("{}: tensor '{}' is {}; an importance matrix has f32", path, printable(tensor.name),
                tensor.format);
  std::vector<float> values(tensor.elements());
  std::memcpy(values.data(), tensor.data, values.size() * sizeof(float));
  return values;
}

}  // namespace

Importance Importance::read(const std::string& path) {
  Importance result;
  result.path_ = path;
  const auto file = MappedFile::open(path);
  if (file->size() >= kGgufMagic.size() &&
      std::memcmp(file->data(), kGgufMagic.data(), kGgufMagic.size()) == 0) {
    result.read_gguf(open_gguf(path));
  } else {
    result.read_legacy(*file);
  }
  if (result.values_.empty()) throw Error("{}: there is no importance in it", path);
  return result;
}

void Importance::add(std::string name, std::vector<float> values) {
  double sum = 0.0;
  for (const float value : values) {
    if (!std::isfinite(value) || value < 0.0f)
      throw Error("{}: the importance of '{}' has {}: it must be finite and not negative", path_,
                  printable(name), value);
    sum += static_cast<double>(value);
  }
  if (values.empty() || sum == 0.0)
    return;  // the text never reached this matrix: every column counts the same
  const auto least = static_cast<float>(kFloor * sum / static_cast<double>(values.size()));
  for (float& value : values) value = std::max(value, std::max(least, std::numeric_limits<float>::min()));
  values_.emplace(std::move(name), std::move(values));
}

void Importance::read_gguf(const Model& file) {
  if (const std::string type = file.meta.get_string_or("general.type", ""); type != "imatrix")
    throw Error("{}: general.type is '{}', not 'imatrix': it holds no importance", path_, printable(type));
  chunks_ = file.meta.get_uint_or("imatrix.chunk_count", UINT64_MAX, 0);
  if (file.meta.has("imatrix.datasets")) dataset_ = joined(file.meta.get_strings("imatrix.datasets"));
  for (const Tensor& tensor : file.tensors) {
    if (tensor.name.size() <= kSums.size() || !std::string_view(tensor.name).ends_with(kSums)) continue;
    const std::string name = tensor.name.substr(0, tensor.name.size() - kSums.size());
    const Tensor& counts = file.require(name + std::string(kCounts));
    if (counts.elements() != tensor.n())
      throw Error("{}: '{}' has sums of {} matrices and counts of {}", path_, printable(name), tensor.n(),
                  counts.elements());
    std::vector<float> values = floats_of(tensor, path_);
    const std::vector<float> calls = floats_of(counts, path_);
    for (uint64_t matrix = 0; matrix < tensor.n(); ++matrix)
      for (uint64_t column = 0; column < tensor.k(); ++column) {
        float& value = values[matrix * tensor.k() + column];
        value = calls[matrix] > 0.0f ? value / calls[matrix] : 1.0f;
      }
    add(name, std::move(values));
  }
}

void Importance::read_legacy(const MappedFile& file) {
  Cursor cursor(file.bytes(), path_);
  const size_t entries = cursor.count("the number of entries", 3 * sizeof(int32_t));
  for (size_t i = 0; i < entries; ++i) {
    std::string name(cursor.count("the length of a name", 1), '\0');
    cursor.take(name.data(), name.size(), "a name");
    const int32_t calls = cursor.number("the number of calls");
    std::vector<float> values(cursor.count("the number of values", sizeof(float)));
    cursor.take(values.data(), values.size() * sizeof(float), "values");
    if (calls > 0)
      for (float& value : values) value /= static_cast<float>(calls);
    add(std::move(name), std::move(values));
  }
  if (cursor.at_end()) return;
  chunks_ = static_cast<uint64_t>(std::max(0, cursor.number("the number of chunks")));
  if (cursor.at_end()) return;
  dataset_.resize(cursor.count("the length of the text's name", 1));
  cursor.take(dataset_.data(), dataset_.size(), "the text's name");
}

const std::vector<float>* Importance::find(const Tensor& tensor) const {
  const auto found = values_.find(tensor.name);
  if (found == values_.end()) return nullptr;
  const uint64_t experts = tensor.dims.size() > 2 ? tensor.n() / tensor.dims[1] : 1;
  const uint64_t columns = found->second.size();
  if (columns != tensor.k() && columns != tensor.k() * experts)
    throw Error("{}: '{}' has {} values, but the tensor has {} columns{}; it belongs to another model", path_,
                printable(tensor.name), columns, tensor.k(),
                experts > 1 ? fmt::format(" in each of {} experts", experts) : "");
  return &found->second;
}

}  // namespace apr
