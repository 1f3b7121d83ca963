#include "aprctl/eval_run.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <filesystem>

#include "aprctl/engine_request.h"
#include "aprctl/installation.h"
#include "aprctl/interrupt.h"
#include "core/base/clock.h"
#include "core/base/error.h"
#include "core/base/format.h"
#include "core/base/log.h"
#include "core/base/sha256.h"
#include "core/base/thread_pool.h"
#include "core/eval/reference_file.h"
#include "core/eval/state.h"
#include "core/hf/open_model.h"
#include "core/kernel_cache/kernel_cache.h"
#include "core/text/tokenizer.h"

namespace apr::ctl {
namespace {

constexpr double kSecondsBetweenStates = 5;

std::string vocab_sha256(const Vocab& vocab) {
  Sha256 hash;
  for (const std::string& text : vocab.text) {
    hash.update(fmt::format("{} ", text.size()));
    hash.update(text);
  }
  return hash.finish_hex();
}

// Probabilities can be compared only over the same tokens.
void check_vocabularies(const std::string& a_name, const Vocab& a, const std::string& b_name,
                        const Vocab& b) {
  if (a.size() != b.size())
    throw Error(
        "{} and {} have different vocabularies: {} and {} tokens; their probabilities cannot be compared",
        a_name, b_name, a.size(), b.size());
  for (size_t i = 0; i < a.text.size(); ++i)
    if (a.text[i] != b.text[i])
      throw Error(
          "{} and {} have different vocabularies: token {} is '{}' and '{}'; their probabilities cannot be "
          "compared",
          a_name, b_name, i, printable(a.text[i]), printable(b.text[i]));
}

// Logits of a step's wanted tokens, turned into log-probabilities.
class Runner {
 public:
  Runner(const CommandLine& line, const std::string& model, const Windows& windows) {
    EngineRequest request = engine_request(line, model);
    request.load.n_ctx = windows.ctx;
    request.load.n_sequences = windows_per_step(windows, request.load.n_batch);
    engine_ = std::make_unique<Engine>(line, request);
  }
  Engine& engine() { return *engine_; }
  uint32_t vocab() { return engine_->session().vocab(); }

  // [rows][vocab], valid until the next call.
  std::span<const float> log_probabilities_of(const EvalStep& step, const Windows& windows,
                                              ThreadPool& pool) {
    const size_t rows = step.targets.size(), width = vocab();
    rows_.resize(rows * width);
    apr_batch batch{};
    batch.struct_size = sizeof batch;
    batch.n = static_cast<uint32_t>(step.tokens.size());
    batch.tokens = step.tokens.data();
    batch.positions = step.positions.data();
    batch.sequences = step.sequences.data();
    batch.want = step.want.data();
    apr_step_output output{};
    output.struct_size = sizeof output;
    output.logits = rows == 0 ? nullptr : rows_.data();
    engine_->session().step(batch, output);
    pool.parallel_for(rows, 1, [&](size_t begin, size_t end) {
      for (size_t r = begin; r < end; ++r) {
        const std::span<float> row(rows_.data() + r * width, width);
        if (!log_probabilities(row, row.data())) {
          const uint64_t at = step.first_row + r;
          throw Error(
              "{}: the logits at position {} of window {} are not finite; `aprctl parity` and APR_STAGE_DUMP "
              "show where "
              "that begins",
              engine_->asked().model, windows.skip + at % windows.scored(), at / windows.scored());
        }
      }
    });
    return rows_;
  }

 private:
  std::unique_ptr<Engine> engine_;
  std::vector<float> rows_;
};

// What a model is compared with: another that runs beside it, or a file.
class Reference {
 public:
  static std::unique_ptr<Reference> open(const CommandLine& line, const EvalRequest& request,
                                         const Tokenizer& tokenizer, const Windows& windows);

  std::string name, identity;  // for people; for the state's key
  std::span<const float> rows(const EvalStep& step, const Windows& windows, ThreadPool& pool) {
    if (file_) return file_->rows(step.first_row, step.targets.size());
    return runner_->log_probabilities_of(step, windows, pool);
  }
  // Throws when a row has not n_vocab probabilities.
  void check_width(const std::string& model, uint32_t n_vocab) {
    const uint32_t mine = file_ ? file_->head().n_vocab : runner_->vocab();
    if (mine != n_vocab)
      throw Error(
          "{} and {} have different vocabularies: {} and {} logits; their probabilities cannot be compared",
          model, name, n_vocab, mine);
  }

 private:
  std::unique_ptr<Runner> runner_;
  std::unique_ptr<ReferenceFile> file_;  // one of the two
};

std::unique_ptr<Reference> Reference::open(const CommandLine& line, const EvalRequest& request,
                                           const Tokenizer& tokenizer, const Windows& windows) {
  auto out = std::make_unique<Reference>();
  if (ReferenceFile::is_one(*request.reference)) {
    out->file_ = std::make_unique<ReferenceFile>(*request.reference);
    ReferenceHead wanted = reference_head(windows, out->file_->head().n_vocab);
    wanted.model = request.model;
    wanted.vocab_sha256 = vocab_sha256(tokenizer.vocab());
    if (out->file_->head().vocab_sha256 != wanted.vocab_sha256)
      wanted.n_vocab = static_cast<uint32_t>(tokenizer.vocab_size());
    out->file_->check(wanted);
    out->name = fmt::format("{} ({})", *request.reference, out->file_->head().model);
    out->identity = out->file_->sha256();
    return out;
  }
  const Model model = open_model(*request.reference);
  check_vocabularies(request.model, tokenizer.vocab(), *request.reference,
                     make_tokenizer(model.meta)->vocab());
  out->runner_ = std::make_unique<Runner>(line, *request.reference, windows);
  out->name = *request.reference;
  out->identity = model.sha256();
  return out;
}

// Of all that the scores depend on.
std::string state_key(Engine& engine, const Windows& windows, const std::string& reference) {
  const apr_device_info device = engine.device().info();
  std::string all = fmt::format("{} {} {} {} {} {} {}\n", engine.model().sha256(), tokens_sha256(windows),
                                windows.ctx, windows.stride, windows.skip, windows.count, reference);
  all += sha256_file(executable_path().string()) + "\n";
  for (const FoundPlugin& plugin : engine.catalog().plugins())
    if (plugin.table != nullptr) all += sha256_file(plugin.manifest.library.string()) + "\n";
  all += fmt::format("{} {} {} {} {} {}\n", engine.asked().backend, device.name, device.arch, device.detail,
                     engine.asked().load.precise, engine.asked().load.n_batch);
  for (const apr_kernel_info& kernel : engine.session().kernels())
    all += fmt::format("{} {} {} {}\n", kernel.weight, kernel.layout, kernel.kernel, kernel.config);
  for (const auto& [name, value] : engine.probes().in_force) all += fmt::format("{}={}\n", name, value);
  return sha256_hex(all);
}

// Where and whether the scores so far are kept.
class Keeper {
 public:
  Keeper(const EvalRequest& request, std::string key)
      : key_(std::move(key)), explicit_(request.state.has_value()) {
    if (request.save_reference) return;  // its rows would be missing from the file
    if (request.state) {
      path_ = *request.state;
      return;
    }
    const std::string folder = user_cache_folder("eval");
    std::error_code failed;
    if (!folder.empty()) std::filesystem::create_directories(folder, failed);
    if (folder.empty() || failed)
      log_warning("no cache folder: an interrupted evaluation begins anew (--state FILE names a place)");
    else
      path_ = folder + "/" + key_.substr(0, 32) + ".state";
  }

  const std::string& path() const { return path_; }
  EvalState read(uint32_t scored) const {
    if (path_.empty()) return {};
    std::string why;
    EvalState state = read_eval_state(path_, key_, scored, why);
    if (!why.empty() && explicit_) throw Error("{}: {}; remove it, name another, or say --anew", path_, why);
    if (!why.empty()) log_warning("{}: {}; the evaluation begins anew", path_, why);
    return state;
  }
  // True when it is on disk.
  bool write(const EvalState& state) {
    if (path_.empty()) return false;
    try {
      write_eval_state(path_, key_, state);
      last_ = Clock::now();
      return true;
    } catch (const Error& error) {
      if (explicit_) throw;
      // Hours of work are not given up for a full cache.
      log_warning("{}; an interrupted evaluation begins anew", error.what());
      path_.clear();
      return false;
    }
  }
  bool due() const { return !path_.empty() && (!last_ || seconds_since(*last_) > kSecondsBetweenStates); }

 private:
  std::string key_, path_;
  bool explicit_;
  std::optional<Clock::time_point> last_;
};

// "window 12/46, perplexity 1.43, 7 s left" on a terminal, rewritten in place; silent elsewhere.
class Progress {
 public:
  Progress() : shown_(isatty(STDERR_FILENO) != 0 && log_level() <= LogLevel::Info), start_(Clock::now()) {}
  ~Progress() {
    if (shown_) fmt::print(stderr, "\r\033[K");
  }
  void operator()(uint64_t done, uint64_t begun_at, uint64_t total, const std::vector<TokenScore>& scores) {
    if (!shown_) return;
    for (; summed_ < scores.size(); ++summed_) sum_ += scores[summed_].nll;
    const double rate = static_cast<double>(done - begun_at) / seconds_since(start_);
    fmt::print(stderr, "\r\033[Kwindow {}/{}, perplexity {:.4f}, {:.0f} s left", done, total,
               std::exp(sum_ / static_cast<double>(summed_)), static_cast<double>(total - done) / rate);
    std::fflush(stderr);
  }

 private:
  bool shown_;
  Clock::time_point start_;
  size_t summed_ = 0;
  double sum_ = 0;
};

void score_step(const EvalStep& step, std::span<const float> log_p, std::span<const float> reference,
                size_t vocab, ThreadPool& pool, std::vector<TokenScore>& scores) {
  const size_t first = scores.size(), rows = step.targets.size();
  scores.resize(first + rows);
  pool.parallel_for(rows, 1, [&](size_t begin, size_t end) {
    for (size_t r = begin; r < end; ++r) {
      const auto row = log_p.subspan(r * vocab, vocab);
      scores[first + r] = reference.empty()
                              ? score(row, step.targets[r])
                              : score(row, reference.subspan(r * vocab, vocab), step.targets[r]);
    }
  });
}

Windows windows_of(const EvalRequest& request, const Tokenizer& tokenizer) {
  if (request.text.empty()) throw Error("{}: the text is empty", request.text_name);
  std::optional<int32_t> bos;
  if (tokenizer.vocab().add_bos) bos = tokenizer.vocab().bos;
  try {
    return cut_windows(tokenizer.encode(request.text), bos, request.windows);
  } catch (const Error& error) {
    throw Error(error.kind() == ErrorKind::Usage
                    ? fmt::format("aprctl eval: {}", error.what())
                    : fmt::format("{}: {} (--ctx)", request.text_name, error.what()),
                error.kind());
  }
}

}  // namespace

EvalResult run_eval(const CommandLine& line, const EvalRequest& request) {
  const Model model = open_model(request.model);
  const auto tokenizer = make_tokenizer(model.meta);
  EvalResult result;
  result.windows = windows_of(request, *tokenizer);
  const Windows& windows = result.windows;

  std::unique_ptr<Reference> reference;
  if (request.reference) reference = Reference::open(line, request, *tokenizer, windows);
  Runner runner(line, request.model, windows);
  Engine& engine = runner.engine();
  const uint32_t n_vocab = runner.vocab();
  if (reference) reference->check_width(request.model, n_vocab);

  Keeper keeper(request, state_key(engine, windows, reference ? reference->identity : ""));
  EvalState state;
  if (!request.anew) state = keeper.read(windows.scored());
  result.resumed_at = state.windows_done;
  if (result.resumed_at > 0 && result.resumed_at < windows.count)
    log_info("continuing at window {} of {} ({})", result.resumed_at + 1, windows.count, keeper.path());

  std::optional<ReferenceWriter> writer;
  if (request.save_reference) {
    ReferenceHead head = reference_head(windows, n_vocab);
    head.model = request.model, head.model_sha256 = model.sha256();
    head.vocab_sha256 = vocab_sha256(tokenizer->vocab());
    writer.emplace(*request.save_reference, head);
    log_info("{}: {} of log-probabilities", *request.save_reference,
             human_bytes(head.rows() * head.n_vocab * sizeof(float)));
  }

  const InterruptGuard guard{SIGINT, SIGTERM, SIGHUP};
  const auto start = Clock::now();
  {
    ThreadPool pool(line.get<uint32_t>("threads"));
    Progress progress;
    while (state.windows_done < windows.count) {
      for (const EvalStep& step : steps_of(windows, state.windows_done, engine.session().batch())) {
        const auto log_p = runner.log_probabilities_of(step, windows, pool);
        const auto other = reference ? reference->rows(step, windows, pool) : std::span<const float>();
        score_step(step, log_p, other, n_vocab, pool, state.scores);
        if (writer) writer->write(log_p);
        if (step.windows_done > state.windows_done) state.windows_done = step.windows_done;
      }
      progress(state.windows_done, result.resumed_at, windows.count, state.scores);
      const bool stop = InterruptGuard::raised() && state.windows_done < windows.count;
      const bool kept = (stop || keeper.due()) && keeper.write(state);
      if (stop)
        throw Error(
            "interrupted after {} of {} windows; {}", state.windows_done, windows.count,
            kept ? fmt::format("the same command continues there ({})", keeper.path()) : "nothing was kept");
    }
  }
  result.seconds = seconds_since(start);
  if (writer) writer->commit();
  // A comparison of several models goes on with the next: what is done stays done until the command ends.
  if (result.resumed_at < windows.count) keeper.write(state);
  result.scores = std::move(state.scores);
  result.has_reference = reference != nullptr;
  if (reference) result.reference = reference->name;
  result.report = engine.report();
  result.resolved = engine.resolved();
  result.weight_bytes = model.weight_bytes(), result.parameters = model.parameters();
  result.title = model.meta.find_string("general.name").value_or(request.model);
  result.state_file = keeper.path();
  return result;
}

void forget(const EvalResult& result) {
  std::error_code ignored;
  if (!result.state_file.empty()) std::filesystem::remove(result.state_file, ignored);
}

}  // namespace apr::ctl
