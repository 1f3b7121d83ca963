// Memory for activations: a value needs it from the phase that writes it to the last one that reads it. Whole phases, so
// that everything a phase wrote is still there when it is tapped, and no two of its tasks share memory.
#include <algorithm>
#include <map>

#include "program.h"

namespace apr::cpu {
namespace {

// Offsets in one growing range, first fit.
class Arena {
 public:
  uint64_t take(uint64_t bytes) {
    for (auto it = free_.begin(); it != free_.end(); ++it) {
      if (it->second < bytes) continue;
      const uint64_t at = it->first, rest = it->second - bytes;
      free_.erase(it);
      if (rest) free_.emplace(at + bytes, rest);
      return at;
    }
    // The last free range, when it reaches the end, only has to grow.
    uint64_t at = end_;
    if (!free_.empty() && free_.rbegin()->first + free_.rbegin()->second == end_) {
      at = free_.rbegin()->first;
      free_.erase(std::prev(free_.end()));
    }
    end_ = at + bytes;
    return at;
  }
  void give(uint64_t at, uint64_t bytes) {
    auto it = free_.emplace(at, bytes).first;
    if (const auto next = std::next(it); next != free_.end() && it->first + it->second == next->first) {
      it->second += next->second;
      free_.erase(next);
    }
    if (it != free_.begin()) {
      const auto before = std::prev(it);
      if (before->first + before->second == it->first) {
        before->second += it->second;
        free_.erase(it);
      }
    }
  }
  uint64_t end() const { return end_; }

 private:
  std::map<uint64_t, uint64_t> free_;  // offset -> bytes, never adjacent
  uint64_t end_ = 0;
};

struct Wish {
  int32_t born, last;
  uint64_t bytes;
  uint64_t* offset;
};

struct QuantLayout {
  uint64_t q, scale, sum16, sum32, bias16, bias32, bytes;
  QuantLayout(uint64_t rows, uint64_t stride) {
    Layout l;
    const uint64_t blocks = rows * (stride / kActBlock);
    q = l.add(rows * stride);
    scale = l.add(blocks * 4);
    sum16 = l.add(blocks * 8);
    sum32 = l.add(blocks * 4);
    bias16 = l.add(blocks * 8);
    bias32 = l.add(blocks * 4);
    bytes = l.bytes();
  }
};

}  // namespace

void allocate_activations(Program& program, uint32_t n_batch) {
  const auto rows = [&](bool head) { return uint64_t{head ? program.head_rows : n_batch}; };
  std::vector<Wish> wishes;
  for (const auto& v : program.values)
    if (v->born >= 0)
      wishes.push_back({v->born, v->last, round_up(rows(v->head) * v->stride * 4, 64), &v->offset});
  for (const auto& q : program.quantized)
    wishes.push_back({q->born, q->last, QuantLayout(rows(q->head), q->stride).bytes, &q->offset});
  std::stable_sort(wishes.begin(), wishes.end(),
                   [](const Wish& a, const Wish& b) { return a.born < b.born; });

  Arena arena;
  std::vector<Wish> alive;
  for (const Wish& w : wishes) {
    for (size_t i = 0; i < alive.size();) {
      if (alive[i].last >= w.born) {
        ++i;
        continue;
      }
      arena.give(*alive[i].offset, alive[i].bytes);
      alive[i] = alive.back();
      alive.pop_back();
    }
    *w.offset = arena.take(w.bytes);
    alive.push_back(w);
  }

  program.activations = Memory(arena.end(), "activations");
  for (const auto& v : program.values)
    if (v->born >= 0) v->data = program.activations.as<float>(v->offset);
  for (const auto& q : program.quantized) {
    const QuantLayout l(rows(q->head), q->stride);
    q->q = program.activations.as<int8_t>(q->offset + l.q);
    q->scale = program.activations.as<float>(q->offset + l.scale);
    q->sum16 = program.activations.as<float>(q->offset + l.sum16);
    q->sum32 = program.activations.as<float>(q->offset + l.sum32);
    q->bias16 = program.activations.as<int32_t>(q->offset + l.bias16);
    q->bias32 = program.activations.as<int32_t>(q->offset + l.bias32);
  }
}

}  // namespace apr::cpu
