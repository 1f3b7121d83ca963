#include "core/base/sha256.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <vector>

#include "core/base/error.h"
#include "core/base/format.h"

namespace apr {

struct Sha256::Context {
  EVP_MD_CTX* evp = EVP_MD_CTX_new();
  ~Context() { EVP_MD_CTX_free(evp); }

  void start() {
    // Fails only without memory, or where a policy of the machine's OpenSSL forbids SHA-256.
    if (evp == nullptr || EVP_DigestInit_ex(evp, EVP_sha256(), nullptr) != 1) {
      throw Error("OpenSSL cannot start SHA-256; check the machine's OpenSSL configuration");
    }
  }
};

Sha256::Sha256() : context_(std::make_unique<Context>()) { context_->start(); }
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;
Sha256::~Sha256() = default;

void Sha256::update(std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  if (EVP_DigestUpdate(context_->evp, bytes.data(), bytes.size()) != 1)
    throw Error("OpenSSL: SHA-256 failed");
}

std::string Sha256::finish_hex() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned length = 0;
  if (EVP_DigestFinal_ex(context_->evp, digest.data(), &length) != 1) throw Error("OpenSSL: SHA-256 failed");
  std::string hex;
  hex.reserve(size_t{2} * length);
  for (unsigned i = 0; i < length; ++i) {
    constexpr std::string_view kDigits = "0123456789abcdef";
    hex += kDigits[digest[i] >> 4];
    hex += kDigits[digest[i] & 15];
  }
  context_->start();
  return hex;
}

std::string sha256_hex(std::span<const std::byte> bytes) {
  Sha256 hash;
  hash.update(bytes);
  return hash.finish_hex();
}

std::string sha256_hex(std::string_view text) {
  Sha256 hash;
  hash.update(text);
  return hash.finish_hex();
}

std::string sha256_file(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) throw Error("{}: cannot open it: {}", printable(path, kLongPath), std::strerror(errno));
  struct Closer {
    int fd;
    ~Closer() { ::close(fd); }
  } closer{fd};
  (void)::posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);

  Sha256 hash;
  std::vector<std::byte> piece(size_t{1} << 20);
  for (;;) {
    const ssize_t got = ::read(fd, piece.data(), piece.size());
    if (got == 0) return hash.finish_hex();
    if (got > 0) {
      hash.update(std::span(piece.data(), static_cast<size_t>(got)));
    } else if (errno != EINTR) {
      throw Error("{}: cannot read it: {}", printable(path, kLongPath), std::strerror(errno));
    }
  }
}

}  // namespace apr
