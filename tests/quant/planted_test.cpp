// Faults planted into a correct format, one at a time: the conformance test must find each, by the check that
// is for it.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>

#include "core/conformance/conformance.h"
#include "formats_under_test.h"
#include "tests/base/sanitized.h"

namespace {

using namespace apr;
using namespace apr::test;
using conformance::Result;
using conformance::Verdict;

const apr_quant_format* base;  // q4_k, which is right

// A copy of it whose members can be replaced.
struct Copy {
  apr_quant_format f = *base;
  apr_codec codec = *base->codec;
  apr_layout planar = *base->codec->layouts[1];
  const apr_layout* layouts[2] = {base->codec->layouts[0], &planar};
  apr_cpu_kernels portable = *base->cpu[0];
  const apr_cpu_kernels* cpu[1] = {&portable};
  std::string text = base->codec->source;
  Copy() {
    f.codec = &codec, f.cpu = cpu, f.n_cpu = 1;
    codec.layouts = layouts;
  }
  Copy(const Copy&) = delete;
  void patch(const std::string& from, const std::string& to) {
    const size_t at = text.find(from);
    REQUIRE(at != std::string::npos);
    text.replace(at, from.size(), to);
    codec.source = text.c_str();
  }
};

struct Collect : conformance::Listener {
  std::map<std::string, Verdict> verdicts;
  void begins(const std::string&, const std::string&) override {}
  void ends(const Result& r) override { verdicts[r.check] = r.finding.verdict; }
};

template <typename Change>
apr_status changed(const float* src, uint64_t n, uint64_t k, const float* importance, void* dst,
                   apr_error* error, const Change& change) {
  std::vector<float> x(src, src + n * k);
  change(x);
  return base->quantize(x.data(), n, k, importance, dst, error);
}

struct Planted {
  const char* check;  // that must fail
  void (*plant)(Copy&);
};

const Planted kFaults[] = {
    {"geometry", [](Copy& c) { c.f.block_align = 7; }},
    {"dequantize: any address",
     [](Copy& c) {
       c.f.dequantize = [](const void* src, uint64_t n, uint64_t k, float* dst) {
         base->dequantize(src, n, k, dst);
         if (reinterpret_cast<uintptr_t>(src) % 2) dst[0] += 1;
       };
     }},
    {"dequantize: block by block",
     [](Copy& c) {
       c.f.dequantize = [](const void* src, uint64_t n, uint64_t k, float* dst) {
         base->dequantize(src, n, k, dst);
         if (k > 256) dst[256] += 1;
       };
     }},
    {"validate: finds NaN, inf",
     [](Copy& c) { c.f.validate = [](const void*, uint64_t, uint64_t, apr_error*) { return APR_OK; }; }},
    {"validate: names the place",
     [](Copy& c) {
       c.f.validate = [](const void* src, uint64_t n, uint64_t k, apr_error* error) {
         const apr_status status = base->validate(src, n, k, error);
         if (status != APR_OK) std::strcpy(error->message, "bad");
         return status;
       };
     }},
    {"quantize: refuses NaN, inf",
     [](Copy& c) {
       c.f.quantize = [](const float* src, uint64_t n, uint64_t k, const float* i, void* dst,
                         apr_error* error) {
         return changed(src, n, k, i, dst, error, [](auto& x) {
           for (float& v : x) v = std::isnan(v) ? 0 : v;
         });
       };
     }},
    {"quantize: refuses bad calls",
     [](Copy& c) {
       c.f.quantize = [](const float* src, uint64_t n, uint64_t k, const float* i, void* dst,
                         apr_error* error) {
         return base->quantize(src, n, k, i && i[k - 2] < 0 ? nullptr : i, dst, error);
       };
     }},
    {"quantize: error messages",
     [](Copy& c) {
       c.f.quantize = [](const float* src, uint64_t n, uint64_t k, const float* i, void* dst,
                         apr_error* error) {
         const apr_status status = base->quantize(src, n, k, i, dst, error);
         if (status != APR_OK) error->message[60] = 'x';
         return status;
       };
     }},
    {"quantize: columns in order",
     [](Copy& c) {
       c.f.quantize = [](const float* src, uint64_t n, uint64_t k, const float* i, void* dst,
                         apr_error* error) {
         return changed(src, n, k, i, dst, error, [](auto& x) { std::swap(x[3], x[4]); });
       };
     }},
    {"quantize: zeros, constants",
     [](Copy& c) {
       c.f.quantize = [](const float* src, uint64_t n, uint64_t k, const float* i, void* dst,
                         apr_error* error) {
         return changed(src, n, k, i, dst, error, [](auto& x) {
           for (float& v : x) v += 1e-3f;
         });
       };
     }},
    {"quantize: magnitudes",
     [](Copy& c) {
       c.f.quantize = [](const float* src, uint64_t n, uint64_t k, const float* i, void* dst,
                         apr_error* error) {
         return changed(src, n, k, i, dst, error, [](auto& x) {
           for (float& v : x) v = std::fabs(v) < 1e-3f ? 0 : v;
         });
       };
     }},
    {"quantize: threads",
     [](Copy& c) {
       c.f.quantize = [](const float* src, uint64_t n, uint64_t k, const float* i, void* dst,
                         apr_error* error) {
         const apr_status status = base->quantize(src, n, k, i, dst, error);
         static std::atomic<int> calls{0};
         if (status == APR_OK && ++calls % 7 == 0) static_cast<uint8_t*>(dst)[20] ^= 1;
         return status;
       };
     }},
    {"memory left behind",
     [](Copy& c) {
       c.f.quantize = [](const float* src, uint64_t n, uint64_t k, const float* i, void* dst,
                         apr_error* error) {
         static std::vector<std::unique_ptr<char[]>> kept;
         kept.push_back(std::make_unique<char[]>(64));
         return base->quantize(src, n, k, i, dst, error);
       };
     }},
    {"quantize: zeros, constants",
     [](Copy& c) {
       c.f.quantize = [](const float*, uint64_t, uint64_t, const float*, void*, apr_error*) -> apr_status {
         throw std::runtime_error("thrown");
       };
     }},
    {"NMSE: normal weights",
     [](Copy& c) {
       c.f.quantize = [](const float* src, uint64_t n, uint64_t k, const float* i, void* dst,
                         apr_error* error) {
         return changed(src, n, k, i, dst, error, [](auto& x) {
           for (float& v : x) v *= 0.8f;
         });
       };
     }},
    {"NMSE: heavy tails",
     [](Copy& c) {
       c.f.quantize = [](const float* src, uint64_t n, uint64_t k, const float* i, void* dst,
                         apr_error* error) {
         return changed(src, n, k, i, dst, error, [](auto& x) {
           for (float& v : x) v = std::fmin(v, 0.05f);
         });
       };
     }},
    {"NMSE: no bit is better",
     [](Copy& c) {
       c.f.quantize = [](const float* src, uint64_t n, uint64_t k, const float* i, void* dst,
                         apr_error* error) {
         const apr_status status = base->quantize(src, n, k, i, dst, error);
         for (uint64_t b = 0; status == APR_OK && b < n * k / 256; ++b)
           for (int j = 16; j < 144; ++j)
             static_cast<uint8_t*>(dst)[b * 144 + static_cast<uint64_t>(j)] &= 0xee;
         return status;
       };
     }},
    {"NMSE: importance",
     [](Copy& c) {
       c.f.quantize = [](const float* src, uint64_t n, uint64_t k, const float*, void* dst,
                         apr_error* error) { return base->quantize(src, n, k, nullptr, dst, error); };
     }},
    {"unpack_float portable",
     [](Copy& c) {
       c.portable.unpack_float = [](const void* row, uint64_t k0, uint64_t cols, float* w) {
         base->cpu[0]->unpack_float(row, k0, cols, w);
         w[cols - 1] = std::nextafter(w[cols - 1], 1e30f);
       };
     }},
    {"unpack_int portable",
     [](Copy& c) {
       c.portable.unpack_int = [](const void* row, uint64_t k0, uint64_t cols, int8_t* q, float* scale,
                                  float* offset) {
         base->cpu[0]->unpack_int(row, k0, cols, q, scale, offset);
         scale[0] *= 1.0001f;
       };
     }},
    {"gemv_float portable",
     [](Copy& c) {
       c.portable.gemv_float = [](const apr_cpu_gemv* a) {
         base->cpu[0]->gemv_float(a);
         a->y[a->n - 1] *= 1.001f;
       };
     }},
    {"gemv_int portable",
     [](Copy& c) {
       c.portable.gemv_int = [](const apr_cpu_gemv* a) {
         base->cpu[0]->gemv_int(a);
         a->y[a->n] = 0;
       };
     }},
    {"codec: text", [](Copy& c) { c.patch("#pragma once", "#pragma once\n#include <cstdint>"); }},
    {"codec: compiles", [](Copy& c) { c.patch("struct Planar", "int x = nothing; struct Planar"); }},
    {"codec: constants", [](Copy& c) { c.codec.runs = 1; }},
    {"codec: every column once", [](Copy& c) { c.patch("+ 32 * run", "+ 16 * run"); }},
    {"layout row_major: decode", [](Copy& c) { c.patch("chunk / 2 * 2 + r, s, m", "chunk / 2 * 2, s, m"); }},
    {"layout planar: decode",
     [](Copy& c) { c.patch("byte_to_float(raw.scales, 3)", "byte_to_float(raw.scales, 2)"); }},
    {"layout planar: split",
     [](Copy& c) {
       c.planar.split = [](const void* blocks, uint64_t n, uint8_t* const* planes) {
         const uint8_t before = planes[0][5];
         base->codec->layouts[1]->split(blocks, n, planes);
         planes[0][5] = before;
       };
     }},
};

// Whether the process that checks this format ends at the access: by the guard page's signal, or by the sanitizer.
bool is_stopped(void (*plant)(Copy&)) {
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    std::signal(SIGSEGV, SIG_DFL);                                   // not the test framework's handler
    if (apr_test::kSanitized) dup2(open("/dev/null", O_WRONLY), 2);  // its report is expected
    Copy copy;
    plant(copy);
    Collect collect;
    conformance::check_format(copy.f, {}, collect);
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  if (apr_test::kSanitized && WIFEXITED(status)) return WEXITSTATUS(status) != 0;
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV;
}

}  // namespace

TEST_CASE("the conformance test finds what is planted") {
  base = find_format("q4_k");
  REQUIRE(base != nullptr);
  Collect good;
  const Copy copy;
  conformance::check_format(copy.f, {}, good);
  for (const auto& [check, verdict] : good.verdicts) {
    const bool counted = !apr_test::kSanitized || check != "memory left behind";
    CHECK_MESSAGE(verdict == (counted ? Verdict::Pass : Verdict::NotRun), check);
  }
  for (const Planted& fault : kFaults) {
    Copy broken;
    fault.plant(broken);
    Collect found;
    conformance::check_format(broken.f, {}, found);
    REQUIRE_MESSAGE(found.verdicts.count(fault.check) == 1, std::string(fault.check));
    if (good.verdicts[fault.check] == Verdict::Pass)
      CHECK_MESSAGE(found.verdicts[fault.check] == Verdict::Fail, std::string(fault.check));
  }
}

TEST_CASE("what touches memory beyond its buffers is stopped") {
  base = find_format("q4_k");
  REQUIRE(base != nullptr);
  CHECK_FALSE(is_stopped([](Copy&) {}));
  CHECK(is_stopped([](Copy& c) {
    c.f.dequantize = [](const void* src, uint64_t n, uint64_t k, float* dst) {
      base->dequantize(src, n, k, dst);
      const volatile uint8_t* beyond = static_cast<const uint8_t*>(src) + n * row_bytes(*base, k);
      if (k <= 512) dst[0] += 0 * static_cast<float>(*beyond);
    };
  }));
}
