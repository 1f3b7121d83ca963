#include <cstring>

#include "core/base/error.h"
#include "core/base/format.h"
#include "core/plugin/check.h"
#include "core/plugin/manifest.h"

namespace apr {

void check_struct_size(const std::string& where, const std::string& of, const char* type, uint32_t size,
                       size_t expected) {
  if (size == expected) return;
  throw Error(
      "{}: {}: struct_size is {}, but {} of ABI {}.{} has {} bytes; rebuild the plugin against this "
      "version's "
      "include/apr",
      where, of, size, type, APR_ABI_MAJOR, APR_ABI_MINOR, expected);
}

void check_text(const std::string& where, const std::string& of, const char* member, const char* text) {
  constexpr size_t kMost = 1024;
  if (!text) throw Error("{}: {}: `{}` is null", where, of, member);
  const size_t length = strnlen(text, kMost + 1);
  if (length == 0) throw Error("{}: {}: `{}` is empty", where, of, member);
  if (length > kMost)
    throw Error("{}: {}: `{}` is longer than {} bytes, or not terminated", where, of, member, kMost);
}

void check_present(const std::string& where, const std::string& of, const char* member, bool present) {
  if (!present) throw Error("{}: {}: `{}` is null, but every plugin must have it", where, of, member);
}

void check_backend(const apr_backend& backend, const std::string& where) {
  if (backend.struct_size < offsetof(apr_backend, devices)) {
    throw Error("{}: a backend has struct_size {}, too small to hold its name", where, backend.struct_size);
  }
  check_text(where, "a backend", "name", backend.name);
  const std::string of = fmt::format("backend '{}'", printable(backend.name));
  if (!is_plugin_word(backend.name)) {
    throw Error("{}: {}: that is no name; use 1 to {} of a-z 0-9 _ - and single dots between them", where, of,
                kMaxName);
  }
  // What follows `kernel` came later: a backend without it can do less.
  if (backend.struct_size < offsetof(apr_backend, templates))
    check_struct_size(where, of, "apr_backend", backend.struct_size, offsetof(apr_backend, templates));
  check_text(where, of, "description", backend.description);
  check_present(where, of, "devices", backend.devices);
  check_present(where, of, "open", backend.open);
  check_present(where, of, "close", backend.close);
  check_present(where, of, "device_info", backend.device_info);
  check_present(where, of, "measure_bandwidth", backend.measure_bandwidth);
  check_present(where, of, "load", backend.load);
  check_present(where, of, "unload", backend.unload);
  check_present(where, of, "step", backend.step);
  check_present(where, of, "tap", backend.tap);
  check_present(where, of, "session_info", backend.session_info);
  check_present(where, of, "kernel", backend.kernel);
}

}  // namespace apr
