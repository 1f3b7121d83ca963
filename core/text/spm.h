// SentencePiece BPE: neighbouring symbols merge while their text is a token, the highest score first, the
// leftmost among equals. What is left over becomes byte tokens. Order and ties are those of llama.cpp
// (src/llama-vocab.cpp), which are SentencePiece's (https://github.com/google/sentencepiece,
// src/bpe_model.cc).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/text/token_index.h"
#include "core/text/vocab.h"

namespace apr {

class SpmEncoder {
 public:
  // vocab must outlive the encoder.
  explicit SpmEncoder(const Vocab& vocab);
  SpmEncoder(const SpmEncoder&) = delete;
  SpmEncoder& operator=(const SpmEncoder&) = delete;

  // Working memory of encode(), one per thread.
  struct Scratch {
    struct Symbol {
      uint32_t begin, end;  // bytes of the text; begin == end: merged into its left neighbour
      uint32_t prev, next;  // index; kNone at the ends
      int32_t id;           // the token with this text, or -1
    };
    struct Candidate {
      float score;
      uint32_t left;        // index of the left symbol
      uint32_t begin, end;  // of the merged text: stale when the two symbols no longer span it
      int32_t id;
    };
    std::string escaped;
    std::vector<Symbol> symbols;
    std::vector<Candidate> heap;
  };

  // Appends the text's tokens. text: any bytes, shorter than 2^30; spaces are escaped here. O(n log n).
  // Throws apr::Error when neither a token nor byte tokens nor an unknown token cover a character.
  void encode(std::string_view text, Scratch& scratch, std::vector<int32_t>& out) const;

 private:
  static constexpr uint32_t kNone = ~uint32_t{0};
  void encode_segment(std::string_view segment, Scratch& scratch, std::vector<int32_t>& out) const;
  void emit(std::string_view segment, const Scratch::Symbol& symbol, std::vector<int32_t>& out) const;

  const Vocab* vocab_;
  TokenIndex index_;         // mergeable tokens, by their text with ▁
  int32_t byte_token_[256];  // -1: the vocabulary has none
  // No token has a ▁ after another character, so that no merge crosses the beginning of a word, and words can
  // be merged one by one with the same result: 7 times as fast on 4 MB of English as one heap for everything.
  bool words_are_independent_ = true;
};

}  // namespace apr
