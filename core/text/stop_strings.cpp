#include "core/text/stop_strings.h"

#include <algorithm>

#include "core/base/error.h"

namespace apr {

namespace {

// How much of stop is matched after one more byte, when matched bytes were before it.
size_t advance(const std::string& stop, const std::vector<size_t>& fallback, size_t matched, char byte) {
  while (matched > 0 && stop[matched] != byte) matched = fallback[matched];
  return stop[matched] == byte ? matched + 1 : 0;
}

}  // namespace

StopStrings::StopStrings(std::vector<std::string> stops) {
  for (std::string& text : stops) {
    if (text.empty()) throw usage_error("a stop string is empty: it would end the text before it begins");
    Stop stop{std::move(text), {}, 0};
    stop.fallback.assign(stop.text.size() + 1, 0);
    for (size_t i = 1; i < stop.text.size(); ++i) {
      stop.fallback[i + 1] = advance(stop.text, stop.fallback, stop.fallback[i], stop.text[i]);
    }
    stops_.push_back(std::move(stop));
  }
}

std::string StopStrings::push(std::string_view text) {
  if (found_ != kNone) return {};
  std::string out = std::move(held_);
  held_.clear();
  for (const char byte : text) {
    out += byte;
    for (size_t i = 0; i < stops_.size(); ++i) {
      Stop& stop = stops_[i];
      stop.matched = advance(stop.text, stop.fallback, stop.matched, byte);
      if (stop.matched < stop.text.size()) continue;
      if (found_ == kNone || stop.text.size() > stops_[found_].text.size()) found_ = i;
    }
    if (found_ != kNone) {
      out.resize(out.size() - stops_[found_].text.size());
      return out;
    }
  }
  size_t held = 0;
  for (const Stop& stop : stops_) held = std::max(held, stop.matched);
  held_ = out.substr(out.size() - held);
  out.resize(out.size() - held);
  return out;
}

std::string StopStrings::flush() {
  std::string out = std::move(held_);
  held_.clear();
  return out;
}

}  // namespace apr
