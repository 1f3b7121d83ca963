#include "core/eval/state.h"

#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "core/base/atomic_file.h"
#include "core/base/sha256.h"

namespace apr {
namespace {

constexpr char kMagic[8] = {'a', 'p', 'r', 'e', 'v', 'a', 'l', '1'};
constexpr size_t kHexDigits = 64;
static_assert(sizeof(TokenScore) == 5 * sizeof(double));  // as it lies in the file, little-endian

struct Head {
  char magic[sizeof kMagic];
  char key[kHexDigits];
  uint64_t windows_done, n_scores;
};

}  // namespace

void write_eval_state(const std::string& path, const std::string& key, const EvalState& state) {
  Head head{};
  std::memcpy(head.magic, kMagic, sizeof kMagic);
  std::memcpy(head.key, key.data(), std::min(key.size(), sizeof head.key));
  head.windows_done = state.windows_done;
  head.n_scores = state.scores.size();
  const auto head_bytes = std::as_bytes(std::span(&head, 1)), scores = std::as_bytes(std::span(state.scores));
  Sha256 hash;
  hash.update(head_bytes);
  hash.update(scores);
  AtomicFile file(path);
  file.write(head_bytes);
  file.write(scores);
  file.write(hash.finish_hex());
  file.commit();
}

EvalState read_eval_state(const std::string& path, const std::string& key, uint32_t scored_per_window,
                          std::string& why) {
  why.clear();
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return {};
  std::ifstream in(path, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  Head head{};
  if (bytes.size() < sizeof head + kHexDigits || std::memcmp(bytes.data(), kMagic, sizeof kMagic) != 0) {
    why = "it is no state of an evaluation, or is cut off";
    return {};
  }
  std::memcpy(&head, bytes.data(), sizeof head);
  const size_t body = bytes.size() - sizeof head - kHexDigits;
  if (body % sizeof(TokenScore) != 0 || body / sizeof(TokenScore) != head.n_scores ||
      sha256_hex(std::string_view(bytes).substr(0, sizeof head + body)) != bytes.substr(sizeof head + body)) {
    why = "its checksum does not agree: it is damaged";
    return {};
  }
  if (std::string_view(head.key, kHexDigits) != key) {
    why = "it belongs to another evaluation (another model, text, reference or option)";
    return {};
  }
  if (head.windows_done > head.n_scores || head.windows_done * scored_per_window != head.n_scores) {
    why = "its counts do not agree";
    return {};
  }
  EvalState state;
  state.windows_done = head.windows_done;
  state.scores.resize(static_cast<size_t>(head.n_scores));
  std::memcpy(state.scores.data(), bytes.data() + sizeof head, body);
  return state;
}

}  // namespace apr
