// Opens a model in any container that the program knows.
#pragma once

#include <string>

#include "core/model/model.h"

namespace apr {

// A Hugging Face folder: config.json, and model.safetensors or the parts that its index lists; or one .safetensors file
// with config.json beside it. Tensors and keys get the names that GGUF has for them, so that nothing after this knows
// the difference; where rows lie in another order than in GGUF, key apr.rope_pairs says so. Every count, offset, name
// and shape is checked before it is used. Throws apr::Error that names the file and the key or tensor.
Model open_hugging_face(const std::string& path);

// A folder or a .safetensors file as above; everything else with open_gguf().
Model open_model(const std::string& path);

}  // namespace apr
