// The scales that SafeTensors keep beside 8-bit floats. Private to core/hf.
#pragma once

#include <string>

#include "core/hf/config.h"
#include "core/model/model.h"
#include "core/model/safetensors.h"

namespace apr {

// One scale for all, one for each row, or one for each block of config.scale_block rows and columns: its shape tells.
// Throws apr::Error that names origin (the scale's file) and the scale for another shape or dtype, or a scale that is
// not finite.
ElementScales read_scales(const Tensor& tensor, const SafeTensor& scale, const HfConfig& config,
                          const std::string& origin);

}  // namespace apr
