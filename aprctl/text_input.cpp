#include "aprctl/text_input.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <system_error>

#include "core/base/error.h"

namespace apr::ctl {

std::string read_text(const std::string& file) {
  if (file == "-")
    return std::string((std::istreambuf_iterator<char>(std::cin)), std::istreambuf_iterator<char>());
  std::error_code ignored;
  if (std::filesystem::is_directory(file, ignored))
    throw Error("{}: is a directory, not a file of text", file);
  std::ifstream in(file, std::ios::binary);
  std::string content((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  if (!in || in.bad()) throw Error("{}: cannot be read: {}", file, std::strerror(errno));
  return content;
}

void TextInput::add(CommandLine& line) {
  namespace po = boost::program_options;
  line.options().add_options()("prompt,p", po::value<std::string>()->value_name("TEXT"), "the text")(
      "file,f", po::value<std::string>()->value_name("FILE"),
      "read the text from a file (-: standard input)");
}

std::optional<std::string> TextInput::read(const CommandLine& line) {
  auto text = line.find<std::string>("prompt");
  const auto file = line.find<std::string>("file");
  if (text && file) throw usage_error("--prompt and --file are both given; one of them is the text");
  if (text) return text;
  if (!file && isatty(STDIN_FILENO)) return std::nullopt;
  return read_text(file.value_or("-"));
}

std::optional<std::string> TextInput::read_prompt(const CommandLine& line) {
  auto text = read(line);
  if (!text || line.has("prompt")) return text;
  if (text->ends_with('\n')) text->pop_back();
  if (text->ends_with('\r')) text->pop_back();
  return text;
}

}  // namespace apr::ctl
