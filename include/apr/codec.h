// clang-format off
// The codec contract: how one block of packed weights becomes numbers in registers. This file and every codec are
// compiled by the host compiler and, as text, by NVRTC: no host headers, no library, no floating-point contraction.
//
// A codec is a struct of constants and static functions:
//
//   struct MyCodec {
//     static constexpr int kBlock = 256;     // columns of one block
//     static constexpr int kBytes = 144;     // bytes of one block in a file
//     static constexpr int kAlign = 16;      // power of two dividing kBytes: what device memory guarantees for a block
//     static constexpr bool kInteger = true; // integer codec (IntChunk) or float codec (FloatChunk)
//     static constexpr bool kOffset = true;  // integer: some offset may be non-zero
//     static constexpr int kGroup = 32;      // integer: aligned columns that share scale and offset: 16 or a multiple
//                                            // of 32, and a multiple of kRun
//     static constexpr int kRuns = 2;        // a chunk is kRuns runs ...
//     static constexpr int kRun = 16;        // ... of kRun consecutive columns (a multiple of 4)
//     static constexpr int col(int chunk, int run);  // first column of a run; chunk in [0, kBlock / (kRuns * kRun))
//     struct RowMajor { ... };               // the file's layout, required
//     struct Planar { ... };                 // optional: planes whose loads are aligned, whole and coalesced
//   };
//
// A layout is a struct:
//
//   struct RowMajor {
//     static constexpr int kPlanes = 1;
//     static constexpr int kPlaneBytes[kPlanes] = {kBytes};  // bytes of one block in each plane
//     struct Raw { ... };                                    // what one lane loads for one chunk: registers
//     static Raw load(const Planes<kPlanes>& block, int chunk);  // loads only, so that kernels can hoist them
//     static void decode(const Raw&, int chunk, IntChunk<kRuns, kRun>&);  // arithmetic only
//     static void split(const uint8_t* block, uint8_t* const* plane);     // host; not in RowMajor. NVRTC parses it,
//                                                            // too (-default-device), but never calls it
//   };
//
// A block that is a few parts side by side needs no layouts written out: InParts, at this file's end, makes both.
//
// A chunk is one lane's unit of work. Every column of a block belongs to exactly one run of one chunk. In an integer
// chunk the value of column c of run r is  round(round(scale[r] * q) + offset[r])  in float32: two roundings, never
// fused, so that host and device agree bit for bit. q is any int8.
// clang-format on
#pragma once

#if defined(__CUDACC_RTC__) || defined(__CUDACC__)
#define APR_FN __host__ __device__ __forceinline__
#if defined(__CUDACC_RTC__)
typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;
#define __builtin_memcpy memcpy  // NVRTC knows the function, not the builtin
#else
#include <stdint.h>
#endif
#else
#define APR_FN inline __attribute__((always_inline))
#include <stdint.h>
#include <string.h>
#endif

namespace apr {

// Pointers to one block's bytes in each plane.
template <int kPlanes>
struct Planes {
  const uint8_t* p[kPlanes];
};

template <int kRuns, int kRun>
struct IntChunk {
  uint32_t q[kRuns][kRun / 4];  // byte j of q[r][i] is the int8 of column col(chunk, r) + 4 * i + j
  float scale[kRuns];
  float offset[kRuns];  // 0 when the codec has kOffset = false
};

template <int kRuns, int kRun>
struct FloatChunk {
  float v[kRuns][kRun];
};

// A chunk as the difference of two: a column's value is scale * (q - minus) + offset, with one of the two 0.
template <int kRuns, int kRun>
struct SplitChunk : IntChunk<kRuns, kRun> {
  uint32_t minus[kRuns][kRun / 4];
};

struct alignas(8) U2 {
  uint32_t x, y;
};
struct alignas(16) U4 {
  uint32_t x, y, z, w;
};

// ---- loads of packed weights: read-only memory, address aligned to alignof(T) on a device, to 1 on the host
// ----------

template <typename T>
APR_FN T load(const uint8_t* p) {
#if defined(__CUDA_ARCH__)
  T v;
  if constexpr (sizeof(T) == 16) {
    // Weights are read once per step: keeping them out of L1 leaves it to the activations.
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p));
  } else if constexpr (sizeof(T) == 8) {
    asm volatile("ld.global.nc.v2.u32 {%0,%1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(p));
  } else if constexpr (sizeof(T) == 4) {
    asm volatile("ld.global.nc.u32 %0, [%1];" : "=r"(v) : "l"(p));
  } else if constexpr (sizeof(T) == 2) {
    asm volatile("ld.global.nc.u16 %0, [%1];" : "=h"(v) : "l"(p));
  } else {
    uint32_t b;
    asm volatile("ld.global.nc.u8 %0, [%1];" : "=r"(b) : "l"(p));
    v = static_cast<T>(b);
  }
  return v;
#else
  T v;
  __builtin_memcpy(&v, p, sizeof(T));
  return v;
#endif
}

// kWords 32-bit words from an address aligned to kAlign bytes: one wide load where the alignment allows it,
// halves or bytes where it does not.
template <int kWords, int kAlign>
APR_FN void load_words(const uint8_t* p, uint32_t* w) {
#if defined(__CUDA_ARCH__)
  if constexpr (kAlign >= 16 && kWords % 4 == 0) {
    for (int i = 0; i < kWords / 4; ++i) {
      U4 v = load<U4>(p + 16 * i);
      w[4 * i] = v.x, w[4 * i + 1] = v.y, w[4 * i + 2] = v.z, w[4 * i + 3] = v.w;
    }
  } else if constexpr (kAlign >= 8 && kWords % 2 == 0) {
    for (int i = 0; i < kWords / 2; ++i) {
      U2 v = load<U2>(p + 8 * i);
      w[2 * i] = v.x, w[2 * i + 1] = v.y;
    }
  } else if constexpr (kAlign >= 4) {
    for (int i = 0; i < kWords; ++i) w[i] = load<uint32_t>(p + 4 * i);
  } else if constexpr (kAlign == 2) {
    for (int i = 0; i < kWords; ++i)
      w[i] = load<uint16_t>(p + 4 * i) | static_cast<uint32_t>(load<uint16_t>(p + 4 * i + 2)) << 16;
  } else {
    for (int i = 0; i < kWords; ++i) {
      w[i] = 0;
      for (int j = 0; j < 4; ++j) w[i] |= static_cast<uint32_t>(load<uint8_t>(p + 4 * i + j)) << (8 * j);
    }
  }
#else
  // Word by word: a copy of 16 bytes is one number to GCC, and loops around it are not vectorised.
  for (int i = 0; i < kWords; ++i) w[i] = load<uint32_t>(p + 4 * i);
#endif
}

// ---- exact arithmetic, the same bits on host and device
// --------------------------------------------------------------

APR_FN float bits_to_float(uint32_t bits) {
#if defined(__CUDA_ARCH__)
  return __uint_as_float(bits);
#else
  float f;
  __builtin_memcpy(&f, &bits, 4);
  return f;
#endif
}

APR_FN uint32_t float_to_bits(float f) {
#if defined(__CUDA_ARCH__)
  return __float_as_uint(f);
#else
  uint32_t bits;
  __builtin_memcpy(&bits, &f, 4);
  return bits;
#endif
}

// Products and sums that are rounded by themselves: never contracted to a fused multiply-add.
APR_FN float mul(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}
APR_FN float add(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fadd_rn(a, b);
#else
  return a + b;
#endif
}

// IEEE binary16, exact, subnormals included.
APR_FN float half_to_float(uint16_t h) {
#if defined(__CUDA_ARCH__)
  float f;
  asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
  return f;
#else
  const uint32_t magnitude = h & 0x7fffu;
  // Moving the fields into place leaves the exponent 112 too small; the multiplication corrects it and
  // normalises subnormals.
  const float scaled = bits_to_float(magnitude << 13) * bits_to_float(0x77800000u);  // 2^112
  // Infinity and NaN: the exponent's bits are all set. A mask and no branch, so that lanes can go through it together.
  const uint32_t special = (0u - static_cast<uint32_t>(magnitude >= 0x7c00u)) & 0x7f800000u;
  return bits_to_float(float_to_bits(scaled) | special | static_cast<uint32_t>(h & 0x8000u) << 16);
#endif
}

APR_FN float bfloat_to_float(uint16_t b) { return bits_to_float(static_cast<uint32_t>(b) << 16); }

// v - k in each byte, for bytes of v and k below 128: the borrow of one byte never reaches the next.
APR_FN uint32_t sub_bytes(uint32_t v, uint32_t k) { return ((v | 0x80808080u) - k) ^ 0x80808080u; }

// Bits 0-3 of `bits` as bit 0 of the four bytes.
APR_FN uint32_t spread_bits(uint32_t bits) { return ((bits & 15u) * 0x00204081u) & 0x01010101u; }

// Nibble i of the selector (0..7) picks byte i of the result from the eight bytes of b:a.
APR_FN uint32_t pick_bytes(uint32_t a, uint32_t b, uint32_t selector) {
#if defined(__CUDA_ARCH__)
  return __byte_perm(a, b, selector);
#else
  const uint64_t bytes = static_cast<uint64_t>(b) << 32 | a;
  uint32_t picked = 0;
  for (int i = 0; i < 4; ++i)
    picked |= (static_cast<uint32_t>(bytes >> (8 * ((selector >> (4 * i)) & 7u))) & 255u) << (8 * i);
  return picked;
#endif
}

// The same, where bit 3 of a selector's nibble asks for the sign of the byte picked instead: 0, or -1 for a negative one.
APR_FN uint32_t pick_bytes_or_signs(uint32_t a, uint32_t b, uint32_t selector) {
#if defined(__CUDA_ARCH__)
  uint32_t picked;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(picked) : "r"(a), "r"(b), "r"(selector));
  return picked;
#else
  const uint32_t bytes = pick_bytes(a, b, selector);
  uint32_t picked = 0;
  for (int i = 0; i < 4; ++i) {
    const uint32_t byte = bytes >> (8 * i) & 255u;
    picked |= (selector >> (4 * i) & 8u ? (byte & 128u ? 255u : 0u) : byte) << (8 * i);
  }
  return picked;
#endif
}

// Nibbles 0-3 of v as four bytes.
APR_FN uint32_t spread_nibbles(uint32_t v) {
  v = ((v & 0xffffu) | v << 8) & 0x00ff00ffu;
  return (v | v << 4) & 0x0f0f0f0fu;
}

// The table's bytes for the nibbles of v in order: 0-3 (first) and 4-7 (second). table: 16 bytes. Six byte permutations on a
// device; the host has no such instruction and indexes.
APR_FN void lookup_in_order_by_picks(uint32_t v, const U4& table, uint32_t& first, uint32_t& second) {
  const uint32_t index = v & 0x77777777u, upper = (v & 0x88888888u) >> 1;
  uint32_t half[2];
  for (int h = 0; h < 2; ++h) {
    const uint32_t a = pick_bytes(table.x, table.y, index >> (16 * h));
    const uint32_t b = pick_bytes(table.z, table.w, index >> (16 * h));
    half[h] = pick_bytes(a, b, 0x3210u | ((upper >> (16 * h)) & 0x4444u));
  }
  first = half[0], second = half[1];
}
#if !defined(__CUDA_ARCH__)
// The table's bytes for the nibbles of v from bit `shift` on, each `step` bits further.
APR_FN uint32_t lookup_by_index(uint32_t v, const U4& table, int shift, int step) {
  uint8_t bytes[16];
  __builtin_memcpy(bytes, &table, 16);
  uint32_t found = 0;
  for (int j = 0; j < 4; ++j)
    found |= static_cast<uint32_t>(bytes[(v >> (shift + step * j)) & 15u]) << (8 * j);
  return found;
}
#endif
APR_FN void lookup_in_order(uint32_t v, const U4& table, uint32_t& first, uint32_t& second) {
#if defined(__CUDA_ARCH__)
  lookup_in_order_by_picks(v, table, first, second);
#else
  first = lookup_by_index(v, table, 0, 4), second = lookup_by_index(v, table, 16, 4);
#endif
}

// The same for the low nibbles of the four bytes of v (low) and for the high ones (high).
APR_FN void lookup_by_picks(uint32_t v, const U4& table, uint32_t& low, uint32_t& high) {
  uint32_t first, second;
  lookup_in_order_by_picks(v, table, first, second);
  low = pick_bytes(first, second, 0x6420u);
  high = pick_bytes(first, second, 0x7531u);
}
APR_FN void lookup_nibbles(uint32_t v, const U4& table, uint32_t& low, uint32_t& high) {
#if defined(__CUDA_ARCH__)
  lookup_by_picks(v, table, low, high);
#else
  low = lookup_by_index(v, table, 0, 8), high = lookup_by_index(v, table, 4, 8);
#endif
}

// Byte j of a packed quad, sign-extended.
APR_FN int quad_byte(uint32_t quad, int j) { return static_cast<int32_t>(quad << (24 - 8 * j)) >> 24; }

// Byte j of a word as a float. A device makes the bits of 2^23 + byte, a permutation, and subtracts: a conversion would take
// an extraction first, and slower units.
APR_FN float byte_to_float(uint32_t word, int j) {
#if defined(__CUDA_ARCH__)
  return __fsub_rn(__uint_as_float(__byte_perm(word, 0x4b000000u, 0x7540u | j)), 8388608.0f);
#else
  return static_cast<float>(word >> (8 * j) & 255u);
#endif
}
// The same of an int8.
APR_FN float quad_byte_to_float(uint32_t quad, int j) {
#if defined(__CUDA_ARCH__)
  return __fsub_rn(__uint_as_float(__byte_perm(quad ^ 0x80808080u, 0x4b000000u, 0x7540u | j)), 8388736.0f);
#else
  return static_cast<float>(quad_byte(quad, j));
#endif
}

// The float view of an integer chunk: defines what a packed weight is worth.
template <bool kOffset, int kRuns, int kRun>
APR_FN float chunk_value(const IntChunk<kRuns, kRun>& chunk, int run, int column) {
  const float product =
      mul(chunk.scale[run], static_cast<float>(quad_byte(chunk.q[run][column / 4], column % 4)));
  if constexpr (kOffset) return add(product, chunk.offset[run]);
  return product;
}

// ---- both layouts of a block in parts
// ---------------------------------------------------------------------------------

// Most blocks are a few parts side by side: a scale, then quants. For such a one an author writes a Block, which has a
// codec's constants and, instead of layouts,
//
//   static constexpr int kParts[] = {2, 32};  // bytes of each part, in the file's order: 1 to 4 of them, in all kBytes
//   struct Raw { ... };                       // what one lane loads for one chunk
//   static Raw load(const auto& block, int chunk);  // with load_part: loads only
//   static void decode(const Raw&, int chunk, IntChunk<kRuns, kRun>&);  // arithmetic only
//
// and the codec is InParts<Block>: row_major reads the parts where the file has them, and in planar each is a plane.
//
// A block whose values come from a table of sixteen may have it as a constant. Its decode then gives indices, 0 to 15, and
// the value of a column is scale * kTable[q] + offset:
//
//   static constexpr int kTable[16] = {-127, -88, ...};  // int8 values
//
// The indices are bytes, as other integers are, unless the block says that they are nibbles:
//
//   static constexpr bool kNibbles = true;  // nibble n of out.q[r][i], i < kRun / 8, is the index of column 8 i + n of run r
//
// which is what a file holds where byte b has column 2 b in its low and 2 b + 1 in its high half, and saves unpacking them.

constexpr int greatest_power_of_two(int divisor_of) { return divisor_of & -divisor_of; }

template <class Block>
constexpr int part_offset(int part) {
  int offset = 0;
  for (int i = 0; i < part; ++i) offset += Block::kParts[i];
  return offset;
}

// What words may be loaded in, given the alignment of their address and how many they are.
constexpr int words_align(int align, int words) {
  const int size = greatest_power_of_two(4 * words);
  return align < size ? align : size;
}

// A number of type T from p, which is a multiple of kAlign, assembled from what may be loaded there at once.
template <int kAlign, typename T>
APR_FN T load_number(const uint8_t* p) {
  if constexpr (sizeof(T) <= kAlign) {
    return load<T>(p);
  } else {
    T value = 0;
    for (int i = 0; i < static_cast<int>(sizeof(T)); i += kAlign) {
      if constexpr (kAlign == 4)
        value |= static_cast<T>(static_cast<T>(load<uint32_t>(p + i)) << (8 * i));
      else if constexpr (kAlign == 2)
        value |= static_cast<T>(static_cast<T>(load<uint16_t>(p + i)) << (8 * i));
      else
        value |= static_cast<T>(static_cast<T>(load<uint8_t>(p + i)) << (8 * i));
    }
    return value;
  }
}

// Where a block's parts are: side by side in a row, or each in a plane. A third form is the CPU's own, apr/cpu/lanes.inl.
template <class Block>
struct PartsOfRow {
  const uint8_t* block;
  template <int kPart, typename T>
  APR_FN void number(int offset, T& value) const {
    value = load_number<kAlign<kPart>, T>(block + part_offset<Block>(kPart) + offset);
  }
  template <int kPart, int kWords>
  APR_FN void words(int offset, uint32_t* w) const {
    load_words<kWords, words_align(kAlign<kPart>, kWords)>(block + part_offset<Block>(kPart) + offset, w);
  }
  template <int kPart>
  static constexpr int kAlign = greatest_power_of_two(Block::kAlign | part_offset<Block>(kPart));
};
template <class Block, int kCount>
struct PartsOfPlanes {
  const uint8_t* plane[kCount];
  template <int kPart, typename T>
  APR_FN void number(int offset, T& value) const {
    value = load_number<kAlign<kPart>, T>(plane[kPart] + offset);
  }
  template <int kPart, int kWords>
  APR_FN void words(int offset, uint32_t* w) const {
    load_words<kWords, words_align(kAlign<kPart>, kWords)>(plane[kPart] + offset, w);
  }
  template <int kPart>
  static constexpr int kAlign = greatest_power_of_two(Block::kParts[kPart] | 16);
};

// A number from a part, `offset` bytes after its begin: a multiple of the number's size.
template <int kPart, class Parts, typename T>
APR_FN void load_part(const Parts& block, int offset, T& value) {
  block.template number<kPart>(offset, value);
}
// The same for an array of words: `offset` is a multiple of the array's size, or of 16.
template <int kPart, class Parts, int kWords>
APR_FN void load_part(const Parts& block, int offset, uint32_t (&words)[kWords]) {
  block.template words<kPart, kWords>(offset, words);
}

template <class Block>
inline constexpr bool kHasTable = requires {
  Block::kTable;
};
template <class Block>
inline constexpr bool kHasNibbles = requires {
  requires Block::kNibbles;
};

// kTable as bytes in four words, the first in the lowest byte.
template <class Block>
constexpr U4 packed_table(bool magnitudes = false) {
  static_assert(sizeof(Block::kTable) == 16 * sizeof(int), "kTable has sixteen values");
  uint32_t w[4] = {};
  for (int i = 0; i < 16; ++i) {
    const int value = magnitudes && Block::kTable[i] < 0 ? -Block::kTable[i] : Block::kTable[i];
    w[i / 4] |= (static_cast<uint32_t>(value) & 255u) << (8 * (i % 4));
  }
  return {w[0], w[1], w[2], w[3]};
}

// -1: the first half of the table has no positive value and the second no negative one. 1: the other way round. 0: neither.
template <class Block>
constexpr int table_signs() {
  if constexpr (!kHasTable<Block>) {
    return 0;
  } else {
    bool falls = true, rises = true;
    for (int i = 0; i < 16; ++i) {
      const int value = Block::kTable[i];
      if (value == -128) return 0;
      if (i < 8 ? value > 0 : value < 0) rises = false;
      if (i < 8 ? value < 0 : value > 0) falls = false;
    }
    return rises ? -1 : falls ? 1 : 0;
  }
}

// The table's values for a chunk of indices, two words of them at a time.
template <class Block, int kRuns, int kRun>
APR_FN void look_up(IntChunk<kRuns, kRun>& chunk) {
  constexpr U4 table = packed_table<Block>();
  if constexpr (kHasNibbles<Block>) {
    for (int r = 0; r < kRuns; ++r)
      for (int i = kRun / 8 - 1; i >= 0; --i)
        lookup_in_order(chunk.q[r][i], table, chunk.q[r][2 * i], chunk.q[r][2 * i + 1]);
  } else {
    constexpr int kWords = kRuns * (kRun / 4), kHalf = (kWords + 1) / 2;
    uint32_t* q = &chunk.q[0][0];
    for (int i = 0; i < kHalf; ++i) {
      uint32_t unused = 0;
      uint32_t& high = kHalf + i < kWords ? q[kHalf + i] : unused;
      lookup_nibbles(q[i] | high << 4, table, q[i], high);
    }
  }
}

// Magnitudes of positive and of negative values in words of their own, for kernels that multiply both: what a table's half
// gives for indices of the other half is the sign of a magnitude, 0, so nothing has to be chosen. Four byte permutations
// for eight columns.
template <class Block, int kRuns, int kRun>
APR_FN void look_up(SplitChunk<kRuns, kRun>& chunk) {
  constexpr U4 table = packed_table<Block>(true);
  for (int r = 0; r < kRuns; ++r)
    for (int i = kRun / 8 - 1; i >= 0; --i) {
      const uint32_t v = chunk.q[r][i], other = v ^ 0x88888888u;
      for (int h = 0; h < 2; ++h) {
        const uint32_t lower = pick_bytes_or_signs(table.x, table.y, v >> (16 * h));
        const uint32_t upper = pick_bytes_or_signs(table.z, table.w, other >> (16 * h));
        chunk.q[r][2 * i + h] = table_signs<Block>() < 0 ? upper : lower;
        chunk.minus[r][2 * i + h] = table_signs<Block>() < 0 ? lower : upper;
      }
    }
}

template <class Block>
struct InParts : Block {
  using OfParts = Block;
  static constexpr int kCount = sizeof(Block::kParts) / sizeof(int);
  static_assert(part_offset<Block>(kCount) == Block::kBytes, "kBytes is the sum of kParts");
  static_assert(!kHasNibbles<Block> || (kHasTable<Block> && Block::kRun % 8 == 0),
                "kNibbles goes with kTable and runs of a multiple of 8 columns");
  // Layouts decode to a SplitChunk too.
  static constexpr bool kSplit = kHasNibbles<Block> && table_signs<Block>() != 0;

  struct Decoding {
    template <class Chunk>
    APR_FN static void decode(const typename Block::Raw& raw, int chunk, Chunk& out) {
      Block::decode(raw, chunk, out);
      if constexpr (kHasTable<Block>) look_up<Block>(out);
    }
  };

  struct RowMajor : Decoding {
    static constexpr int kPlanes = 1;
    static constexpr int kPlaneBytes[kPlanes] = {Block::kBytes};
    using Raw = typename Block::Raw;
    APR_FN static Raw load(const Planes<kPlanes>& block, int chunk) {
      return Block::load(PartsOfRow<Block>{block.p[0]}, chunk);
    }
  };

  struct Planar : Decoding {
    static constexpr int kPlanes = kCount;
    static constexpr const int (&kPlaneBytes)[kPlanes] = Block::kParts;
    using Raw = typename Block::Raw;
    APR_FN static Raw load(const Planes<kPlanes>& block, int chunk) {
      PartsOfPlanes<Block, kCount> parts;
      for (int p = 0; p < kCount; ++p) parts.plane[p] = block.p[p];
      return Block::load(parts, chunk);
    }
    static void split(const uint8_t* block, uint8_t* const* plane) {
      for (int p = 0; p < kCount; block += Block::kParts[p++])
        __builtin_memcpy(plane[p], block, static_cast<unsigned long>(Block::kParts[p]));
    }
  };
};

}  // namespace apr
