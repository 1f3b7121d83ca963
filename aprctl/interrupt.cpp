#include "aprctl/interrupt.h"

#include <csignal>

namespace apr::ctl {
namespace {

volatile std::sig_atomic_t noted = 0;
// The second one ends the program, in case that nobody asks.
void note(int signal) {
  noted = 1;
  std::signal(signal, SIG_DFL);
}

}  // namespace

InterruptGuard::InterruptGuard(std::initializer_list<int> signals) {
  noted = 0;
  for (const int signal : signals) {
    const auto before = std::signal(signal, note);
    // What the caller's caller has set to be ignored (nohup) stays ignored.
    if (before == SIG_IGN) std::signal(signal, SIG_IGN);
    before_.emplace_back(signal, before == SIG_ERR ? SIG_DFL : before);
  }
}
InterruptGuard::~InterruptGuard() {
  for (const auto& [signal, handler] : before_) std::signal(signal, handler);
}
bool InterruptGuard::raised() { return noted != 0; }

}  // namespace apr::ctl
