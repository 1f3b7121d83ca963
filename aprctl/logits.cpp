// `aprctl logits`: the logits of given token ids as raw float32 [tokens, vocab], for comparison with other engines.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <span>

#include "aprctl/command_line.h"
#include "aprctl/commands.h"
#include "aprctl/engine.h"
#include "aprctl/model_options.h"
#include "aprctl/token_ids.h"
#include "core/base/atomic_file.h"
#include "core/base/error.h"
#include "core/base/log.h"

namespace apr::ctl {
int logits_main(const Arguments& args) {
  CommandLine line("logits",
                   "Write the logits after each given token as raw little-endian float32 [tokens, vocab].",
                   "aprctl logits -m model.gguf --ids 1,300,301 --out logits.f32");
  namespace po = boost::program_options;
  ModelOptions::add(line);
  BackendOptions::add(line);
  line.options().add_options()("ids", po::value<std::string>()->required(), "token ids, separated by commas")(
      "single", po::bool_switch(), "feed the tokens one by one instead of all at once")(
      "out,o", po::value<std::string>()->required(), "file to write")(
      "json", po::bool_switch(), "print JSON: what was run, and the most probable token at each position");
  if (!line.parse(args)) return kExitOk;

  EngineRequest request = Engine::request(line);
  request.gate = false;  // the command exists to compare: a gate would hide what is to be seen
  Engine engine(line, request);
  Session& session = engine.session();
  const std::vector<int32_t> ids = parse_ids("logits", line.get<std::string>("ids"), session.vocab());
  if (ids.size() > session.context())
    throw usage_error("aprctl logits: {} tokens do not fit a context of {}; see --ctx", ids.size(),
                      session.context());

  std::vector<float> logits;
  if (line.flag("single")) {
    for (size_t i = 0; i < ids.size(); ++i) {
      const std::vector<float> row = session.feed({&ids[i], 1}, static_cast<int32_t>(i));
      logits.insert(logits.end(), row.begin(), row.end());
    }
  } else {
    logits = session.feed_all(ids, 0);
  }
  write_file_atomically(line.get<std::string>("out"), std::as_bytes(std::span(logits)));
  if (line.flag("json")) {
    nlohmann::ordered_json out = engine.report();
    out["ids"] = ids;
    out["single"] = line.flag("single");
    out["output"] = line.get<std::string>("out");
    out["shape"] = {ids.size(), session.vocab()};
    out["argmax"] = nlohmann::ordered_json::array();
    for (auto row = logits.begin(); row != logits.end(); row += session.vocab())
      out["argmax"].push_back(std::max_element(row, row + session.vocab()) - row);
    fmt::print("{}\n", out.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
  }
  log_info("{}: [{}, {}] float32", line.get<std::string>("out"), ids.size(), session.vocab());
  return kExitOk;
}

}  // namespace apr::ctl
