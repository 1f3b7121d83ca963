#include "weights.h"

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstring>

#include "failure.h"
#include "topology.h"

namespace apr::cpu {
namespace {

constexpr uint64_t kPiece = 8u << 20;

struct Piece {
  const uint8_t* from;
  uint8_t* to;
  uint64_t bytes;
};

void touch(const Piece& piece, uintptr_t page) {
  const auto begin = reinterpret_cast<uintptr_t>(piece.from), end = begin + piece.bytes;
#ifdef MADV_POPULATE_READ
  // One call maps the pages, and reads those that are not in memory, with the system's own read-ahead.
  const uintptr_t first = begin / page * page;
  if (madvise(reinterpret_cast<void*>(first), end - first, MADV_POPULATE_READ) == 0) return;
#endif
  // An older kernel, or memory that is no mapping: a byte of every page.
  for (uintptr_t p = begin; p < end; p += page) (void)*reinterpret_cast<const volatile uint8_t*>(p);
}

// Each piece once, on all threads.
template <class Fn>
void for_pieces(ThreadPool& pool, const std::vector<Piece>& pieces, const char* what, uint64_t total,
                apr_progress_fn progress, void* user, Fn&& fn) {
  std::atomic<size_t> next{0};
  std::atomic<uint64_t> done{0};
  if (progress) progress(user, what, 0, total);
  pool.run([&](uint32_t thread) {
    for (size_t i; (i = next.fetch_add(1)) < pieces.size();) {
      fn(pieces[i]);
      const uint64_t now = done.fetch_add(pieces[i].bytes) + pieces[i].bytes;
      if (thread == 0 && progress && now < total) progress(user, what, now, total);
    }
  });
  if (progress) progress(user, what, total, total);
}

}  // namespace

uint64_t weight_bytes(const Program& program) {
  uint64_t bytes = 0;
  for (const auto& w : program.weights)
    if (w) bytes += w->weight.bytes;
  return bytes;
}

void place_weights(apr_device& device, Program& program, apr_progress_fn progress, void* user) {
  const auto copied = [](const BoundWeight& w) {
    return (w.gemv.kernel.fn ? w.gemv.choice : w.embed.choice).copied;
  };
  const uint64_t total = weight_bytes(program), available = read_memory().available;
  Layout layout;
  std::vector<uint64_t> at;
  for (const auto& w : program.weights) at.push_back(w && copied(*w) ? layout.add(w->weight.bytes) : 0);
  if (total > available) {
    if (layout.bytes() > available)
      fail(APR_NO_MEMORY,
           "copies of weights (weights=copied, or rules with memory = \"copied\") need %.1f GiB, but "
           "%.1f GiB are free; use them mapped",
           static_cast<double>(layout.bytes()) / 1073741824.0, static_cast<double>(available) / 1073741824.0);
    device.log(2, "the weights take %.1f GiB, more than the %.1f GiB that are free: they are not read ahead",
               static_cast<double>(total) / 1073741824.0, static_cast<double>(available) / 1073741824.0);
    if (layout.bytes() == 0) return;
  }
  if (layout.bytes() > 0) program.copied_weights = Memory(layout.bytes(), "a copy of the weights");

  std::vector<Piece> pieces;
  for (size_t i = 0; i < program.weights.size(); ++i) {
    BoundWeight* w = program.weights[i].get();
    if (!w || (total > available && !copied(*w))) continue;
    for (uint64_t p = 0; p < w->weight.bytes; p += kPiece)
      pieces.push_back({w->data + p, copied(*w) ? program.copied_weights.as<uint8_t>(at[i] + p) : nullptr,
                        std::min(kPiece, w->weight.bytes - p)});
  }
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  for_pieces(*device.pool, pieces, layout.bytes() > 0 ? "copying weights" : "reading weights", total,
             progress, user, [page](const Piece& piece) {
               if (piece.to)
                 std::memcpy(piece.to, piece.from, piece.bytes);
               else
                 touch(piece, page);
             });
  for (size_t i = 0; i < program.weights.size(); ++i)
    if (BoundWeight* w = program.weights[i].get(); w && copied(*w))
      w->data = program.copied_weights.as<uint8_t>(at[i]);
}

}  // namespace apr::cpu
