// The closed list of well-known weight formats, and Extension for a plugin's own. Nothing has a default
// value, and no switch over it has a `default:`; the build rejects a switch that forgets an enumerator
// (-Werror=switch-enum), and a contract test compiles every dispatch site with one more enumerator and
// demands that the compiler refuses it.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace apr {

enum class WeightQuantType : uint8_t {
  F32,
  F16,
  BF16,
  F8_E4M3,
  F8_E5M2,
  Q4_0,
  Q4_1,
  Q5_0,
  Q5_1,
  Q8_0,
  Q2_K,
  Q3_K,
  Q4_K,
  Q5_K,
  Q6_K,
  IQ4_NL,
  IQ4_XS,
  MXFP4,
  Extension,  // identified by the format's name, "vendor.format"
#ifdef APR_CONTRACT_EXTRA_QTYPE
  ContractExtra,  // only in the contract test: no dispatch site may compile with it
#endif
};

// What is fixed about a format's packing. A plugin that claims a well-known type must agree with it.
struct QuantGeometry {
  uint32_t block_elements;  // columns of one block; K is a multiple of it
  uint32_t block_bytes;     // bytes of one block in the file
};

// A block that is made at load from single elements, which SafeTensors store in one tensor, and their scale,
// which is in another: `elements` of them as they are, then the scale as a float32. w = element * scale.
struct ScaledBlock {
  uint32_t elements;         // columns
  uint32_t element_bytes;    // of one
  WeightQuantType expanded;  // holds the products where the blocks do not fit the shape or the scales
};

// "q4_k"; Extension gives "extension".
std::string_view name(WeightQuantType type);
// nullopt for Extension: its plugin says.
std::optional<QuantGeometry> geometry(WeightQuantType type);
// The GGUF tensor type number (ggml_type); nullopt for formats that GGUF does not number.
std::optional<uint32_t> gguf_type(WeightQuantType type);
// The SafeTensors dtype that holds single elements of the type: "BF16"; nullopt for blocks that it cannot
// hold.
std::optional<std::string_view> safetensors_dtype(WeightQuantType type);
// nullopt for formats whose blocks come whole.
std::optional<ScaledBlock> scaled_block(WeightQuantType type);

// Reverse look-ups; nullopt when unknown, never a guess. Names are taken in either case ("Q4_K"); "extension"
// is no name of a format and gives nullopt.
std::optional<WeightQuantType> parse_qtype(std::string_view name);
std::optional<WeightQuantType> qtype_of_gguf(uint32_t gguf_type);
std::optional<WeightQuantType> qtype_of_safetensors(std::string_view dtype);
// All well-known types, in enumerator order, without Extension.
std::vector<WeightQuantType> well_known_qtypes();

}  // namespace apr
