// GEMV derived from a codec whose block is in parts. Not a header of its own: avx2.hpp and avx512.hpp include it inside
// their namespace and instruction-set region, after the primitives that it uses:
//   struct RowSums                                   a float for each of them
//   void transpose_words(row, offset, word)          16 bytes of each row to four words of each
//   void look_up_words(table, word)                  a word of each row, its bytes replaced by the table's
//   void dot_rows<kQuads>(...)                       exact dot products of some columns
//   void store_quads(word, rows, q, q_stride)        the inverse of transpose_words, for the first rows
//   void add_scaled(RowSums&, v, scale, factor)      sums += v * (scale * factor)
//   void add_product(RowSums&, v, factor)            sums += v * factor
//   void add_affine(RowSums&, v, scale, factor, offset, total)
//                                                    sums += scale * (v * factor) + offset * total, nothing fused
//   void store_rows(const RowSums&, float* y)
//
// A row is a lane, as a chunk is one on a GPU: the codec's own load and decode stand in a loop over the rows of a tile, which
// the compiler turns into vectors, whatever arithmetic they do. It does so reliably when the loop reads and writes
// consecutive words, so the rows' bytes are transposed first: word w of all rows lies side by side.

template <int kBytes>
APR_FN void stage_part(const uint8_t* const* row, uint64_t offset, uint32_t (*word)[kTileRows]) {
  int i = 0;
  for (; i + 16 <= kBytes; i += 16) transpose_words(row, offset + i, word + i / 4);
  for (; i < kBytes; i += 4) {
    constexpr int kRest = kBytes % 4;
    for (int lane = 0; lane < kTileRows; ++lane) {
      const uint8_t* p = row[lane] + offset + i;
      uint32_t w = 0;
      __builtin_memcpy(&w, p, i + 4 <= kBytes ? 4 : kRest);
      word[i / 4][lane] = w;
    }
  }
}
template <class Block, int kPart = 0>
APR_FN void stage(const uint8_t* const* row, uint64_t offset, uint32_t (*word)[kTileRows]) {
  stage_part<Block::kParts[kPart]>(row, offset + part_offset<Block>(kPart), word + part_word<Block>(kPart));
  if constexpr (kPart + 1 < kPartCount<Block>) stage<Block, kPart + 1>(row, offset, word);
}

// Integers and scales in loops of their own, since vectors are as wide as the narrowest number in a loop lets them be, and
// scales are mostly made from halves or bytes. What a loop does not store, it does not compute.
template <class Block>
APR_FN void decode_rows(const uint32_t (*word)[kTileRows], int c, TileChunk<Block>& out) {
  for (int lane = 0; lane < kTileRows; ++lane) {
    IntChunk<Block::kRuns, Block::kRun> chunk;
    Block::decode(Block::load(PartsOfLane<Block>{word, lane}, c), c, chunk);
    for (int r = 0; r < Block::kRuns; ++r)
      for (int i = 0; i < Block::kRun / (kHasNibbles<Block> ? 8 : 4); ++i) out.q[r][i][lane] = chunk.q[r][i];
  }
  for (int lane = 0; lane < kTileRows; ++lane) {
    IntChunk<Block::kRuns, Block::kRun> chunk;
    Block::decode(Block::load(PartsOfLane<Block>{word, lane}, c), c, chunk);
    for (int r = 0; r < Block::kRuns; ++r) {
      out.scale[r][lane] = chunk.scale[r];
      if constexpr (Block::kOffset) out.offset[r][lane] = chunk.offset[r];
    }
  }
  if constexpr (kHasNibbles<Block>) {
#pragma GCC unroll 16
    for (int r = 0; r < Block::kRuns; ++r)
#pragma GCC unroll 16
      for (int i = Block::kRun / 8 - 1; i >= 0; --i) {
        uint32_t indices[kTileRows];
        __builtin_memcpy(indices, out.q[r][i], sizeof indices);
        for (int lane = 0; lane < kTileRows; ++lane) out.q[r][2 * i][lane] = spread_nibbles(indices[lane]);
        for (int lane = 0; lane < kTileRows; ++lane)
          out.q[r][2 * i + 1][lane] = spread_nibbles(indices[lane] >> 16);
      }
  }
  if constexpr (kHasTable<Block>) {
    constexpr U4 table = packed_table<Block>();
    for (int r = 0; r < Block::kRuns; ++r)
      for (int i = 0; i < Block::kRun / 4; ++i) look_up_words(table, out.q[r][i]);
  }
}

template <class Block, int kM>
APR_FN void add_chunk(const TileChunk<Block>& chunk, int c, uint64_t k, const apr_cpu_gemv& a,
                      RowSums (&sum)[kM]) {
  // A zero point in the offset cancels exactly in columns that are zero, whatever their scale, when both products are rounded
  // alike: 16 columns at a time, for which activations have a sum.
  constexpr bool kAffine = Block::kOffset && unit_columns<Block>() >= 16;
  constexpr int kUnit = kAffine ? 16 : unit_columns<Block>();
  static_assert(kUnit >= 4, "every run begins at a multiple of four columns");
#pragma GCC unroll 16
  for (int r = 0; r < Block::kRuns; ++r) {
    const uint64_t begin = k + static_cast<uint64_t>(Block::col(c, r));
#pragma GCC unroll 16
    for (int u = 0; u < Block::kRun; u += kUnit) {
      const uint64_t x = begin + u;
      RowSums dot[kM];
      dot_rows<kUnit / 4>(chunk.q[r] + u / 4, a.q + x, a.x_stride, dot);
      for (int m = 0; m < kM; ++m) {
        const uint64_t at = m * a.x_stride + x;
        if constexpr (kAffine)
          add_affine(sum[m], dot[m], chunk.scale[r], a.scale[at / 32], chunk.offset[r], a.sum[at / 16]);
        else
          add_scaled(sum[m], dot[m], chunk.scale[r], a.scale[at / 32]);
      }
    }
    // An offset is shared by 16 aligned columns at least, and whoever has the first of them adds it for all.
    if constexpr (Block::kOffset && !kAffine)
      for (uint64_t x = (begin + 15) / 16 * 16; x < begin + Block::kRun; x += 16)
        for (int m = 0; m < kM; ++m) add_product(sum[m], chunk.offset[r], a.sum[(m * a.x_stride + x) / 16]);
  }
}

template <class Codec, int kM>
void gemv_int_tiles_m(const apr_cpu_gemv& a) {
  using Block = typename Codec::OfParts;
  // Sixteen streams: each is asked for ahead by hand, over the end of a row into the row that follows in its lane.
  constexpr uint64_t kAhead = 512;
  alignas(64) uint32_t word[part_word<Block>(kPartCount<Block>)][kTileRows];
  for (uint64_t n = 0; n < a.n; n += kTileRows) {
    const uint64_t rows = least(a.n - n, kTileRows);
    const TileRows row(static_cast<const uint8_t*>(a.w) + n * a.row_bytes, a.row_bytes, rows);
    RowSums sum[kM] = {};
    uint64_t at = 0;
    for (uint64_t k = 0; k < a.k; k += Block::kBlock, at += Block::kBytes) {
      const uint64_t next =
          at + kAhead < a.row_bytes ? at + kAhead : at + kAhead + (kTileRows - 1) * a.row_bytes;
      for (int lane = 0; lane < kTileRows; ++lane)
        for (int i = 0; i < Block::kBytes; i += 64) __builtin_prefetch(row.p[lane] + next + i);
      stage<Block>(row.p, at, word);
      for (int c = 0; c < kChunks<Codec>; ++c) {
        TileChunk<Block> chunk;
        decode_rows<Block>(word, c, chunk);
        add_chunk<Block, kM>(chunk, c, k, a, sum);
      }
    }
    for (int m = 0; m < kM; ++m) store_rows(sum[m], rows, a.y + m * a.y_stride + n);
  }
}

template <class Codec>
void gemv_int_tiles(const apr_cpu_gemv* a) {
  if (a->m == 1) return gemv_int_tiles_m<Codec, 1>(*a);
  if (a->m == 2) return gemv_int_tiles_m<Codec, 2>(*a);
  if (a->m == 3) return gemv_int_tiles_m<Codec, 3>(*a);
  gemv_int_tiles_m<Codec, 4>(*a);
}

// Row by row what unpack_int gives.
template <class Block>
APR_FN void store_chunk(const TileChunk<Block>& chunk, int c, uint64_t k, uint64_t n, uint64_t rows,
                        const apr_cpu_unpack& a) {
#pragma GCC unroll 16
  for (int r = 0; r < Block::kRuns; ++r) {
    const uint64_t column = k + static_cast<uint64_t>(Block::col(c, r));
    int8_t* q = a.q + n * a.q_stride + column;
    int i = 0;
    for (; i + 4 <= Block::kRun / 4; i += 4) store_quads(chunk.q[r] + i, rows, q + 4 * i, a.q_stride);
    for (; i < Block::kRun / 4; ++i)
      for (uint64_t row = 0; row < rows; ++row)
        __builtin_memcpy(q + row * a.q_stride + 4 * i, &chunk.q[r][i][row], 4);
    if (column % Block::kGroup != 0) continue;  // the run at a group's begin gives its scale
    const uint64_t at = n * a.scale_stride + column / Block::kGroup;
    for (uint64_t row = 0; row < rows; ++row) {
      a.scale[at + row * a.scale_stride] = chunk.scale[r][row];
      a.offset[at + row * a.scale_stride] = Block::kOffset ? chunk.offset[r][row] : 0.0f;
    }
  }
}

template <class Codec>
void unpack_int_tiles(const apr_cpu_unpack* args) {
  using Block = typename Codec::OfParts;
  const apr_cpu_unpack& a = *args;
  alignas(64) uint32_t word[part_word<Block>(kPartCount<Block>)][kTileRows];
  for (uint64_t n = 0; n < a.rows; n += kTileRows) {
    const uint64_t rows = least(a.rows - n, kTileRows);
    const TileRows row(static_cast<const uint8_t*>(a.w) + n * a.row_bytes, a.row_bytes, rows);
    uint64_t at = a.k0 / Block::kBlock * Block::kBytes;
    for (uint64_t k = 0; k < a.cols; k += Block::kBlock, at += Block::kBytes) {
      stage<Block>(row.p, at, word);
      for (int c = 0; c < kChunks<Codec>; ++c) {
        TileChunk<Block> chunk;
        decode_rows<Block>(word, c, chunk);
        store_chunk<Block>(chunk, c, k, n, rows, a);
      }
    }
  }
}

// What format.hpp takes from this instruction set.
struct DerivedByTiles : Derived {
  template <class Codec>
  requires requires { typename Codec::OfParts; }
  static constexpr Gemv kGemvTiles = &gemv_int_tiles<Codec>;
  template <class Codec>
  static constexpr void (*kUnpackTiles)(const apr_cpu_unpack*) = &unpack_int_tiles<Codec>;
};
