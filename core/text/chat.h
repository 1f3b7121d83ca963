// A conversation as the prompt that the model was trained on. Chat templates are Jinja programs; here the
// usual families are recognised by what their templates say, and written out by tables: nothing from a file
// is executed.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/text/tokenizer.h"

namespace apr {

struct ChatMessage {
  std::string role;  // "system", "user" or "assistant"
  std::string content;
};

struct ChatStyle;  // one family; see chat_styles.h
struct ChatTurn;

class ChatTemplate {
 public:
  // The family that the model's own tokenizer.chat_template belongs to. Throws apr::Error when there is none,
  // or when it is none of the known ones; the message says how to choose one.
  static ChatTemplate of_model(const Vocab& vocab);
  // Throws a usage error that lists the names.
  static ChatTemplate by_name(std::string_view name, const Vocab& vocab);
  // "chatml", "llama3", ...
  static std::vector<std::string_view> names();

  std::string_view name() const;

  // The prompt for encode(std::span<const TextPiece>, ...). The template's text is special, the messages' is
  // not. There is no BOS in front: encode() puts it there where the model wants one. open_answer: end with
  // the beginning of an assistant's turn, for the model to go on. Where a family has no system role, the text
  // goes in front of the next user message, as its templates do it. Throws apr::Error for another role, no
  // messages, or system text that no user message follows there.
  std::vector<TextPiece> render(std::span<const ChatMessage> messages, bool open_answer = true) const;
  // The same for messages that follow an answer which the model has just written, and which is in its
  // context: closes the answer first. Encode it without BOS. answer_ended: the model's own end token is in
  // the context too, so that only what comes after it is missing.
  std::vector<TextPiece> render_next(std::span<const ChatMessage> messages, bool answer_ended,
                                     bool open_answer = true) const;

 private:
  ChatTemplate(const ChatStyle& style, const Vocab& vocab);
  void add_turn(const ChatTurn& turn, std::string_view content, const std::string* system,
                std::vector<TextPiece>& out) const;
  void add_messages(std::span<const ChatMessage> messages, bool open_answer,
                    std::vector<TextPiece>& out) const;
  std::string filled(std::string_view text) const;

  const ChatStyle* style_;
  std::string origin_;
  std::string bos_, eos_;       // texts of the model's tokens, may be empty
  std::string default_system_;  // what the model's template says when the conversation has no system message
};

}  // namespace apr
