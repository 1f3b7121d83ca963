// What a codec in parts sees when the CPU decodes a tile: kTileRows rows of W at once, one to a lane. Compiled for the
// baseline, as codecs are; lanes.inl, which uses it, is compiled for each instruction set.
#pragma once

#include "apr/codec.h"

namespace apr::cpu {

inline constexpr int kTileRows = 16;

// Where the rows of a tile begin: the last one again where there are no more.
struct TileRows {
  const uint8_t* p[kTileRows];
  APR_FN TileRows(const uint8_t* first, uint64_t row_bytes, uint64_t rows) {
    for (uint64_t i = 0; i < kTileRows; ++i) p[i] = first + (i < rows ? i : rows - 1) * row_bytes;
  }
};

constexpr uint64_t least(uint64_t a, uint64_t b) { return a < b ? a : b; }

// The first word of a part, where each part begins with a word of its own.
template <class Block>
constexpr int part_word(int part) {
  int word = 0;
  for (int i = 0; i < part; ++i) word += (Block::kParts[i] + 3) / 4;
  return word;
}
template <class Block>
inline constexpr int kPartCount = sizeof(Block::kParts) / sizeof(int);

// One row of the transposed words, as a block's parts: see PartsOfRow.
template <class Block>
struct PartsOfLane {
  const uint32_t (*word)[kTileRows];
  int lane;
  template <int kPart, typename T>
  APR_FN void number(int offset, T& value) const {
    const auto* at = word + part_word<Block>(kPart) + offset / 4;
    if constexpr (sizeof(T) <= 4) {
      value = static_cast<T>(at[0][lane] >> (8 * (offset % 4)));
    } else if constexpr (requires { value.w; }) {
      value = {at[0][lane], at[1][lane], at[2][lane], at[3][lane]};
    } else if constexpr (requires { value.x; }) {
      value = {at[0][lane], at[1][lane]};
    } else {
      value = static_cast<T>(at[0][lane]) | static_cast<T>(at[1][lane]) << 32;
    }
  }
  template <int kPart, int kWords>
  APR_FN void words(int offset, uint32_t* w) const {
    const auto* at = word + part_word<Block>(kPart) + offset / 4;
    for (int i = 0; i < kWords; ++i) w[i] = at[i][lane];
  }
};

// A chunk of every row of a tile.
template <class Block>
struct TileChunk {
  alignas(64) uint32_t q[Block::kRuns][Block::kRun / 4][kTileRows];
  alignas(64) float scale[Block::kRuns][kTileRows], offset[Block::kRuns][kTileRows];
};

// Columns that are surely within one block of activations, wherever a run begins.
template <class Block>
constexpr int unit_columns() {
  int all = Block::kRun | 32;
  for (int c = 0; c < Block::kBlock / (Block::kRuns * Block::kRun); ++c)
    for (int r = 0; r < Block::kRuns; ++r) all |= Block::col(c, r);
  return greatest_power_of_two(all);
}

}  // namespace apr::cpu
