// The gate on a planted fault: with a GEMV that reads W transposed in place of the shipped one, the device must fail against
// the CPU reference, and the report must say what it looks like. Runs on the fake GPU and on a real one.
#include <doctest/doctest.h>
#include <unistd.h>

#include <boost/dll/shared_library.hpp>
#include <filesystem>

#include "apr/abi.h"
#include "core/gate/bisect.h"
#include "core/gate/parity.h"
#include "core/gate/stage_check.h"
#include "tests/cuda/support/formats.h"
#include "tests/cuda/support/harness.h"
#include "tests/cuda/support/tiny_plan.h"

namespace fs = std::filesystem;
using namespace apr::test;

namespace {

// The CPU backend, precise, as the program's reference is.
class CpuReference {
 public:
  explicit CpuReference(const apr_plan& plan)
      : library_(plugin_folder() + "/backend-cpu/libapr-backend-cpu.so") {
    backend_ = library_.get<const apr_plugin>(APR_PLUGIN_SYMBOL).backends[0];
    apr_device_options device{};
    device.struct_size = sizeof device;
    apr_error error = {sizeof(apr_error), {}};
    REQUIRE_MESSAGE(backend_->open(&device, &device_, &error) == APR_OK, error.message);
    apr_load_options load{};
    load.struct_size = sizeof load;
    load.n_ctx = 64, load.n_sequences = 1, load.n_batch = 32, load.precise = 1;
    REQUIRE_MESSAGE(backend_->load(device_, &plan, &load, &session_, &error) == APR_OK, error.message);
  }
  ~CpuReference() {
    backend_->unload(session_);
    backend_->close(device_);
  }
  apr::ParitySide side() const { return {backend_, session_}; }

 private:
  boost::dll::shared_library library_;
  const apr_backend* backend_;
  apr_device* device_ = nullptr;
  apr_session* session_ = nullptr;
};

// Every stage of a session, in both forms.
std::vector<apr::StageVerdict> judged(const TestSession::Options& options, const std::string& format) {
  TinyShape shape;
  shape.format = format;
  const TinyPlan tiny(shape);
  TestSession device(tiny.plan(), options);
  apr::StageCheckOptions check;
  check.precise = options.precise;
  std::vector<apr::StageVerdict> all;
  for (const apr::ParityForm form : {apr::ParityForm::Prefill, apr::ParityForm::Mixed}) {
    const auto stages = apr::check_stages({&cuda_backend(), device.session()}, tiny.plan(),
                                          random_tokens(12, shape.n_vocab, 3), form, check);
    all.insert(all.end(), stages.begin(), stages.end());
  }
  return all;
}

apr::ParityReport gate(const TestSession::Options& options, const std::string& format) {
  TinyShape shape;
  shape.format = format;
  const TinyPlan tiny(shape);
  const CpuReference reference(tiny.plan());
  TestSession device(tiny.plan(), options);
  return apr::run_parity({reference.side(),
                          {&cuda_backend(), device.session()},
                          &tiny.plan(),
                          random_tokens(12, shape.n_vocab, 3),
                          true,
                          false});
}

}  // namespace

TEST_CASE("the gate passes the shipped kernels") {
  for (const char* format : {"f32", "q4_k", "q8_0"}) {
    CAPTURE(format);
    const apr::ParityReport report = gate({}, format);
    CAPTURE(describe(report));
    CHECK(report.verdict == apr::ParityVerdict::Pass);
    const auto stages = judged({}, format);
    CHECK(stages.size() > 20);
    for (const apr::StageVerdict& v : stages) CHECK_MESSAGE(v.pass, apr::describe(v));
  }
}

TEST_CASE("the gate catches a GEMV that reads W transposed") {
  char name[] = "/tmp/apr_fault_XXXXXX";
  const fs::path folder = ::mkdtemp(name);
  fs::copy(fs::canonical(fs::path(data_folder()) / "ptx-templates"), folder / "ptx-templates",
           fs::copy_options::recursive);
  const char* faults = std::getenv("APR_TEST_FAULTS");
  fs::copy_file(fs::path(faults == nullptr ? APR_TEST_FAULTS : faults) / "gemv_float.cu",
                folder / "ptx-templates" / "gemv_float.cu", fs::copy_options::overwrite_existing);
  TestSession::Options options;
  options.settings = {{"data_dir", folder}, {"kernel_cache", ""}};
  const apr::ParityReport report = gate(options, "f32");
  const auto as_it_runs = judged(options, "f32");
  options.settings.insert(options.settings.end(), {{"no_fusion", "1"}, {"no_graph", "1"}});
  const auto unfused = judged(options, "f32");
  fs::remove_all(folder);
  // The bisection comes down to the first product that one token goes through, and says what it looks like.
  const apr::BisectFinding fused_only = apr::find_fault({{"as it runs", as_it_runs}}),
                           finding = apr::find_fault({{"as it runs", as_it_runs}, {"unfused", unfused}});
  CAPTURE(finding.text);
  CHECK(fused_only.result == apr::BisectResult::Group);
  CHECK(fused_only.verdict.group == std::vector<std::string>{"blk.0.attn_norm", "blk.0.attn_q"});
  CHECK(finding.result == apr::BisectResult::Stage);
  CHECK(finding.verdict.stage == "blk.0.attn_q");
  CHECK(finding.forms == std::vector<std::string>{"mixed"});
  CHECK(finding.verdict.looks_like.find("transposed") != std::string::npos);
  CAPTURE(describe(report));
  CHECK(report.verdict == apr::ParityVerdict::Fail);
  CHECK(report.fault == apr::ParityFault::Transposed);
  // Prompts go through the GEMM, which is right: the report must not blame it.
  for (const apr::ParityPosition& p : report.positions) CHECK(p.pass == (p.form == apr::ParityForm::Prefill));
}
