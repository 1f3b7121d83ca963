// Whether this build's speed says anything: tests check times only then.
#pragma once

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

}  // namespace apr_test
