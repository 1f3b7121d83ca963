#include "core/quantize/convert.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/base/error.h"
#include "core/base/format.h"

namespace apr {

namespace {

// Of one piece: its floats stay in a core's cache (64 Ki floats are 256 KiB).
constexpr uint64_t kPieceElements = 64 << 10;
// Of one round of all threads: its packed bytes are at most 128 MiB (float32), the source's pages as many.
// Threads wait for each other at its end, which costs half a piece of some 64.
constexpr uint64_t kRoundElements = 32 << 20;
constexpr uint64_t kPiecesPerThread = 64;

struct Rows {
  uint64_t first, count;
};

class Converter {
 public:
  Converter(const TensorDecision& decision, const Tensor& source)
      : d_(decision),
        tensor_(source),
        k_(tensor_.k()),
        from_row_(k_ / d_.from->block_elements * d_.from->block_bytes),
        to_row_(k_ / d_.to->block_elements * d_.to->block_bytes) {
    // Rows of two experts never share a piece, so that a piece has one importance.
    rows_per_matrix_ = d_.importance && d_.importance->size() > k_ ? tensor_.dims[1] : tensor_.n();
    rows_per_piece_ = std::clamp<uint64_t>(kPieceElements / k_, 1, rows_per_matrix_);
    pieces_per_matrix_ = (rows_per_matrix_ + rows_per_piece_ - 1) / rows_per_piece_;
  }

  uint64_t pieces() const { return tensor_.n() / rows_per_matrix_ * pieces_per_matrix_; }
  uint64_t rows_per_piece() const { return rows_per_piece_; }
  Rows rows(uint64_t piece) const {
    const uint64_t matrix = piece / pieces_per_matrix_, within = piece % pieces_per_matrix_ * rows_per_piece_;
    return {matrix * rows_per_matrix_ + within, std::min(rows_per_piece_, rows_per_matrix_ - within)};
  }
  const std::byte* source(uint64_t row) const { return tensor_.data + row * from_row_; }
  uint64_t from_row() const { return from_row_; }
  uint64_t to_row() const { return to_row_; }

  // One piece, on any thread. floats: [2][rows_per_piece * k].
  ConversionError run(const Rows& rows, std::vector<float>& floats, std::byte* packed) const {
    apr_error error{};
    error.struct_size = sizeof(error);
    if (d_.copied()) {
      check(d_.from->validate(source(rows.first), rows.count, k_, &error), rows, error);
      std::copy_n(source(rows.first), rows.count * to_row_, packed);
      return {.elements = rows.count * k_};
    }
    const uint64_t elements = rows.count * k_;
    float* const before = floats.data();
    float* const after = floats.data() + rows_per_piece_ * k_;
    d_.from->dequantize(source(rows.first), rows.count, k_, before);
    check(d_.to->quantize(before, rows.count, k_, importance(rows), packed, &error), rows, error);
    d_.to->dequantize(packed, rows.count, k_, after);
    ConversionError sum{.elements = elements};
    for (uint64_t i = 0; i < elements; ++i) {
      const double value = static_cast<double>(before[i]), miss = value - static_cast<double>(after[i]);
      sum.squared_error += miss * miss;
      sum.squared += value * value;
      sum.largest = std::max(sum.largest, std::fabs(miss));
    }
    return sum;
  }

 private:
  const float* importance(const Rows& rows) const {
    if (!d_.importance) return nullptr;
    return d_.importance->data() + (d_.importance->size() > k_ ? rows.first / rows_per_matrix_ * k_ : 0);
  }
  void check(apr_status status, const Rows& rows, const apr_error& error) const {
    if (status == APR_OK) return;
    throw Error("tensor '{}': cannot be written as {} (rows {} to {}): {}", printable(tensor_.name),
                d_.to->name, rows.first, rows.first + rows.count - 1,
                printable(error.message, sizeof(error.message)));
  }

  const TensorDecision& d_;
  const Tensor& tensor_;
  uint64_t k_, from_row_, to_row_;
  uint64_t rows_per_matrix_, rows_per_piece_, pieces_per_matrix_;
};

}  // namespace

double ConversionError::rmse() const {
  return elements == 0 ? 0.0 : std::sqrt(squared_error / static_cast<double>(elements));
}
double ConversionError::relative() const { return squared > 0.0 ? std::sqrt(squared_error / squared) : 0.0; }
void ConversionError::add(const ConversionError& other) {
  squared_error += other.squared_error;
  squared += other.squared;
  largest = std::max(largest, other.largest);
  elements += other.elements;
}

ConversionError convert_tensor(const TensorDecision& decision, const Tensor& source, const MappedFile* file,
                               ThreadPool& pool, GgufWriter& writer, const ConversionProgress& progress) {
  const Converter converter(decision, source);
  const auto advise = [&](Access access, const Rows& first, uint64_t rows) {
    if (file)
      file->advise(access, static_cast<uint64_t>(converter.source(first.first) - file->data()),
                   rows * converter.from_row());
  };
  const uint64_t k = decision.tensor->k();
  const uint64_t piece_elements = converter.rows_per_piece() * k;
  const uint64_t pieces = converter.pieces();
  const uint64_t per_round =
      std::clamp<uint64_t>(kRoundElements / piece_elements, 1, kPiecesPerThread * pool.threads());
  ConversionError total;
  uint64_t done = 0;
  std::vector<std::byte> packed;
  std::vector<ConversionError> errors;
  for (uint64_t begin = 0; begin < pieces; begin += per_round) {
    const uint64_t end = std::min(pieces, begin + per_round);
    const Rows first = converter.rows(begin), last = converter.rows(end - 1);
    const uint64_t rows = last.first + last.count - first.first;
    packed.resize(rows * converter.to_row());
    errors.assign(end - begin, {});
    advise(Access::WillNeed, first, rows);
    pool.parallel_for(end - begin, 1, [&](size_t from, size_t to) {
      std::vector<float> floats(2 * piece_elements);
      for (size_t i = from; i < to; ++i) {
        const Rows mine = converter.rows(begin + i);
        errors[i] =
            converter.run(mine, floats, packed.data() + (mine.first - first.first) * converter.to_row());
      }
    });
    writer.append(packed);
    // Not needed again: without this a model's pages would all stay in this process's memory.
    advise(Access::DontNeed, first, rows);
    for (const ConversionError& error : errors) total.add(error);
    done += rows * k;
    progress(done);
  }
  return total;
}

}  // namespace apr
