// quantize: how well. Against plain rounding in as many bits, and against its own packed blocks with a bit
// changed.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/base/format.h"
#include "core/conformance/format_checks.h"
#include "core/conformance/samples.h"

namespace apr::conformance {
namespace {

double bits_per_weight(const apr_quant_format& f) {
  return apr::bits_per_weight(f.block_bytes, f.block_elements);
}

double squared_error(std::span<const float> a, std::span<const float> b,
                     const std::vector<float>* weight = nullptr) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double miss = double{a[i]} - double{b[i]};
    sum += (weight ? double{(*weight)[i % weight->size()]} : 1.0) * miss * miss;
  }
  return sum;
}

double squares(std::span<const float> a) {
  double sum = 0;
  for (const float v : a) sum += double{v} * v;
  return sum;
}

// Weights through the quantiser and back; throws what refuses them.
std::vector<uint8_t> packed(const apr_quant_format& f, const std::vector<float>& x, uint64_t k,
                            const float* importance) {
  std::vector<uint8_t> rows(x.size() / k * row_bytes(f, k));
  Message message;
  if (f.quantize(x.data(), x.size() / k, k, importance, rows.data(), &message) != APR_OK)
    throw std::runtime_error(message.text());
  if (f.validate(rows.data(), x.size() / k, k, &message) != APR_OK)
    throw std::runtime_error("packed rows are not valid: " + message.text());
  return rows;
}

// Plain rounding: the greatest magnitude of `group` weights (or their range, with an offset) is spread over
// the integers of `bits` bits; scale and offset are floats that count 16 bits each. The squared error.
double plain_rounding(std::span<const float> x, int bits, bool offset, size_t group) {
  const double levels = std::exp2(bits);
  double error = 0;
  for (size_t i = 0; i < x.size(); i += group) {
    const std::span<const float> part = x.subspan(i, std::min(group, x.size() - i));
    const auto [least, most] = std::minmax_element(part.begin(), part.end());
    const double peak = std::max(std::fabs(*least), std::fabs(*most));
    const double scale = offset ? (double{*most} - double{*least}) / (levels - 1) : peak / (levels / 2 - 1);
    const double zero = offset ? double{*least} : 0.0;
    for (const float v : part) {
      const double back = scale > 0 ? std::nearbyint((v - zero) / scale) * scale + zero : zero;
      error += (v - back) * (v - back);
    }
  }
  return error;
}

struct Plain {
  double error = -1;
  std::string text;
};
// The best of the plain ways that need no more bits.
Plain best_plain(std::span<const float> x, double bits) {
  Plain best;
  for (int integer = 2; integer <= 16; ++integer)
    for (const bool offset : {false, true})
      for (const size_t group : {16, 32, 64, 128, 256, 1024}) {
        if (integer + (offset ? 32.0 : 16.0) / static_cast<double>(group) > bits + 1e-9) continue;
        const double error = plain_rounding(x, integer, offset, group);
        if (best.error >= 0 && error >= best.error) continue;
        best = {error,
                fmt::format("{} bits{} in groups of {}", integer, offset ? " and an offset" : "", group)};
      }
  return best;
}

// Integer formats are held to the bound; a float format spends bits on range, which these weights do not ask
// for, and is held to what half of its bits would give.
constexpr double kMostOfPlain = 1.5;

Finding error_on(const apr_quant_format& f, Weights kind) {
  Random random(11);
  const uint64_t k = columns(f, 1024);
  const std::vector<float> x = weights(kind, 32 * k, random);
  const std::vector<float> back = dequantized(f, packed(f, x, k, nullptr), k);
  const double error = squared_error(x, back), size = squares(x), bits = bits_per_weight(f);
  const std::string nmse = fmt::format("{:.2e}", error / size);
  if (f.int_group == 0) {
    const double bound = std::exp2(-bits / 2);
    return error <= bound * size
               ? pass(nmse)
               : fail(nmse, fmt::format("float formats of {:.2f} bits are held to {:.2e}", bits, bound));
  }
  const Plain plain = best_plain(x, bits);
  if (plain.error < 0) return error <= size ? pass(nmse) : fail(nmse, "packed weights are worse than zeros");
  const double ratio = error / plain.error;
  const std::string value = fmt::format("{}, {:.2f} x plain", nmse, ratio);
  if (ratio <= kMostOfPlain) return pass(value);
  return fail(value,
              fmt::format("plain rounding to {} has NMSE {:.2e} in no more than {:.2f} bits per weight",
                          plain.text, plain.error / size, bits));
}

// Packed blocks with one bit changed: where many of the changes make a block better, the quantiser did not
// look.
Finding no_bit_is_better(const apr_quant_format& f) {
  Random random(15);
  const uint64_t k = f.block_elements, blocks = std::clamp<uint64_t>(4096 / k, 8, 512);
  const std::vector<float> x = weights(Weights::Normal, blocks * k, random);
  std::vector<uint8_t> rows = packed(f, x, blocks * k, nullptr);
  std::vector<float> back(k);
  double total = 0, gain = 0;
  for (uint64_t b = 0; b < blocks; ++b) {
    uint8_t* block = rows.data() + b * f.block_bytes;
    const std::span<const float> wanted(x.data() + b * k, k);
    const auto error = [&] {
      f.dequantize(block, 1, k, back.data());
      return squared_error(wanted, back);
    };
    const double chosen = error();
    total += chosen;
    for (uint64_t bit = 0; bit < f.block_bytes * 8; ++bit) {
      block[bit / 8] ^= static_cast<uint8_t>(1u << (bit % 8));
      const double changed = error();
      block[bit / 8] ^= static_cast<uint8_t>(1u << (bit % 8));
      if (changed < chosen) gain += chosen - changed;
    }
  }
  // Every improving bit counts in full, as if they could all be had at once: an upper bound of what was left.
  const double share = total > 0 ? gain / total : 0.0;
  const std::string value = fmt::format("{:.1f}% could be gained", 100 * share);
  if (share <= 0.10) return pass(value);
  return fail(value,
              "single bits of packed blocks, changed, lessen the error: does quantize round to the nearest "
              "value of its own scale?");
}

Finding importance_matters(const apr_quant_format& f) {
  Random random(5);
  const uint64_t k = columns(f, 1024);
  const std::vector<float> x = weights(Weights::Normal, 16 * k, random);
  std::vector<float> importance(k);
  for (uint64_t i = 0; i < k; ++i) importance[i] = i % 7 == 0 ? 50.0f : 0.5f;
  const double plain = squared_error(x, dequantized(f, packed(f, x, k, nullptr), k), &importance);
  const double weighted =
      squared_error(x, dequantized(f, packed(f, x, k, importance.data()), k), &importance);
  // No column matters: any numbers will do, but finite ones.
  const std::vector<float> none(k);
  for (const float v : dequantized(f, packed(f, x, k, none.data()), k))
    if (!std::isfinite(v))
      return fail("not finite",
                  "an importance of zero everywhere gives NaN: is a weight divided by their sum?");
  const double share = plain > 0 ? weighted / plain : 1.0;
  const std::string value = fmt::format("weighted error {:.3f} x", share);
  // A float has one nearest code: there is nothing to weigh.
  if (f.int_group == 0 ? share <= 1.0 : share < 1.0 || plain == 0) return pass(value);
  return fail(value,
              "the error that importance weighs is no smaller with it than without: does quantize use it?");
}

}  // namespace

void check_error(const apr_quant_format& f, Recorder& recorder) {
  if (!f.quantize) return;
  const std::string bound = f.int_group == 0 ? fmt::format("{:.2e}", std::exp2(-bits_per_weight(f) / 2))
                                             : fmt::format("{} x", kMostOfPlain);
  recorder.run("NMSE: normal weights", bound, [&] { return error_on(f, Weights::Normal); });
  recorder.run("NMSE: heavy tails", bound, [&] { return error_on(f, Weights::HeavyTails); });
  recorder.run("NMSE: no bit is better", "10%", [&] { return no_bit_is_better(f); });
  recorder.run("NMSE: importance", "under 1 x", [&] { return importance_matters(f); });
}

}  // namespace apr::conformance
