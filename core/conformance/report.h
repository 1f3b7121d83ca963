// What a conformance run finds: one result for each check, in order, as it happens.
#pragma once

#include <exception>
#include <functional>
#include <string>
#include <utility>

#include "core/base/clock.h"

namespace apr::conformance {

enum class Verdict { Pass, Fail, NotRun };
std::string_view name(Verdict verdict);  // "pass", "FAIL", "not run"

// What one check says about itself.
struct Finding {
  Verdict verdict = Verdict::Pass;
  std::string value;   // what was found: "8.1e-08", "144 of 144 bytes"
  std::string detail;  // of a failure: what is wrong, where, what to do; of a check that did not run: why
};
inline Finding pass(std::string value) { return {Verdict::Pass, std::move(value), ""}; }
inline Finding fail(std::string value, std::string detail) {
  return {Verdict::Fail, std::move(value), std::move(detail)};
}
inline Finding not_run(std::string why) { return {Verdict::NotRun, "", std::move(why)}; }

struct Result {
  std::string group;  // what was judged: "library", "vendor.nf4", "vendor.nf4 on cuda"
  std::string check;  // "gemv_int avx2"
  std::string bound;  // what the value is held to, "" where the check is yes or no
  Finding finding;
  double seconds = 0;
};

// Hears of every check, on the thread that runs it.
class Listener {
 public:
  virtual ~Listener() = default;
  virtual void begins(const std::string& group, const std::string& check) = 0;
  virtual void ends(const Result& result) = 0;
};

// Runs the checks of one group.
class Recorder {
 public:
  Recorder(Listener& listener, std::string group) : listener_(listener), group_(std::move(group)) {}

  const std::string& group() const { return group_; }

  // Whatever the body throws is a failure: no exception may leave a plugin's function.
  template <typename Body>
  Verdict run(const std::string& check, const std::string& bound, const Body& body) {
    listener_.begins(group_, check);
    Result result{group_, check, bound, {}, 0};
    const auto start = Clock::now();
    try {
      result.finding = body();
    } catch (const std::exception& error) {
      result.finding = fail("exception", error.what());
    } catch (...) {
      result.finding = fail("exception", "an exception that is no std::exception left the plugin");
    }
    result.seconds = seconds_since(start);
    listener_.ends(result);
    return result.finding.verdict;
  }

 private:
  Listener& listener_;
  std::string group_;
};

}  // namespace apr::conformance
