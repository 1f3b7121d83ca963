#include "tests/model/sample_model.h"

#include "core/model/gguf_format.h"

namespace apr_test {

using apr::MetaArray;
using apr::MetaType;
using apr::WeightQuantType;

apr::Metadata sample_metadata() {
  apr::Metadata meta("sample");
  meta.add("general.architecture", std::string("llama"));
  meta.add("general.alignment", uint64_t{64});
  meta.add("u8", uint64_t{200}, MetaType::U8);
  meta.add("i8", int64_t{-100}, MetaType::I8);
  meta.add("u16", uint64_t{60000}, MetaType::U16);
  meta.add("i16", int64_t{-30000}, MetaType::I16);
  meta.add("u32", uint64_t{4000000000}, MetaType::U32);
  meta.add("i32", int64_t{-2000000000}, MetaType::I32);
  meta.add("u64", uint64_t{1} << 63, MetaType::U64);
  meta.add("i64", -(int64_t{1} << 62), MetaType::I64);
  meta.add("f32", 0.5, MetaType::F32);
  meta.add("f64", 0.1, MetaType::F64);
  meta.add("bool", true);
  meta.add("array.u8", MetaArray(std::vector<uint64_t>{1, 2, 255}), MetaType::U8);
  meta.add("array.i16", MetaArray(std::vector<int64_t>{-1, 300}), MetaType::I16);
  meta.add("array.f32", MetaArray(std::vector<double>{0.25, -4}), MetaType::F32);
  meta.add("array.bool", MetaArray(std::vector<bool>{true, false, true}));
  meta.add("tokenizer.ggml.tokens", MetaArray(std::vector<std::string>{"<s>", "", "hello", "wörld"}));
  return meta;
}

std::vector<apr::GgufTensor> sample_tensors() {
  return {
      apr::gguf_tensor("output_norm.weight", WeightQuantType::F32, {5}),
      apr::gguf_tensor("blk.0.attn_q.weight", WeightQuantType::Q4_K, {256, 3}),
      apr::gguf_tensor("blk.0.experts.weight", WeightQuantType::Q8_0, {64, 2, 3}),
      apr::gguf_tensor("token_embd.weight", WeightQuantType::BF16, {7, 4}),
      apr::gguf_tensor("blk.0.ffn_up.weight", WeightQuantType::F8_E4M3, {256, 2}),
      {"blk.0.ffn_down.weight", WeightQuantType::Extension, "vendor.nf4", {128, 2}, {64, 34}},
  };
}

std::vector<std::byte> sample_file() {
  std::vector<std::byte> file = apr::gguf_header(sample_metadata(), sample_tensors());
  const size_t header = file.size();
  for (const apr::GgufTensor& tensor : sample_tensors()) {
    const uint64_t bytes = apr::gguf_packed_bytes("sample", tensor.dims, tensor.format, tensor.geometry);
    file.resize(apr::align_up(file.size() + bytes, 64));
  }
  for (size_t i = header; i < file.size(); ++i) file[i] = static_cast<std::byte>((i - header) % 251);
  return file;
}

}  // namespace apr_test
