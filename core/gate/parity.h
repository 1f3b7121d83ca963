// The parity gate: does a device compute what the reference computes? A real prompt goes through both, at several
// positions and in three forms: the whole prompt at once, token by token with kernels launched one by one, and token by
// token through the captured graph. It speaks to both sides through the waist alone, so it judges what users run.
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
  SingleEager,  // one token a step, APR_STEP_NO_GRAPH
  SingleGraph,  // one token a step, as generation runs
};

// What the differences look like. A guess that tells where to look first; the verdict does not depend on it.
enum class ParityFault {
  None,
  NotFinite,   // NaN or infinity on the device
  Transposed,  // unrelated to the reference from the first position on: a weight read in a wrong layout or transposed
  Sign,        // the negative of the reference
  Scale,       // the reference times a constant
  Position,    // right at position 0, wrong after it: rope, KV cache or attention
  Graph,       // the graph's bits differ from those of the same kernels launched one by one
  Batch,       // right token by token, wrong as a batch
  Precision,   // alike, but further apart than rounding explains
};

const char* to_string(ParityVerdict verdict);
const char* to_string(ParityForm form);
const char* to_string(ParityFault fault);

struct ParitySide {
  const apr_backend* backend;
  apr_session* session;  // n_batch and n_ctx at least the number of tokens; sequence 0 is used and left empty of meaning
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

struct ParityReport {
  ParityVerdict verdict = ParityVerdict::NotRun;
  ParityFault fault = ParityFault::None;
  std::string reason;                         // one line: why it failed, or was not run; for a pass, the worst position
  double tolerance = 0;                       // bound on nmse
  double worst_nmse = 0;
  double worst_cosine = 1;
  std::vector<ParityPosition> positions;      // by form, then position
  std::vector<ParityDifference> differences;  // the ten largest by magnitude, over all forms and positions
  double seconds = 0;
};

// Bound on nmse between two correct computations of a plan, from its depth and from whether each side rounds its
// activations to 8 bits. A float side contributes only its rounding.
double parity_tolerance(const apr_plan& plan, bool reference_precise, bool device_precise);

// Runs both sides. A side that returns an error makes the verdict NotRun (reference) or Fail (device), with the message.
ParityReport run_parity(const ParityRequest& request);

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
std::string write_receipt(const std::string& folder, const ParityIdentity& identity, const ParityReport& report);

}  // namespace apr
