// Tokens in, text out: the loop that `aprctl run` stands on.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "core/runtime/session.h"
#include "core/text/sampler.h"
#include "core/text/tokenizer.h"

namespace apr::ctl {

struct GenerateOptions {
  uint32_t max_tokens;            // of the answer
  std::vector<std::string> stop;  // texts that end it, not shown
  SamplerOptions sampler;
  bool show_special = false;
  bool ignore_eos = false;
  bool own_text =
      false;  // the answer is a text of its own, as in a chat: the space that SentencePiece puts first is no part of it
};

enum class Finish { EndOfText, Stop, Length, Context, Interrupted };
std::string_view name(Finish finish);

struct Generated {
  std::vector<int32_t> ids;  // of the answer, without the token that ended it
  std::string text;
  Finish finish;
  uint32_t prompt_tokens;
  double prompt_seconds;       // until the logits after the prompt are known
  double first_token_seconds;  // until the first token is chosen: the time to first token
  double decode_seconds;       // for the tokens after the first
  uint32_t decode_steps;
};

// One sequence of a session, which may go on over several turns.
class Conversation {
 public:
  Conversation(Session& session, const Tokenizer& tokenizer, const GenerateOptions& options);

  // Feeds the prompt after what was fed before and generates. show gets text as it becomes complete. Throws apr::Error
  // when the prompt does not fit the context.
  Generated turn(const std::vector<int32_t>& prompt, const std::function<void(std::string_view)>& show);

 private:
  // more: another step will follow, as far as is known.
  int32_t next(std::span<const int32_t> tokens, bool more);

  Session& session_;
  const Tokenizer& tokenizer_;
  GenerateOptions options_;
  Sampler sampler_;
  int32_t position_ = 0;        // tokens in the cache
  std::vector<int32_t> unfed_;  // of the previous answer, not yet in the cache
};

}  // namespace apr::ctl
