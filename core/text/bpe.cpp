#include "core/text/bpe.h"

#include "core/base/error.h"
#include "core/base/format.h"

namespace apr {

BpeEncoder::BpeEncoder(const Vocab& vocab, const std::vector<std::string>& merges,
                       std::vector<std::string>& warnings)
    : vocab_(&vocab), strings_(vocab.bytes), index_(strings_, vocab.bytes.size()), merges_(merges.size()) {
  std::string unlettered;
  for (int32_t id = 0; id < vocab.size(); ++id) {
    // Tokens with characters that are no byte's letter (an added "<｜User｜>") never come out of merging.
    unlettered.clear();
    const auto at = static_cast<size_t>(id);
    if (vocab.mergeable(id) && append_unlettered(vocab.text[at], unlettered) &&
        unlettered == vocab.bytes[at]) {
      index_.add(id);
    }
  }
  const auto symbol_of = [&](std::string_view bytes) {
    const int32_t known = index_.find(bytes);
    if (known >= 0) return known;
    strings_.emplace_back(bytes);
    const auto added = static_cast<int32_t>(strings_.size() - 1);
    index_.add(added);
    return added;
  };
  for (int b = 0; b < 256; ++b) {
    const char byte = static_cast<char>(b);
    single_[b] = symbol_of({&byte, 1});
  }
  size_t ignored = 0;
  std::string left, right;
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const std::string_view line = merges[rank];
    const size_t space = line.find(' ', 1);
    if (space == std::string_view::npos || space + 1 == line.size()) {
      throw Error("{}: tokenizer.ggml.merges[{}] is '{}': two parts with a space between them are needed",
                  vocab.origin, rank, printable(line));
    }
    left.clear();
    right.clear();
    if (!append_unlettered(line.substr(0, space), left) ||
        !append_unlettered(line.substr(space + 1), right)) {
      ++ignored;
      continue;
    }
    const int32_t l = symbol_of(left);
    const int32_t r = symbol_of(right);
    merges_.add(l, r, {static_cast<uint32_t>(rank), symbol_of(left += right)});
  }
  if (ignored) {
    warnings.push_back(
        fmt::format("{}: {} of {} merges hold characters that stand for no byte, and cannot apply",
                    vocab.origin, ignored, merges.size()));
  }
}

void BpeEncoder::encode(std::string_view word, Scratch& scratch, std::vector<int32_t>& out) const {
  if (word.empty()) return;
  if (vocab_->ignore_merges) {
    const int32_t whole = index_.find(word);
    if (whole >= 0 && whole < vocab_->size()) {
      out.push_back(whole);
      return;
    }
  }
  scratch.symbols.clear();
  for (const char byte : word) scratch.add(single_[static_cast<uint8_t>(byte)]);
  merge_symbols(merges_, scratch);
  const auto& symbols = scratch.symbols;
  for (uint32_t i = 0; i != MergeScratch::kNone; i = symbols[i].next) emit(symbols[i].id, out);
}

void BpeEncoder::emit(int32_t symbol, std::vector<int32_t>& out) const {
  if (symbol < vocab_->size()) {
    out.push_back(symbol);
    return;
  }
  // Merged into something that is no token: its bytes are.
  for (const char byte : strings_[static_cast<size_t>(symbol)]) {
    const int32_t single = single_[static_cast<uint8_t>(byte)];
    if (single < vocab_->size()) {
      out.push_back(single);
    } else if (vocab_->unk) {
      out.push_back(*vocab_->unk);
    } else {
      throw Error("{}: the vocabulary has no token for byte 0x{:02X} of the text, and no unknown token",
                  vocab_->origin, static_cast<uint8_t>(byte));
    }
  }
}

}  // namespace apr
