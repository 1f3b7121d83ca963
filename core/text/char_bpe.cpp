#include "core/text/char_bpe.h"

#include <algorithm>

#include "core/base/error.h"
#include "core/base/format.h"
#include "core/text/space_mark.h"

namespace apr {

CharBpeEncoder::CharBpeEncoder(const Vocab& vocab, const std::vector<std::string>& merges)
    : vocab_(&vocab), index_(vocab.text, vocab.text.size()), merges_(merges.size()) {
  std::fill(std::begin(byte_token_), std::end(byte_token_), -1);
  for (int32_t id = 0; id < vocab.size(); ++id) {
    if (vocab.type[static_cast<size_t>(id)] == TokenType::Byte) byte_token_[vocab.byte_value(id)] = id;
    if (!vocab.text[static_cast<size_t>(id)].empty()) index_.add(id);
  }
  std::string text;
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const std::string_view line = merges[rank];
    const size_t space = line.find(' ');
    if (space != std::string_view::npos) {
      const std::string_view left = line.substr(0, space), right = line.substr(space + 1);
      (text = left) += right;
      const int32_t l = index_.find(left), r = index_.find(right), merged = index_.find(text);
      if (l >= 0 && r >= 0 && merged >= 0) {
        merges_.add(l, r, {static_cast<uint32_t>(rank), merged});
        const auto is_byte = [&](int32_t id) {
          return vocab.type[static_cast<size_t>(id)] == TokenType::Byte;
        };
        if (space_after_another_character(text) || is_byte(l) || is_byte(r)) words_are_independent_ = false;
        continue;
      }
    }
    throw Error("{}: {}[{}] is '{}': two tokens with a space between them are needed, which make a token",
                vocab.origin, kSpmMergesKey, rank, printable(line));
  }
}

void CharBpeEncoder::encode(std::string_view text, MergeScratch& scratch, std::vector<int32_t>& out) const {
  for (size_t begin = 0; begin < text.size();) {
    size_t end = text.size();
    if (vocab_->space_splits) {
      end = std::min(end, text.find(kSpaceMark, begin + 1));
    } else if (words_are_independent_) {
      size_t in_word = begin;
      while (text.substr(in_word).starts_with(kSpaceMark)) in_word += kSpaceMark.size();
      end = std::min(end, text.find(kSpaceMark, in_word));
    }
    encode_word(text.substr(begin, end - begin), scratch, out);
    begin = end;
  }
}

void CharBpeEncoder::encode_word(std::string_view word, MergeScratch& scratch,
                                 std::vector<int32_t>& out) const {
  if (vocab_->ignore_merges) {
    const int32_t whole = index_.find(word);
    if (whole >= 0) {
      out.push_back(whole);
      return;
    }
  }
  scratch.symbols.clear();
  bool after_unknown = false;
  for (size_t at = 0; at < word.size();) {
    const std::string_view character = word.substr(at, std::max<size_t>(utf8_length(word.substr(at)), 1));
    at += character.size();
    const int32_t id = index_.find(character);
    if (id >= 0) {
      scratch.add(id);
      after_unknown = false;
      continue;
    }
    const bool bytes = std::all_of(character.begin(), character.end(),
                                   [&](char c) { return byte_token_[static_cast<uint8_t>(c)] >= 0; });
    if (bytes) {
      for (const char c : character) scratch.add(byte_token_[static_cast<uint8_t>(c)]);
      after_unknown = false;
    } else if (vocab_->unk) {
      if (!after_unknown || !vocab_->fuse_unknown) scratch.add(*vocab_->unk);
      after_unknown = true;
    } else {
      throw Error("{}: the vocabulary has no token for '{}' of the text, no byte tokens and no unknown token",
                  vocab_->origin, printable(character));
    }
  }
  merge_symbols(merges_, scratch);
  const auto& symbols = scratch.symbols;
  for (uint32_t i = 0; i != MergeScratch::kNone; i = symbols[i].next) out.push_back(symbols[i].id);
}

}  // namespace apr
