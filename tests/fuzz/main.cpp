// A seeded fuzzer for model files. Best built with `./dev test --asan`, which runs a short one; by hand:
//   build-asan/tests/fuzz/fuzz_model --seconds 300 [--seed N]     random damage
//   build-asan/tests/fuzz/fuzz_model --fields [--step N]          every field, every absurd value
//   build-asan/tests/fuzz/fuzz_model --seconds 300 MODEL.gguf     damage to other files than the samples
//   build-asan/tests/fuzz/fuzz_model --rounds 50 --write FOLDER   the damaged files, for other programs to read
// What it dies of is reported with the arguments that repeat it.
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <vector>

#include <sys/resource.h>
#include <unistd.h>
#include <boost/dll/runtime_symbol_info.hpp>

#include <fmt/format.h>

#include "core/base/log.h"
#include "tests/fuzz/drive.h"
#include "tests/fuzz/mutate.h"
#include "tests/fuzz/samples.h"

// The sanitizer's own, where there is one: an allocation that no small file can justify ends the run.
extern "C" const char* __asan_default_options();  // NOLINT(bugprone-reserved-identifier)
extern "C" const char* __asan_default_options() {
  return "max_allocation_size_mb=512";
}  // NOLINT(bugprone-reserved-identifier)
extern "C" __attribute__((weak)) void __sanitizer_set_death_callback(
    void (*)());  // NOLINT(bugprone-reserved-identifier)

namespace {

constexpr unsigned kMostSeconds = 20;  // for one input; the slowest takes a tenth of a second

struct Arguments {
  uint64_t seed = 1, rounds = 0, step = 1;
  double seconds = 0;
  bool fields = false;
  std::optional<uint64_t> only;  // of the inputs of --fields
  std::string write;             // a folder: files are written there, and nothing is tried
  std::vector<std::string> files;
};

// What is being tried, for the report of a crash: no allocation, no locks.
char g_now[512] = "";

void tell() {
  const char text[] = "\nwhile trying: ";
  (void)!write(STDERR_FILENO, text, sizeof text - 1);
  (void)!write(STDERR_FILENO, g_now, std::strlen(g_now));
  (void)!write(STDERR_FILENO, "\n", 1);
}

void on_signal(int number) {
  tell();
  if (number == SIGALRM) {
    const char text[] = "this input took too long\n";
    (void)!write(STDERR_FILENO, text, sizeof text - 1);
  }
  std::signal(number, SIG_DFL);
  std::raise(number);
}

[[noreturn]] void usage() {
  std::fputs(
      "usage: fuzz_model [--rounds N] [--seconds S] [--seed N] [--fields [--step N] [--only N]]\n"
      "                  [--write FOLDER] [MODEL.gguf ...]\n",
      stderr);
  std::exit(2);
}

Arguments parse(int argc, char** argv) {
  Arguments args;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    const auto value = [&] { return i + 1 < argc ? std::string(argv[++i]) : (usage(), std::string()); };
    if (name == "--rounds")
      args.rounds = std::stoull(value());
    else if (name == "--seconds")
      args.seconds = std::stod(value());
    else if (name == "--seed")
      args.seed = std::stoull(value());
    else if (name == "--step")
      args.step = std::stoull(value());
    else if (name == "--only")
      args.only = std::stoull(value());
    else if (name == "--write")
      args.write = value();
    else if (name == "--fields")
      args.fields = true;
    else if (name.starts_with("-"))
      usage();
    else
      args.files.push_back(name);
  }
  if (args.step == 0 || (args.rounds == 0 && args.seconds == 0 && !args.fields)) usage();
  return args;
}

std::vector<apr_test::SampleModel> files_or_samples(const Arguments& args, apr::Catalog& catalog) {
  if (args.files.empty()) return apr_test::sample_models(catalog);
  std::vector<apr_test::SampleModel> models;
  for (const std::string& path : args.files) {
    std::ifstream in(path, std::ios::binary);
    std::string content{std::istreambuf_iterator<char>(in), {}};
    const auto* bytes = reinterpret_cast<const std::byte*>(content.data());
    models.push_back({path, {bytes, bytes + content.size()}});
  }
  return models;
}

class Fuzzer {
 public:
  explicit Fuzzer(const Arguments& args)
      : args_(args),
        catalog_({{(boost::dll::program_location().parent_path() / "../../plugins").lexically_normal(),
                   "the build tree", true}}) {}

  int run() {
    const auto models = files_or_samples(args_, catalog_);
    std::vector<apr_test::Fields> fields;
    for (const auto& model : models) {
      fields.push_back(apr_test::find_fields(model.bytes));
      // A sample that is refused would make every damage to it look well handled.
      if (args_.files.empty() && !whole(model)) return 1;
    }
    uint64_t number = 0;
    for (size_t i = 0; args_.fields && i < models.size(); ++i) {
      apr_test::every_absurd_field(models[i].bytes, fields[i], args_.step, [&](const auto& bytes) {
        const uint64_t mine = number++;
        if (!args_.only || *args_.only == mine)
          take(bytes, "fields-" + std::to_string(mine),
               fmt::format("--fields --step {} --only {}", args_.step, mine));
      });
    }
    const auto start = std::chrono::steady_clock::now();
    const auto seconds = [&] {
      return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    };
    for (uint64_t round = 0; round < args_.rounds || seconds() < args_.seconds; ++round) {
      const uint64_t seed = args_.seed + round;
      const size_t at = seed % models.size();
      take(apr_test::damaged(models[at].bytes, fields[at], seed), "seed-" + std::to_string(seed),
           fmt::format("--rounds 1 --seed {}", seed));
    }
    return report();
  }

 private:
  bool whole(const apr_test::SampleModel& model) {
    apr_test::Reached reached;
    attempt(model.bytes, reached, "the undamaged " + model.name);
    fmt::print("{}: {} bytes\n", model.name, model.bytes.size());
    if (reached.computed == 1 && reached.tokenized == 1) return true;
    fmt::print("FAILED: the undamaged sample does not run\n");
    return false;
  }

  void take(const std::vector<std::byte>& bytes, const std::string& name, const std::string& arguments) {
    if (args_.write.empty()) return attempt(bytes, reached_, arguments);
    std::ofstream out(args_.write + "/" + name + ".gguf", std::ios::binary);
    out.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    ++reached_.inputs;
    failures_ += !out;
  }

  void attempt(const std::vector<std::byte>& bytes, apr_test::Reached& reached, const std::string& what) {
    std::snprintf(g_now, sizeof g_now, "%s", what.c_str());
    alarm(kMostSeconds);
    try {
      apr_test::drive(bytes, catalog_, reached);
    } catch (const std::exception& error) {
      if (++failures_ <= 20) fmt::print("FAILED: {}: {}\n", what, error.what());
    }
    alarm(0);
  }

  int report() const {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    fmt::print(
        "{} inputs: {} parsed, {} tokenized, {} chats, {} planned, {} computed; {} failures; at most {} "
        "MiB\n",
        reached_.inputs, reached_.parsed, reached_.tokenized, reached_.chats, reached_.planned,
        reached_.computed, failures_, usage.ru_maxrss / 1024);
    return failures_ == 0 ? 0 : 1;
  }

  Arguments args_;
  apr::Catalog catalog_;
  apr_test::Reached reached_;
  uint64_t failures_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  const Arguments args = parse(argc, argv);
  apr::set_log_level(apr::LogLevel::Error);
  std::signal(SIGALRM, on_signal);
  if (__sanitizer_set_death_callback != nullptr) {
    __sanitizer_set_death_callback(tell);
  } else {
    for (const int number : {SIGSEGV, SIGBUS, SIGFPE, SIGABRT}) std::signal(number, on_signal);
    // Instead of the sanitizer's bound on one allocation. Address space, of which threads and libraries take some.
    const rlimit limit{rlim_t{4} << 30, rlim_t{4} << 30};
    setrlimit(RLIMIT_AS, &limit);
  }
  return Fuzzer(args).run();
}
