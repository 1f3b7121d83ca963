#include "tests/model/alloc_counter.h"

#include <malloc.h>

#include <algorithm>
#include <cstdlib>
#include <new>

namespace {

// Signed: memory may be freed by another thread than the one that took it.
thread_local std::ptrdiff_t t_now = 0;
thread_local std::ptrdiff_t t_peak = 0;
thread_local std::ptrdiff_t t_start = 0;

void* counted_alloc(std::size_t bytes) noexcept {
  void* memory = std::malloc(bytes == 0 ? 1 : bytes);
  if (memory == nullptr) return nullptr;
  t_now += static_cast<std::ptrdiff_t>(malloc_usable_size(memory));
  t_peak = std::max(t_peak, t_now);
  return memory;
}

void counted_free(void* memory) noexcept {
  if (memory == nullptr) return;
  t_now -= static_cast<std::ptrdiff_t>(malloc_usable_size(memory));
  std::free(memory);
}

void* counted_or_throw(std::size_t bytes) {
  void* memory = counted_alloc(bytes);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

// All forms without an alignment, so that what one form takes, each form may give back.

void* operator new(std::size_t bytes) { return counted_or_throw(bytes); }
void* operator new[](std::size_t bytes) { return counted_or_throw(bytes); }
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept { return counted_alloc(bytes); }
void* operator new[](std::size_t bytes, const std::nothrow_t&) noexcept { return counted_alloc(bytes); }
void operator delete(void* memory, const std::nothrow_t&) noexcept { counted_free(memory); }
void operator delete[](void* memory, const std::nothrow_t&) noexcept { counted_free(memory); }
void operator delete(void* memory) noexcept { counted_free(memory); }
void operator delete[](void* memory) noexcept { counted_free(memory); }
void operator delete(void* memory, std::size_t) noexcept { counted_free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { counted_free(memory); }

namespace apr_test {

void reset_peak() { t_start = t_peak = t_now; }
size_t peak_since_reset() { return static_cast<size_t>(t_peak - t_start); }

}  // namespace apr_test
