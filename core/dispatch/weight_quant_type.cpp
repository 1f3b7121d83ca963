#include "core/dispatch/weight_quant_type.h"

#include <algorithm>

#include "core/base/error.h"

namespace apr {

namespace {

[[noreturn]] void not_an_enumerator(WeightQuantType type) {
  throw Error("internal error: {} is not a WeightQuantType", static_cast<unsigned>(type));
}

bool equal_ignoring_case(std::string_view a, std::string_view b) {
  // ASCII only, so that the result does not depend on the locale.
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; };
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [&](char x, char y) { return lower(x) == lower(y); });
}

}  // namespace

std::string_view name(WeightQuantType type) {
  switch (type) {
    case WeightQuantType::F32:
      return "f32";
    case WeightQuantType::F16:
      return "f16";
    case WeightQuantType::BF16:
      return "bf16";
    case WeightQuantType::F8_E4M3:
      return "f8_e4m3";
    case WeightQuantType::F8_E5M2:
      return "f8_e5m2";
    case WeightQuantType::Q4_0:
      return "q4_0";
    case WeightQuantType::Q4_1:
      return "q4_1";
    case WeightQuantType::Q5_0:
      return "q5_0";
    case WeightQuantType::Q5_1:
      return "q5_1";
    case WeightQuantType::Q8_0:
      return "q8_0";
    case WeightQuantType::Q2_K:
      return "q2_k";
    case WeightQuantType::Q3_K:
      return "q3_k";
    case WeightQuantType::Q4_K:
      return "q4_k";
    case WeightQuantType::Q5_K:
      return "q5_k";
    case WeightQuantType::Q6_K:
      return "q6_k";
    case WeightQuantType::IQ4_NL:
      return "iq4_nl";
    case WeightQuantType::IQ4_XS:
      return "iq4_xs";
    case WeightQuantType::MXFP4:
      return "mxfp4";
    case WeightQuantType::Extension:
      return "extension";
  }
  not_an_enumerator(type);
}

// Sizes as in ggml's block structs (https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h); the
// 8-bit floats are 128 codes of the OCP 8-bit floating point specification and a float32 scale
// (scaled_block).
std::optional<QuantGeometry> geometry(WeightQuantType type) {
  switch (type) {
    case WeightQuantType::F32:
      return QuantGeometry{1, 4};
    case WeightQuantType::F16:
      return QuantGeometry{1, 2};
    case WeightQuantType::BF16:
      return QuantGeometry{1, 2};
    case WeightQuantType::F8_E4M3:
      return QuantGeometry{128, 132};
    case WeightQuantType::F8_E5M2:
      return QuantGeometry{128, 132};
    case WeightQuantType::Q4_0:
      return QuantGeometry{32, 18};
    case WeightQuantType::Q4_1:
      return QuantGeometry{32, 20};
    case WeightQuantType::Q5_0:
      return QuantGeometry{32, 22};
    case WeightQuantType::Q5_1:
      return QuantGeometry{32, 24};
    case WeightQuantType::Q8_0:
      return QuantGeometry{32, 34};
    case WeightQuantType::Q2_K:
      return QuantGeometry{256, 84};
    case WeightQuantType::Q3_K:
      return QuantGeometry{256, 110};
    case WeightQuantType::Q4_K:
      return QuantGeometry{256, 144};
    case WeightQuantType::Q5_K:
      return QuantGeometry{256, 176};
    case WeightQuantType::Q6_K:
      return QuantGeometry{256, 210};
    case WeightQuantType::IQ4_NL:
      return QuantGeometry{32, 18};
    case WeightQuantType::IQ4_XS:
      return QuantGeometry{256, 136};
    case WeightQuantType::MXFP4:
      return QuantGeometry{32, 17};
    case WeightQuantType::Extension:
      return std::nullopt;
  }
  not_an_enumerator(type);
}

// enum ggml_type (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).
std::optional<uint32_t> gguf_type(WeightQuantType type) {
  switch (type) {
    case WeightQuantType::F32:
      return 0;
    case WeightQuantType::F16:
      return 1;
    case WeightQuantType::BF16:
      return 30;
    case WeightQuantType::F8_E4M3:
      return std::nullopt;
    case WeightQuantType::F8_E5M2:
      return std::nullopt;
    case WeightQuantType::Q4_0:
      return 2;
    case WeightQuantType::Q4_1:
      return 3;
    case WeightQuantType::Q5_0:
      return 6;
    case WeightQuantType::Q5_1:
      return 7;
    case WeightQuantType::Q8_0:
      return 8;
    case WeightQuantType::Q2_K:
      return 10;
    case WeightQuantType::Q3_K:
      return 11;
    case WeightQuantType::Q4_K:
      return 12;
    case WeightQuantType::Q5_K:
      return 13;
    case WeightQuantType::Q6_K:
      return 14;
    case WeightQuantType::IQ4_NL:
      return 20;
    case WeightQuantType::IQ4_XS:
      return 23;
    case WeightQuantType::MXFP4:
      return 39;
    case WeightQuantType::Extension:
      return std::nullopt;
  }
  not_an_enumerator(type);
}

// https://github.com/huggingface/safetensors/blob/main/safetensors/src/tensor.rs, enum Dtype.
std::optional<std::string_view> safetensors_dtype(WeightQuantType type) {
  switch (type) {
    case WeightQuantType::F32:
      return "F32";
    case WeightQuantType::F16:
      return "F16";
    case WeightQuantType::BF16:
      return "BF16";
    case WeightQuantType::F8_E4M3:
      return "F8_E4M3";
    case WeightQuantType::F8_E5M2:
      return "F8_E5M2";
    case WeightQuantType::Q4_0:
      return std::nullopt;
    case WeightQuantType::Q4_1:
      return std::nullopt;
    case WeightQuantType::Q5_0:
      return std::nullopt;
    case WeightQuantType::Q5_1:
      return std::nullopt;
    case WeightQuantType::Q8_0:
      return std::nullopt;
    case WeightQuantType::Q2_K:
      return std::nullopt;
    case WeightQuantType::Q3_K:
      return std::nullopt;
    case WeightQuantType::Q4_K:
      return std::nullopt;
    case WeightQuantType::Q5_K:
      return std::nullopt;
    case WeightQuantType::Q6_K:
      return std::nullopt;
    case WeightQuantType::IQ4_NL:
      return std::nullopt;
    case WeightQuantType::IQ4_XS:
      return std::nullopt;
    case WeightQuantType::MXFP4:
      return std::nullopt;
    case WeightQuantType::Extension:
      return std::nullopt;
  }
  not_an_enumerator(type);
}

std::optional<ScaledBlock> scaled_block(WeightQuantType type) {
  switch (type) {
    case WeightQuantType::F32:
      return std::nullopt;
    case WeightQuantType::F16:
      return std::nullopt;
    case WeightQuantType::BF16:
      return std::nullopt;
    case WeightQuantType::F8_E4M3:
      return ScaledBlock{128, 1, WeightQuantType::F32};
    case WeightQuantType::F8_E5M2:
      return ScaledBlock{128, 1, WeightQuantType::F32};
    case WeightQuantType::Q4_0:
      return std::nullopt;
    case WeightQuantType::Q4_1:
      return std::nullopt;
    case WeightQuantType::Q5_0:
      return std::nullopt;
    case WeightQuantType::Q5_1:
      return std::nullopt;
    case WeightQuantType::Q8_0:
      return std::nullopt;
    case WeightQuantType::Q2_K:
      return std::nullopt;
    case WeightQuantType::Q3_K:
      return std::nullopt;
    case WeightQuantType::Q4_K:
      return std::nullopt;
    case WeightQuantType::Q5_K:
      return std::nullopt;
    case WeightQuantType::Q6_K:
      return std::nullopt;
    case WeightQuantType::IQ4_NL:
      return std::nullopt;
    case WeightQuantType::IQ4_XS:
      return std::nullopt;
    case WeightQuantType::MXFP4:
      return std::nullopt;
    case WeightQuantType::Extension:
      return std::nullopt;
  }
  not_an_enumerator(type);
}

std::vector<WeightQuantType> well_known_qtypes() {
  std::vector<WeightQuantType> types;
  for (unsigned i = 0; i < static_cast<unsigned>(WeightQuantType::Extension); ++i) {
    types.push_back(static_cast<WeightQuantType>(i));
  }
  return types;
}

std::optional<WeightQuantType> parse_qtype(std::string_view text) {
  for (const WeightQuantType type : well_known_qtypes()) {
    if (equal_ignoring_case(text, name(type))) return type;
  }
  return std::nullopt;
}

std::optional<WeightQuantType> qtype_of_gguf(uint32_t number) {
  for (const WeightQuantType type : well_known_qtypes()) {
    if (gguf_type(type) == number) return type;
  }
  return std::nullopt;
}

std::optional<WeightQuantType> qtype_of_safetensors(std::string_view dtype) {
  for (const WeightQuantType type : well_known_qtypes()) {
    if (safetensors_dtype(type) == dtype) return type;
  }
  return std::nullopt;
}

}  // namespace apr
