// BPE over characters, as Hugging Face's tokenizers write SentencePiece models: characters that are tokens, or else the
// tokens of their bytes, merge by rank.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/text/merges.h"
#include "core/text/token_index.h"
#include "core/text/vocab.h"

namespace apr {

class CharBpeEncoder {
 public:
  // vocab must outlive the encoder. merges: "left right", best first (kSpmMergesKey). Throws apr::Error for a merge that
  // is not two tokens which make a third.
  CharBpeEncoder(const Vocab& vocab, const std::vector<std::string>& merges);
  CharBpeEncoder(const CharBpeEncoder&) = delete;
  CharBpeEncoder& operator=(const CharBpeEncoder&) = delete;

  // Appends the text's tokens. text: any bytes; a byte that begins no character counts as one. Spaces are ▁ already.
  // Throws apr::Error when neither a token nor byte tokens nor an unknown token cover a character.
  void encode(std::string_view text, MergeScratch& scratch, std::vector<int32_t>& out) const;

 private:
  void encode_word(std::string_view word, MergeScratch& scratch, std::vector<int32_t>& out) const;

  const Vocab* vocab_;
  TokenIndex index_;  // all tokens, by their text
  MergeTable merges_;
  int32_t byte_token_[256];  // -1: the vocabulary has none
  // No merge makes a token with a ▁ after another character, or joins bytes: then none crosses the beginning of a word,
  // and words can be merged one by one with the same result.
  bool words_are_independent_ = true;
};

}  // namespace apr
