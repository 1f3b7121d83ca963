// Byte-level BPE cuts text into words before merging: no token crosses a word. Each model family has its own
// regular expressions, named by tokenizer.ggml.pre; applied one after the other, each cuts every piece that
// the previous left into its matches and the gaps between them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace apr {

struct PreTokenizerSpec {
  std::span<const char* const> names;        // values of tokenizer.ggml.pre
  std::span<const char* const> expressions;  // in order; \s and \S mean Unicode's White_Space
  bool ignore_merges;                        // a word that is in the vocabulary is taken as it is
  bool add_bos;  // what tokenizer.ggml.add_bos_token is taken for when it is missing
};

// Every family that is known, for listings and tests.
std::span<const PreTokenizerSpec> pre_tokenizer_specs();
// Null for an unknown name.
const PreTokenizerSpec* find_pre_tokenizer(std::string_view name);

class PreTokenizer {
 public:
  explicit PreTokenizer(const PreTokenizerSpec& spec);
  // Throws apr::Error that shows the expression and the place where it is wrong.
  explicit PreTokenizer(std::span<const std::string> expressions);
  ~PreTokenizer();
  PreTokenizer(const PreTokenizer&) = delete;
  PreTokenizer& operator=(const PreTokenizer&) = delete;

  // text must be valid UTF-8. Replaces words with the words' ends, as byte offsets into text: ascending, the
  // last one is text.size(); none for an empty text. Any number of threads.
  void split(std::string_view text, std::vector<size_t>& ends) const;

 private:
  struct Expression;
  std::vector<std::unique_ptr<Expression>> expressions_;
};

}  // namespace apr
