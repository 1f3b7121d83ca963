// A file that appears under its name only when it is whole. Until then its bytes lie beside it as
// PATH.part-XXXXXXXX: a crash, a full disk, an interrupt or a second writer never leaves half a file under
// the name.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace apr {

class AtomicFile {
 public:
  // Creates the temporary file, after removing those that writers of the same path left when they were killed
  // (a living writer holds a lock on its own). Throws apr::Error that names the path.
  explicit AtomicFile(std::string path);
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  // Without commit() the temporary file is removed and the path stays as it was.
  ~AtomicFile();

  const std::string& path() const { return path_; }
  bool open() const { return fd_ >= 0; }

  // Asks the file system for the room now, so that a full disk is an error before the work and not after it.
  // Nothing happens where the file system cannot promise room.
  void reserve(uint64_t bytes);
  // Buffered; an error may show at a later call.
  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text.data(), text.size()))); }
  // Flushes to the disk and renames to the path, replacing a file that is there.
  void commit();

 private:
  void remove_leftovers() const;
  void flush();
  [[noreturn]] void fail(const char* action, int error) const;

  std::string path_;
  std::string temporary_;
  int fd_ = -1;
  std::vector<std::byte> buffer_;  // not yet given to the kernel
};

// A whole file at once. Throws as AtomicFile does.
void write_file_atomically(const std::string& path, std::span<const std::byte> bytes);
void write_file_atomically(const std::string& path, std::string_view text);

}  // namespace apr
