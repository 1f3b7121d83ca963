// For tests of speed: time that a busy machine does not falsify, and whether this build's speed says
// anything.
#pragma once

#include <time.h>

#include "sanitized.h"

namespace apr_test {

#if defined(__OPTIMIZE__)
constexpr bool kSpeedCounts = !kSanitized;
#else
constexpr bool kSpeedCounts = false;
#endif

// Seconds of CPU time that this thread has used.
inline double cpu_seconds() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

}  // namespace apr_test
