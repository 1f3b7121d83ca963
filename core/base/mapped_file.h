// A file mapped read-only into memory: how weights are read without copying them. Pages arrive from the disk
// when they are first touched. A file that is truncated while it is mapped makes later reads fault (SIGBUS);
// nothing in user space can prevent that, so models are replaced by rename, never in place.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace apr {

// What the kernel is told about the coming reads of a range.
enum class Access {
  Normal,      // the kernel's usual read-ahead
  Sequential,  // once, front to back: read far ahead, drop early
  Random,      // no read-ahead
  WillNeed,    // start reading now, in the background
  DontNeed,    // the pages may be dropped (they come back from the file)
};

class MappedFile {
 public:
  // Throws apr::Error that says which of these it was: not found, a directory, not a regular file, empty, no
  // permission, too large for the address space. Symbolic links are followed.
  static std::shared_ptr<MappedFile> open(const std::string& path);

  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  const std::string& path() const { return path_; }
  const std::byte* data() const { return data_; }
  uint64_t size() const { return size_; }
  std::span<const std::byte> bytes() const { return {data_, static_cast<size_t>(size_)}; }

  // Advice only: it never fails. The range is cut to the file and widened to whole pages, except that
  // DontNeed is narrowed, so that a neighbour's bytes stay.
  void advise(Access access, uint64_t offset, uint64_t bytes) const;
  void advise(Access access) const { advise(access, 0, size_); }

 private:
  MappedFile(std::string path, const std::byte* data, uint64_t size)
      : path_(std::move(path)), data_(data), size_(size) {}

  std::string path_;
  const std::byte* data_;
  uint64_t size_;  // bytes, never 0
};

}  // namespace apr
