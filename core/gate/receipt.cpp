#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "core/base/atomic_file.h"
#include "core/base/error.h"
#include "core/base/sha256.h"
#include "core/gate/parity.h"

namespace apr {

namespace {

nlohmann::json to_json(const ParityIdentity& identity) {
  return {{"model", identity.model},     {"program", identity.program}, {"plugins", identity.plugins},
          {"kernels", identity.kernels}, {"device", identity.device},   {"options", identity.options}};
}

std::string receipt_path(const std::string& folder, const ParityIdentity& identity) {
  return folder + "/" + sha256_hex(to_json(identity).dump()) + ".json";
}

}  // namespace

std::string cheap_file_identity(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat s {};
  if (fd < 0 || ::fstat(fd, &s) != 0) {
    const int reason = errno;
    if (fd >= 0) ::close(fd);
    throw Error("{}: {}", path, std::strerror(reason));
  }
  std::string head(1 << 20, '\0');
  size_t done = 0;
  while (done < head.size()) {
    const ssize_t n = ::read(fd, head.data() + done, head.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    done += static_cast<size_t>(n);
  }
  ::close(fd);
  head.resize(done);
  return fmt::format("{} bytes, modified {}.{:09}, head {}", s.st_size, s.st_mtim.tv_sec, s.st_mtim.tv_nsec,
                     sha256_hex(head));
}

std::string file_hash(const std::string& path) { return sha256_file(path); }

std::string kernels_hash(const apr_backend& backend, apr_session* session) {
  apr_error error = {sizeof(apr_error), {}};
  apr_session_info info{};
  info.struct_size = sizeof info;
  if (backend.session_info(session, &info, &error) != APR_OK)
    throw Error("{}: {}", backend.name, error.message);
  Sha256 hash;
  for (uint32_t i = 0; i < info.n_kernels; ++i) {
    apr_kernel_info kernel{};
    kernel.struct_size = sizeof kernel;
    if (backend.kernel(session, i, &kernel, &error) != APR_OK)
      throw Error("{}: {}", backend.name, error.message);
    for (const char* text :
         {kernel.stage, kernel.weight, kernel.format, kernel.layout, kernel.kernel, kernel.config}) {
      hash.update(fmt::format("{}:", std::strlen(text)));
      hash.update(text);
    }
  }
  return hash.finish_hex();
}

std::optional<std::string> find_receipt(const std::string& folder, const ParityIdentity& identity) {
  std::ifstream in(receipt_path(folder, identity), std::ios::binary);
  std::ostringstream text;
  if (!in || !(text << in.rdbuf())) return std::nullopt;
  const nlohmann::json receipt = nlohmann::json::parse(text.str(), nullptr, false);
  // The identity is in the file as well as in its name, so a copied or edited receipt says nothing.
  if (!receipt.is_object() || !receipt.contains("identity") || receipt["identity"] != to_json(identity))
    return std::nullopt;
  return text.str();
}

std::string write_receipt(const std::string& folder, const ParityIdentity& identity,
                          const ParityReport& report) {
  if (report.verdict != ParityVerdict::Pass) throw Error("only a pass has a receipt");
  std::error_code ignored;  // of a folder that cannot be made, the file's failure tells
  std::filesystem::create_directories(folder, ignored);
  const std::string path = receipt_path(folder, identity);
  const nlohmann::json receipt = {
      {"verdict", to_string(report.verdict)}, {"when", static_cast<int64_t>(std::time(nullptr))},
      {"worst_nmse", report.worst_nmse},      {"worst_cosine", report.worst_cosine},
      {"tolerance", report.tolerance},        {"compared", report.positions.size()},
      {"identity", to_json(identity)}};
  try {
    write_file_atomically(path, receipt.dump(2) + "\n");
  } catch (const Error&) {
    return "";
  }
  return path;
}

}  // namespace apr
