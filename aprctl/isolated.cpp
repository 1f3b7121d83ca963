#include "aprctl/isolated.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>

#include "core/base/error.h"

namespace apr::ctl {
namespace {

void write_all(int to, const std::string& text) {
  for (size_t at = 0; at < text.size();) {
    const ssize_t n = write(to, text.data() + at, text.size() - at);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) _exit(1);  // nobody listens any more
    at += static_cast<size_t>(n);
  }
}

// Lines until the child closes its end. False when it was silent for too long.
bool read_lines(int from, const std::function<void(const std::string&)>& on_line, int silence_seconds) {
  std::string pending;
  char buffer[4096];
  for (;;) {
    pollfd ready{from, POLLIN, 0};
    const int n = poll(&ready, 1, silence_seconds * 1000);
    if (n == 0) return false;
    if (n < 0 && errno == EINTR) continue;
    const ssize_t bytes = read(from, buffer, sizeof buffer);
    if (bytes < 0 && errno == EINTR) continue;
    if (bytes <= 0) return true;
    pending.append(buffer, static_cast<size_t>(bytes));
    for (size_t end; (end = pending.find('\n')) != std::string::npos; pending.erase(0, end + 1))
      on_line(pending.substr(0, end));
  }
}

}  // namespace

ChildEnd run_isolated(const std::function<void(const std::function<void(const std::string&)>& send)>& work,
                      const std::function<void(const std::string& line)>& on_line, int silence_seconds) {
  int ends[2];
  if (pipe(ends) != 0) throw Error("a pipe cannot be made: {}", std::strerror(errno));
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child < 0) throw Error("a process cannot be started: {}", std::strerror(errno));
  if (child == 0) {
    close(ends[0]);
    try {
      work([&](const std::string& line) { write_all(ends[1], line + "\n"); });
    } catch (const std::exception& error) {
      fmt::print(stderr, "error: {}\n", error.what());
      std::fflush(nullptr);
      _exit(1);
    }
    std::fflush(nullptr);
    _exit(0);
  }
  close(ends[1]);
  const bool spoke = read_lines(ends[0], on_line, silence_seconds);
  close(ends[0]);
  if (!spoke) kill(child, SIGKILL);
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (!spoke) return {false, fmt::format("no message for {} s", silence_seconds)};
  if (WIFSIGNALED(status))
    return {false, fmt::format("signal {} ({})", WTERMSIG(status), strsignal(WTERMSIG(status)))};
  if (WEXITSTATUS(status) != 0) return {false, fmt::format("exit status {}", WEXITSTATUS(status))};
  return {true, ""};
}

}  // namespace apr::ctl
