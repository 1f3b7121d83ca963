// Small vocabularies made for tests, and texts to try them with.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "core/model/metadata.h"

namespace apr_test {

// One token of a vocabulary; type as in tokenizer.ggml.token_type (1 normal, 2 unknown, 3 control, 4
// user-defined, 5 unused, 6 byte).
struct Token {
  std::string text;
  int64_t type = 1;
  double score = 0;
};

template <typename T>
apr::MetaValue array_of(std::vector<T> values) {
  return apr::MetaValue(apr::MetaArray(std::move(values)));
}

inline void put_tokens(apr::Metadata& meta, const std::vector<Token>& tokens, bool scores) {
  std::vector<std::string> texts;
  std::vector<int64_t> types;
  std::vector<double> values;
  for (const Token& token : tokens) {
    texts.push_back(token.text);
    types.push_back(token.type);
    values.push_back(token.score);
  }
  meta.set("tokenizer.ggml.tokens", array_of(texts));
  meta.set("tokenizer.ggml.token_type", array_of(types));
  if (scores) meta.set("tokenizer.ggml.scores", array_of(values));
}

// The letter that byte-level BPE writes for a byte, as UTF-8; written out here to check the program's own
// table.
inline std::string letter(unsigned byte) {
  unsigned code = byte;
  if (byte <= 0x20) {
    code = 0x100 + byte;
  } else if (byte >= 0x7F && byte <= 0xA0) {
    code = 0x121 + (byte - 0x7F);
  } else if (byte == 0xAD) {
    code = 0x143;
  }
  if (code < 0x80) return std::string(1, static_cast<char>(code));
  return {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 0x3F))};
}

inline std::string letters(std::string_view bytes) {
  std::string out;
  for (const char c : bytes) out += letter(static_cast<uint8_t>(c));
  return out;
}

// Tokens 0..255: the bytes. Then one for each merge ("left right", plain text), then the extra ones.
inline apr::Metadata bpe_vocab(const std::vector<std::pair<std::string, std::string>>& merges,
                               const std::vector<Token>& extra = {}, const std::string& pre = "gpt-2") {
  apr::Metadata meta("test.gguf");
  std::vector<Token> tokens;
  for (unsigned b = 0; b < 256; ++b) tokens.push_back({letter(b)});
  std::vector<std::string> lines;
  for (const auto& [left, right] : merges) {
    lines.push_back(letters(left) + " " + letters(right));
    const std::string merged = letters(left + right);
    bool known = false;
    for (const Token& token : tokens) known |= token.text == merged;
    if (!known) tokens.push_back({merged});
  }
  tokens.insert(tokens.end(), extra.begin(), extra.end());
  meta.add("tokenizer.ggml.model", std::string("gpt2"));
  meta.add("tokenizer.ggml.pre", pre);
  put_tokens(meta, tokens, false);
  meta.add("tokenizer.ggml.merges", array_of(lines));
  return meta;
}

// <unk> <s> </s>, 256 byte tokens (id = byte + 3), then the given ones.
inline apr::Metadata spm_vocab(const std::vector<Token>& extra) {
  apr::Metadata meta("test.gguf");
  std::vector<Token> tokens{{"<unk>", 2}, {"<s>", 3}, {"</s>", 3}};
  constexpr char kHex[] = "0123456789ABCDEF";
  for (unsigned b = 0; b < 256; ++b) {
    tokens.push_back({std::string("<0x") + kHex[b >> 4] + kHex[b & 15] + ">", 6});
  }
  tokens.insert(tokens.end(), extra.begin(), extra.end());
  meta.add("tokenizer.ggml.model", std::string("llama"));
  put_tokens(meta, tokens, true);
  meta.add("tokenizer.ggml.bos_token_id", uint64_t{1});
  meta.add("tokenizer.ggml.eos_token_id", uint64_t{2});
  meta.add("tokenizer.ggml.unknown_token_id", uint64_t{0});
  return meta;
}

inline std::string random_bytes(std::mt19937_64& random, size_t length) {
  std::string out;
  while (out.size() < length) out += static_cast<char>(random() & 0xFF);
  return out;
}

inline std::string utf8(uint32_t code) {
  std::string out;
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 0x3F))};
  } else if (code < 0x10000) {
    out += {static_cast<char>(0xE0 | code >> 12), static_cast<char>(0x80 | (code >> 6 & 0x3F)),
            static_cast<char>(0x80 | (code & 0x3F))};
  } else {
    out += {static_cast<char>(0xF0 | code >> 18), static_cast<char>(0x80 | (code >> 12 & 0x3F)),
            static_cast<char>(0x80 | (code >> 6 & 0x3F)), static_cast<char>(0x80 | (code & 0x3F))};
  }
  return out;
}

// Words, punctuation and white space of several scripts, and any character at all now and then. No U+2581,
// which SentencePiece vocabularies use for the space.
inline std::string random_text(std::mt19937_64& random, size_t characters) {
  constexpr uint32_t kRanges[][2] = {{'a', 'z'},     {'a', 'f'},       {'A', 'Z'},         {'0', '9'},
                                     {' ', '/'},     {'\t', '\r'},     {0x410, 0x44F},     {0x4E00, 0x4E40},
                                     {0x300, 0x305}, {0x2000, 0x200A}, {0x1F600, 0x1F64F}, {0xE01, 0xE3A}};
  std::string out;
  while (characters > 0) {
    const auto& range = kRanges[random() % (sizeof kRanges / sizeof kRanges[0])];
    size_t run = 1 + random() % 6;
    for (; run > 0 && characters > 0; --run, --characters)
      out += utf8(range[0] + static_cast<uint32_t>(random() % (range[1] - range[0] + 1)));
    if (random() % 2) out += ' ';
    if (random() % 40 == 0) {
      const auto code = static_cast<uint32_t>(random() % 0x110000);
      if ((code < 0xD800 || code > 0xDFFF) && code != 0x2581) out += utf8(code);
    }
  }
  return out;
}

}  // namespace apr_test
