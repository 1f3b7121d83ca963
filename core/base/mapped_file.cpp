#include "core/base/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>

#include "core/base/error.h"
#include "core/base/format.h"

namespace apr {

namespace {

// Owns the descriptor only until the mapping stands; the mapping outlives it.
struct Descriptor {
  int fd;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

[[noreturn]] void fail_open(const std::string& path, int error) {
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      throw Error("{}: no such file; check the path", printable(path, kLongPath));
    case EACCES:
    case EPERM:
      throw Error("{}: no permission to read it; check its owner and mode (ls -l)",
                  printable(path, kLongPath));
    case ELOOP:
      throw Error("{}: too many symbolic links; the link points to itself or into a ring",
                  printable(path, kLongPath));
    case ENAMETOOLONG:
      throw Error("the path is too long to be a file ({} bytes): {}", path.size(), printable(path));
    case EMFILE:
    case ENFILE:
      throw Error("{}: too many open files; raise the limit (ulimit -n)", printable(path, kLongPath));
    default:
      throw Error("{}: cannot open it: {}", printable(path, kLongPath), std::strerror(error));
  }
}

int advice_of(Access access) {
  switch (access) {
    case Access::Normal:
      return MADV_NORMAL;
    case Access::Sequential:
      return MADV_SEQUENTIAL;
    case Access::Random:
      return MADV_RANDOM;
    case Access::WillNeed:
      return MADV_WILLNEED;
    case Access::DontNeed:
      return MADV_DONTNEED;
  }
  return MADV_NORMAL;
}

}  // namespace

std::shared_ptr<MappedFile> MappedFile::open(const std::string& path) {
  if (path.empty()) throw Error("no file name was given");
  // O_NONBLOCK: opening a FIFO must not wait for a writer; it has no effect on a regular file.
  const Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (file.fd < 0) fail_open(path, errno);

  struct stat status {};
  if (::fstat(file.fd, &status) != 0) {
    throw Error("{}: cannot read its size: {}", printable(path, kLongPath), std::strerror(errno));
  }
  if (S_ISDIR(status.st_mode)) {
    throw Error("{}: is a directory; name a file in it", printable(path, kLongPath));
  }
  if (!S_ISREG(status.st_mode)) {
    throw Error(
        "{}: is not a regular file (a pipe, socket or device cannot be mapped); copy it to a file first",
        printable(path, kLongPath));
  }
  if (status.st_size == 0) {
    throw Error("{}: is empty (0 bytes); was the download or the copy interrupted?",
                printable(path, kLongPath));
  }
  const auto size = static_cast<uint64_t>(status.st_size);
  if (size > std::numeric_limits<size_t>::max()) {
    throw Error("{}: {} bytes do not fit the address space", printable(path, kLongPath), size);
  }
  void* data = ::mmap(nullptr, static_cast<size_t>(size), PROT_READ, MAP_PRIVATE, file.fd, 0);
  if (data == MAP_FAILED) {
    throw Error("{}: cannot map {} into memory: {}", printable(path, kLongPath), human_bytes(size),
                std::strerror(errno));
  }
  return std::shared_ptr<MappedFile>(new MappedFile(path, static_cast<const std::byte*>(data), size));
}

MappedFile::~MappedFile() { ::munmap(const_cast<std::byte*>(data_), static_cast<size_t>(size_)); }

void MappedFile::advise(Access access, uint64_t offset, uint64_t bytes) const {
  if (offset >= size_) return;
  const auto page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  uint64_t begin = offset;
  uint64_t end = offset + std::min(bytes, size_ - offset);
  if (access == Access::DontNeed) {
    begin = (begin + page - 1) / page * page;
    if (end != size_) end = end / page * page;
  } else {
    begin = begin / page * page;
  }
  if (begin >= end) return;
  // The result is ignored on purpose: a kernel without this advice reads just as correctly.
  (void)::madvise(const_cast<std::byte*>(data_) + begin, static_cast<size_t>(end - begin), advice_of(access));
}

}  // namespace apr
