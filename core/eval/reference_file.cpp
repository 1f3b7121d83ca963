#include "core/eval/reference_file.h"

#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/format.h"

// File: magic, uint64 length of the head, the head as JSON padded with blanks to 64 bytes, rows, sha256 of all before it as 64
// hex digits.
namespace apr {
namespace {

constexpr char kMagic[8] = {'a', 'p', 'r', 'l', 'o', 'g', 'p', '1'};
constexpr size_t kPreamble = sizeof kMagic + sizeof(uint64_t), kAlign = 64, kHexDigits = 64;
constexpr uint64_t kLongHead = 1 << 20;

std::string head_bytes(const ReferenceHead& head) {
  const nlohmann::ordered_json json = {{"model", printable(head.model, kLongPath)},
                                       {"model_sha256", head.model_sha256},
                                       {"vocab_sha256", head.vocab_sha256},
                                       {"tokens_sha256", head.tokens_sha256},
                                       {"n_vocab", head.n_vocab},
                                       {"ctx", head.ctx},
                                       {"stride", head.stride},
                                       {"skip", head.skip},
                                       {"windows", head.windows}};
  std::string text = json.dump();
  text.append((kAlign - (kPreamble + text.size()) % kAlign) % kAlign, ' ');
  const uint64_t length = text.size();
  std::string out(kMagic, sizeof kMagic);
  out.append(reinterpret_cast<const char*>(&length), sizeof length);
  return out + text;
}

}  // namespace

std::string tokens_sha256(const Windows& windows) {
  Sha256 hash;
  hash.update(std::as_bytes(std::span(windows.tokens)));
  hash.update(windows.bos ? fmt::format("bos {}", *windows.bos) : std::string("no bos"));
  return hash.finish_hex();
}

ReferenceHead reference_head(const Windows& windows, uint32_t n_vocab) {
  ReferenceHead head;
  head.tokens_sha256 = tokens_sha256(windows);
  head.n_vocab = n_vocab;
  head.ctx = windows.ctx, head.stride = windows.stride, head.skip = windows.skip;
  head.windows = windows.count;
  return head;
}

ReferenceWriter::ReferenceWriter(const std::string& path, const ReferenceHead& head)
    : file_(path), values_left_(head.rows() * head.n_vocab) {
  const std::string bytes = head_bytes(head);
  file_.reserve(bytes.size() + values_left_ * sizeof(float) + kHexDigits);
  file_.write(bytes);
  hash_.update(bytes);
}

void ReferenceWriter::write(std::span<const float> log_p) {
  if (log_p.size() > values_left_) throw Error("{}: more rows than it was made for", file_.path());
  values_left_ -= log_p.size();
  file_.write(std::as_bytes(log_p));
  hash_.update(std::as_bytes(log_p));
}

void ReferenceWriter::commit() {
  if (values_left_ != 0) throw Error("{}: {} values are missing", file_.path(), values_left_);
  file_.write(hash_.finish_hex());
  file_.commit();
}

bool ReferenceFile::is_one(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  char magic[sizeof kMagic] = {};
  return in.read(magic, sizeof magic) && std::memcmp(magic, kMagic, sizeof magic) == 0;
}

ReferenceFile::ReferenceFile(const std::string& path) : path_(path), file_(MappedFile::open(path)) {
  const std::string_view bytes(reinterpret_cast<const char*>(file_->data()), file_->size());
  uint64_t length = 0;
  if (bytes.size() >= kPreamble) std::memcpy(&length, bytes.data() + sizeof kMagic, sizeof length);
  if (bytes.size() < kPreamble || std::memcmp(bytes.data(), kMagic, sizeof kMagic) != 0 || length == 0 ||
      length > kLongHead || length > bytes.size() - kPreamble || (kPreamble + length) % kAlign != 0)
    throw Error("{}: no file of log-probabilities (`aprctl eval --save-reference` makes one)", path);
  try {
    const auto json = nlohmann::json::parse(bytes.substr(kPreamble, static_cast<size_t>(length)));
    json.at("model").get_to(head_.model);
    json.at("model_sha256").get_to(head_.model_sha256);
    json.at("vocab_sha256").get_to(head_.vocab_sha256);
    json.at("tokens_sha256").get_to(head_.tokens_sha256);
    json.at("n_vocab").get_to(head_.n_vocab);
    json.at("ctx").get_to(head_.ctx);
    json.at("stride").get_to(head_.stride);
    json.at("skip").get_to(head_.skip);
    json.at("windows").get_to(head_.windows);
  } catch (const nlohmann::json::exception& error) {
    throw Error("{}: its head is damaged: {}", path, error.what());
  }
  data_ = kPreamble + static_cast<size_t>(length);
  if (head_.ctx < 2 || head_.skip > head_.ctx - 2 || head_.n_vocab == 0)
    throw Error("{}: its head is damaged: a window of {} tokens of which {} do not count", path, head_.ctx,
                head_.skip);
  // In parts, so that no product overflows.
  const uint64_t there = bytes.size() - data_, row = uint64_t{head_.n_vocab} * sizeof(float);
  if (there < kHexDigits || (there - kHexDigits) % row != 0 || (there - kHexDigits) / row != head_.rows() ||
      head_.windows > there)
    throw Error("{}: {} bytes where {} windows of {} predictions over {} tokens are announced; it is cut off",
                path, bytes.size(), head_.windows, head_.ctx - 1 - head_.skip, head_.n_vocab);
  file_->advise(Access::Sequential);
  sha256_ = sha256_hex(bytes.substr(0, bytes.size() - kHexDigits));
  if (sha256_ != bytes.substr(bytes.size() - kHexDigits))
    throw Error("{}: its checksum does not agree: it is damaged; make it anew", path);
}

void ReferenceFile::check(const ReferenceHead& wanted) const {
  if (head_.vocab_sha256 != wanted.vocab_sha256 || head_.n_vocab != wanted.n_vocab)
    throw Error(
        "{} (made with {}, {} tokens) and {} ({} tokens) have different vocabularies: their probabilities "
        "cannot be "
        "compared",
        path_, printable(head_.model), head_.n_vocab, wanted.model, wanted.n_vocab);
  if (head_.ctx != wanted.ctx || head_.stride != wanted.stride || head_.skip != wanted.skip)
    throw usage_error("{} was made with --ctx {} --stride {} --skip {}; this is {}, {}, {}: say the same",
                      path_, head_.ctx, head_.stride, head_.skip, wanted.ctx, wanted.stride, wanted.skip);
  if (head_.tokens_sha256 != wanted.tokens_sha256) throw Error("{} was made from another text", path_);
  if (head_.windows < wanted.windows)
    throw usage_error("{} has {} windows and {} are wanted; make it anew, or say --windows {}", path_,
                      head_.windows, wanted.windows, head_.windows);
}

std::span<const float> ReferenceFile::rows(uint64_t first, uint64_t count) const {
  const auto* data = reinterpret_cast<const float*>(file_->data() + data_);
  return {data + first * head_.n_vocab, static_cast<size_t>(count * head_.n_vocab)};
}

}  // namespace apr
