#include "aprctl/generate.h"

#include <atomic>

#include "aprctl/interrupt.h"
#include "core/base/clock.h"
#include "core/base/error.h"
#include "core/text/stop_strings.h"
#include "core/text/token_stream.h"

namespace apr::ctl {

std::string_view name(Finish finish) {
  switch (finish) {
    case Finish::EndOfText:
      return "end of text";
    case Finish::Stop:
      return "stop string";
    case Finish::Length:
      return "length";
    case Finish::Context:
      return "context full";
    case Finish::Interrupted:
      return "interrupted";
  }
  return "unknown";
}

Conversation::Conversation(Session& session, const Tokenizer& tokenizer, const GenerateOptions& options)
    : session_(session), tokenizer_(tokenizer), options_(options), sampler_(options.sampler) {
  if (static_cast<uint32_t>(tokenizer.vocab_size()) != session.vocab())
    throw Error("{}: the tokenizer has {} tokens but the model computes {} logits", tokenizer.vocab().origin,
                tokenizer.vocab_size(), session.vocab());
}

int32_t Conversation::next(std::span<const int32_t> tokens, bool more) {
  const int32_t first = position_;
  position_ += static_cast<int32_t>(tokens.size());
  if (sampler_.takes_argmax()) return session_.feed_argmax(tokens, first, 0, more ? APR_STEP_GREEDY : 0);
  if (const uint32_t needed = sampler_.candidates_needed(); needed > 0 && needed <= session_.candidates())
    return sampler_.sample(std::span<const apr_candidate>(session_.feed_top(tokens, first)).first(needed));
  return sampler_.sample(session_.feed(tokens, first));
}

Generated Conversation::turn(const std::vector<int32_t>& prompt,
                             const std::function<void(std::string_view)>& show) {
  const auto start = Clock::now();
  std::vector<int32_t> input = unfed_;
  input.insert(input.end(), prompt.begin(), prompt.end());
  unfed_.clear();
  if (input.empty()) throw Error("the prompt is empty: there is nothing to continue");
  const auto context = static_cast<int32_t>(session_.context());
  if (position_ + static_cast<int32_t>(input.size()) > context)
    throw Error("the prompt's {} tokens{} do not fit a context of {}; raise it with --ctx", input.size(),
                position_ == 0 ? "" : fmt::format(", after the {} before them,", position_), context);
  for (const int32_t id : prompt) sampler_.accept(id);

  Generated result{};
  result.prompt_tokens = static_cast<uint32_t>(input.size());
  TokenStream stream(tokenizer_, {options_.show_special, options_.own_text});
  StopStrings stops(options_.stop);
  const auto emit = [&](const std::string& text) {
    if (text.empty()) return;
    result.text += text;
    show(text);
  };

  result.finish = Finish::Length;
  if (options_.max_tokens > 0) {
    int32_t token = next(input, false);
    result.prompt_seconds = result.first_token_seconds = seconds_since(start);
    const auto decode_start = Clock::now();
    while (true) {
      if (tokenizer_.eog(token) && !options_.ignore_eos) {
        result.finish = Finish::EndOfText;
        unfed_ = {token};  // the next turn of a chat continues after it
        break;
      }
      sampler_.accept(token);
      result.ids.push_back(token);
      unfed_ = {token};
      emit(stops.push(stream.push(token)));
      if (stops.found()) {
        result.finish = Finish::Stop;
        break;
      }
      if (result.ids.size() >= options_.max_tokens) break;
      if (position_ >= context) {
        result.finish = Finish::Context;
        break;
      }
      if (InterruptGuard::raised()) {
        result.finish = Finish::Interrupted;
        break;
      }
      // The token after this one is wanted too, unless an end comes first.
      token = next({&token, 1}, result.ids.size() + 1 < options_.max_tokens && position_ + 1 < context);
      unfed_.clear();
      ++result.decode_steps;
    }
    result.decode_seconds = seconds_since(decode_start);
  } else {
    next(input, false);
    result.prompt_seconds = seconds_since(start);
  }
  emit(stops.push(stream.flush()));
  emit(stops.flush());
  return result;
}

}  // namespace apr::ctl
