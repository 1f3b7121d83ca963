// `aprctl tokenize`: text to token ids with the model's own tokenizer; weights are never read.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

#include "aprctl/command_line.h"
#include "aprctl/commands.h"
#include "aprctl/model_options.h"
#include "aprctl/probe_report.h"
#include "aprctl/text_input.h"
#include "core/base/error.h"
#include "core/base/format.h"
#include "core/base/log.h"
#include "core/hf/open_model.h"
#include "core/text/tokenizer.h"

namespace apr::ctl {

int tokenize_main(const Arguments& args) {
  CommandLine line("tokenize", "Turn text into token ids with the model's own tokenizer.",
                   "aprctl tokenize -m model.gguf -p \"Hello\" --ids");
  namespace po = boost::program_options;
  ModelOptions::add(line);
  TextInput::add(line);
  line.options().add_options()("ids", po::bool_switch(), "print only the ids, on one line")(
      "no-bos", po::bool_switch(), "no beginning-of-text token in front, whatever the model asks for")(
      "special", po::bool_switch(),
      "special tokens written in the text become those tokens; otherwise they are text")(
      "json", po::bool_switch(), "print JSON");
  if (!line.parse(args)) return kExitOk;
  const Probes& probes = probes_in_force();
  const auto text = TextInput::read(line);
  if (!text) throw usage_error("aprctl tokenize: no text; give --prompt or --file, or pipe it in");

  const Model model = open_model(ModelOptions::path(line));
  const auto tokenizer = make_tokenizer(model.meta);
  for (const std::string& warning : tokenizer->vocab().warnings) log_warning("{}", warning);
  EncodeOptions options;
  options.add_bos = !line.flag("no-bos");
  options.parse_special = line.flag("special");
  const std::vector<int32_t> ids = tokenizer->encode(*text, options);

  if (line.flag("json")) {
    nlohmann::ordered_json out = {
        {"probes", probes_json(probes)}, {"ids", ids}, {"tokens", nlohmann::ordered_json::array()}};
    for (const int32_t id : ids) out["tokens"].push_back(tokenizer->token_text(id));
    fmt::print("{}\n", out.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
  } else if (line.flag("ids")) {
    fmt::print("{}\n", fmt::join(ids, " "));
  } else {
    for (const int32_t id : ids) fmt::print("{:>8}  {}\n", id, printable(tokenizer->token_text(id)));
    log_info("{} tokens for {} bytes", ids.size(), text->size());
  }
  return kExitOk;
}

}  // namespace apr::ctl
