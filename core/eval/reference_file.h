// What a reference model said, kept: ln p of the whole vocabulary for every prediction that counts, so that other models are
// compared with it without running it again. float32, 4 bytes * vocabulary * predictions: exact, and large.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "core/base/atomic_file.h"
#include "core/base/mapped_file.h"
#include "core/base/sha256.h"
#include "core/eval/windows.h"

namespace apr {

// What the log-probabilities are of. All but the two names of the model must agree with what they are used for.
struct ReferenceHead {
  std::string model, model_sha256;  // where they came from, for messages
  std::string vocab_sha256;         // of the tokens' texts
  std::string tokens_sha256;        // of the text's token ids and BOS
  uint32_t n_vocab = 0;
  uint32_t ctx = 0, stride = 0, skip = 0;
  uint64_t windows = 0;

  uint64_t rows() const { return windows * (ctx - 1 - skip); }
};

std::string tokens_sha256(const Windows& windows);
ReferenceHead reference_head(const Windows& windows, uint32_t n_vocab);  // without model and vocabulary

class ReferenceWriter {
 public:
  // Room for all rows is reserved at once: a full disk is an error here. Throws apr::Error that names the path.
  ReferenceWriter(const std::string& path, const ReferenceHead& head);
  // Rows in order, side by side.
  void write(std::span<const float> log_p);
  // The file appears under its name. Throws when rows are missing.
  void commit();

 private:
  AtomicFile file_;
  Sha256 hash_;
  uint64_t values_left_;
};

class ReferenceFile {
 public:
  static bool is_one(const std::string& path);  // by its first bytes; false for what cannot be read
  // Reads all of it once for its checksum. Throws apr::Error that names the path.
  explicit ReferenceFile(const std::string& path);

  const ReferenceHead& head() const { return head_; }
  const std::string& sha256() const { return sha256_; }
  // Throws apr::Error that says what differs from `wanted`; fewer windows may be wanted than there are.
  void check(const ReferenceHead& wanted) const;
  // [count][n_vocab], in the mapping.
  std::span<const float> rows(uint64_t first, uint64_t count) const;

 private:
  std::string path_;
  std::shared_ptr<MappedFile> file_;
  ReferenceHead head_;
  std::string sha256_;
  size_t data_ = 0;  // offset of the first row
};

}  // namespace apr
