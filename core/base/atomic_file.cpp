#include "core/base/atomic_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <random>

#include "core/base/error.h"
#include "core/base/format.h"

namespace apr {

namespace {

constexpr size_t kBufferBytes = size_t{1} << 20;
constexpr std::string_view kSuffix = ".part-";
constexpr size_t kSuffixDigits = 8;

bool is_temporary_of(std::string_view name, std::string_view file) {
  if (name.size() != file.size() + kSuffix.size() + kSuffixDigits || name.substr(0, file.size()) != file)
    return false;
  name.remove_prefix(file.size());
  if (name.substr(0, kSuffix.size()) != kSuffix) return false;
  name.remove_prefix(kSuffix.size());
  return name.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

}  // namespace

AtomicFile::AtomicFile(std::string path) : path_(std::move(path)) {
  std::error_code ignored;
  const std::filesystem::file_status there = std::filesystem::status(path_, ignored);
  if (std::filesystem::is_directory(there))
    throw Error("{}: is a directory; name a file in it", printable(path_, kLongPath));
  // The rename would put a file in the place of a device or a pipe.
  if (std::filesystem::exists(there) && !std::filesystem::is_regular_file(there))
    throw Error("{}: is no regular file; name another place", printable(path_, kLongPath));
  remove_leftovers();
  // In the same folder, so that the rename is atomic. O_EXCL and a random name: two writers never share a
  // file.
  while (true) {
    temporary_ = fmt::format("{}{}{:08x}", path_, kSuffix, std::random_device{}());
    fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd_ < 0) fail("create", errno);
    // The lock says that this writer lives. Without locks on this file system nothing is cleaned up, either.
    (void)::flock(fd_, LOCK_EX);
    struct stat status {};
    // Another writer may have taken it for a leftover between the two calls above: then it has no name any
    // more.
    if (::fstat(fd_, &status) != 0 || status.st_nlink > 0) break;
    ::close(fd_);
  }
  buffer_.reserve(kBufferBytes);
}

AtomicFile::~AtomicFile() {
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
  if (fd_ >= 0) ::close(fd_);
}

void AtomicFile::remove_leftovers() const {
  const std::filesystem::path whole(path_);
  const std::filesystem::path folder =
      whole.has_parent_path() ? whole.parent_path() : std::filesystem::path(".");
  const std::string file = whole.filename().native();
  std::error_code failure;
  for (std::filesystem::directory_iterator each(folder, failure), end; !failure && each != end;
       each.increment(failure)) {
    if (!is_temporary_of(each->path().filename().native(), file)) continue;
    const int fd = ::open(each->path().c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) continue;
    if (::flock(fd, LOCK_EX | LOCK_NB) == 0) ::unlink(each->path().c_str());
    ::close(fd);
  }
}

void AtomicFile::fail(const char* action, int error) const {
  throw Error("{}: cannot {} it: {}", printable(path_, kLongPath), action, std::strerror(error));
}

void AtomicFile::reserve(uint64_t bytes) {
  if (::fallocate(fd_, FALLOC_FL_KEEP_SIZE, 0, static_cast<off_t>(bytes)) == 0) return;
  if (errno != ENOSPC && errno != EDQUOT && errno != EFBIG) return;
  throw Error("{}: cannot write it: it takes {}: {}", printable(path_, kLongPath), human_bytes(bytes),
              std::strerror(errno));
}

void AtomicFile::flush() {
  size_t done = 0;
  while (done < buffer_.size()) {
    const ssize_t count = ::write(fd_, buffer_.data() + done, buffer_.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail("write", errno);
    done += static_cast<size_t>(count);
  }
  buffer_.clear();
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const size_t piece = std::min(bytes.size(), kBufferBytes - buffer_.size());
    buffer_.insert(buffer_.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(piece));
    bytes = bytes.subspan(piece);
    if (buffer_.size() == kBufferBytes) flush();
  }
}

void AtomicFile::commit() {
  flush();
  if (::fsync(fd_) != 0) fail("write", errno);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail("rename to", errno);
  temporary_.clear();
  const int fd = fd_;
  fd_ = -1;
  if (::close(fd) != 0) fail("write", errno);
}

void write_file_atomically(const std::string& path, std::span<const std::byte> bytes) {
  AtomicFile file(path);
  file.write(bytes);
  file.commit();
}

void write_file_atomically(const std::string& path, std::string_view text) {
  write_file_atomically(path, std::as_bytes(std::span(text.data(), text.size())));
}

}  // namespace apr
