// Chooses the next token from logits. The same options, seed and logits give the same tokens on every
// machine: own generator, own exponential, fixed order of every sum and every tie.
#pragma once

#include <apr/backend.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace apr {

// Filters apply in this order: repetition penalty, top-k, top-p, min-p, temperature, as in llama.cpp's
// default chain.
struct SamplerOptions {
  double temperature = 0.8;  // 0: the most probable token, nothing is drawn
  int64_t top_k = 40;        // keep the k most probable tokens; 0: all
  double top_p = 0.95;       // keep the most probable tokens that together reach this probability; 1: all
  double min_p = 0.05;       // keep tokens at least this probable relative to the most probable one; 0: all
  double repeat_penalty =
      1.0;  // divides positive logits, and multiplies negative ones, of recent tokens; 1: off
  int64_t repeat_last_n = 64;  // how many accepted tokens are recent
  uint64_t seed = 0;
};

class Sampler {
 public:
  // Throws a usage error that names the option and its range.
  explicit Sampler(const SamplerOptions& options);

  // logits: [V], -infinity for tokens that must not come. Returns a token id; call accept() with it when it
  // is used. Throws apr::Error that names the token id of a NaN or +infinity, and when nothing may come.
  int32_t sample(std::span<const float> logits);

  // The first of the tokens with the largest logit is what sample() would choose.
  bool takes_argmax() const { return greedy() && options_.repeat_penalty == 1.0; }
  // The same choice from the most probable tokens alone, in the order of apr_step_output.top: as many as
  // candidates_needed() says, without a NaN.
  int32_t sample(std::span<const apr_candidate> most_probable);
  // How many those are. 0: no number of them is enough, or more than a backend gives: all logits are needed.
  uint32_t candidates_needed() const;

  // A token became part of the text (of the prompt too): the repetition penalty counts it as recent.
  void accept(int32_t id);

  const SamplerOptions& options() const { return options_; }

 private:
  static bool more_probable(const apr_candidate& a, const apr_candidate& b) {
    return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
  }

  bool greedy() const { return options_.temperature == 0 || options_.top_k == 1; }
  void find_recent();
  float penalised(float logit) const;
  std::span<const float> penalised(std::span<const float> logits);
  void keep_top_k(std::span<const float> logits);
  int32_t choose(double highest);  // from candidates_
  void keep_top_p(double highest);
  void keep_min_p(double highest);
  int32_t draw(double highest);
  double uniform();  // [0, 1), a multiple of 2^-53

  SamplerOptions options_;
  uint64_t state_[4];                      // xoshiro256**
  std::vector<int32_t> recent_;            // ring of the last repeat_last_n tokens
  size_t recent_next_ = 0;                 // where the next one goes
  std::vector<float> penalised_;           // [V], only with a penalty
  std::vector<int32_t> unique_;            // recent tokens, ascending
  std::vector<float> block_highest_;       // [ceil(V / 64)]: the highest logit of each block
  std::vector<apr_candidate> candidates_;  // most probable first, unless nothing needed an order
  std::vector<double> weights_;            // of candidates_
};

}  // namespace apr
