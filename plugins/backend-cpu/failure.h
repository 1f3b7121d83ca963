// Failures inside the backend are exceptions; `guard` turns them into a status and a message at the C ABI.
#pragma once

#include <apr/abi.h>

#include <algorithm>
#include <cstdarg>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <exception>
#include <new>
#include <string>

namespace apr::cpu {

class Failure : public std::exception {
 public:
  Failure(apr_status status, std::string message) : status_(status), message_(std::move(message)) {}
  apr_status status() const { return status_; }
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  apr_status status_;
  std::string message_;
};

[[noreturn]] inline void fail(apr_status status, const char* format, ...)
    __attribute__((format(printf, 2, 3)));
[[noreturn]] inline void fail(apr_status status, const char* format, ...) {
  char text[1024];
  va_list args;
  va_start(args, format);
  std::vsnprintf(text, sizeof(text), format, args);
  va_end(args);
  throw Failure(status, text);
}

// Text into a fixed buffer, cut to fit, always terminated.
inline void copy_text(char* to, size_t size, const char* from) {
  if (size == 0) return;
  const size_t n = std::min(std::strlen(from), size - 1);
  std::memcpy(to, from, n);
  to[n] = 0;
}

template <class Fn>
apr_status guard(apr_error* error, Fn&& fn) noexcept {
  const auto report = [&](apr_status status, const char* text) {
    if (error && error->struct_size > offsetof(apr_error, message))
      copy_text(error->message, error->struct_size - offsetof(apr_error, message), text);
    return status;
  };
  try {
    fn();
    return APR_OK;
  } catch (const Failure& f) {
    return report(f.status(), f.what());
  } catch (const std::bad_alloc&) {
    return report(APR_NO_MEMORY, "out of memory");
  } catch (const std::exception& e) {
    return report(APR_FAILED, e.what());
  }
}

// A struct of the caller's, whatever its version: members that it does not have are zero.
template <class T>
T read_struct(const T* from, const char* what) {
  if (!from) fail(APR_INVALID, "%s is null", what);
  T out{};
  if (from->struct_size < sizeof(from->struct_size)) fail(APR_INVALID, "%s has a struct_size of 0", what);
  std::memcpy(&out, from, std::min<size_t>(from->struct_size, sizeof(T)));
  return out;
}

// The members that the caller's version of the struct has; struct_size stays the caller's.
template <class T>
void write_struct(const T& from, T* to, const char* what) {
  if (!to) fail(APR_INVALID, "%s is null", what);
  const uint32_t size = to->struct_size;
  if (size < sizeof(size)) fail(APR_INVALID, "%s has a struct_size of 0", what);
  std::memcpy(to, &from, std::min<size_t>(size, sizeof(T)));
  to->struct_size = size;
}

}  // namespace apr::cpu
