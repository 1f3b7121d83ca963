// tokenizer.json in small: what each setting does to ids, and that what is not understood is named.
#include <doctest/doctest.h>

#include <algorithm>

#include "core/hf/expressions.h"
#include "core/hf/open_model.h"
#include "core/hf/tokenizer_json.h"
#include "core/text/tokenizer.h"
#include "tests/base/expect_error.h"
#include "tests/hf/sample_folder.h"

using namespace apr;
using apr_test::error_of;
using nlohmann::json;
using Ids = std::vector<int32_t>;

namespace {

constexpr uint64_t kVocab = 300;
const char* const kByteLevel =
    R"({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true})";

json added(const char* text, int id, bool special, bool lstrip = false, bool rstrip = false) {
  return {{"id", id},         {"content", text},     {"special", special},  {"lstrip", lstrip},
          {"rstrip", rstrip}, {"normalized", false}, {"single_word", false}};
}

// ASCII's bytes under their own numbers (a space is Ġ), then ab, abc; é's two bytes.
json byte_level() {
  json vocab = {{"Ġ", 32},  {"Ċ", 10},  {"ab", 256}, {"abc", 257},
                {"Ã", 195}, {"©", 169}, {"Ì", 204},  {"ģ", 129}};
  for (int c = '!'; c <= '~'; ++c) vocab[std::string(1, static_cast<char>(c))] = c;
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", json::array({added("<|end|>", 260, true), added("<tool>", 261, false)})},
          {"normalizer", nullptr},
          {"pre_tokenizer", json::parse(kByteLevel)},
          {"post_processor", nullptr},
          {"decoder", json::parse(kByteLevel)},
          {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", {"a b", json::array({"ab", "c"})}}}}};
}

// <unk> <s> </s>, bytes from 3 on, then characters.
json character_level() {
  json vocab = {{"<unk>", 0}, {"<s>", 1},  {"</s>", 2}, {"▁", 259},   {"a", 260},
                {"b", 261},   {"▁a", 262}, {"ab", 263}, {"▁ab", 264}, {"▁▁", 265}};
  for (int b = 0; b < 256; ++b) vocab[fmt::format("<0x{:02X}>", b)] = b + 3;
  json file = byte_level();
  file["added_tokens"] =
      json::array({added("<unk>", 0, true), added("<s>", 1, true), added("</s>", 2, true)});
  file["normalizer"] =
      json::parse(R"({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
    {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]})");
  file["pre_tokenizer"] = nullptr;
  file["decoder"] = json::parse(
      R"({"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
    {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]})");
  file["post_processor"] =
      json::parse(R"({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
    {"Sequence": {"id": "A", "type_id": 0}}], "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}})");
  // ▁ab is made of ▁a and b, not of ▁ and ab: the order says so.
  file["model"] = {{"type", "BPE"},    {"unk_token", "<unk>"},
                   {"fuse_unk", true}, {"byte_fallback", true},
                   {"vocab", vocab},   {"merges", {"▁ a", "▁ ▁", "a b", "▁a b"}}};
  return file;
}

Metadata read(const json& file) {
  Metadata meta("test");
  // As it comes from a file: whole numbers written here are signed ones.
  read_tokenizer_json(json::parse(file.dump()), "t.json", kVocab, meta);
  return meta;
}
Ids encode(const json& file, const std::string& text, bool special = true) {
  return make_tokenizer(read(file))->encode(text, {.add_bos = true, .parse_special = special});
}
std::string refusal(const json& file) {
  return error_of([&] { return read(file).entries().size(); });
}
json with(json file, const char* place, const json& value) {
  file[json::json_pointer(place)] = value;
  return file;
}

}  // namespace

TEST_CASE("byte-level BPE: merges as texts and as pairs, added tokens, holes") {
  const json file = byte_level();
  CHECK(encode(file, "abcab a") == Ids{257, 256, 32, 'a'});
  CHECK(encode(file, "a<|end|>b<tool>") == Ids{'a', 260, 'b', 261});
  CHECK(encode(file, "<|end|>", false) == Ids{'<', '|', 'e', 'n', 'd', '|', '>'});
  CHECK(encode(file, "<tool>", false) == Ids{261});
  const Metadata meta = read(file);
  CHECK(meta.get_string("tokenizer.ggml.pre") == "gpt-2");
  CHECK(meta.get_strings("tokenizer.ggml.tokens").size() == kVocab);
  CHECK(meta.get_ints("tokenizer.ggml.token_type")[299] == 5);
  CHECK_FALSE(meta.get_bool("tokenizer.ggml.add_bos_token"));
  CHECK(make_tokenizer(meta)->decode(Ids{257, 32, 'a', 299}) == "abc a");
}

TEST_CASE("normal forms, words' own expressions, prefixes, whole words") {
  json file = byte_level();
  CHECK(encode(file, "e\u0301") == Ids{'e', 204, 129});
  CHECK(encode(with(file, "/normalizer", {{"type", "NFC"}}), "e\u0301") == Ids{195, 169});
  CHECK(encode(with(file, "/normalizer", {{"type", "NFC"}}), "e<tool>\u0301") == Ids{'e', 261, 204, 129});
  json split = {
      {"type", "Sequence"},
      {"pretokenizers",
       {{{"type", "Split"}, {"pattern", {{"Regex", "[ac]"}}}, {"behavior", "Isolated"}, {"invert", false}},
        json::parse(kByteLevel)}}};
  split["pretokenizers"][1]["use_regex"] = false;
  const json cut = with(file, "/pre_tokenizer", split);
  CHECK(encode(cut, "abcab") == Ids{'a', 'b', 'c', 'a', 'b'});
  CHECK(read(cut).get_string("tokenizer.ggml.pre") == kOwnExpressions);
  const json prefixed = with(file, "/pre_tokenizer/add_prefix_space", true);
  CHECK(encode(prefixed, "a<tool>b c") == Ids{32, 'a', 261, 32, 'b', 32, 'c'});
  CHECK(encode(prefixed, " a") == Ids{32, 'a'});
  // abc has no merge from ab and c any more, but is a token.
  json whole = with(with(file, "/model/merges", {"a b", "b c"}), "/model/vocab/bc", 258);
  CHECK(encode(whole, "abc") == Ids{256, 'c'});
  CHECK(encode(with(whole, "/model/ignore_merges", true), "abc") == Ids{257});
}

TEST_CASE("tokens swallow white space beside them where they say so") {
  json file = byte_level();
  file["added_tokens"].push_back(added("<mask>", 262, true, true, false));
  file["added_tokens"].push_back(added("<call>", 263, false, false, true));
  CHECK(encode(file, "a \t<mask> b") == Ids{'a', 262, 32, 'b'});
  CHECK(encode(file, "a <call> \u3000\nb") == Ids{'a', 32, 263, 'b'});
  CHECK(encode(file, " <mask>") == Ids{262});
}

TEST_CASE("characters with bytes for the rest") {
  const json file = character_level();
  CHECK(encode(file, "ab a") == Ids{1, 264, 262});
  CHECK(encode(file, "aab") == Ids{1, 262, 263});
  CHECK(encode(file, "  ab") == Ids{1, 265, 264});
  CHECK(encode(file, "é") == Ids{1, 259, 0xC3 + 3, 0xA9 + 3});
  CHECK(encode(file, "\xFF") == Ids{1, 259, 0xFF + 3});
  CHECK(encode(file, "a</s>a") == Ids{1, 262, 2, 262});
  CHECK(make_tokenizer(read(file))->decode(Ids{1, 264, 262}) == "ab a");
  const Metadata meta = read(file);
  CHECK(meta.get_string("tokenizer.ggml.model") == "llama");
  CHECK(meta.get_floats("tokenizer.ggml.scores")[262] == 0);
  CHECK(meta.get_floats("tokenizer.ggml.scores")[264] == -3);
  // Without bytes there are unknown tokens, side by side as one or not.
  const json bare = with(file, "/model/byte_fallback", false);
  CHECK(encode(bare, "éüa") == Ids{1, 259, 0, 260});
  CHECK(encode(with(bare, "/model/fuse_unk", false), "éüa") == Ids{1, 259, 0, 0, 260});
}

TEST_CASE("Metaspace: where the space goes in front, and words") {
  json file = character_level();
  file["normalizer"] = nullptr;
  const auto meta = [&](const char* scheme, bool split) {
    return with(file, "/pre_tokenizer",
                {{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", scheme}, {"split", split}});
  };
  CHECK(encode(meta("first", false), "a</s>a") == Ids{1, 262, 2, 260});
  CHECK(encode(meta("first", false), "</s>a") == Ids{1, 2, 260});
  CHECK(encode(meta("first", false), " a") == Ids{1, 262});
  CHECK(encode(meta("always", false), "a</s>a") == Ids{1, 262, 2, 262});
  CHECK(encode(meta("never", false), "a") == Ids{1, 260});
  CHECK(encode(meta("always", false), "a  a") == Ids{1, 262, 259, 262});
  CHECK(encode(meta("always", false), "a   ") == Ids{1, 262, 265, 259});
  CHECK(encode(meta("always", true), "a   ") == Ids{1, 262, 259, 259, 259});
}

TEST_CASE("what is not understood is named") {
  const json file = byte_level(), spm = character_level();
  CHECK_HAS(refusal(with(file, "/surprise", 1)), "t.json: 'surprise' is not understood");
  CHECK_HAS(refusal(with(file, "/normalizer", {{"type", "Lowercase"}})),
            "t.json: normalizer: type 'Lowercase'");
  CHECK_HAS(
      refusal(with(file, "/normalizer", {{"type", "Sequence"}, {"normalizers", {{{"type", "Strip"}}}}})),
      "normalizer.normalizers[0]: type 'Strip'");
  CHECK_HAS(refusal(with(file, "/pre_tokenizer", {{"type", "Whitespace"}})),
            "t.json: pre_tokenizer: type 'Whitespace'");
  CHECK_HAS(refusal(with(file, "/pre_tokenizer", nullptr)), "neither ByteLevel nor");
  CHECK_HAS(refusal(with(file, "/pre_tokenizer/new_option", true)),
            "pre_tokenizer: 'new_option' is not understood");
  CHECK_HAS(refusal(with(file, "/decoder", {{"type", "WordPiece"}})), "t.json: decoder: type 'WordPiece'");
  CHECK_HAS(refusal(with(spm, "/decoder", json::parse(kByteLevel))), "decoder: it does not undo");
  CHECK_HAS(refusal(with(file, "/post_processor", {{"type", "BertProcessing"}})),
            "post_processor: type 'BertProcessing'");
  CHECK_HAS(refusal(with(file, "/model/type", "Unigram")), "t.json: model.type: 'Unigram'");
  CHECK_HAS(refusal(with(file, "/model/dropout", 0.1)), "model.dropout");
  CHECK_HAS(refusal(with(file, "/model/end_of_word_suffix", "</w>")), "model.end_of_word_suffix");
  CHECK_HAS(refusal(with(file, "/model/unk_token", "<none>")), "model.unk_token: '<none>'");
  CHECK_HAS(refusal(with(file, "/model/vocab/zz", 300)),
            "token 'zz' has id 300; the model's embedding has 300 rows");
  CHECK_HAS(refusal(with(file, "/model/vocab/zz", 256)), "both have id 256");
  CHECK_HAS(refusal(with(file, "/model/vocab/zz", -1)), "token 'zz' has id -1");
  CHECK_HAS(refusal(with(file, "/model/merges", {"a b c"})), "model.merges[0]");
  CHECK_HAS(refusal(with(file, "/model/merges", {"a c"})),
            "model.merges[0]: '\"a c\"': two tokens that make a third");
  CHECK_HAS(refusal(with(file, "/added_tokens/0/id", 256)), "'<|end|>' has id 256, which does not agree");
  CHECK_HAS(refusal(with(file, "/added_tokens/0/single_word", true)), "added_tokens[0].single_word");
  CHECK_HAS(refusal(with(spm, "/post_processor/special_tokens", json::object())),
            "'<s>' is not among its special_tokens");
  json twice = spm;
  twice["post_processor"]["single"].insert(twice["post_processor"]["single"].begin(),
                                           twice["post_processor"]["single"][0]);
  CHECK_HAS(refusal(twice), "more than one token on a side");
}

TEST_CASE("any value in any place is read or refused") {
  const json values = {
      nullptr,       true, -1, 1e300, 99999999999u, "", "x y", "▁", json::array(), json::array({1, "a"}),
      json::object()};
  int refused = 0, read_all = 0;
  for (const json& file : {byte_level(), character_level()}) {
    std::vector<std::string> places;
    const json flat = file.flatten();
    for (const auto& [place, unused] : flat.items()) {
      // The place and all that it lies in; of the vocabulary's hundreds of tokens some.
      if (place.starts_with("/model/vocab/") && place.size() % 7 != 0) continue;
      for (size_t at = place.size(); at != std::string::npos && at > 0; at = place.rfind('/', at - 1))
        places.push_back(place.substr(0, at));
    }
    std::sort(places.begin(), places.end());
    places.erase(std::unique(places.begin(), places.end()), places.end());
    for (const std::string& place : places) {
      for (const json& value : values) {
        try {
          make_tokenizer(read(with(file, place.c_str(), value)))->encode("ab é</s>a");
          ++read_all;
        } catch (const Error& e) {
          CHECK(std::string_view(e.what()).size() > 10);
          ++refused;
        }
      }
    }
  }
  CHECK(refused > 500);
  CHECK(read_all > 50);
}

TEST_CASE("expressions from one dialect to the other") {
  const auto same = [](const char* text) { return pcre_of_oniguruma(text, "x") == text; };
  CHECK(same(R"((?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+(?!\S)|\s+)"));
  CHECK(same(R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+)"));
  CHECK(pcre_of_oniguruma("[一-龥]+", "x") == R"([\x{4e00}-\x{9fa5}]+)");
  CHECK(pcre_of_oniguruma(R"(\u4E00\x41)", "x") == R"(\x{4e00}\x{41})");
  CHECK(pcre_of_oniguruma(R"(\s+$)", "x") == R"(\s+(?=\n|\z))");
  CHECK(pcre_literal("a.b") == R"(a\.b)");
  for (const char* bad : {R"(\w+)", R"(\bx)", R"(\h)", "[a-z&&[^b]]", "[[:alpha:]]", "(?x)a", "(?<name>a)",
                          "a{1,2}+", "[a", "\\", "[]a]"})
    CHECK_HAS(error_of([&] { return pcre_of_oniguruma(bad, "t.json: p").size(); }),
              "t.json: p: expression '");
}

TEST_CASE("a folder's tokens that begin and end, and its chat template") {
  apr_test::SampleFolder folder;
  folder.config["vocab_size"] = kVocab;
  for (const char* name : {"model.embed_tokens.weight", "lm_head.weight"}) {
    folder.tensor(name).shape[0] = kVocab;
    folder.tensor(name).data.resize(kVocab * 8 * 2);
  }
  folder.config["eos_token_id"] = 260;
  folder.config["bos_token_id"] = 128000;  // of another vocabulary
  const apr_test::TempDir dir;
  const std::string path = folder.write(dir);
  dir.write("tokenizer.json", byte_level().dump());
  dir.write("generation_config.json", R"({"eos_token_id": [261, 260, -1]})");
  dir.write("tokenizer_config.json", R"({"eos_token": {"content": "<tool>"}, "pad_token": "<|end|>",
    "chat_template": [{"name": "tool_use", "template": "x"}, {"name": "default", "template": "y"}]})");
  Metadata meta = open_model(path).meta;
  CHECK(meta.get_ints("apr.tokenizer.eog_token_ids") == std::vector<int64_t>{261, 260});
  CHECK(meta.get_uint("tokenizer.ggml.eos_token_id", 1000) == 261);
  CHECK(meta.get_uint("tokenizer.ggml.padding_token_id", 1000) == 260);
  CHECK_FALSE(meta.has("tokenizer.ggml.bos_token_id"));
  CHECK(meta.get_string("tokenizer.chat_template") == "y");
  CHECK(make_tokenizer(meta)->eog(261));
  CHECK(make_tokenizer(meta)->eog(260));
  dir.write("chat_template.jinja", "z");
  CHECK(open_model(path).meta.get_string("tokenizer.chat_template") == "z");
  CHECK(open_model(path).files.size() == 6);
  // Logits need no text: the reason waits for whoever does.
  dir.write("tokenizer.json", "{");
  meta = open_model(path).meta;
  CHECK_HAS(error_of([&] { return make_tokenizer(meta)->vocab_size(); }), "tokenizer.json: no valid JSON");
}
