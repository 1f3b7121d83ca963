#include "aprctl/command_line.h"

#include <iostream>
#include <sstream>
#include <typeinfo>

#include "core/base/error.h"
#include "core/base/wrap.h"

namespace apr::ctl {

namespace po = boost::program_options;

namespace {

// Boost reads -1 as the largest number of an unsigned type.
void refuse_negative_counts(const po::parsed_options& given, const po::options_description& known) {
  for (const po::option& option : given.options) {
    const po::option_description* described = known.find_nothrow(option.string_key, false);
    if (described == nullptr) continue;
    const auto* typed = dynamic_cast<const po::typed_value_base*>(described->semantic().get());
    if (typed == nullptr ||
        (typed->value_type() != typeid(uint32_t) && typed->value_type() != typeid(uint64_t)))
      continue;
    for (const std::string& value : option.value)
      if (value.starts_with('-'))
        throw po::error("option '--" + option.string_key + "' is " + value + ", and must not be negative");
  }
}

// Boost leaves the space where it breaks a line.
std::string without_trailing_spaces(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '\n') out.resize(out.find_last_not_of(' ') + 1);
    out += c;
  }
  return out;
}

}  // namespace

CommandLine::CommandLine(std::string name, std::string summary, std::string example)
    : name_(std::move(name)),
      summary_(std::move(summary)),
      example_(std::move(example)),
      options_("options", kTextWidth, 46) {
  options_.add_options()("help,h", po::bool_switch(), "show this help");
}

bool CommandLine::parse(const std::vector<std::string>& args) {
  try {
    using Style = po::command_line_style::style_t;
    // No abbreviations: a script must not change its meaning when an option is added.
    const int style = Style::unix_style & ~Style::allow_guessing;
    const po::parsed_options given =
        po::command_line_parser(args).options(options_).positional(positional_).style(style).run();
    refuse_negative_counts(given, options_);
    po::store(given, values_);
    if (flag("help")) {
      std::ostringstream text;
      text << "usage: aprctl " << name_ << " [options]";
      std::string last;
      for (unsigned i = 0; i < positional_.max_total_count() && positional_.name_for_position(i) != last;
           ++i) {
        last = positional_.name_for_position(i);
        text << " [" << last << "]";
      }
      text << "\n\n" << reflowed(summary_) << "\nexample:\n" << wrapped(example_, 2) << "\n" << options_;
      std::cout << without_trailing_spaces(text.str());
      return false;
    }
    po::notify(values_);
  } catch (const po::error& error) {
    throw usage_error("aprctl {}: {}; see `aprctl {} --help`", name_, error.what(), name_);
  }
  return true;
}

}  // namespace apr::ctl
