#include "core/kernel_cache/entry.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <ctime>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/sha256.h"

namespace apr::kernel_cache {

namespace {

using Json = nlohmann::json;

struct Part {
  const char* file;
  std::string BuiltKernel::*text;
};
constexpr Part kParts[] = {{"kernel.cubin", &BuiltKernel::cubin},
                           {"kernel.ptx", &BuiltKernel::ptx},
                           {"kernel.cu", &BuiltKernel::source}};

void write_file(const std::string& path, const std::string& text) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd < 0) throw Error("{}: {}", path, std::strerror(errno));
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t n = ::write(fd, text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      const int reason = n < 0 ? errno : ENOSPC;
      ::close(fd);
      throw Error("{}: {}", path, std::strerror(reason));
    }
    done += static_cast<size_t>(n);
  }
  // Some file systems report a full disk or quota only here.
  if (::close(fd) != 0) throw Error("{}: {}", path, std::strerror(errno));
}

// Nothing when the file cannot be opened; a short read gives what there is, and the checksum tells.
std::optional<std::string> read_file(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return std::nullopt;
  std::string text;
  struct stat s {};
  if (::fstat(fd, &s) == 0 && S_ISREG(s.st_mode)) {
    text.resize(static_cast<size_t>(s.st_size));
    size_t done = 0;
    while (done < text.size()) {
      const ssize_t n = ::read(fd, text.data() + done, text.size() - done);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) break;
      done += static_cast<size_t>(n);
    }
    text.resize(done);
  }
  ::close(fd);
  return text;
}

// The manifest's own checksum is over its other members, so that a flipped digit in it is noticed as well.
std::string checksum_of(Json manifest) {
  manifest.erase("checksum");
  return sha256_hex(manifest.dump());
}

std::optional<CacheEntry> read_manifest(const std::string& folder, const std::string& key, Json& manifest) {
  const std::string path = folder + "/" + kManifest;
  struct stat s {};
  if (::stat(folder.c_str(), &s) != 0) return std::nullopt;
  CacheEntry entry{};
  entry.key = key;
  entry.used = s.st_mtime;
  const std::optional<std::string> text = read_file(path);
  if (!text) {
    entry.damage = "manifest.json is missing";
    return entry;
  }
  entry.bytes = text->size();
  if (::stat(path.c_str(), &s) == 0) entry.used = s.st_mtime;
  manifest = Json::parse(*text, nullptr, false);
  if (!manifest.is_object() || !manifest.contains("checksum") ||
      manifest["checksum"] != checksum_of(manifest)) {
    entry.damage = "manifest.json is damaged";
    return entry;
  }
  // The checksum holds, so the members are as they were written.
  if (manifest["key"] != key) entry.damage = "the manifest belongs to another key";
  entry.summary = manifest["summary"].get<std::string>();
  entry.compiler = manifest["compiler"].get<std::string>();
  entry.created = manifest["created"].get<int64_t>();
  for (const Part& part : kParts) entry.bytes += manifest["files"][part.file]["bytes"].get<uint64_t>();
  return entry;
}

}  // namespace

void write_entry(const std::string& folder, const std::string& key, const BuiltKernel& kernel,
                 const std::string& compiler) {
  Json files = Json::object();
  for (const Part& part : kParts) {
    const std::string& text = kernel.*part.text;
    write_file(folder + "/" + part.file, text);
    files[part.file] = {{"bytes", text.size()}, {"sha256", sha256_hex(text)}};
  }
  Json manifest = {{"key", key},
                   {"summary", kernel.summary},
                   {"compiler", compiler},
                   {"created", static_cast<int64_t>(std::time(nullptr))},
                   {"files", files}};
  manifest["checksum"] = checksum_of(manifest);
  write_file(folder + "/" + kManifest, manifest.dump(2) + "\n");
}

std::optional<ReadEntry> read_entry(const std::string& folder, const std::string& key, bool all) {
  Json manifest;
  const std::optional<CacheEntry> entry = read_manifest(folder, key, manifest);
  if (!entry) return std::nullopt;
  ReadEntry out{*entry, {}};
  if (!out.entry.damage.empty()) return out;
  out.kernel.summary = out.entry.summary;
  const bool has_cubin = manifest["files"]["kernel.cubin"]["bytes"].get<uint64_t>() > 0;
  for (const Part& part : kParts) {
    const bool needed = part.text == &BuiltKernel::cubin || (part.text == &BuiltKernel::ptx && !has_cubin);
    if (!all && !needed) continue;
    std::optional<std::string> text = read_file(folder + "/" + part.file);
    if (!text) {
      out.entry.damage = std::string(part.file) + " is missing";
    } else if (const uint64_t bytes = manifest["files"][part.file]["bytes"]; text->size() != bytes) {
      out.entry.damage = fmt::format("{} has {} bytes instead of {}", part.file, text->size(), bytes);
    } else if (sha256_hex(*text) != manifest["files"][part.file]["sha256"].get<std::string>()) {
      out.entry.damage = std::string(part.file) + " does not match its checksum";
    } else {
      out.kernel.*part.text = std::move(*text);
      continue;
    }
    return out;
  }
  return out;
}

std::optional<CacheEntry> stat_entry(const std::string& folder, const std::string& key) {
  Json manifest;
  return read_manifest(folder, key, manifest);
}

}  // namespace apr::kernel_cache
