// Work that may crash, in a process of its own: its messages come back over a pipe, one line each, and so does how it
// ended.
#pragma once

#include <functional>
#include <string>

namespace apr::ctl {

struct ChildEnd {
  bool clean = false;  // the work returned
  std::string how;     // otherwise: "signal 11 (Segmentation fault)", "no message for 300 s"
};

// Forks; the child calls work(send), where send(line) brings one line (without a line break) to on_line in this process.
// The child is ended when it sends nothing for silence_seconds. Call it before threads are started.
ChildEnd run_isolated(const std::function<void(const std::function<void(const std::string&)>& send)>& work,
                      const std::function<void(const std::string& line)>& on_line, int silence_seconds);

}  // namespace apr::ctl
