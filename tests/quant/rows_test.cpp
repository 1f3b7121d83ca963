// Rows of every given format: dequantize against the public definition, validate, and the quantiser's error.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "formats_under_test.h"
#include "reference.h"

namespace {

using namespace apr;
using namespace apr::test;

double squared_error(const std::vector<float>& a, const std::vector<float>& b,
                     const std::vector<float>* weight = nullptr) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double miss = double{a[i]} - double{b[i]};
    sum += (weight ? double{(*weight)[i % weight->size()]} : 1.0) * miss * miss;
  }
  return sum;
}

std::vector<float> through(const apr_quant_format& f, const std::vector<float>& x, uint64_t k,
                           const float* importance) {
  std::vector<uint8_t> packed(x.size() / k * row_bytes(f, k));
  std::vector<float> back(x.size());
  Message message;
  const apr_status status = f.quantize(x.data(), x.size() / k, k, importance, packed.data(), &message);
  REQUIRE_MESSAGE(status == APR_OK, message.text());
  CHECK(f.validate(packed.data(), x.size() / k, k, &message) == APR_OK);
  f.dequantize(packed.data(), x.size() / k, k, back.data());
  return back;
}

// Distributions of weights that a quantiser meets.
std::vector<float> sample(const char* kind, size_t n, Random& random) {
  std::vector<float> x(n);
  std::normal_distribution<float> normal(0.0f, 0.02f);
  for (auto& v : x) {
    v = normal(random);
    if (kind == std::string("heavy tails")) v *= std::exp(normal(random) * 60.0f);
    if (kind == std::string("shifted")) v = v * 0.3f + 0.02f;
    if (kind == std::string("tiny")) v *= 1e-4f;
  }
  return x;
}

// Plain rounding: the absolute greatest (or the range) of 32 columns is mapped to the ends of the integers,
// in float32 scales. The bits that a format spends on its integers, and whether it has an offset, give the
// baseline that a search must beat.
struct Baseline {
  const char* name;
  int levels;  // of the integers; 0: no integers to compare with
  bool offset;
  int columns;    // that share a scale
  double normal;  // measured: RMS error on normal weights, relative to their RMS
};
constexpr Baseline kBaselines[] = {{"q4_0", 16, false, 32, 0.079978},    {"q4_1", 16, true, 32, 0.068732},
                                   {"q5_0", 32, false, 32, 0.039354},    {"q5_1", 32, true, 32, 0.033123},
                                   {"q8_0", 255, false, 32, 0.004771},   {"q2_k", 4, true, 16, 0.258693},
                                   {"q3_k", 8, false, 16, 0.143542},     {"q4_k", 16, true, 32, 0.069251},
                                   {"q5_k", 32, true, 32, 0.034116},     {"q6_k", 64, false, 16, 0.016755},
                                   {"iq4_nl", 16, false, 32, 0.073494},  {"iq4_xs", 16, false, 32, 0.073447},
                                   {"mxfp4", 0, false, 32, 0.112412},    {"f32", 0, false, 1, 0.0},
                                   {"f8_e4m3", 0, false, 128, 0.025685}, {"f8_e5m2", 0, false, 128, 0.051075},
                                   {"f16", 0, false, 1, 0.000207},       {"bf16", 0, false, 1, 0.001650}};

std::vector<float> round_to_nearest(const Baseline& b, const std::vector<float>& x) {
  std::vector<float> back(x.size());
  const auto columns = static_cast<size_t>(b.columns);
  for (size_t i = 0; i < x.size(); i += columns) {
    const auto [least, most] =
        std::minmax_element(x.begin() + static_cast<long>(i), x.begin() + static_cast<long>(i + columns));
    const float greatest = std::max(std::fabs(*least), std::fabs(*most));
    const float scale = b.offset ? (*most - *least) / static_cast<float>(b.levels - 1)
                                 : greatest / static_cast<float>((b.levels - 1) / 2);
    const float offset = b.offset ? *least : 0.0f;
    for (size_t j = i; j < i + columns; ++j) {
      const float q = scale > 0 ? std::nearbyint((x[j] - offset) / scale) : 0.0f;
      back[j] = q * scale + offset;
    }
  }
  return back;
}

}  // namespace

TEST_CASE("dequantize has the bits of the public definition") {
  for (const auto* f : formats()) {
    const ReferenceBlock block = reference(f->name);
    if (!block) {
      MESSAGE(f->name << " is not a well-known format: no reference");
      continue;
    }
    CAPTURE(std::string(f->name));
    Random random(7);
    constexpr uint64_t kBlocks = 4096;
    const auto packed = edge_blocks(*f, kBlocks, random);
    std::vector<float> got(kBlocks * f->block_elements), wanted(got.size());
    for (uint64_t b = 0; b < kBlocks; ++b)
      block(packed.data() + b * f->block_bytes, wanted.data() + b * f->block_elements);
    // From an odd address, as a file may have it, and as several rows.
    std::vector<uint8_t> shifted(packed.size() + 1);
    std::copy(packed.begin(), packed.end(), shifted.begin() + 1);
    f->dequantize(shifted.data() + 1, 4, got.size() / 4, got.data());
    uint64_t wrong = 0;
    for (size_t i = 0; i < got.size(); ++i) wrong += !same(got[i], wanted[i]);
    CHECK(wrong == 0);
  }
}

TEST_CASE("single-element formats decode every bit pattern and every length") {
  for (const char* name : {"f16", "bf16"}) {
    const auto* f = find_format(name);
    if (!f) continue;
    CAPTURE(std::string(name));
    std::vector<uint16_t> all(65536);
    for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<uint16_t>(i);
    std::vector<float> got(all.size());
    f->dequantize(all.data(), 1, all.size(), got.data());
    uint64_t wrong = 0;
    for (size_t i = 0; i < all.size(); ++i) {
      float wanted;
      reference(name)(reinterpret_cast<const uint8_t*>(&all[i]), &wanted);
      wrong += !same(got[i], wanted);
    }
    CHECK(wrong == 0);
    for (uint64_t k = 1; k < 40; ++k) {
      std::vector<float> row(k + 1, 77.0f);
      f->dequantize(all.data() + 0x3c00, 1, k, row.data());
      for (uint64_t i = 0; i < k; ++i) CHECK(same(row[i], got[0x3c00 + i]));
      CHECK(row[k] == 77.0f);
      // Packing what was decoded gives the same bytes back.
      std::vector<uint16_t> packed(k + 1, 0x1234);
      Message message;
      REQUIRE(f->quantize(row.data(), 1, k, nullptr, packed.data(), &message) == APR_OK);
      for (uint64_t i = 0; i < k; ++i) CHECK(packed[i] == all[0x3c00 + i]);
      CHECK(packed[k] == 0x1234);
    }
  }
}

TEST_CASE("8-bit floats round to the nearest code, ties to the even one") {
  for (const char* name : {"f8_e4m3", "f8_e5m2"}) {
    const auto* f = find_format(name);
    if (!f) continue;
    CAPTURE(std::string(name));
    // All finite codes, with a scale of 1.
    std::vector<std::pair<float, uint8_t>> table;
    for (int code = 0; code < 128; ++code) {
      uint8_t block[132] = {static_cast<uint8_t>(code)};
      const float one = 1.0f;
      std::memcpy(block + 128, &one, 4);
      float values[128];
      f->dequantize(block, 1, 128, values);
      if (std::isfinite(values[0])) table.emplace_back(values[0], static_cast<uint8_t>(code));
    }
    const float greatest = table.back().first;
    CHECK(greatest == (name == std::string("f8_e4m3") ? 448.0f : 57344.0f));
    Random random(29);
    std::vector<float> x(128);
    std::vector<uint8_t> block(132);
    for (int round = 0; round < 400; ++round) {
      x[0] = -greatest;  // so that the scale is 1
      for (size_t i = 1; i < x.size(); ++i) {
        const size_t at = random() % table.size(), next = std::min(at + 1, table.size() - 1);
        const float low = table[at].first, high = table[next].first;
        const float part[] = {0.0f, 0.5f, 0.25f, 0.4999f, 0.5001f};  // of the way to the next code
        x[i] = low + (high - low) * part[random() % 5];
        if (random() % 2) x[i] = -x[i];
      }
      Message message;
      REQUIRE(f->quantize(x.data(), 1, 128, nullptr, block.data(), &message) == APR_OK);
      for (size_t i = 0; i < x.size(); ++i) {
        const double wanted = std::fabs(double{x[i]});
        auto nearest = table[0];
        for (const auto& entry : table) {
          const double miss = std::fabs(entry.first - wanted), least = std::fabs(nearest.first - wanted);
          if (miss < least || (miss == least && entry.second % 2 == 0)) nearest = entry;
        }
        REQUIRE((block[i] & 127) == nearest.second);
        REQUIRE((block[i] >> 7) == (std::signbit(x[i]) ? 1 : 0));
      }
    }
  }
}

TEST_CASE("f16 and bf16 round to nearest even") {
  struct Case {
    const char* format;
    float x;
    uint16_t wanted;
  };
  const Case cases[] = {{"f16", 1.0f + 1.0f / 2048, 0x3c00},  // a tie, to the even 1
                        {"f16", 1.0f + 3.0f / 2048, 0x3c02},  // a tie, to the even one above
                        {"f16", 65519.0f, 0x7bff},            // the last that does not overflow
                        {"f16", -0.0f, 0x8000},
                        {"f16", 5.9604645e-08f, 0x0001},  // 2^-24, the least
                        {"f16", 2.9802322e-08f, 0x0000},  // half of it, a tie to zero
                        {"f16", 2.98024e-08f, 0x0001},
                        {"f16", 6.0975552e-05f, 0x03ff},  // the greatest subnormal
                        {"f16", 6.1005353e-05f, 0x0400},  // halfway from it to the least normal: the even one
                        {"bf16", 1.0f + 1.0f / 256, 0x3f80},
                        {"bf16", 1.0f + 3.0f / 256, 0x3f82},
                        {"bf16", -1e-40f, 0x8001}};
  for (const Case& c : cases) {
    const auto* f = find_format(c.format);
    if (!f) continue;
    CAPTURE(c.x);
    uint16_t got = 0;
    Message message;
    REQUIRE(f->quantize(&c.x, 1, 1, nullptr, &got, &message) == APR_OK);
    CHECK(got == c.wanted);
  }
}

TEST_CASE("the quantiser's error") {
  for (const auto* f : formats()) {
    const uint64_t k = 1024;
    for (const char* kind : {"normal", "heavy tails", "shifted", "tiny"}) {
      CAPTURE(std::string(f->name));
      CAPTURE(std::string(kind));
      Random random(11);
      const auto x = sample(kind, 16 * k, random);
      const std::vector<float> zero(x.size());
      const auto back = through(*f, x, k, nullptr);
      const double error = squared_error(x, back), norm = squared_error(x, zero);
      CHECK(error < norm);
      if (kind == std::string("tiny"))
        continue;  // among a half's subnormals, where a baseline in floats is out of reach
      const auto* baseline = std::find_if(std::begin(kBaselines), std::end(kBaselines),
                                          [&](const Baseline& b) { return std::string(b.name) == f->name; });
      if (baseline == std::end(kBaselines)) {
        MESSAGE(f->name << ": relative RMS error on " << kind << " weights " << std::sqrt(error / norm));
        continue;
      }
      if (kind == std::string("normal")) CHECK(std::sqrt(error / norm) <= 1.002 * baseline->normal);
      if (baseline->levels == 0) continue;
      const double plain = squared_error(x, round_to_nearest(*baseline, x));
      const bool two_level = f->block_elements == 256;
      // An offset that can only be a positive minimum does not help weights that are all positive.
      if (kind == std::string("shifted") && two_level && baseline->offset) continue;
      CHECK(error <= plain * (two_level ? 1.0 : 0.985));
    }
    // Zeros, a constant, and one lone weight come back; packing is a fixed point.
    const std::vector<float> zeros(k);
    CHECK(squared_error(zeros, through(*f, zeros, k, nullptr)) == 0.0);
    std::vector<float> lone(k);
    lone[100] = -0.75f;
    const double error = squared_error(lone, through(*f, lone, k, nullptr));
    CHECK(error < 0.75 * 0.75 * 2e-3);
  }
}

TEST_CASE("weights of any size that a format can hold") {
  // Powers of two from the least to the greatest: what does not overflow comes back to within the format's
  // coarseness, also where the squares that a search compares would overflow.
  for (const char* name : {"f32", "bf16", "mxfp4", "f8_e4m3", "f8_e5m2"}) {
    const auto* f = find_format(name);
    if (!f) continue;
    for (int exponent = -120; exponent <= 125; ++exponent) {
      CAPTURE(std::string(name));
      CAPTURE(exponent);
      std::vector<float> x(128), back(128);
      for (size_t i = 0; i < x.size(); ++i)
        x[i] = std::ldexp(static_cast<float>(i % 13) - 6.0f, exponent - 1);
      std::vector<uint8_t> packed(row_bytes(*f, 128));
      Message message;
      REQUIRE(f->quantize(x.data(), 1, 128, nullptr, packed.data(), &message) == APR_OK);
      f->dequantize(packed.data(), 1, 128, back.data());
      for (size_t i = 0; i < x.size(); ++i) REQUIRE(std::fabs(back[i] - x[i]) <= std::ldexp(0.5f, exponent));
    }
  }
}
