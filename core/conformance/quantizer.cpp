// quantize: what it takes, what it refuses with which words, and what it touches.
#include <fmt/format.h>
#include <malloc.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <thread>

#include "core/conformance/format_checks.h"
#include "core/conformance/samples.h"

namespace apr::conformance {
namespace {

using Bytes = std::vector<uint8_t>;

Finding refuses_not_finite(const apr_quant_format& f) {
  const uint64_t k = columns(f, 512), rows = 3, column = k - k / 3;
  Bytes packed(rows * row_bytes(f, k));
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    std::vector<float> x(rows * k, 0.25f);
    x[2 * k + column] = bad;
    Message message;
    if (f.quantize(x.data(), rows, k, nullptr, packed.data(), &message) != APR_INVALID)
      return fail(fmt::format("takes {}", bad), fmt::format("a weight of {} must be APR_INVALID", bad));
    const std::string place = fmt::format("row 2 column {}", column);
    if (message.text().find(place) == std::string::npos)
      return fail("no place",
                  fmt::format("the message for {} must say '{}'; it is: {}", bad, place, message.text()));
  }
  return pass("names row and column");
}

Finding refuses_bad_calls(const apr_quant_format& f) {
  const uint64_t k = columns(f, 64);
  Bytes packed(row_bytes(f, k + f.block_elements));
  const std::vector<float> x(k + f.block_elements, 0.25f);
  for (const float bad : {-1.0f, NAN, INFINITY}) {
    std::vector<float> importance(k, 1.0f);
    importance[k - 2] = bad;
    Message message;
    if (f.quantize(x.data(), 1, k, importance.data(), packed.data(), &message) != APR_INVALID)
      return fail(fmt::format("importance {}", bad),
                  "an importance that is negative or not finite must be APR_INVALID");
    if (message.text().find(fmt::format("column {}", k - 2)) == std::string::npos)
      return fail("no place", "the message must name the column; it is: " + message.text());
  }
  if (f.block_elements == 1) return pass("importance");
  Message message;
  if (f.quantize(x.data(), 1, k + 1, nullptr, packed.data(), &message) != APR_INVALID)
    return fail(fmt::format("K = {}", k + 1), fmt::format("K must be a multiple of {}", f.block_elements));
  if (f.validate(packed.data(), 1, k + 1, &message) != APR_INVALID)
    return fail(fmt::format("K = {}", k + 1), "validate takes a K that is no multiple of the block");
  return pass("importance, K");
}

// A message longer than the caller's buffer is cut and ends in a zero, within struct_size.
Finding keeps_to_the_error_buffer(const apr_quant_format& f) {
  const uint64_t k = columns(f, 64);
  Bytes packed(row_bytes(f, k));
  std::vector<float> x(k, 0.25f);
  x[k - 1] = NAN;
  for (const uint32_t room : {1u, 8u, 40u}) {
    const Guarded memory(offsetof(apr_error, message) + room);
    // The buffer ends where the memory does; its start is aligned where room is a multiple of 4, and x86 asks
    // for no more.
    std::vector<uint8_t> buffer(sizeof(apr_error), 0x5a);
    auto* error = reinterpret_cast<apr_error*>(buffer.data());
    error->struct_size = static_cast<uint32_t>(offsetof(apr_error, message)) + room;
    if (f.quantize(x.data(), 1, k, nullptr, packed.data(), error) != APR_INVALID)
      return fail("takes NaN", "");
    const char* text = error->message;
    if (std::memchr(text, 0, room) == nullptr)
      return fail(fmt::format("{} bytes", room),
                  "the message is not terminated within the caller's struct_size");
    for (size_t i = offsetof(apr_error, message) + room; i < buffer.size(); ++i)
      if (buffer[i] != 0x5a)
        return fail(fmt::format("{} bytes", room), "writes beyond the caller's struct_size");
  }
  return pass("cut at its size");
}

Finding stays_inside(const apr_quant_format& f) {
  Random random(10);
  for (const uint64_t blocks : {1, 2, 3, 9}) {
    const uint64_t k = blocks * f.block_elements;
    const std::vector<float> x = weights(Weights::Normal, 2 * k, random), ones(k, 1.0f);
    const Guarded src(x.data(), x.size() * sizeof(float)),
        importance(ones.data(), ones.size() * sizeof(float)), dst(2 * row_bytes(f, k));
    Message message;
    for (const float* weight :
         {static_cast<const float*>(nullptr), static_cast<const float*>(importance.as<float>())})
      if (f.quantize(src.as<float>(), 2, k, weight, dst.as(), &message) != APR_OK)
        return fail("refused", message.text());
    if (f.validate(dst.as(), 2, k, &message) != APR_OK) return fail("not valid", message.text());
  }
  return pass("guard page untouched");
}

// A lone weight in each column in turn comes back at its place: quantize and dequantize agree on the order of
// columns. No other column may be further in its direction, however coarse the format is.
Finding columns_in_order(const apr_quant_format& f) {
  const uint64_t k = columns(f, 64);
  std::vector<float> x(k), back(k);
  Bytes packed(row_bytes(f, k));
  double worst = 0;
  for (uint64_t column = 0; column < k; ++column) {
    for (const float value : {-0.75f, 0.5f}) {
      std::fill(x.begin(), x.end(), 0.0f);
      x[column] = value;
      Message message;
      if (f.quantize(x.data(), 1, k, nullptr, packed.data(), &message) != APR_OK)
        return fail("refused", message.text());
      f.dequantize(packed.data(), 1, k, back.data());
      worst = std::max(worst, std::fabs(double{back[column]} / double{value} - 1));
      for (uint64_t j = 0; j < k; ++j)
        if (!(back[column] / value > 0) || back[j] / value > back[column] / value)
          return fail(fmt::format("column {}", column),
                      fmt::format("{} alone in column {} comes back as {} there and {} in column {}", value,
                                  column, back[column], back[j], j));
    }
  }
  return pass(fmt::format("{} within {:.1f}%", k, 100 * worst));
}

Finding zeros_and_constants(const apr_quant_format& f) {
  const uint64_t k = columns(f, 256);
  Bytes packed(row_bytes(f, k));
  std::vector<float> back(k);
  double worst = 0;
  for (const float value : {0.0f, 1.0f, -0.03f}) {
    const std::vector<float> x(k, value);
    Message message;
    if (f.quantize(x.data(), 1, k, nullptr, packed.data(), &message) != APR_OK)
      return fail("refused", message.text());
    f.dequantize(packed.data(), 1, k, back.data());
    for (uint64_t j = 0; j < k; ++j) {
      const double miss = std::fabs(double{back[j]} - double{value});
      if (value == 0.0f && back[j] != 0.0f)
        return fail("zeros", fmt::format("a row of zeros comes back with {} in column {}", back[j], j));
      if (value != 0.0f) worst = std::max(worst, miss / std::fabs(double{value}));
    }
  }
  if (!(worst <= 0.15))
    return fail(fmt::format("off by {:.1f}%", 100 * worst), "a constant row must come back within 15%");
  return pass(fmt::format("within {:.2f}%", 100 * worst));
}

// From a half's subnormal scales to great weights: what is packed is finite, and better than zeros.
Finding magnitudes(const apr_quant_format& f) {
  const uint64_t k = columns(f, 512);
  Bytes packed(row_bytes(f, k));
  std::vector<float> back(k);
  double least = 0, most = 0;
  for (int exponent = -12; exponent <= 30; ++exponent) {
    const double unit = std::pow(10.0, exponent);
    Random random(12);
    std::vector<float> x = weights(Weights::Normal, k, random);
    for (float& v : x) v = static_cast<float>(50.0 * unit * double{v});
    Message message;
    const apr_status status = f.quantize(x.data(), 1, k, nullptr, packed.data(), &message);
    if (status == APR_INVALID && exponent > 3) break;  // beyond its range, and said so
    if (status != APR_OK)
      return fail(fmt::format("1e{}", exponent),
                  fmt::format("weights of about 1e{}: {}", exponent, message.text()));
    if (f.validate(packed.data(), 1, k, &message) != APR_OK)
      return fail(fmt::format("1e{}", exponent),
                  fmt::format("weights of about 1e{} are packed into what validate refuses: {}", exponent,
                              message.text()));
    f.dequantize(packed.data(), 1, k, back.data());
    double error = 0, size = 0;
    for (uint64_t j = 0; j < k; ++j)
      error += std::pow(double{back[j]} - x[j], 2), size += std::pow(double{x[j]}, 2);
    // The least step of a half is 6e-8: scales of weights below it are one or none.
    if (exponent >= -6 && !(error <= 1.001 * size))
      return fail(fmt::format("1e{}", exponent),
                  fmt::format("weights of about 1e{} come back worse than zeros would", exponent));
    if (error < 0.5 * size) {
      if (least == 0) least = unit;
      most = unit;
    }
  }
  if (!(least <= 1e-4 && most >= 1))
    return fail(fmt::format("{:.0e} to {:.0e}", least, most), "weights of models lie within 1e-4 to 1");
  return pass(fmt::format("{:.0e} to {:.0e}", least, most));
}

Finding parallel_is_serial(const apr_quant_format& f) {
  Random random(13);
  constexpr uint64_t kRows = 24;
  const uint64_t k = columns(f, 512), row = row_bytes(f, k);
  const std::vector<float> x = weights(Weights::HeavyTails, kRows * k, random);
  Bytes serial(kRows * row), parallel(serial.size());
  Message message;
  if (f.quantize(x.data(), kRows, k, nullptr, serial.data(), &message) != APR_OK)
    return fail("refused", message.text());
  const std::vector<float> wanted = dequantized(f, serial, k);
  std::vector<float> got(wanted.size());
  constexpr uint64_t kThreads = 4;
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < kThreads; ++t)
    threads.emplace_back([&, t] {
      for (uint64_t n = t; n < kRows; n += kThreads) {
        Message own;
        f.quantize(x.data() + n * k, 1, k, nullptr, parallel.data() + n * row, &own);
        f.dequantize(serial.data() + n * row, 1, k, got.data() + n * k);
      }
    });
  for (std::thread& thread : threads) thread.join();
  if (parallel != serial)
    return fail("quantize differs",
                "rows packed by four threads at once have other bytes: is there state outside the call?");
  if (first_difference(got, wanted) >= 0)
    return fail("dequantize differs", "rows decoded by four threads at once have other bits");
  return pass(fmt::format("{} threads, same bytes", kThreads));
}

// Nothing that a call allocates may stay behind: no ownership crosses the waist.
Finding keeps_no_memory(const apr_quant_format& f) {
  Random random(14);
  const uint64_t k = columns(f, 256);
  const std::vector<float> x = weights(Weights::Normal, k, random);
  Bytes packed(row_bytes(f, k));
  std::vector<float> back(k);
  Message message;
  const auto round = [&] {
    f.quantize(x.data(), 1, k, nullptr, packed.data(), &message);
    f.dequantize(packed.data(), 1, k, back.data());
    f.validate(packed.data(), 1, k, &message);
  };
  for (int i = 0; i < 64; ++i) round();
  constexpr int kCalls = 256;
  const auto in_use = [] {
    const struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
  };
  const size_t before = in_use();
  // Another allocator (a sanitizer's, or one that is preloaded) counts elsewhere.
  if (before == 0) return not_run("the C library's allocator is not in use here");
  for (int i = 0; i < kCalls; ++i) round();
  const size_t after = in_use();
  if (after > before + kCalls * 8)
    return fail(
        fmt::format("{} bytes", after - before),
        fmt::format("{} calls left {} bytes allocated behind: free what a call allocates, or use the stack",
                    kCalls, after - before));
  return pass("0 bytes after 256 calls");
}

}  // namespace

void check_quantizer(const apr_quant_format& f, Recorder& recorder) {
  if (!f.quantize) {
    recorder.run("quantize", "",
                 [] { return not_run("the format has no quantiser: it can be read, not written"); });
    return;
  }
  recorder.run("quantize: refuses NaN, inf", "all of them", [&] { return refuses_not_finite(f); });
  recorder.run("quantize: refuses bad calls", "", [&] { return refuses_bad_calls(f); });
  recorder.run("quantize: error messages", "", [&] { return keeps_to_the_error_buffer(f); });
  recorder.run("quantize: stays inside", "", [&] { return stays_inside(f); });
  recorder.run("quantize: columns in order", "", [&] { return columns_in_order(f); });
  recorder.run("quantize: zeros, constants", "0, 15%", [&] { return zeros_and_constants(f); });
  recorder.run("quantize: magnitudes", "1e-4 to 1", [&] { return magnitudes(f); });
  recorder.run("quantize: threads", "same bytes", [&] { return parallel_is_serial(f); });
  recorder.run("memory left behind", "0 bytes", [&] { return keeps_no_memory(f); });
}

}  // namespace apr::conformance
