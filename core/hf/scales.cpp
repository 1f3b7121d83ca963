#include "core/hf/scales.h"

#include <cmath>
#include <cstring>

#include "core/base/error.h"
#include "core/base/format.h"

namespace apr {

namespace {

float half_value(uint16_t bits) {
  _Float16 half;
  std::memcpy(&half, &bits, sizeof half);
  return static_cast<float>(half);
}

float bfloat_value(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}

// parse_safetensors() has checked the size against dtype and shape.
std::vector<float> floats(const SafeTensor& t, const std::string& origin) {
  const bool half = t.dtype == "F16", bfloat = t.dtype == "BF16";
  if (t.dtype != "F32" && !half && !bfloat)
    throw Error("{}: tensor '{}' is {}; scales in F32, F16 and BF16 are supported", origin, printable(t.name),
                t.dtype);
  std::vector<float> out(t.bytes / (half || bfloat ? 2 : 4));
  for (size_t i = 0; i < out.size(); ++i) {
    uint16_t bits;
    if (half || bfloat) {
      std::memcpy(&bits, t.data + 2 * i, sizeof bits);
      out[i] = half ? half_value(bits) : bfloat_value(bits);
    } else {
      std::memcpy(&out[i], t.data + 4 * i, sizeof(float));
    }
    if (!std::isfinite(out[i]))
      throw Error("{}: tensor '{}': scale {} is {}; it must be a number", origin, printable(t.name), i,
                  out[i]);
  }
  return out;
}

}  // namespace

ElementScales read_scales(const Tensor& tensor, const SafeTensor& scale, const HfConfig& config,
                          const std::string& origin) {
  const uint64_t n = tensor.n(), k = tensor.k(), rows = config.scale_block[0],
                 columns = config.scale_block[1];
  const uint64_t down = (n + rows - 1) / rows, across = (k + columns - 1) / columns;
  const auto& shape = scale.shape;
  ElementScales out{floats(scale, origin), 1, 1, 1};
  const bool of_rows = shape.size() == 1 || (shape.size() == 2 && shape[1] == 1);
  if (out.values.size() == 1) {
    out.rows = n, out.columns = k;
  } else if (of_rows && shape[0] == n) {
    out.columns = k;
  } else if (shape.size() == 2 && shape[0] == down && shape[1] == across) {
    out.rows = rows, out.columns = columns, out.across = across;
  } else {
    throw Error(
        "{}: tensor '{}' has shape [{}]; for {} rows of {} columns it must be one number, [{}], or [{},{}] "
        "(blocks of {} x {})",
        origin, printable(scale.name), joined(shape, ","), n, k, n, down, across, rows, columns);
  }
  return out;
}

}  // namespace apr
