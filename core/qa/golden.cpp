// The gate on what the model says: <model>.golden.json beside the file has prompts, the ids that they become and
// the greedy continuation, computed in float64, with the lead of each token over the next best one.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/base/error.h"
#include "core/base/format.h"
#include "core/qa/gates.h"

namespace apr {

namespace fs = std::filesystem;

namespace {

// What may decide a token otherwise: 8-bit activations move a difference of two logits by a tenth (measured on the
// shipped model, several hundred positions), 16-bit floats by a thousandth; both with a margin of 5.
constexpr double kSureRounded = 0.5, kSurePrecise = 0.01;

struct Case {
  std::string prompt;
  std::vector<int32_t> ids, greedy;
  std::vector<double> leads;
  bool chat;
};

std::vector<Case> read_cases(const fs::path& path, std::string& sha256) {
  std::ifstream in(path);
  try {
    const auto record = nlohmann::json::parse(in);
    sha256 = record.at("sha256");
    std::vector<Case> cases;
    for (const auto& c : record.at("cases")) {
      cases.push_back(
          {c.at("prompt"), c.at("ids"), c.at("greedy_ids"), c.at("leads"), c.value("chat", false)});
      const Case& read = cases.back();
      if (read.ids.empty() || read.greedy.empty() || read.leads.size() != read.greedy.size())
        throw Error("case '{}' has {} ids, {} greedy ids and {} leads", read.prompt, read.ids.size(),
                    read.greedy.size(), read.leads.size());
    }
    return cases;
  } catch (const std::exception& error) {
    throw Error("{}: is no golden record: {}", path.native(), printable(error.what(), 300));
  }
}

}  // namespace

QaResult gate_golden(QaSubject& subject) {
  const fs::path record = fs::path(subject.request().model).replace_extension(".golden.json");
  std::error_code failure;
  if (!fs::exists(record, failure))
    throw NotRunnable(fmt::format("no text is recorded for this model: there is no {}", record.native()));
  std::string sha256;
  const std::vector<Case> cases = read_cases(record, sha256);
  QaBackend& backend = subject.backend();
  Session& session = *backend.session;
  const Tokenizer& tokenizer = subject.tokenizer();
  const double sure = backend.precise ? kSurePrecise : kSureRounded;
  QaResult result{QaVerdict::Pass, "tokens that differ", 0.0, 0.0, "", {}};
  size_t judged = 0, near = 0, wrong = 0;
  for (const Case& c : cases) {
    if (c.ids.size() + c.greedy.size() > session.context() || c.ids.size() > session.batch())
      throw NotRunnable(
          fmt::format("'{}' needs a context of {}; see --ctx", c.prompt, c.ids.size() + c.greedy.size()));
    // A chat's template is not this gate's business: its tokens are taken as they are recorded.
    if (!c.chat && tokenizer.encode(c.prompt) != c.ids) {
      ++wrong;
      result.details.push_back(fmt::format("'{}': other tokens than recorded", printable(c.prompt)));
      continue;
    }
    // Each token follows the recorded ones, so that every position is judged by itself: one token a step, as
    // generation does.
    int32_t best = session.feed_argmax(c.ids, 0);
    for (size_t i = 0; i < c.greedy.size(); ++i) {
      if (best != c.greedy[i] && c.leads[i] >= sure) {
        ++wrong;
        if (result.details.size() < 5)
          result.details.push_back(fmt::format("'{}': token {} is '{}' where '{}' leads by {:.2f}",
                                               printable(c.prompt), i, printable(tokenizer.token_bytes(best)),
                                               printable(tokenizer.token_bytes(c.greedy[i])), c.leads[i]));
      }
      ++(c.leads[i] >= sure ? judged : near);
      if (i + 1 < c.greedy.size())
        best = session.feed_argmax({&c.greedy[i], 1}, static_cast<int32_t>(c.ids.size() + i));
    }
  }
  result.value = static_cast<double>(wrong);
  result.text = fmt::format("{} texts, {} tokens; {} more are too close to call", cases.size(), judged, near);
  const std::string own = subject.model().sha256();
  if (wrong > 0) {
    result.verdict = QaVerdict::Fail;
    result.text = fmt::format("{} of {} tokens are not the recorded ones", wrong, judged + near);
  }
  if (own != sha256) {
    result.verdict = QaVerdict::Fail;
    result.text +=
        fmt::format("; the file is not the recorded one: sha256 {:.12}..., recorded {:.12}...", own, sha256);
  }
  return result;
}

}  // namespace apr
