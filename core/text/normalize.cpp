#include "core/text/normalize.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <memory>

#include "core/base/error.h"

namespace apr {

namespace {

utf8proc_option_t options_of(Normalizer how) {
  // Characters that later versions of Unicode may change the meaning of stay as they are.
  constexpr unsigned kAll = UTF8PROC_STABLE;
  switch (how) {
    case Normalizer::None:
      return static_cast<utf8proc_option_t>(0);
    case Normalizer::Nfc:
      return static_cast<utf8proc_option_t>(kAll | UTF8PROC_COMPOSE);
    case Normalizer::Nfd:
      return static_cast<utf8proc_option_t>(kAll | UTF8PROC_DECOMPOSE);
    case Normalizer::Nfkc:
      return static_cast<utf8proc_option_t>(kAll | UTF8PROC_COMPOSE | UTF8PROC_COMPAT);
    case Normalizer::Nfkd:
      return static_cast<utf8proc_option_t>(kAll | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT);
  }
  throw Error("internal error: no such normaliser");
}

}  // namespace

std::string normalize(std::string_view text, Normalizer how) {
  // ASCII is most of most texts, and its own form in all of them.
  if (how == Normalizer::None ||
      std::all_of(text.begin(), text.end(), [](char c) { return static_cast<uint8_t>(c) < 0x80; }))
    return std::string(text);
  utf8proc_uint8_t* made = nullptr;
  const utf8proc_ssize_t length =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                   static_cast<utf8proc_ssize_t>(text.size()), &made, options_of(how));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(made, &std::free);
  if (length < 0)
    throw Error("cannot normalise a text of {} bytes: {}", text.size(), utf8proc_errmsg(length));
  return {reinterpret_cast<const char*>(made), static_cast<size_t>(length)};
}

}  // namespace apr
