// SHA-256 (FIPS 180-4) by OpenSSL's libcrypto, which uses the CPU's SHA instructions where it has them.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace apr {

class Sha256 {
 public:
  Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;
  ~Sha256();

  void update(std::span<const std::byte> bytes);
  void update(std::string_view text) { update(std::as_bytes(std::span(text.data(), text.size()))); }
  // 64 lower-case hex digits. The object then starts over, as if new.
  std::string finish_hex();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

std::string sha256_hex(std::span<const std::byte> bytes);
std::string sha256_hex(std::string_view text);
// Reads the file in pieces, so that memory stays small and a file that shrinks meanwhile is an error, not a
// fault. Throws apr::Error that names the file.
std::string sha256_file(const std::string& path);

}  // namespace apr
