// What a tokenizer.json does with text beside merging: normaliser, pre-tokenizer, post-processor and decoder, each
// reduced to the few settings that the tokenizers here have. Private to core/hf.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/hf/json_part.h"

namespace apr {

struct TokenizerSteps {
  std::string normalizer = "none";       // apr.tokenizer.normalizer
  bool byte_level = false;               // bytes as letters; else ▁ for spaces
  std::vector<std::string> expressions;  // byte_level: that cut words, in order
  std::string space_prefix;              // apr.tokenizer.space_prefix; empty: none
  bool space_splits = false;             // no token has a ▁ but at its beginning
  bool strip_first_space = false;        // when tokens become text
  std::optional<std::string> bos, eos;   // tokens that encoding puts around a text
};

// Throws apr::Error that names the part for everything that is not understood.
TokenizerSteps read_tokenizer_steps(const JsonPart& file);

}  // namespace apr
