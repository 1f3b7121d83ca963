#include "core/text/chat.h"

#include <algorithm>
#include <optional>

#include "core/base/error.h"
#include "core/base/format.h"
#include "core/text/chat_styles.h"

namespace apr {

namespace {

// As ChatSign compares sources: ' for ", a line feed for the two characters \n.
std::string normalised(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\\' && i + 1 < source.size() && source[i + 1] == 'n') {
      out += '\n';
      ++i;
    } else {
      out += source[i] == '"' ? '\'' : source[i];
    }
  }
  return out;
}

bool fits(const ChatSign& sign, std::string_view source) {
  for (const std::string_view text : sign.has) {
    if (source.find(text) == std::string_view::npos) return false;
  }
  return sign.lacks.empty() || source.find(sign.lacks) == std::string_view::npos;
}

std::string listed_names() {
  std::string out;
  for (const ChatStyle& style : chat_styles())
    out += fmt::format("{}{}", out.empty() ? "" : ", ", style.name);
  return out;
}

// Qwen's and SmolLM's templates carry a system message for conversations without one, as a literal turn:
//   {{ '<|im_start|>system\nYou are a helpful assistant<|im_end|>\n' }}
std::string literal_system_message(const ChatStyle& style, std::string_view source) {
  if (style.system_in_user || style.system.open.empty() || style.system.close.empty()) return {};
  const std::string open = fmt::format("'{}", style.system.open);
  const size_t begin = source.find(open);
  if (begin == std::string_view::npos) return {};
  const std::string_view rest = source.substr(begin + open.size());
  const std::string_view text = rest.substr(0, std::min(rest.find(style.system.close), rest.size()));
  // A quote ends the literal: what follows is an expression, the conversation's own message.
  return text.size() < rest.size() && text.find('\'') == std::string_view::npos ? std::string(text)
                                                                                : std::string();
}

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kWhiteSpace = " \t\n\v\f\r";
  const size_t begin = text.find_first_not_of(kWhiteSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kWhiteSpace) - begin + 1);
}

void append(std::vector<TextPiece>& pieces, std::string text, bool special) {
  if (text.empty()) return;
  if (!pieces.empty() && pieces.back().special == special) {
    pieces.back().text += text;
  } else {
    pieces.push_back({std::move(text), special});
  }
}

}  // namespace

ChatTemplate::ChatTemplate(const ChatStyle& style, const Vocab& vocab)
    : style_(&style), origin_(vocab.origin) {
  if (vocab.bos) bos_ = vocab.text[static_cast<size_t>(*vocab.bos)];
  if (vocab.eos) eos_ = vocab.text[static_cast<size_t>(*vocab.eos)];
  default_system_ = literal_system_message(style, normalised(vocab.chat_template));
}

ChatTemplate ChatTemplate::of_model(const Vocab& vocab) {
  if (vocab.chat_template.empty()) {
    throw Error(
        "{}: the model has no chat template (tokenizer.chat_template); choose one with --chat-template NAME: "
        "{}",
        vocab.origin, listed_names());
  }
  const std::string source = normalised(vocab.chat_template);
  for (const ChatStyle& style : chat_styles()) {
    const auto& signs = style.signs;
    if (std::any_of(signs.begin(), signs.end(), [&](const ChatSign& sign) { return fits(sign, source); })) {
      return ChatTemplate(style, vocab);
    }
  }
  throw Error(
      "{}: the model's chat template is none of the known ones (it begins '{}'); choose the nearest with "
      "--chat-template NAME: {}",
      vocab.origin, printable(vocab.chat_template, 60), listed_names());
}

ChatTemplate ChatTemplate::by_name(std::string_view name, const Vocab& vocab) {
  for (const ChatStyle& style : chat_styles()) {
    if (style.name == name) return ChatTemplate(style, vocab);
  }
  throw usage_error("there is no chat template '{}'; known are {}", printable(name), listed_names());
}

std::vector<std::string_view> ChatTemplate::names() {
  std::vector<std::string_view> out;
  for (const ChatStyle& style : chat_styles()) out.push_back(style.name);
  return out;
}

std::string_view ChatTemplate::name() const { return style_->name; }

std::string ChatTemplate::filled(std::string_view text) const {
  std::string out(text);
  for (const auto& [mark, token] :
       {std::pair<std::string_view, const std::string&>{"{bos}", bos_}, {"{eos}", eos_}}) {
    const size_t at = out.find(mark);
    if (at == std::string::npos) continue;
    if (token.empty()) {
      throw Error("{}: the chat template {} needs the model's {} token, and the model names none", origin_,
                  style_->name, mark == "{bos}" ? "BOS" : "EOS");
    }
    out.replace(at, mark.size(), token);
  }
  return out;
}

void ChatTemplate::add_turn(const ChatTurn& turn, std::string_view content, const std::string* system,
                            std::vector<TextPiece>& out) const {
  std::string_view open = turn.open;
  // The conversation's first BOS is encode()'s.
  if (out.empty() && open.starts_with("{bos}")) open.remove_prefix(5);
  append(out, filled(open), true);
  if (system) {
    append(out, filled(style_->system.open), true);
    append(out, *system, false);
    append(out, filled(style_->system.close), true);
  }
  append(out, std::string(turn.trim ? trimmed(content) : content), false);
  append(out, filled(turn.close), true);
}

void ChatTemplate::add_messages(std::span<const ChatMessage> messages, bool open_answer,
                                std::vector<TextPiece>& out) const {
  std::optional<std::string> pending;  // system text that waits for a user's turn
  for (const ChatMessage& message : messages) {
    if (message.role == "system") {
      if (!style_->system_in_user) {
        add_turn(style_->system, message.content, nullptr, out);
      } else if (pending) {
        (*pending += "\n\n") += message.content;
      } else {
        pending = std::string(style_->system.trim ? trimmed(message.content) : message.content);
      }
    } else if (message.role == "user") {
      add_turn(style_->user, message.content, pending ? &*pending : nullptr, out);
      pending.reset();
    } else if (message.role == "assistant") {
      add_turn(style_->assistant, message.content, nullptr, out);
    } else {
      throw Error("a message's role is '{}': roles are system, user and assistant", printable(message.role));
    }
  }
  if (pending) {
    throw Error(
        "the chat template {} has no system role: a system message goes into the user message after it, and "
        "there is none",
        style_->name);
  }
  if (open_answer) append(out, filled(style_->answer), true);
}

std::vector<TextPiece> ChatTemplate::render(std::span<const ChatMessage> messages, bool open_answer) const {
  if (messages.empty()) throw Error("a conversation needs at least one message");
  std::vector<TextPiece> out;
  if (!default_system_.empty() && messages.front().role != "system") {
    add_turn(style_->system, default_system_, nullptr, out);
  }
  add_messages(messages, open_answer, out);
  return out;
}

std::vector<TextPiece> ChatTemplate::render_next(std::span<const ChatMessage> messages, bool answer_ended,
                                                 bool open_answer) const {
  if (messages.empty()) throw Error("a conversation goes on with at least one message");
  std::string_view close = style_->assistant.close;
  // Every family's closing text has one token, written <...> or {eos}.
  if (answer_ended) close.remove_prefix(close.find_last_of(">}") + 1);
  // An empty piece tells the first turn that it is not the conversation's first.
  std::vector<TextPiece> out{{filled(close), true}};
  add_messages(messages, open_answer, out);
  if (out.front().text.empty()) out.erase(out.begin());
  return out;
}

}  // namespace apr
