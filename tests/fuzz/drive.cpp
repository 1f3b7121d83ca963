#include "tests/fuzz/drive.h"

#include <functional>
#include <stdexcept>
#include <string>

#include "core/base/error.h"
#include "core/model/gguf_parse.h"
#include "core/plan/plan.h"
#include "core/runtime/session.h"
#include "core/text/chat.h"
#include "core/text/token_stream.h"
#include "core/text/tokenizer.h"
#include "tests/model/read_everything.h"

namespace apr_test {

namespace {

constexpr const char* kFile = "fuzzed.gguf";

// Words, digits, white space, other scripts, the texts of special tokens, and bytes that are no UTF-8.
constexpr std::string_view kText =
    "Hello hello, 12345 w\xC3\xB6rld!\n\n\t <s><|im_start|>user <|im_end|> \xE6\x97\xA5\xE6\x9C\xAC \xFF\xC3 "
    "it's   \xF0\x9F\x98\x80";

volatile uint64_t g_sink = 0;  // so that the reads are not optimised away

// One line that a person can act on. Only the backend's own messages, which know no files, may leave the name out.
void check_message(std::string_view text, bool names_file) {
  if (names_file && text.find(kFile) == std::string_view::npos)
    throw std::logic_error("an error without the file's name: " + std::string(text));
  for (const char c : text) {
    if (static_cast<unsigned char>(c) < 0x20)
      throw std::logic_error("a control character in: " + std::string(text));
  }
}

// True when it worked.
bool attempt(bool names_file, const std::function<void()>& part) {
  try {
    part();
    return true;
  } catch (const apr::Error& error) {
    check_message(error.what(), names_file);
    return false;
  }
}

void chat(const apr::Tokenizer& tokenizer) {
  const apr::ChatTemplate style = apr::ChatTemplate::of_model(tokenizer.vocab());
  const apr::ChatMessage messages[] = {{"system", "Be brief."}, {"user", std::string(kText)}};
  g_sink = g_sink + tokenizer.encode(style.render(messages)).size();
  g_sink = g_sink + tokenizer.encode(style.render_next({messages + 1, 1}, false)).size();
}

void text(const apr::Metadata& meta, Reached& reached) {
  const auto tokenizer = apr::make_tokenizer(meta);
  for (const std::string& warning : tokenizer->vocab().warnings) check_message(warning, true);
  for (const bool special : {false, true}) {
    apr::EncodeOptions options;
    options.parse_special = special;
    options.add_eos = special;
    const auto ids = tokenizer->encode(kText, options);
    apr::TokenStream stream(*tokenizer, {special, special});
    for (const int32_t id : ids) g_sink = g_sink + stream.push(id).size();
    g_sink = g_sink + stream.flush().size() + tokenizer->decode(ids).size();
  }
  // Tokens that no text gives, too.
  apr::TokenStream stream(*tokenizer, {true, false});
  for (int32_t id = 0; id < tokenizer->vocab_size(); ++id) g_sink = g_sink + stream.push(id).size();
  ++reached.tokenized;
  reached.chats += attempt(true, [&] { chat(*tokenizer); });
}

void compute(const apr::Device& device, const apr::Plan& plan, Reached& reached) {
  apr::LoadRequest request;
  request.n_ctx = 8;
  request.n_batch = 4;
  apr::Session session(device, plan.c(), request);
  const auto vocab = static_cast<int32_t>(session.vocab());
  const int32_t tokens[] = {0, vocab - 1, vocab / 2, 0, vocab / 3, vocab / 4};
  for (const float logit : session.feed_all(tokens, 0)) g_sink = g_sink + (logit > 0);
  g_sink = g_sink + static_cast<uint64_t>(session.feed_argmax({tokens, 1}, 6));
  ++reached.computed;
}

}  // namespace

void drive(std::span<const std::byte> bytes, apr::Catalog& catalog, Reached& reached) {
  // One thread: a thread for each core and input would be most of the time.
  static const apr::Device device(catalog.backend("cpu"), {0, 1, {}});
  ++reached.inputs;
  apr::GgufPart part;
  if (!attempt(true, [&] { part = apr::parse_gguf(bytes, kFile); })) return;
  ++reached.parsed;
  g_sink = g_sink + read_everything(part, bytes);
  attempt(true, [&] { text(part.meta, reached); });
  const apr::Model model{std::move(part.meta), std::move(part.tensors), {}};
  std::unique_ptr<apr::Plan> plan;
  if (!attempt(true, [&] { plan = apr::build_plan(model, catalog); })) return;
  ++reached.planned;
  for (const std::string& note : plan->notes()) check_message(note, false);
  attempt(false, [&] { compute(device, *plan, reached); });
}

}  // namespace apr_test
