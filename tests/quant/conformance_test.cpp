// The conformance test over every format of the given libraries: what `aprctl plugins check` judges a
// stranger's plugin by holds for the project's own.
#include "core/conformance/conformance.h"

#include <doctest/doctest.h>

#include "formats_under_test.h"

namespace {

using namespace apr;
using conformance::Result;
using conformance::Verdict;

struct Expect : conformance::Listener {
  size_t passed = 0;
  void begins(const std::string&, const std::string&) override {}
  void ends(const Result& r) override {
    const std::string what = r.group + ": " + r.check + ": " + r.finding.value + " " + r.finding.detail;
    CHECK_MESSAGE(r.finding.verdict != Verdict::Fail, what);
    passed += r.finding.verdict == Verdict::Pass;
  }
};

}  // namespace

TEST_CASE("every format passes the conformance test") {
  for (const apr_quant_format* f : test::formats()) {
    Expect expect;
    conformance::check_format(*f, {}, expect);
    // 34 checks judge an integer format with all three instruction sets and two layouts, fewer on lesser
    // processors.
    CHECK_MESSAGE(expect.passed >= 24, std::string(f->name));
  }
}
