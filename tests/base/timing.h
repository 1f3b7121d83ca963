// For tests of speed: time that a busy machine does not falsify, and whether this build's speed says
// anything.
#pragma once

#include <time.h>

namespace apr_test {

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define APR_TEST_SANITIZED 1
#endif
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define APR_TEST_SANITIZED 1
#endif

#if defined(__OPTIMIZE__) && !defined(APR_TEST_SANITIZED)
constexpr bool kSpeedCounts = true;
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
