#include "aprctl/model_options.h"

#include "aprctl/installation.h"
#include "core/base/log.h"

namespace apr::ctl {

void ModelOptions::add(CommandLine& line) {
  line.options().add_options()("model,m", boost::program_options::value<std::string>()->value_name("FILE"),
                               "model file (GGUF); without it the model that ships with apr");
  line.positional("model", 1);
}

std::string ModelOptions::path(const CommandLine& line) {
  if (const auto given = line.find<std::string>("model")) return *given;
  std::string path = shipped_model();
  log_info("no model given: using the shipped {}", path);
  return path;
}

}  // namespace apr::ctl
