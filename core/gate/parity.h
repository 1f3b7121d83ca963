// The parity gate: does a device compute what the reference computes? A real prompt goes through both, at several
// positions and in every form that a step has: the whole prompt at once, a few tokens at a time, token by token with kernels
// launched one by one and through the captured graph, and half of it at once and the rest token by token, as generation
// does. Between two forms other tokens pass through the same positions, so that nothing that one form left in the KV cache or
// in a buffer helps another; and the first form is repeated last and must give the same bits. It speaks to both sides
// through the waist alone, so it judges what users run.
//
// How far apart two correct sides may be is derived, not tuned: see parity_tolerance.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "apr/backend.h"

namespace apr {

enum class ParityVerdict { Pass, Fail, NotRun };

// How the device computed the logits that are compared.
enum class ParityForm {
  Prefill,      // the prompt as one batch
  Few,          // in batches of 2 to 8 tokens
  SingleEager,  // one token a step, APR_STEP_NO_GRAPH
  SingleGraph,  // one token a step, through the graph
  Mixed,        // half of the prompt as one batch, the rest one token a step: as generation runs
};

// What the differences look like. A guess that tells where to look first; the verdict does not depend on it.
enum class ParityFault {
  None,
  NotFinite,  // NaN or infinity on the device
  Transposed,  // unrelated to the reference from the first position on: a weight read in a wrong layout or transposed
  Sign,       // the negative of the reference
  Scale,      // the reference times a constant
  Position,   // right at position 0, wrong after it: rope, KV cache or attention
  Graph,      // the graph's bits differ from those of the same kernels launched one by one
  Batch,      // right token by token, wrong as a batch
  State,      // the same tokens give other bits after others have been there
  Stage,      // logits agree, but a stage is not what its inputs make it
  Precision,  // alike, but further apart than rounding explains
};

const char* to_string(ParityVerdict verdict);
const char* to_string(ParityForm form);
const char* to_string(ParityFault fault);

struct ParitySide {
  const apr_backend* backend;
  apr_session*
      session;  // n_batch and n_ctx at least the number of tokens; sequence 0 is used and left empty of meaning
};

struct ParityRequest {
  ParitySide reference;
  ParitySide device;
  const apr_plan* plan;         // the one that both sessions were loaded from
  std::vector<int32_t> tokens;  // a real prompt, at least 2 tokens; 8 to 32 are enough
  bool reference_precise;       // the reference session was loaded with apr_load_options.precise
  bool device_precise;
};

// One position of one form. Means and deviations are over the vocabulary.
struct ParityPosition {
  ParityForm form;
  uint32_t position;
  bool pass;
  double nmse;    // sum (device - reference)^2 / sum (reference - mean of reference)^2
  double cosine;  // of the two rows
  double
      kl;  // Kullback-Leibler divergence of the device's distribution of the next token from the reference's, in nats
  double max_difference;  // largest |device - reference|
  int32_t reference_argmax;
  int32_t device_argmax;
  double argmax_gap;  // reference logit of its own argmax minus its logit of the device's: 0 when they agree
  double reference_mean, reference_deviation;
  double device_mean, device_deviation;
};

struct ParityDifference {
  ParityForm form;
  uint32_t position;
  int32_t token;  // index in the vocabulary
  float reference;
  float device;
};

// One stage, judged by its own inputs (core/gate/stage_check.h).
struct StageVerdict {
  std::string stage;
  uint32_t op = 0;  // index into the plan's operations
  ParityForm form = ParityForm::Prefill;
  bool pass = true;
  std::vector<std::string> group;  // the stages that lie between the last reported ones and this, itself last
  std::string weight, format;      // of the group's linears and embeddings, joined by " + "; "" for none
  uint32_t rows = 0;               // positions that were judged
  double error = 0;                // root of sum d^2 / sum expected^2
  double bound = 0;                // what it may be
  double worst_deviations = 0;     // largest |d| in standard deviations of that element's rounding
  int32_t worst_position = 0;
  uint32_t worst_column = 0;
  double worst_expected = 0, worst_got = 0;
  double factor = 1;        // by which a linear's result is too large as a whole
  double factor_bound = 0;  // how far from 1 rounding may bring it; 0: not judged
  std::string looks_like;   // of a failure
};

struct ParityReport {
  ParityVerdict verdict = ParityVerdict::NotRun;
  ParityFault fault = ParityFault::None;
  std::string reason;    // one line: why it failed, or was not run; for a pass, the worst position
  double tolerance = 0;  // bound on nmse
  double worst_nmse = 0;
  double worst_cosine = 1;
  std::vector<ParityPosition> positions;      // by form, then position
  std::vector<ParityDifference> differences;  // the ten largest by magnitude, over all forms and positions
  std::vector<StageVerdict> stages;           // of check_stages, where it was run
  double seconds = 0;
};

// Bound on nmse between two correct computations of a plan, from its depth and from whether each side rounds its
// activations to 8 bits. A float side contributes only its rounding.
double parity_tolerance(const apr_plan& plan, bool reference_precise, bool device_precise);

// sum (b - a)^2 / sum (a - mean of a)^2 of two rows of logits: against the spread, not the size, since a large common
// offset would hide differences that change the tokens.
double logits_nmse(const float* a, const float* b, uint32_t n);

// Runs both sides. A side that returns an error makes the verdict NotRun (reference) or Fail (device), with the message.
ParityReport run_parity(const ParityRequest& request);

// Adds verdicts of check_stages: a stage that fails makes a pass a failure, and a failure's reason names it.
void judge_stages(ParityReport& report, std::vector<StageVerdict> stages);

// The report as text for people: verdict, table of positions, differences.
std::string describe(const ParityReport& report);

// ---- receipts: a pass is not repeated ---------------------------------------------------------------------------------

// All that a pass depends on. Two runs with equal identities compute the same thing.
struct ParityIdentity {
  std::string model;                 // cheap_file_identity of each part, joined
  std::string program;               // file_hash of the executable
  std::vector<std::string> plugins;  // file_hash of each library in use
  std::string kernels;               // hash over the kernels in use (kernels_hash)
  std::string device;                // name, architecture and driver
  std::string options;               // "n_ctx=4096 precise=0 no_fusion=0": whatever changes the computation
};

// Size, modification time and the hash of the first MiB: what tells two model files apart without reading gigabytes.
std::string cheap_file_identity(const std::string& path);
// SHA-256 of a whole file, hex: for programs and plugins.
std::string file_hash(const std::string& path);
// SHA-256 over what the device's session says of its kernels: names, configurations and layouts, in order.
std::string kernels_hash(const apr_backend& backend, apr_session* session);

// The receipt of an earlier pass, as its file's text; none when there is none or it is damaged.
std::optional<std::string> find_receipt(const std::string& folder, const ParityIdentity& identity);
// Writes the receipt of a pass under folder, which is made when missing. Returns the file's path, or "" when it cannot be
// written (a read-only disk): then the gate simply runs again next time.
std::string write_receipt(const std::string& folder, const ParityIdentity& identity,
                          const ParityReport& report);

}  // namespace apr
