// aprctl: one program, one file per command. A command gets its arguments and returns an exit code; what it
// throws is printed as one line on stderr.
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <exception>
#include <iostream>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#include "aprctl/command_line.h"
#include "aprctl/commands.h"
#include "core/base/error.h"

namespace apr::ctl {
namespace {

struct Command {
  std::string_view name;
  std::string_view summary;
  int (*main)(const std::vector<std::string>& args);
};

constexpr Command kCommands[] = {
    {"run", "answer a prompt, or chat", run_main},
    {"bench", "measure prompt and decode speed", bench_main},
    {"inspect", "show a model's metadata, tensors and formats", inspect_main},
    {"plugins", "list weight formats and backends", plugins_main},
    {"kernels", "list, explain and show kernels", kernels_main},
    {"tune", "find the fastest kernels' parameters for a model", tune_main},
    {"quantize", "write a model in other weight formats", quantize_main},
    {"eval", "perplexity of a text, divergence from a reference", eval_main},
    {"tokenize", "turn text into token ids", tokenize_main},
    {"logits", "write the logits of given tokens", logits_main},
    {"parity", "compare a backend with the CPU reference", parity_main},
    {"qa", "judge a model and a backend: one verdict from gates", qa_main},
    {"doctor", "examine this machine and installation", doctor_main},
    {"diff", "compare two models, tensors, dumps or logits", diff_main},
    {"cache", "list, check or clear compiled kernels", cache_main},
    {"probes", "show the environment variables in force", probes_main},
};

void print_usage(std::FILE* out) {
  fmt::print(out, "usage: aprctl COMMAND [options]\n\n");
  for (const Command& command : kCommands) fmt::print(out, "  {:<10} {}\n", command.name, command.summary);
  fmt::print(out,
             "\n`aprctl COMMAND --help` shows a command's options and an example.\n"
             "exit codes: 0 ok, 1 error, 2 usage, 4 a gate failed\n");
}

int exit_code(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::Failure:
      return kExitError;
    case ErrorKind::Usage:
      return kExitUsage;
    case ErrorKind::Gate:
      return kExitGate;
  }
  return kExitError;
}

int dispatch(int argc, char** argv) {
  if (argc < 2) {
    print_usage(stderr);
    return kExitUsage;
  }
  const std::string_view name = argv[1];
  if (name == "--help" || name == "-h" || name == "help") {
    print_usage(stdout);
    return kExitOk;
  }
  if (name == "--version") {
    fmt::print("apr {}\n", APR_VERSION);
    return kExitOk;
  }
  const auto* command = std::find_if(std::begin(kCommands), std::end(kCommands),
                                     [&](const Command& c) { return c.name == name; });
  if (command == std::end(kCommands)) throw usage_error("aprctl: no command '{}'; see `aprctl --help`", name);
  return command->main(std::vector<std::string>(argv + 2, argv + argc));
}

}  // namespace
}  // namespace apr::ctl

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_DFL);  // `aprctl inspect | head` ends quietly
  std::signal(SIGXFSZ,
              SIG_IGN);  // a limit on the size of files is an error with a file's name, as a full disk is
  try {
    const int code = apr::ctl::dispatch(argc, argv);
    // Buffered output meets a full disk only here: what was not written must not look like success.
    std::cout.flush();
    if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0)
      throw apr::Error("standard output: not everything could be written; is the disk full?");
    return code;
  } catch (const apr::Error& error) {
    fmt::print(stderr, "error: {}\n", error.what());
    return apr::ctl::exit_code(error.kind());
  } catch (const std::bad_alloc&) {
    fmt::print(stderr, "error: out of memory\n");
    return apr::ctl::kExitError;
  } catch (const std::exception& error) {
    fmt::print(stderr, "error: {}\n", error.what());
    return apr::ctl::kExitError;
  }
}
