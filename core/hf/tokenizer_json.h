// From a tokenizer.json (https://github.com/huggingface/tokenizers) to the tokenizer.* keys that GGUF has for the same,
// and apr.tokenizer.* keys for what GGUF cannot say. Private to core/hf.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "core/model/metadata.h"

namespace apr {

// Byte-level BPE, and BPE over characters with ▁ for spaces (SentencePiece's models as they are written there).
// n_vocab: rows of the embedding; ids up to it that the file does not have become unused tokens. Throws apr::Error that
// names origin and the part of the file for everything that is not understood; then nothing was added to meta.
void read_tokenizer_json(const nlohmann::json& file, const std::string& origin, uint64_t n_vocab,
                         Metadata& meta);

}  // namespace apr
