// Real vocabularies, written as the tokenizer.json that such models come with, give the published vectors: the same
// texts and ids as tests/text/vectors_test.cpp, through the other reader. Needs APR_TEST_VOCAB; skips without it.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <tuple>
#include <unordered_map>

#include "core/hf/tokenizer_json.h"
#include "core/model/model.h"
#include "core/text/tokenizer.h"

using namespace apr;
using nlohmann::json;

namespace {

std::string contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  REQUIRE_MESSAGE(file.good(), path);
  std::stringstream out;
  out << file.rdbuf();
  return out.str();
}

// The vocabulary and the added tokens; ids are places in tokens.
json model_and_added(const Metadata& meta) {
  const auto& tokens = meta.get_strings("tokenizer.ggml.tokens");
  const auto types = meta.get_ints("tokenizer.ggml.token_type");
  json file = {{"version", "1.0"},
               {"added_tokens", json::array()},
               {"normalizer", nullptr},
               {"model",
                {{"type", "BPE"},
                 {"dropout", nullptr},
                 {"vocab", json::object()},
                 {"fuse_unk", false},
                 {"byte_fallback", false}}}};
  for (size_t i = 0; i < tokens.size(); ++i) {
    const bool added = types[i] == 2 || types[i] == 3 || types[i] == 4;
    if (added)
      file["added_tokens"].push_back({{"id", i},
                                      {"content", tokens[i]},
                                      {"single_word", false},
                                      {"lstrip", false},
                                      {"rstrip", false},
                                      {"normalized", false},
                                      {"special", types[i] != 4}});
    if (types[i] != 5) file["model"]["vocab"][tokens[i]] = i;
  }
  return file;
}

// A token's merges are those of its halves that are tokens, the best token first: what transformers makes of a
// SentencePiece model, whose pieces have scores.
std::vector<json> merges_of_scores(const Metadata& meta) {
  const auto& tokens = meta.get_strings("tokenizer.ggml.tokens");
  const auto scores = meta.get_floats("tokenizer.ggml.scores");
  const auto types = meta.get_ints("tokenizer.ggml.token_type");
  std::unordered_map<std::string, size_t> ids;
  for (size_t i = 0; i < tokens.size(); ++i)
    if (types[i] == 1) ids.emplace(tokens[i], i);
  struct Merge {
    double score;
    size_t left_length, right_length, left, right;
  };
  std::vector<Merge> merges;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (types[i] != 1) continue;
    for (size_t cut = 1; cut < tokens[i].size(); ++cut) {
      if ((static_cast<uint8_t>(tokens[i][cut]) & 0xC0) == 0x80) continue;
      const auto left = ids.find(tokens[i].substr(0, cut)), right = ids.find(tokens[i].substr(cut));
      if (left != ids.end() && right != ids.end())
        merges.push_back({scores[i], cut, tokens[i].size() - cut, left->second, right->second});
    }
  }
  std::stable_sort(merges.begin(), merges.end(), [](const Merge& a, const Merge& b) {
    return std::tie(b.score, b.left_length, b.right_length) <
           std::tie(a.score, a.left_length, a.right_length);
  });
  std::vector<json> out;
  for (const Merge& m : merges) out.push_back(json::array({tokens[m.left], tokens[m.right]}));
  return out;
}

const char* const kByteLevel =
    R"({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false})";

json split(const std::string& expression) {
  return {{"type", "Sequence"},
          {"pretokenizers",
           {{{"type", "Split"},
             {"pattern", {{"Regex", expression}}},
             {"behavior", "Isolated"},
             {"invert", false}},
            json::parse(kByteLevel)}}};
}

json begins_with(const std::string& token, size_t id) {
  return {
      {"type", "TemplateProcessing"},
      {"single",
       {{{"SpecialToken", {{"id", token}, {"type_id", 0}}}}, {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}},
      {"pair", json::array()},
      {"special_tokens", {{token, {{"id", token}, {"ids", {id}}, {"tokens", {token}}}}}}};
}

// As the file's own folder on huggingface.co has it.
json tokenizer_json(const std::string& name, const Metadata& meta) {
  json file = model_and_added(meta);
  json& model = file["model"];
  file["decoder"] = json::parse(kByteLevel);
  if (name == "llama-spm") {
    model["byte_fallback"] = true;
    model["fuse_unk"] = true;
    model["unk_token"] = "<unk>";
    model["merges"] = merges_of_scores(meta);
    file["normalizer"] =
        json::parse(R"({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
      {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]})");
    file["pre_tokenizer"] = nullptr;
    file["post_processor"] = begins_with("<s>", 1);
    file["decoder"] = json::parse(
        R"({"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
      {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]})");
    return file;
  }
  model["merges"] = meta.get_strings("tokenizer.ggml.merges");
  if (name == "gpt-2") {
    file["pre_tokenizer"] = json::parse(kByteLevel);
    file["pre_tokenizer"]["use_regex"] = true;
  } else if (name == "llama-bpe") {
    model["ignore_merges"] = true;
    file["pre_tokenizer"] = split(
        R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)");
    file["post_processor"] = {
        {"type", "Sequence"},
        {"processors", {json::parse(kByteLevel), begins_with("<|begin_of_text|>", 128000)}}};
  } else {
    file["normalizer"] = {{"type", "NFC"}};
    file["pre_tokenizer"] = split(
        R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)");
  }
  return file;
}

std::vector<std::string> lines(const std::string& text, const std::string& separator) {
  std::vector<std::string> out;
  size_t from = 0;
  for (size_t at = text.find(separator); at != std::string::npos; at = text.find(separator, from)) {
    out.push_back(text.substr(from, at - from));
    from = at + separator.size();
  }
  out.push_back(text.substr(from));
  return out;
}

}  // namespace

TEST_CASE("published vectors through tokenizer.json") {
  const std::string folder = std::getenv("APR_TEST_VOCAB");
  const std::map<std::string, std::string> names = {
      {"gpt-2", "gpt-2"}, {"llama-bpe", "llama-bpe"}, {"llama-spm", "default"}, {"qwen2", "qwen2"}};
  for (const auto& [name, pre] : names) {
    CAPTURE(name);
    const std::string path = folder + "/ggml-vocab-" + name + ".gguf";
    const Model model = open_gguf(path);
    Metadata meta("tokenizer.json");
    const size_t n_vocab = model.meta.get_strings("tokenizer.ggml.tokens").size();
    read_tokenizer_json(tokenizer_json(name, model.meta), "tokenizer.json", n_vocab, meta);
    CHECK(meta.get_string("tokenizer.ggml.pre") == pre);  // others know it
    const auto tokenizer = make_tokenizer(meta);
    const auto peer = make_tokenizer(model.meta);
    CHECK(tokenizer->vocab().text == peer->vocab().text);
    CHECK(tokenizer->vocab().bytes == peer->vocab().bytes);
    const auto texts = lines(contents(path + ".inp"), "\n__ggml_vocab_test__\n"),
               wanted = lines(contents(path + ".out"), "\n");
    REQUIRE(wanted.size() >= texts.size());
    size_t good = 0;
    for (size_t i = 0; i < texts.size(); ++i) {
      std::istringstream in(wanted[i]);
      const std::vector<int32_t> ids{std::istream_iterator<int32_t>(in), {}};
      const auto got = tokenizer->encode(texts[i], {.add_bos = false});
      CHECK_MESSAGE(got == ids, texts[i]);
      good += got == ids;
    }
    std::printf("%-10s %zu of %zu\n", name.c_str(), good, texts.size());
    // All of them as one text, where words meet.
    const std::string all = contents(path + ".inp");
    CHECK(tokenizer->encode(all) == peer->encode(all));
    CHECK(tokenizer->decode(tokenizer->encode(all)) == peer->decode(peer->encode(all)));
  }
}

int main(int argc, char** argv) {
  if (!std::getenv("APR_TEST_VOCAB")) {
    std::puts("skipped: APR_TEST_VOCAB is not set (the folder of vocabularies)");
    return 77;
  }
  doctest::Context context(argc, argv);
  return context.run();
}
