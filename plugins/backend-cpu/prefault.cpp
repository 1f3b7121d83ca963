#include "prefault.h"

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>

#include "topology.h"

namespace apr::cpu {
namespace {

constexpr uint64_t kPiece = 8u << 20;

struct Piece {
  uintptr_t begin, end;
};

void touch(const Piece& piece, uintptr_t page) {
#ifdef MADV_POPULATE_READ
  // One call maps the pages, and reads those that are not in memory, with the system's own read-ahead.
  const uintptr_t from = piece.begin / page * page;
  if (madvise(reinterpret_cast<void*>(from), piece.end - from, MADV_POPULATE_READ) == 0) return;
#endif
  // An older kernel, or memory that is no mapping: a byte of every page.
  for (uintptr_t p = piece.begin; p < piece.end; p += page) (void)*reinterpret_cast<const volatile uint8_t*>(p);
}

}  // namespace

uint64_t weight_bytes(const Program& program) {
  uint64_t bytes = 0;
  for (const auto& w : program.weights)
    if (w) bytes += w->weight.bytes;
  return bytes;
}

void prefault_weights(apr_device& device, const Program& program, apr_progress_fn progress, void* user) {
  const uint64_t total = weight_bytes(program);
  if (total > read_memory().available) {
    device.log(2, "the weights take %.1f GiB, more than the memory that is free: they are not read ahead",
               static_cast<double>(total) / 1073741824.0);
    return;
  }
  std::vector<Piece> pieces;
  for (const auto& w : program.weights) {
    if (!w) continue;
    const auto begin = reinterpret_cast<uintptr_t>(w->data), end = begin + w->weight.bytes;
    for (uintptr_t p = begin; p < end; p += kPiece) pieces.push_back({p, std::min(end, p + kPiece)});
  }
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  std::atomic<size_t> next{0};
  std::atomic<uint64_t> done{0};
  if (progress) progress(user, "reading weights", 0, total);
  device.pool->run([&](uint32_t thread) {
    for (size_t i; (i = next.fetch_add(1)) < pieces.size();) {
      touch(pieces[i], page);
      const uint64_t now = done.fetch_add(pieces[i].end - pieces[i].begin) + (pieces[i].end - pieces[i].begin);
      if (thread == 0 && progress && now < total) progress(user, "reading weights", now, total);
    }
  });
  if (progress) progress(user, "reading weights", total, total);
}

}  // namespace apr::cpu
