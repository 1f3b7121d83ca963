// Which tokens begin and end a text, and the chat template: from config.json, generation_config.json and
// tokenizer_config.json. Private to core/hf.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "core/hf/json_part.h"
#include "core/model/metadata.h"

namespace apr {

struct HfTokenFiles {
  JsonPart config, generation, tokenizer;  // null where the file is missing
  std::string chat_template;               // of chat_template.jinja; empty: none
};

// meta has the tokenizer's keys already. What ends generation is everything that one of the files names.
void add_special_tokens(const HfTokenFiles& files, Metadata& meta);

}  // namespace apr
