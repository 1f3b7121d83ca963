#include "aprctl/command_line.h"

#include <iostream>
#include <sstream>

#include "core/base/error.h"

namespace apr::ctl {

namespace po = boost::program_options;

namespace {

constexpr unsigned kHelpColumns = 80;

// Long lines broken at spaces; shorter ones stay as they are.
std::string wrapped(const std::string& text) {
  std::istringstream lines(text);
  std::string out;
  for (std::string line; std::getline(lines, line); out += line + "\n") {
    while (line.size() > kHelpColumns) {
      const size_t space = line.rfind(' ', kHelpColumns);
      if (space == std::string::npos) break;
      out += line.substr(0, space) + "\n";
      line.erase(0, space + 1);
    }
  }
  return out;
}

}  // namespace

CommandLine::CommandLine(std::string name, std::string summary, std::string example)
    : name_(std::move(name)),
      summary_(std::move(summary)),
      example_(std::move(example)),
      options_("options", kHelpColumns, 46) {
  options_.add_options()("help,h", po::bool_switch(), "show this help");
}

bool CommandLine::parse(const std::vector<std::string>& args) {
  try {
    using Style = po::command_line_style::style_t;
    // No abbreviations: a script must not change its meaning when an option is added.
    const int style = Style::unix_style & ~Style::allow_guessing;
    po::store(po::command_line_parser(args).options(options_).positional(positional_).style(style).run(),
              values_);
    if (flag("help")) {
      std::ostringstream text;
      text << "usage: aprctl " << name_ << " [options]";
      std::string last;
      for (unsigned i = 0; i < positional_.max_total_count() && positional_.name_for_position(i) != last;
           ++i) {
        last = positional_.name_for_position(i);
        text << " [" << last << "]";
      }
      text << "\n\n" << wrapped(summary_) << "\nexample:\n  " << example_ << "\n\n" << options_;
      std::cout << text.str();
      return false;
    }
    po::notify(values_);
  } catch (const po::error& error) {
    throw usage_error("aprctl {}: {}; see `aprctl {} --help`", name_, error.what(), name_);
  }
  return true;
}

}  // namespace apr::ctl
