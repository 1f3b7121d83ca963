// dequantize and validate: defined for every bit pattern, block by block, from any address.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <thread>

#include "core/conformance/format_checks.h"
#include "core/conformance/samples.h"

namespace apr::conformance {
namespace {

constexpr uint64_t kBlocks = 1024;

Finding any_address(const apr_quant_format& f) {
  Random random(7);
  const auto blocks = edge_blocks(f, kBlocks, random);
  const std::vector<float> wanted = dequantized(f, blocks, kBlocks * f.block_elements);
  std::vector<uint8_t> shifted(blocks.size() + 8);
  std::vector<float> got(wanted.size());
  for (size_t shift = 1; shift < 8; ++shift) {
    std::copy(blocks.begin(), blocks.end(), shifted.begin() + static_cast<long>(shift));
    // As several rows, as a matrix is read.
    f.dequantize(shifted.data() + shift, 4, got.size() / 4, got.data());
    if (const int64_t i = first_difference(got, wanted); i >= 0)
      return fail(fmt::format("{} bytes off", shift),
                  fmt::format("value {} of 4 rows at an address {} past a multiple of 8 is {}; of one row at "
                              "an aligned one it is {}. "
                              "src is aligned to 1 only",
                              i, shift, got[static_cast<size_t>(i)], wanted[static_cast<size_t>(i)]));
  }
  return pass(fmt::format("{} blocks, 8 offsets", kBlocks));
}

Finding block_by_block(const apr_quant_format& f) {
  Random random(8);
  const auto blocks = edge_blocks(f, kBlocks, random);
  const std::vector<float> whole = dequantized(f, blocks, kBlocks * f.block_elements);
  std::vector<float> got(whole.size());
  for (uint64_t b = 0; b < kBlocks; ++b)
    f.dequantize(blocks.data() + b * f.block_bytes, 1, f.block_elements, got.data() + b * f.block_elements);
  if (const int64_t i = first_difference(got, whole); i >= 0)
    return fail(
        "differs",
        fmt::format(
            "column {} of a row decodes to {}, its block alone to {}: a block may depend on nothing else", i,
            whole[static_cast<size_t>(i)], got[static_cast<size_t>(i)]));
  return pass(fmt::format("{} blocks", kBlocks));
}

Finding stays_inside(const apr_quant_format& f) {
  Random random(9);
  for (const uint64_t blocks : {1, 2, 3, 17}) {
    const auto data = edge_blocks(f, blocks, random);
    const Guarded src(data.data(), data.size()), dst(blocks * f.block_elements * sizeof(float));
    f.dequantize(src.as(), 1, blocks * f.block_elements, dst.as<float>());
  }
  return pass("guard page untouched");
}

Finding validate_is_right(const apr_quant_format& f) {
  Random random(3);
  const uint64_t k = f.block_elements;
  std::vector<float> w(k);
  uint64_t broken = 0, refused_finite = 0;
  std::string rule;
  for (int i = 0; i < 4000; ++i) {
    const auto block = edge_blocks(f, 1, random);
    f.dequantize(block.data(), 1, k, w.data());
    const auto wrong = std::find_if(w.begin(), w.end(), [](float v) { return !std::isfinite(v); });
    Message message;
    const apr_status status = f.validate(block.data(), 1, k, &message);
    broken += wrong != w.end();
    if (wrong != w.end() && status == APR_OK)
      return fail("passes NaN or infinity",
                  fmt::format("column {} of a block decodes to {}, and validate calls the block valid",
                              wrong - w.begin(), *wrong));
    if (wrong == w.end() && status != APR_OK) ++refused_finite, rule = message.text();
    if (status != APR_OK && status != APR_INVALID)
      return fail(fmt::format("status {}", static_cast<int>(status)), "a bad block is APR_INVALID");
    if (status != APR_OK && message.text().empty())
      return fail("no message", "a refused block has a message");
  }
  // A format may have rules beyond finite values; what its own quantiser packs must keep them, which "valid"
  // below shows.
  return pass(refused_finite == 0 ? fmt::format("{} of 4000 not finite", broken)
                                  : fmt::format("{} not finite, {} by rule", broken, refused_finite));
}

Finding validate_names_the_place(const apr_quant_format& f) {
  if (!f.quantize) return not_run("the format has no quantiser to make good rows with");
  const uint64_t k = columns(f, 512), blocks = k / f.block_elements, rows = 3, row = row_bytes(f, k);
  const std::vector<float> x(rows * k, 0.5f);
  std::vector<uint8_t> packed(rows * row);
  Message message;
  if (f.quantize(x.data(), rows, k, nullptr, packed.data(), &message) != APR_OK)
    return fail("refused", message.text());
  if (f.validate(packed.data(), rows, k, &message) != APR_OK)
    return fail("refused", "what quantize made of a constant 0.5 is refused: " + message.text());
  Random random(4);
  const uint64_t bad = blocks > 1 ? 1 : 0;
  std::vector<float> w(f.block_elements);
  for (int i = 0; i < 20000; ++i) {
    const auto block = edge_blocks(f, 1, random);
    f.dequantize(block.data(), 1, f.block_elements, w.data());
    if (std::all_of(w.begin(), w.end(), [](float v) { return std::isfinite(v); })) continue;
    std::copy(block.begin(), block.end(), packed.begin() + static_cast<long>(2 * row + bad * f.block_bytes));
    if (f.validate(packed.data(), rows, k, &message) == APR_OK)
      return fail("not found", "a bad block among good rows is not found");
    const std::string place = fmt::format("row 2 block {}", bad);
    if (message.text().find(place) == std::string::npos)
      return fail("no place", fmt::format("the message must say '{}'; it is: {}", place, message.text()));
    return pass(place);
  }
  return pass("no block decodes to NaN");
}

}  // namespace

void check_rows(const apr_quant_format& f, Recorder& recorder) {
  recorder.run("dequantize: any address", "same bits", [&] { return any_address(f); });
  recorder.run("dequantize: block by block", "same bits", [&] { return block_by_block(f); });
  recorder.run("dequantize: stays inside", "", [&] { return stays_inside(f); });
  recorder.run("validate: finds NaN, inf", "all of them", [&] { return validate_is_right(f); });
  recorder.run("validate: names the place", "", [&] { return validate_names_the_place(f); });
}

}  // namespace apr::conformance
