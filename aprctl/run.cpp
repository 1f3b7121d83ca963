// `aprctl run`: continue a text, or chat. The text alone goes to stdout, as it comes; everything else to stderr.
#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "aprctl/command_line.h"
#include "aprctl/commands.h"
#include "aprctl/engine.h"
#include "aprctl/generate.h"
#include "aprctl/interrupt.h"
#include "aprctl/line_input.h"
#include "aprctl/model_options.h"
#include "aprctl/text_input.h"
#include "core/base/error.h"
#include "core/base/format.h"
#include "core/base/log.h"
#include "core/text/chat.h"
#include "core/text/stop_strings.h"

namespace apr::ctl {
namespace {

using nlohmann::ordered_json;

void show_now(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

double per_second(uint32_t n, double seconds) { return n > 0 && seconds > 0 ? n / seconds : 0.0; }

uint64_t peak_memory() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<uint64_t>(usage.ru_maxrss) * 1024;
}

ordered_json timings(const Generated& result, Engine& engine, double load_seconds, double start_to_first) {
  const apr_session_info info = engine.session().info();
  return {{"load_ms", 1e3 * load_seconds},
          {"prompt_tokens", result.prompt_tokens},
          {"prompt_ts", per_second(result.prompt_tokens, result.prompt_seconds)},
          {"decode_tokens", result.decode_steps},
          {"decode_ts", per_second(result.decode_steps, result.decode_seconds)},
          {"ttft_ms", 1e3 * result.first_token_seconds},
          {"start_to_first_token_ms", 1e3 * start_to_first},
          {"decode_gbs", 1e-9 * static_cast<double>(info.token_bytes) *
                             per_second(result.decode_steps, result.decode_seconds)},
          {"peak_host_bytes", peak_memory()},
          {"weight_bytes", info.weight_bytes},
          {"kv_bytes", info.kv_bytes}};
}

// heading: how the answer ended, or how many there were.
void print_timings(const ordered_json& t, std::string_view heading) {
  const auto start_to_first = t["start_to_first_token_ms"].get<double>();
  fmt::print(stderr,
             "\n[{}] prompt {} tokens, {:.1f} tok/s\n"
             "decode {} tokens, {:.1f} tok/s ({:.1f} GB/s of weights)\n"
             "load {:.0f} ms; time to first token {:.1f} ms{}\n"
             "memory: {} peak on the host, weights {}, KV cache {}\n",
             heading, t["prompt_tokens"].get<uint32_t>(), t["prompt_ts"].get<double>(),
             t["decode_tokens"].get<uint32_t>(), t["decode_ts"].get<double>(), t["decode_gbs"].get<double>(),
             t["load_ms"].get<double>(), t["ttft_ms"].get<double>(),
             start_to_first > 0 ? fmt::format(" (from the program's start {:.0f} ms)", start_to_first) : "",
             human_bytes(t["peak_host_bytes"]), human_bytes(t["weight_bytes"]), human_bytes(t["kv_bytes"]));
}

void add_options(CommandLine& line) {
  namespace po = boost::program_options;
  ModelOptions::add(line);
  TextInput::add(line);
  BackendOptions::add(line);
  line.options().add_options()("tokens,n", po::value<uint32_t>()->default_value(256),
                               "most tokens to generate")(
      "chat,c", po::bool_switch(), "answer as a chat; without a prompt, interactively")(
      "system", po::value<std::string>(), "chat: the system message")(
      "chat-template", po::value<std::string>(), "chat: use this template instead of the model's own")(
      "special", po::bool_switch(),
      "special tokens written in the prompt become those tokens (not in a chat)")(
      "show-special", po::bool_switch(), "print special tokens too")("ignore-eos", po::bool_switch(),
                                                                     "go on after an end of text")(
      "stop", po::value<std::vector<std::string>>()->composing(),
      "text that ends the answer; may be repeated")("temp", po::value<double>()->default_value(0.0, "0"),
                                                    "temperature; 0 takes the most probable token")(
      "top-k", po::value<int64_t>()->default_value(40), "keep the k most probable tokens, 0: all")(
      "top-p", po::value<double>()->default_value(0.95, "0.95"),
      "keep the most probable tokens up to this sum, 1: all")(
      "min-p", po::value<double>()->default_value(0.05, "0.05"),
      "keep tokens this probable relative to the best, 0: all")("repeat-penalty",
                                                                po::value<double>()->default_value(1.0, "1"),
                                                                "divide the logits of recent tokens, 1: off")(
      "repeat-last-n", po::value<int64_t>()->default_value(64), "how many tokens are recent")(
      "seed", po::value<uint64_t>()->default_value(0), "same seed, same text")(
      "quiet,q", po::bool_switch(), "nothing but the text and errors")("json", po::bool_switch(),
                                                                       "print one JSON object at the end");
}

GenerateOptions generate_options(const CommandLine& line) {
  GenerateOptions options;
  options.max_tokens = line.get<uint32_t>("tokens");
  options.stop = line.find<std::vector<std::string>>("stop").value_or(std::vector<std::string>());
  options.show_special = line.flag("show-special");
  options.ignore_eos = line.flag("ignore-eos");
  options.own_text = line.flag("chat");
  options.sampler.temperature = line.get<double>("temp");
  options.sampler.top_k = line.get<int64_t>("top-k");
  options.sampler.top_p = line.get<double>("top-p");
  options.sampler.min_p = line.get<double>("min-p");
  options.sampler.repeat_penalty = line.get<double>("repeat-penalty");
  options.sampler.repeat_last_n = line.get<int64_t>("repeat-last-n");
  options.sampler.seed = line.get<uint64_t>("seed");
  return options;
}

// The tokens of a chat's first turn: only it carries BOS and a system message.
std::vector<int32_t> first_turn(const Tokenizer& tokenizer, const ChatTemplate& style,
                                const std::optional<std::string>& system, const std::string& text) {
  std::vector<ChatMessage> messages;
  if (system) messages.push_back({"system", *system});
  messages.push_back({"user", text});
  return tokenizer.encode(style.render(messages));
}

// Of a turn after an answer of the model's, which it ended itself or which was cut.
std::vector<int32_t> next_turn(const Tokenizer& tokenizer, const ChatTemplate& style, const std::string& text,
                               bool ended) {
  const ChatMessage message{"user", text};
  EncodeOptions options;
  options.add_bos = false;
  return tokenizer.encode(style.render_next({&message, 1}, ended), options);
}

struct ChatTotals {
  Generated sum{};  // of all answers; the time to the first token is the first answer's
  uint32_t answers = 0;
};

ChatTotals chat(Conversation& conversation, const Tokenizer& tokenizer, const ChatTemplate& style,
                const std::optional<std::string>& system, bool quiet) {
  if (!quiet)
    fmt::print(stderr, "chat ({}); an empty line or Ctrl-D ends it, Ctrl-C ends an answer\n", style.name());
  ChatTotals totals;
  const auto lines = LineInput::open();
  while (true) {
    const auto typed = lines->next("\n> ");
    if (!typed || typed->empty()) return totals;
    const std::string& text = *typed;
    const InterruptGuard guard{SIGINT};  // ends the answer, not the program
    const bool ended = totals.sum.finish == Finish::EndOfText;
    const std::vector<int32_t> turn = totals.answers > 0 ? next_turn(tokenizer, style, text, ended)
                                                         : first_turn(tokenizer, style, system, text);
    const Generated answer = conversation.turn(turn, show_now);
    if (totals.answers++ == 0) totals.sum.first_token_seconds = answer.first_token_seconds;
    totals.sum.finish = answer.finish;
    totals.sum.prompt_tokens += answer.prompt_tokens;
    totals.sum.prompt_seconds += answer.prompt_seconds;
    totals.sum.decode_steps += answer.decode_steps;
    totals.sum.decode_seconds += answer.decode_seconds;
    show_now("\n");
  }
}

}  // namespace

int run_main(const Arguments& args) {
  const auto program_start = std::chrono::steady_clock::now();
  const auto since_start = [&] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - program_start).count();
  };
  CommandLine line(
      "run",
      "Continue a text, or chat with --chat. Text goes to stdout as it comes, everything else to stderr.",
      "aprctl run model.gguf -p \"Once upon a time\" -n 100 --backend cuda");
  add_options(line);
  if (!line.parse(args)) return kExitOk;
  const bool json = line.flag("json"), quiet = line.flag("quiet");
  if (quiet) set_log_level(LogLevel::Warning);
  const GenerateOptions options = generate_options(line);
  // Bad options are refused before the model is loaded.
  const Sampler checked_sampler(options.sampler);
  const StopStrings checked_stops(options.stop);
  const auto text = line.flag("chat") && !line.has("prompt") && !line.has("file") && isatty(STDIN_FILENO)
                        ? std::nullopt
                        : TextInput::read_prompt(line);
  if (!text && !line.flag("chat"))
    throw usage_error("aprctl run: no prompt; give --prompt or --file, pipe it in, or use --chat");
  if (!text && json) throw usage_error("aprctl run: --json needs a prompt");

  EngineRequest request = Engine::request(line);
  if (!checked_sampler.takes_argmax()) request.load.n_top = checked_sampler.candidates_needed();
  Engine engine(line, std::move(request));
  const auto tokenizer = make_tokenizer(engine.model().meta);
  for (const std::string& warning : tokenizer->vocab().warnings) log_warning("{}", warning);
  std::optional<ChatTemplate> style;
  if (line.flag("chat")) {
    const auto named = line.find<std::string>("chat-template");
    style = named ? ChatTemplate::by_name(*named, tokenizer->vocab())
                  : ChatTemplate::of_model(tokenizer->vocab());
  }
  const double load_seconds = since_start();
  log_info("{}", engine.resolved());

  Conversation conversation(engine.session(), *tokenizer, options);
  const auto system = line.find<std::string>("system");
  if (!text) {
    const ChatTotals totals = chat(conversation, *tokenizer, *style, system, quiet);
    if (!quiet && totals.answers > 0)
      print_timings(timings(totals.sum, engine, load_seconds, 0),
                    fmt::format("{} answer{}", totals.answers, totals.answers == 1 ? "" : "s"));
    return kExitOk;
  }
  std::vector<int32_t> prompt;
  if (style) {
    prompt = first_turn(*tokenizer, *style, system, *text);
  } else {
    EncodeOptions encode;
    encode.parse_special = line.flag("special");
    prompt = tokenizer->encode(*text, encode);
  }

  if (!json && !quiet && !style && isatty(STDOUT_FILENO)) show_now(*text);
  const InterruptGuard guard{SIGINT};  // ends the answer, not the program
  double start_to_first = 0;
  const Generated result = conversation.turn(prompt, [&](std::string_view piece) {
    if (start_to_first == 0) start_to_first = since_start();
    if (!json) show_now(piece);
  });
  const ordered_json t = timings(result, engine, load_seconds, start_to_first);
  if (json) {
    ordered_json out = engine.report();
    out["prompt_ids"] = prompt;
    out["ids"] = result.ids;
    out["text"] = result.text;
    out["finish"] = name(result.finish);
    out["timings"] = t;
    fmt::print("{}\n", out.dump(2, ' ', false, ordered_json::error_handler_t::replace));
  } else {
    show_now("\n");
    if (!quiet) print_timings(t, name(result.finish));
  }
  return kExitOk;
}

}  // namespace apr::ctl
