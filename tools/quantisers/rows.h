// Rows of weights that quantisers are compared on. The same bits on every machine: from std::mt19937_64 and
// from IEEE operations in double that are rounded once to float.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace apr::compare {

// Columns of a superblock: what every format's block divides.
constexpr size_t kSuperblock = 256;

// A kind of weights. `what` is one line for people.
struct Distribution {
  const char* name;
  const char* what;
  void (*fill)(class Numbers& numbers, float* superblock);
};

// Uniform and normal numbers from one seed.
class Numbers {
 public:
  explicit Numbers(uint64_t seed) : state_(seed) {}
  uint64_t bits();   // splitmix64
  double uniform();  // in (0, 1)
  double between(double low, double high) { return low + (high - low) * uniform(); }
  double normal();  // mean 0, deviation 1
  size_t below(size_t n) { return static_cast<size_t>(uniform() * static_cast<double>(n)); }

 private:
  uint64_t state_;
};

const std::vector<Distribution>& distributions();

// n superblocks of a distribution, one after the other.
std::vector<float> make_blocks(const Distribution& distribution, size_t n, uint64_t seed);
// Importance of k columns: log-normal over three orders of magnitude, as mean squares of activations are; one
// of 64 columns was hardly used.
std::vector<float> make_importance(size_t k, uint64_t seed);

// FNV-1a over the floats' bits, as 16 hex digits: that two programs speak of the same weights.
std::string fingerprint(const std::vector<float>& values);

}  // namespace apr::compare
