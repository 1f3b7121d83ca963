// Every template with every built format compiles for every architecture, over a spread of shapes. NVRTC needs no GPU, so
// this runs anywhere that it is installed. A kernel takes half a second: instead of the full product, each template and
// format meets each architecture once, with shapes dealt in turn, and attention meets every head size and ratio.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>

#include "core/base/error.h"
#include "core/base/thread_pool.h"
#include "plugins/backend-cuda/jit.h"
#include "plugins/backend-cuda/spec.h"
#include "ptx-templates/args.h"
#include "tests/cuda/support/formats.h"

using namespace apr;
using namespace apr::cuda;

namespace {

const Nvrtc* compiler() { return nvrtc(0).library; }
const Registry& registry() {
  static const Registry r =
      read_registry(std::filesystem::path(test::plugin_folder()) / ".." / "ptx-templates");
  return r;
}

std::vector<Target> targets() {
  std::vector<Target> list;
  for (const auto& [capability, sms, shared] :
       {std::tuple{80, 108, 166912}, {90, 132, 232448}, {100, 148, 232448}}) {
    const auto& known = compiler()->architectures;
    if (std::find(known.begin(), known.end(), capability) != known.end())
      list.push_back(make_target(capability, sms, shared, known));
  }
  return list;
}

struct Job {
  KernelSpec spec;
  Target target;
};
std::vector<Job> jobs;

void add(KernelSpec spec, const Target& target) { jobs.push_back({std::move(spec), target}); }

Constant flag(const char* name, bool value) { return {name, value, Constant::Type::Bool}; }

std::vector<const apr_quant_format*> device_formats() {
  std::vector<const apr_quant_format*> list;
  for (const apr_quant_format* f : test::formats())
    if (f->codec != nullptr) list.push_back(f);
  return list;
}

SegmentSpec segment(const apr_quant_format& f, uint32_t n, bool bias) {
  return {f.name, f.codec, nullptr, n, bias};
}

struct Shape {
  uint32_t n, k;
};
// N differs from K; N or K no multiple of a tile; K of one superblock; small and large; real models' matrices.
constexpr Shape kShapes[] = {{512, 256},    {33, 512}, {3584, 18944}, {1001, 768}, {896, 4864},
                             {151936, 896}, {1, 256},  {256, 1536},   {4864, 896}, {130, 2304}};

// Of a format whose blocks do not fit K, the nearest K that they do.
uint32_t fitting(uint32_t k, const apr_quant_format& f) {
  return std::max(k / f.block_elements, 1u) * f.block_elements;
}

void collect() {
  size_t turn = 0;
  for (const Target& target : targets()) {
    for (const apr_quant_format* f : device_formats()) {
      for (const View view : {View::Int, View::Float}) {
        if (view == View::Int && f->codec->kind != APR_CODEC_INTEGER) continue;
        const Shape shape = kShapes[turn++ % std::size(kShapes)];
        const uint32_t k = fitting(shape.k, *f);
        const int epilogue = static_cast<int>(turn % 3);
        KernelSpec gemv = {Op::Linear,
                           view,
                           std::vector<uint32_t>{1, 1, 2, 8}[turn % 4],
                           k,
                           {segment(*f, shape.n, turn % 2 == 0)},
                           {}};
        if (epilogue == kEpilogueSwiglu) gemv.segments.push_back(gemv.segments[0]);
        gemv.constants = {{"kEpilogue", epilogue},
                          flag("kNorm", turn % 2 == 1),
                          {"kInput", kInputFloat},
                          {"kOutput", kOutputFloat}};
        if (view == View::Int && gemv.constants[1].value == 0) gemv.constants[2].value = kInputInt8;
        if (view == View::Int && epilogue == kEpilogueSwiglu && shape.n % 32 == 0)
          gemv.constants[3].value = kOutputInt8;
        add(gemv, target);
      }
      const Shape shape = kShapes[turn++ % std::size(kShapes)];
      const uint32_t k = fitting(shape.k, *f);
      const bool wide = f->codec->block_bytes * 8 > f->codec->block * 16;
      KernelSpec gemm = {Op::Linear, View::Float, 0, k, {segment(*f, shape.n, turn % 2 == 0)}, {}};
      gemm.constants = {{"kEpilogue", static_cast<int>(turn % 2)},
                        flag("kNorm", false),
                        {"kInput", wide            ? kInputBf16x2
                                   : turn % 4 == 0 ? kInputF16x2
                                                   : kInputF16},
                        {"kOutput", kOutputFloat}};
      add(gemm, target);
      add({Op::Embed, View::Float, 0, k, {segment(*f, shape.n, false)}, {}}, target);
      add({Op::WeightRange, View::Float, 0, k, {segment(*f, shape.n, false)}, {}}, target);
    }
    for (const uint32_t k : {896u, 250u}) {
      for (const int output : {kOutputFloat, kOutputF16, kOutputBf16x2, kOutputF16x2, kOutputInt8}) {
        add({Op::RmsNorm, View::None, 0, k, {}, {{"kGroups", 1}, {"kOutput", output}}}, target);
        if (output != kOutputFloat)
          add({Op::Convert, View::None, 0, k, {}, {{"kOutput", output}, flag("kSwiglu", k == 250)}}, target);
      }
      for (const Op op : {Op::Add, Op::Swiglu, Op::Gather}) add({op, View::None, 0, k, {}, {}}, target);
      for (const Op op : {Op::Argmax, Op::TopK})
        add({op, View::None, 0, 0, {}, {{"kN", k == 250 ? 151936 : 512}, {"kTopK", 40}}}, target);
    }
    add({Op::RmsNorm, View::None, 0, 128, {}, {{"kGroups", 7}, {"kOutput", kOutputFloat}}}, target);
    add({Op::ReadBandwidth, View::None, 0, 0, {}, {}}, target);
    for (const int dim : {64, 80, 96, 128})
      for (const int ratio : {1, 4, 7, 8}) {
        // All on the newest generation that this is tuned for, a diagonal on the others.
        ++turn;
        if (target.capability != 90 && (dim / 16 + ratio) % 3 != 0) continue;
        const int kv = ratio == 7 ? 4 : 2;
        const std::vector<Constant> heads = {{"kHeads", ratio * kv},
                                             {"kKvHeads", kv},
                                             {"kHeadDim", dim},
                                             {"kRopeDims", turn % 2 == 0 ? dim : dim / 2},
                                             {"kRopeKind", static_cast<int>(1 + turn % 2)},
                                             flag("kQkNorm", turn % 3 == 0),
                                             {"kWindow", turn % 5 == 0 ? 4096 : 0}};
        const auto with = [&](bool fused, int output) {
          std::vector<Constant> all = heads;
          all.push_back(flag("kFused", fused));
          all.push_back({"kOutput", output});
          return all;
        };
        add({Op::Attention,
             View::None,
             1,
             0,
             {},
             with(true, dim % kActBlock == 0 ? kOutputInt8 : kOutputFloat)},
            target);
        add({Op::Attention, View::None, 4, 0, {}, with(false, kOutputFloat)}, target);
        add({Op::Attention, View::None, 0, 0, {}, with(false, kOutputFloat)}, target);
        add({Op::RopeKv, View::None, 0, 0, {}, heads}, target);
        add({Op::Rope, View::None, 0, 0, {}, heads}, target);
      }
  }
}

}  // namespace

TEST_CASE("every template, every format, every architecture") {
  collect();
  std::mutex mutex;
  size_t done = 0;
  std::vector<std::string> failures;
  std::map<std::string, int> templates;
  const auto start = std::chrono::steady_clock::now();
  ThreadPool threads;
  threads.parallel_for(jobs.size(), 1, [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) {
      std::string failure, name;
      try {
        std::string why;
        const auto config = choose(registry(), jobs[i].spec, jobs[i].target, &why);
        if (!config) throw Error("no template:{}", why);
        name = config->kernel->name;
        const Specialised source = specialise(registry(), jobs[i].spec, *config, jobs[i].target);
        const Compiled compiled =
            compile(*compiler(), source.name, source.source, source.headers, source.options);
        if (compiled.cubin.find("apr_launch") == std::string::npos ||
            compiled.cubin.find("apr_kernel") == std::string::npos)
          throw Error("{}: the cubin lacks apr_kernel or apr_launch", source.name);
      } catch (const std::exception& e) {
        failure = describe(jobs[i].spec) + " for " + jobs[i].target.arch + ": " + e.what();
      }
      const std::lock_guard lock(mutex);
      ++done;
      if (!name.empty()) ++templates[name];
      if (!failure.empty()) failures.push_back(failure);
    }
  });
  for (const std::string& failure : failures) FAIL_CHECK(failure);
  fmt::print("{} kernels for {} architectures in {:.0f} s\n", done, targets().size(),
             std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  for (const Template& t : registry().templates) {
    if (!t.literal) CHECK_MESSAGE(templates[t.name] > 0, t.name << " was never compiled");
    fmt::print("  {:<18} {:>4}\n", t.name, t.literal ? 0 : templates[t.name]);
  }
}

TEST_CASE("literal templates assemble") {
  const char* ptxas = "/usr/local/cuda/bin/ptxas";
  if (!std::filesystem::exists(ptxas)) {
    MESSAGE("skipped: no ptxas here");
    return;
  }
  for (const Template& t : registry().templates) {
    if (!t.literal) continue;
    for (const Shape shape : kShapes)
      for (const bool bias : {false, true}) {
        const apr_quant_format& f = test::format(t.formats[0]);
        KernelSpec spec = {t.op,
                           t.view,
                           2,
                           shape.k + 2,
                           {segment(f, shape.n, bias)},
                           {{"kEpilogue", bias}, flag("kNorm", false), {"kInput", 0}, {"kOutput", 0}}};
        Registry only{registry().folder, {t}, registry().headers};
        const Target target = targets()[0];
        const auto config = choose(only, spec, target, nullptr);
        REQUIRE(config.has_value());
        const std::string file =
            std::filesystem::temp_directory_path() / fmt::format("apr_literal_{}.ptx", ::getpid());
        std::ofstream(file) << specialise(only, spec, *config, target).source;
        CHECK(std::system(fmt::format("{} -arch=sm_80 -o /dev/null {} 2>&1", ptxas, file).c_str()) == 0);
        std::filesystem::remove(file);
      }
  }
}

int main(int argc, char** argv) {
  if (compiler() == nullptr) {
    std::printf("skipped: %s\n", nvrtc(0).reason.c_str());
    return 77;
  }
  return doctest::Context(argc, argv).run();
}
