#include "plugins/backend-cuda/weights.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <map>
#include <tuple>

#include "plugins/backend-cuda/failure.h"

namespace apr::cuda {

namespace {

constexpr uint64_t kAlign = 256;
// Large enough that a copy runs at the bus's full rate, small enough that pinning the slots is quick.
constexpr uint64_t kSlotBytes = 32ull << 20;
constexpr size_t kSlots = 3;

uint64_t round_up(uint64_t value) { return (value + kAlign - 1) / kAlign * kAlign; }

struct Placed {
  uint64_t offset[APR_MAX_PLANES] = {};  // of each plane in device memory
};

// One staging slot: free again when its event has passed.
struct Slot {
  explicit Slot(const Gpu& gpu)
      : memory(gpu, kSlotBytes, "staging memory for weights"), event(gpu, Event::Timing::Off) {}
  PinnedMemory memory;
  Event event;
};

class Uploader {
 public:
  Uploader(const Gpu& gpu, ThreadPool& threads) : gpu_(gpu), threads_(threads) {
    for (size_t i = 0; i < kSlots; ++i) slots_.emplace_back(gpu);
  }
  // On failure a copy may still read a slot.
  ~Uploader() { gpu_.driver().cuStreamSynchronize(gpu_.stream()); }

  // done(bytes of the file) after each piece.
  template <typename Done>
  void upload(const apr_weight& weight, const apr_layout& layout, const Placed& placed, CUdeviceptr base,
              const Done& done) {
    const uint64_t blocks = blocks_of_row(weight);
    uint64_t row_bytes = 0;  // in all planes
    for (uint32_t p = 0; p < layout.n_planes; ++p) row_bytes += blocks * layout.plane_bytes[p];
    const uint64_t rows_at_once = (kSlotBytes - kAlign * APR_MAX_PLANES) / row_bytes;
    if (rows_at_once == 0)
      throw failure(APR_UNSUPPORTED, "tensor {}: a row of {} columns is too long to be laid out", weight.name,
                    weight.k);
    for (uint64_t first = 0; first < weight.n; first += rows_at_once) {
      const uint64_t rows = std::min(rows_at_once, weight.n - first);
      Slot& slot = next_slot();
      uint64_t at[APR_MAX_PLANES] = {}, bytes = 0;
      for (uint32_t p = 0; p < layout.n_planes; ++p)
        at[p] = bytes, bytes += round_up(rows * blocks * layout.plane_bytes[p]);
      // A row is some kilobytes: pieces of about 256 KiB keep sixteen threads busy and their writes apart.
      const size_t grain = std::max<size_t>(1, (256 << 10) / row_bytes);
      threads_.parallel_for(rows, grain, [&](size_t begin, size_t end) {
        uint8_t* planes[APR_MAX_PLANES] = {};
        for (uint32_t p = 0; p < layout.n_planes; ++p)
          planes[p] = slot.memory.at<uint8_t>(at[p] + begin * blocks * layout.plane_bytes[p]);
        lay_out(weight, layout, first + begin, end - begin, planes);
      });
      for (uint32_t p = 0; p < layout.n_planes; ++p)
        gpu_.driver().check(
            gpu_.driver().cuMemcpyHtoDAsync(base + placed.offset[p] + first * blocks * layout.plane_bytes[p],
                                            slot.memory.at<uint8_t>(at[p]),
                                            rows * blocks * layout.plane_bytes[p], gpu_.stream()),
            "copying weights");
      slot.event.record();
      done(weight.bytes / weight.n * rows);
    }
  }

 private:
  Slot& next_slot() {
    Slot& slot = slots_[next_];
    next_ = (next_ + 1) % kSlots;
    slot.event.await();
    return slot;
  }

  // Rows of the file to planes.
  static void lay_out(const apr_weight& weight, const apr_layout& layout, uint64_t first, uint64_t rows,
                      uint8_t* const* planes) {
    const apr_codec& codec = *weight.format->codec;
    const uint64_t file_row = weight.k / weight.format->block_elements * weight.format->block_bytes;
    const auto* source = static_cast<const uint8_t*>(weight.data) + first * file_row;
    const uint64_t blocks = blocks_of_row(weight), full_row = blocks * codec.block_bytes;
    if (file_row == full_row) {
      if (layout.split == nullptr)
        std::memcpy(planes[0], source, rows * file_row);
      else
        layout.split(source, rows * blocks, planes);
      return;
    }
    // Formats of single elements whose rows end within a codec's block: zeros fill it.
    std::vector<uint8_t> row(full_row, 0);
    for (uint64_t r = 0; r < rows; ++r) {
      std::memcpy(row.data(), source + r * file_row, file_row);
      uint8_t* to[APR_MAX_PLANES] = {};
      for (uint32_t p = 0; p < layout.n_planes; ++p) to[p] = planes[p] + r * blocks * layout.plane_bytes[p];
      if (layout.split == nullptr)
        std::memcpy(to[0], row.data(), full_row);
      else
        layout.split(row.data(), blocks, to);
    }
  }

  const Gpu& gpu_;
  ThreadPool& threads_;
  std::deque<Slot> slots_;
  size_t next_ = 0;
};

}  // namespace

uint64_t blocks_of_row(const apr_weight& weight) {
  return (weight.k + weight.format->codec->block - 1) / weight.format->codec->block;
}

DeviceWeights::DeviceWeights(const Gpu& gpu, const apr_plan& plan,
                             const std::vector<const apr_layout*>& layouts, ThreadPool& threads,
                             const std::function<void(uint64_t done, uint64_t total)>& progress)
    : weights_(plan.n_weights), planes_(plan.n_weights) {
  using Key = std::tuple<const void*, const apr_quant_format*, const apr_layout*>;
  std::map<Key, size_t> stored;
  std::vector<Placed> placed(plan.n_weights);
  uint64_t bytes = 0, total = 0;
  std::vector<size_t> order;
  for (size_t i = 0; i < plan.n_weights; ++i) {
    if (layouts[i] == nullptr) continue;
    const apr_weight& weight = *plan.weights[i];
    for (uint32_t p = 0; p < layouts[i]->n_planes; ++p)
      planes_[i].push_back(weight.n * blocks_of_row(weight) * layouts[i]->plane_bytes[p]);
    const auto [at, fresh] = stored.emplace(Key(weight.data, weight.format, layouts[i]), i);
    if (!fresh) {
      placed[i] = placed[at->second];
      continue;
    }
    for (uint32_t p = 0; p < layouts[i]->n_planes; ++p) {
      placed[i].offset[p] = bytes;
      bytes += round_up(planes_[i][p]);
    }
    total += weight.bytes;
    order.push_back(i);
  }
  memory_ = DeviceMemory(gpu, bytes, "weights");
  for (size_t i = 0; i < plan.n_weights; ++i)
    for (uint32_t p = 0; layouts[i] != nullptr && p < layouts[i]->n_planes; ++p)
      weights_[i].plane[p] = memory_.at<uint8_t>(placed[i].offset[p]);
  if (order.empty()) return;
  Uploader uploader(gpu, threads);
  uint64_t done = 0;
  if (progress) progress(0, total);
  for (const size_t i : order)
    uploader.upload(*plan.weights[i], *layouts[i], placed[i], memory_.address(), [&](uint64_t piece) {
      done += piece;
      if (progress) progress(done, total);
    });
  gpu.synchronize();
}

DeviceVectors::DeviceVectors(const Gpu& gpu, const apr_plan& plan) : vectors_(plan.n_vectors) {
  std::vector<uint64_t> offsets(plan.n_vectors);
  uint64_t bytes = 0;
  for (size_t i = 0; i < plan.n_vectors; ++i) offsets[i] = bytes, bytes += round_up(plan.vectors[i]->n * 4);
  memory_ = DeviceMemory(gpu, bytes, "norms and biases");
  if (bytes == 0) return;
  PinnedMemory staging(gpu, bytes, "staging memory for norms and biases");
  for (size_t i = 0; i < plan.n_vectors; ++i) {
    std::memcpy(staging.at<char>(offsets[i]), plan.vectors[i]->data, plan.vectors[i]->n * 4);
    vectors_[i] = memory_.at<float>(offsets[i]);
  }
  gpu.driver().check(
      gpu.driver().cuMemcpyHtoDAsync(memory_.address(), staging.at<char>(), bytes, gpu.stream()),
      "copying norms and biases");
  gpu.synchronize();
}

}  // namespace apr::cuda
