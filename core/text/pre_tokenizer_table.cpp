// The families of pre-tokenizers. An expression belongs to the model that was trained with it: the source is
// the pre_tokenizer section of that model's tokenizer.json on huggingface.co, unless a line says otherwise;
// which tokenizer.ggml.pre names which family is llama.cpp's choice (src/llama-vocab.cpp, function load).
#include "core/text/pre_tokenizer.h"

namespace apr {

namespace {

// GPT-2 (https://github.com/openai/gpt-2, src/encoder.py). A gap between matches is a word of its own, so
// that the last alternative of the original, a lone \s+, needs no mention; it is kept for the reader.
constexpr const char* kGpt2 = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
// Llama 3, from OpenAI's cl100k_base: numbers in groups of up to three digits.
constexpr const char* kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
// Qwen2: the same with single digits.
constexpr const char* kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kNumber = R"(\p{N})";
// DeepSeek's two classes of CJK text.
constexpr const char* kDeepSeekCjk = R"([\x{4e00}-\x{9fa5}\x{800}-\x{4e00}\x{ac00}-\x{d7ff}]+)";
constexpr const char* kDeepSeek3Cjk = R"([\x{4e00}-\x{9fa5}\x{3040}-\x{309f}\x{30a0}-\x{30ff}]+)";

// What llama.cpp does for models whose converter knew no better (tokenizer.ggml.pre is "default" or missing).
constexpr const char* kDefaultNames[] = {"default"};
constexpr const char* kDefault[] = {R"([\p{P}\$\+<=>\^~\|]+)", kGpt2, R"(\p{N}+)", "[0-9][0-9][0-9]"};

constexpr const char* kGpt2Names[] = {
    "gpt-2",      "phi-2",      "mpt",        "olmo",         "jais",           "jina-es",     "jina-de",
    "jina-v2-es", "jina-v2-de", "jina-v1-en", "jina-v2-code", "roberta-bpe",    "modern-bert", "gigachat",
    "a.x-4.0",    "mellum",     "exaone4",    "trillion",     "granite-docling"};
constexpr const char* kGpt2Only[] = {kGpt2};

constexpr const char* kLlama3Names[] = {"llama-bpe", "llama3", "llama-v3", "falcon3",     "falcon-h1",
                                        "pixtral",   "lfm2",   "midm-2.0", "jina-v5-nano"};
constexpr const char* kLlama3PlainNames[] = {"dbrx", "smaug-bpe", "glm4", "chatglm-bpe"};
constexpr const char* kLlama3Only[] = {kLlama3};

constexpr const char* kQwen2Names[] = {"qwen2",  "stablelm2", "deepseek-r1-qwen", "hunyuan",   "megrez",
                                       "grok-2", "kormo",     "f2llmv2",          "solar-open"};
constexpr const char* kQwen2Only[] = {kQwen2};

// Qwen3.5: combining marks belong to words.
constexpr const char* kQwen35Names[] = {"qwen35"};
constexpr const char* kQwen35[] = {
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"};

constexpr const char* kStarCoderNames[] = {"starcoder", "refact", "command-r",  "smollm",
                                           "codeshell", "exaone", "minerva-7b", "mellum2"};
constexpr const char* kStarCoder[] = {kNumber, kGpt2};

constexpr const char* kFalconNames[] = {"falcon"};
constexpr const char* kFalcon[] = {R"([\p{P}\$\+<=>\^~\|`]+)", kGpt2, "[0-9][0-9][0-9]"};

// The letters are an old Unicode version's cased ones, as code points because some of them are not in NFC and
// would not survive an editor.
constexpr const char* kDeepSeekLlmNames[] = {"deepseek-llm"};
constexpr const char* kDeepSeekLlm[] = {
    R"([\r\n])",
    R"(\s?[A-Za-z\x{b5}\x{c0}-\x{d6}\x{d8}-\x{f6}\x{f8}-\x{1ba}\x{1bc}-\x{1bf}\x{1c4}-\x{293}\x{295}-\x{2af})"
    R"(\x{370}-\x{373}\x{376}\x{377}\x{37b}-\x{37d}\x{37f}\x{386}\x{388}-\x{38a}\x{38c}\x{38e}-\x{3a1}\x{3a3}-\x{3f5})"
    R"(\x{3f7}-\x{481}\x{48a}-\x{52f}\x{531}-\x{556}\x{10a0}-\x{10c5}\x{13a0}-\x{13f5}\x{13f8}-\x{13fd})"
    R"(\x{1c90}-\x{1cba}\x{1cbd}-\x{1cbf}\x{1d00}-\x{1d2b}\x{1d6b}-\x{1d77}\x{1d79}-\x{1d9a}\x{1e00}-\x{1f15})"
    R"(\x{1f18}-\x{1f1d}\x{1f20}-\x{1f45}\x{1f48}-\x{1f4d}\x{1f50}-\x{1f57}\x{1f59}\x{1f5b}\x{1f5d}\x{1f5f}-\x{1f7d})"
    R"(\x{1f80}-\x{1fb4}\x{1fb6}-\x{1fbc}\x{1fbe}\x{1fc2}-\x{1fc4}\x{1fc6}-\x{1fcc}\x{1fd0}-\x{1fd3}\x{1fd6}-\x{1fdb})"
    R"(\x{1fe0}-\x{1fec}\x{1ff2}-\x{1ff4}\x{1ff6}-\x{1ffc}\x{2102}\x{2107}\x{210a}-\x{2113}\x{2115}\x{2119}-\x{211d})"
    R"(\x{2124}\x{2126}\x{2128}\x{212a}-\x{212d}\x{212f}-\x{2134}\x{2139}\x{213c}-\x{213f}\x{2145}-\x{2149}\x{214e})"
    R"(\x{2183}\x{2184}\x{2c00}-\x{2c7b}\x{2c7e}-\x{2ce4}\x{2ceb}-\x{2cee}\x{2cf2}\x{2cf3}\x{a640}-\x{a66d})"
    R"(\x{a680}-\x{a69b}\x{a722}-\x{a76f}\x{a771}-\x{a787}\x{a78b}-\x{a78e}\x{ab70}-\x{abbf}\x{fb00}-\x{fb06})"
    R"(\x{fb13}-\x{fb17}\x{ff21}-\x{ff3a}\x{ff41}-\x{ff5a}\x{10400}-\x{1044f}\x{104b0}-\x{104d3}\x{104d8}-\x{104fb})"
    R"(\x{10c80}-\x{10cb2}\x{10cc0}-\x{10cf2}\x{118a0}-\x{118df}\x{1e900}-\x{1e943}]+)",
    R"(\s?[!-/:-~\x{ff01}-\x{ff0f}\x{ff1a}-\x{ff5e}\x{2018}-\x{201f}\x{3000}-\x{3002}]+)",
    R"(\s+$)",
    kDeepSeekCjk,
    R"(\p{N}+)"};

constexpr const char* kDeepSeekCoderNames[] = {"deepseek-coder"};
constexpr const char* kDeepSeekCoder[] = {R"([\r\n])", R"(\s?\p{L}+)", R"(\s?\p{P}+)", kDeepSeekCjk, kNumber};

constexpr const char* kDeepSeek3Names[] = {"deepseek-v3", "hunyuan-dense", "hy_v4", "joyai-llm"};
constexpr const char* kDeepSeek3[] = {
    R"(\p{N}{1,3})", kDeepSeek3Cjk,
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"};

// OpenAI's o200k_base (https://github.com/openai/tiktoken, tiktoken_ext/openai_public.py): words split where
// case falls.
constexpr const char* kGpt4oNames[] = {"gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"};
constexpr const char* kGpt4oWholeWordNames[] = {"granite-embed-multi-97m"};
constexpr const char* kGpt4o[] = {
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"(\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)"};

// Kimi K2 (tokenization_kimi.py): Han text apart from other letters.
constexpr const char* kKimiNames[] = {"kimi-k2"};
constexpr const char* kKimi[] = {
    R"(\p{Han}+|)"
    R"([^\r\n\p{L}\p{N}]?(?:(?!\p{Han})[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}])*(?:(?!\p{Han})[\p{Ll}\p{Lm}\p{Lo}\p{M}])+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"([^\r\n\p{L}\p{N}]?(?:(?!\p{Han})[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}])+(?:(?!\p{Han})[\p{Ll}\p{Lm}\p{Lo}\p{M}])*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"(\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"};

// Command A and Aya: digits in groups of three from the right, \d{1,3}(?=(?:\d{3})*\b) in the original. Here
// only a number's first group looks ahead, so that a long number is linear work. The words of \b are Oniguruma's, which
// counts decimal digits alone among the numbers: PCRE2's would not end a number before a superscript.
constexpr const char* kAyaNames[] = {"tiny_aya", "cohere2moe"};
constexpr const char* kAya[] = {R"((?<!\d)\d{1,3}(?=(?:\d{3})*+(?![\p{L}\p{M}\p{Nd}\p{Pc}]))|\G(?<=\d)\d{3})",
                                kGpt4o[0]};

constexpr const char* kYoutuNames[] = {"youtu"};
constexpr const char* kYoutu[] = {
    R"([\x{ac00}-\x{d7a3}\x{3131}-\x{318e}]+|)"
    R"([\x{ff01}\x{2026}\x{201c}\x{201d}\x{2018}\x{2019}\x{2014}\x{ff1a}\x{ff1b}\x{ff0c}\x{3001}-\x{303f}\x{fe30}-\x{fe4f}]+|)"
    R"([\x{3105}-\x{312f}]+|[\x{4e00}-\x{9fa5}\x{3040}-\x{309f}\x{30a0}-\x{30ff}]+)",
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"(\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)"};

constexpr const char* kTekkenNames[] = {"tekken"};
constexpr const char* kTekken[] = {
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|)"
    R"(\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)"};

// BLOOM: cut at white space and at sentence punctuation of several scripts.
constexpr const char* kBloomClass = R"( ?[^(\s|.,!?\x{2026}\x{3002}\x{ff0c}\x{3001}\x{964}\x{6d4}\x{60c})]+)";
constexpr const char* kBloomNames[] = {"bloom", "poro-chat", "gpt3-finnish"};
constexpr const char* kBloom[] = {kBloomClass};
constexpr const char* kVikingNames[] = {"viking"};
constexpr const char* kViking[] = {kBloomClass, kNumber};

constexpr const char* kChameleonNames[] = {"chameleon"};
constexpr const char* kChameleon[] = {"<sentinel:[0-9]+>",       "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
                                      "([\\t\\n]|    |  )",      kNumber,
                                      R"([\p{P}!-/:-@\[-`{-~])", kGpt2};

constexpr const char* kBailingNames[] = {"bailingmoe", "bailingmoe2", "llada-moe"};
constexpr const char* kBailing[] = {
    R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)"};

constexpr const char* kSeedCoderNames[] = {"seed-coder"};
constexpr const char* kSeedCoder[] = {
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+)"};

constexpr const char* kMiniCpm5Names[] = {"minicpm5"};
constexpr const char* kMiniCpm5[] = {
    R"(\p{N}{1,3})",
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"};

// Jais 2: runs of white space in powers of two.
constexpr const char* kJais2Names[] = {"jais-2"};
constexpr const char* kJais2[] = {
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|)"
    R"(\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|)"
    R"(\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1})"};

// EXAONE MoE: words of several letters runs with single spaces between them.
constexpr const char* kExaoneMoeNames[] = {"exaone-moe"};
constexpr const char* kExaoneMoe[] = {
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}|)"
    R"( ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+)"};

// Laguna: no word crosses a line feed.
constexpr const char* kLagunaNames[] = {"laguna"};
constexpr const char* kLaguna[] = {R"([^\n]+|[\n]+)", kQwen2};

// Qwen2's without English contractions: Turkish suffixes stay with their apostrophe.
constexpr const char* kUfakZekaNames[] = {"ufakzeka"};
constexpr const char* kUfakZeka[] = {
    R"([^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"};

constexpr const char* kSparkNames[] = {"spark2_5"};
constexpr const char* kSpark[] = {
    R"(\p{N}{1,3})", kDeepSeek3Cjk,
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+|[\r\n]|\s+(?!\S)|\s+)",
    kNumber};

// AFMoE: numbers in groups of three from the right; scripts without spaces between words apart from others.
constexpr const char* kAfmoeNames[] = {"afmoe"};
constexpr const char* kAfmoe[] = {
    R"((?<!\p{N})\p{N}{1,2}(?=(?:\p{N}{3})++(?!\p{N}))|\p{N}{3}|\p{N}{1,2})",
    R"([\x{4e00}-\x{9fff}\x{3400}-\x{4dbf}\x{f900}-\x{faff}\x{3040}-\x{309f}\x{30a0}-\x{30ff}\x{ff65}-\x{ff9f}\x{2f00}-\x{2fdf})"
    R"(\x{e40}-\x{e7f}\x{e80}-\x{eff}\x{1780}-\x{17ff}\x{1000}-\x{109f}\x{aa60}-\x{aa7f}\x{a9e0}-\x{a9ff}\x{ac00}-\x{d7af}\x{1100}-\x{11ff}]+)",
    kDeepSeek3[2]};

// SuperBPE: words are not cut, numbers are, in groups of three from the right. The original second expression
// matches the empty places between groups, (?=(\d{3})+(?!\d)); this one matches the groups.
constexpr const char* kSuperBpeNames[] = {"superbpe"};
constexpr const char* kSuperBpe[] = {R"(\p{N}+)", R"((?<!\d)\d{1,2}(?=(?:\d{3})++(?!\d))|\d{3})"};

constexpr PreTokenizerSpec kSpecs[] = {
    // names           expressions     ignore_merges add_bos
    {kDefaultNames, kDefault, false, false},
    {kGpt2Names, kGpt2Only, false, false},
    {kLlama3Names, kLlama3Only, true, true},
    {kLlama3PlainNames, kLlama3Only, false, false},
    {kQwen2Names, kQwen2Only, false, false},
    {kQwen35Names, kQwen35, false, false},
    {kStarCoderNames, kStarCoder, false, false},
    {kFalconNames, kFalcon, false, false},
    {kDeepSeekLlmNames, kDeepSeekLlm, false, false},
    {kDeepSeekCoderNames, kDeepSeekCoder, false, false},
    {kDeepSeek3Names, kDeepSeek3, false, false},
    {kGpt4oNames, kGpt4o, false, false},
    {kTekkenNames, kTekken, true, true},
    {kBloomNames, kBloom, false, false},
    {kVikingNames, kViking, false, false},
    {kChameleonNames, kChameleon, false, true},
    {kBailingNames, kBailing, false, false},
    {kSeedCoderNames, kSeedCoder, false, false},
    {kMiniCpm5Names, kMiniCpm5, true, false},
    {kGpt4oWholeWordNames, kGpt4o, true, false},
    {kKimiNames, kKimi, false, false},
    {kAyaNames, kAya, false, false},
    {kYoutuNames, kYoutu, true, false},
    {kJais2Names, kJais2, false, false},
    {kExaoneMoeNames, kExaoneMoe, false, false},
    {kLagunaNames, kLaguna, false, false},
    {kUfakZekaNames, kUfakZeka, false, false},
    {kSparkNames, kSpark, false, false},
    {kAfmoeNames, kAfmoe, false, false},
    {kSuperBpeNames, kSuperBpe, false, false},
};

}  // namespace

std::span<const PreTokenizerSpec> pre_tokenizer_specs() { return kSpecs; }

const PreTokenizerSpec* find_pre_tokenizer(std::string_view name) {
  for (const PreTokenizerSpec& spec : kSpecs) {
    for (const char* known : spec.names) {
      if (name == known) return &spec;
    }
  }
  return nullptr;
}

}  // namespace apr
