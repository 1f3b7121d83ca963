// A loaded plan: programs bound to memory, kernels and graphs. After load a step chooses nothing and compiles nothing.
#pragma once

#include <climits>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "apr/backend.h"
#include "core/kernel_cache/kernel_cache.h"
#include "plugins/backend-cuda/bind.h"
#include "plugins/backend-cuda/decide.h"
#include "plugins/backend-cuda/device.h"
#include "plugins/backend-cuda/templates.h"
#include "plugins/backend-cuda/weights.h"

namespace apr::cuda {

// What a device was opened with.
struct Settings {
  std::string data_dir;      // "": found relative to this library
  std::string cache_folder;  // "": memory only
  uint64_t cache_bytes = kDefaultCacheBytes;
  bool no_graph = false;      // decode steps launch kernels one by one
  bool no_fusion = false;     // one kernel per plan operation
  bool prebuilt = false;      // kernels that were built with the program, also where NVRTC is
  std::string arch;           // "sm_90a": no device is opened; kernels are only decided, for such a one
  bool time_kernels = false;  // measure every kernel of every step: slower, never with a graph
  unsigned threads = 0;       // 0 = usable CPUs
};

using LogFn = std::function<void(int level, const std::string& message)>;

// The kernel templates of the installation (the setting data_dir), checked to be of this version. Throws Error.
Registry checked_registry(const std::string& data_dir);

// All that deciding and compiling need, with or without a GPU.
struct Workshop {
  Workshop(Settings settings, LogFn log);

  Settings settings;
  LogFn log;
  Registry registry;
  const Nvrtc* nvrtc = nullptr;  // null: none, and nvrtc_reason says why
  std::string nvrtc_reason;
  Target target;

  // No compiler, or none wanted: kernels that were built with the program serve.
  bool generic() const { return nvrtc == nullptr || settings.prebuilt; }
  // "NVRTC 13.0", "none": part of every kernel's key.
  std::string compiler() const;
  void find_compiler(int driver_version);
};

struct Device : Workshop {
  Device(uint32_t index, Settings settings, LogFn log);

  Gpu gpu;
  std::unique_ptr<KernelCache> cache;
  ThreadPool threads;

  // Compiles kernels from their specs; one per entry of sources, in order.
  std::vector<KernelImage> build(const std::vector<Specialised>& sources,
                                 const std::function<void(size_t, size_t)>& progress, JitReport& report);
  // Logs what the kernel cache had to say while kernels were built: it speaks on the threads that build them, and the log
  // is told on the caller's.
  void tell_notices();
  double measure_bandwidth();

 private:
  std::mutex notices_mutex_;
  std::vector<std::string> notices_;
};

class Session {
 public:
  Session(Device& device, const apr_plan& plan, const apr_load_options& options);
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  ~Session();

  void step(const apr_batch& batch, apr_step_output& output);
  void tap(apr_tap_fn fn, void* user);
  // As apr_backend.measure. Throws Failure.
  void measure(uint32_t index, uint32_t repetitions, const apr_kernel_rule* const* candidates, uint32_t n,
               apr_measurement* results);
  apr_session_info info() const;
  const std::vector<Explained>& explained() const { return explained_; }
  Device& device() const { return device_; }

 private:
  struct Launch {
    const Kernel* kernel;
    Args args;
    std::vector<size_t> explained;  // entries of explained_
    struct Tap {
      std::string stage;
      CUdeviceptr data;
      uint32_t width;
    };
    std::vector<Tap> taps;  // materialised values that it writes
  };
  struct Bound {
    Program program;
    std::vector<BoundBuffer> buffers;
    std::vector<Launch> launches;
    uint32_t rows = 0;  // that its buffers have room for
    StateLayout state_layout{0};
    uint64_t state = 0;  // offset of its state in states_ and host_states_
  };
  // load.cpp
  void take(const apr_load_options& options);
  void build_and_upload(const apr_load_options& options);
  void allocate();
  void build_generic();
  void bind_program(Bound& bound, CUdeviceptr arena, const std::vector<std::unique_ptr<Choice>>& choices);
  void bind_gathers();
  BindContext context_of(const Bound& bound) const;
  void measure_weight_ranges();
  void warm_up();
  void capture();

  // session.cpp
  void check(const apr_batch& batch);
  size_t pick(const std::vector<Bound>& bounds, uint32_t rows) const;
  // top: with the launch that finds candidates, where the program has one.
  void run(const Bound& bound, uint32_t rows, bool after_kernel, bool top);
  void launch_timed(const Bound& bound, uint32_t rows, size_t n_launches);
  void report(const Launch& launch, uint32_t rows);
  void write_body_state(const Bound& body, const apr_batch& batch);
  void write_head_state(const Bound& head, const int32_t* rows, uint32_t n);
  void copy_state(const Bound& bound);
  void copy_results(uint32_t rows, bool logits);
  void decode(const apr_batch& batch, bool wanted, const apr_step_output& output);
  void give_candidates(uint32_t rows, apr_candidate* to) const;
  // What a decode step leaves behind decides which graph it is. Logits leaves candidates too, where the session has them.
  enum class Leaves { Nothing, Argmax, Candidates, Logits };
  void decode_work(bool continues, Leaves leaves);
  void begin_ahead(int32_t position, int32_t sequence);
  void drop_ahead();
  int32_t await_result(int32_t position);
  void many(const apr_batch& batch, const apr_step_output& output);

  Device& device_;
  const Gpu& gpu_;
  const apr_plan& plan_;
  uint32_t n_ctx_, n_sequences_, n_batch_, n_top_;
  bool precise_;

  std::vector<Bound> bodies_, heads_;                          // by m ascending, the one for any number last
  std::vector<int32_t> crossing_;                              // values from body to head
  std::vector<std::vector<std::unique_ptr<Choice>>> choices_;  // per program (bodies, then heads), per step
  std::vector<std::unique_ptr<Choice>> gathers_;               // per crossing value
  std::vector<std::unique_ptr<Choice>>
      ranges_;  // per weight of the plan; null where no tensor core eats it as f16
  std::vector<Kernel> kernels_;
  std::vector<DeviceMemory> scratch_;       // per kernel
  std::vector<const apr_layout*> layouts_;  // per weight of the plan

  DeviceWeights weights_;
  DeviceVectors vectors_;
  std::vector<float> weight_scales_;
  DeviceMemory kv_memory_, body_arena_, head_arena_, inlets_, outlets_, logits_, tokens_, states_;
  std::vector<KvCache> caches_;
  std::vector<Launch>
      gather_launches_;  // of body b, head h, crossing value v: at (b * heads + h) * values + v
  std::vector<CUdeviceptr> inlet_of_, outlet_of_;  // per crossing value
  PinnedMemory host_states_, host_logits_, host_tokens_;
  PinnedMemory host_results_;     // args.h, Successor::result
  PinnedMemory host_candidates_;  // the kernel writes them there: [rows of a head][candidates of the kernel]

  CUgraphExec graphs_[4] = {};          // by Leaves; Candidates: null in a session without them
  CUgraphExec continuation_ = nullptr;  // Leaves::Argmax, whose state the step before has written

  // The step that was begun before it was asked for: what the device computes now, or has computed.
  struct AheadStep {
    int32_t token, position, sequence;  // token: kNoResult until the step before has ended
  };
  std::optional<AheadStep> ahead_;
  static constexpr int32_t kNoResult = INT32_MIN;  // in host_results_: not yet

  std::vector<uint32_t> stored_;  // positions in the cache of each sequence
  // Of the step that is checked or runs, with room for the largest: a step allocates nothing.
  std::vector<int64_t> next_;    // position that each sequence goes on with, -1: not in the batch
  std::vector<int32_t> wanted_;  // indices of the tokens whose logits are wanted
  std::vector<Explained> explained_;
  apr_tap_fn tap_ = nullptr;
  void* tap_user_ = nullptr;
  std::string broken_;  // a failure of the GPU after which nothing is certain

  apr_session_info info_{};
  bool loaded_ = false;
  // Choices by type or shape, and kernels made; the difference since the end of load is what info() reports.
  uint64_t dispatches_ = 0, kernels_made_ = 0, dispatches_at_load_ = 0, kernels_made_at_load_ = 0;
};

}  // namespace apr::cuda
