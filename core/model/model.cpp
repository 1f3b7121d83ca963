#include "core/model/model.h"

#include <algorithm>

#include "core/base/error.h"
#include "core/base/format.h"
#include "core/base/sha256.h"

namespace apr {

uint64_t Tensor::n() const {
  uint64_t product = 1;
  // No overflow: open_gguf() has checked the product of all dims against the file's size.
  for (size_t i = 1; i < dims.size(); ++i) product *= dims[i];
  return product;
}

const Tensor* Model::find(std::string_view wanted) const {
  for (const Tensor& tensor : tensors) {
    if (tensor.name == wanted) return &tensor;
  }
  return nullptr;
}

const Tensor& Model::require(std::string_view wanted) const {
  if (const Tensor* tensor = find(wanted)) return *tensor;
  throw Error(
      "{}: tensor '{}' is missing among the file's {} tensors; is the file whole, and of the architecture "
      "that it names?",
      meta.origin(), printable(wanted), tensors.size());
}

uint64_t Model::weight_bytes() const {
  uint64_t sum = 0;
  for (const Tensor& tensor : tensors) sum += tensor.bytes;
  return sum;
}

uint64_t Model::parameters() const {
  uint64_t sum = 0;
  for (const Tensor& tensor : tensors) sum += tensor.elements();
  return sum;
}

std::string Model::sha256() const {
  // In pieces that are let go of at once: the process must not grow to the model's size.
  constexpr uint64_t kPiece = 16 << 20;
  Sha256 hash;
  for (const auto& file : files) {
    file->advise(Access::Sequential);
    for (uint64_t at = 0; at < file->size(); at += kPiece) {
      hash.update(file->bytes().subspan(at, std::min(kPiece, file->size() - at)));
      file->advise(Access::DontNeed, at, kPiece);
    }
    file->advise(Access::Normal);
  }
  return hash.finish_hex();
}

}  // namespace apr
