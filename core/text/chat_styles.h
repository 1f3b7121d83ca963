// The families of chat templates as data: a new one is a new row.
#pragma once

#include <span>
#include <string_view>

namespace apr {

// What goes around one role's text. {bos} and {eos} stand for the model's tokens.
struct ChatTurn {
  std::string_view open;
  std::string_view close;
  bool trim;  // white space around the message is dropped
};

// A template belongs to a family when its source has all of these texts, and not the one that it must lack.
// Sources are compared with ' for " and with line feeds for \n, since templates are written both ways.
struct ChatSign {
  std::string_view has[3];  // empty: nothing more is asked
  std::string_view lacks;   // empty: nothing
};

struct ChatStyle {
  std::string_view name;
  std::span<const ChatSign> signs;  // any of them; none: by name only
  bool system_in_user;  // the system's text goes inside the next user turn, in front of the message
  ChatTurn system, user, assistant;
  std::string_view answer;  // what begins the assistant's turn for the model to go on
};

// In the order in which templates are compared: the first that fits is taken.
std::span<const ChatStyle> chat_styles();

}  // namespace apr
