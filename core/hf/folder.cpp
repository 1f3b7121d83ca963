// A Hugging Face folder as a Model: config.json, and model.safetensors or the parts that its index lists.
#include <cstring>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>

#include "core/base/error.h"
#include "core/base/format.h"
#include "core/base/log.h"
#include "core/hf/config.h"
#include "core/hf/names.h"
#include "core/hf/open_model.h"
#include "core/hf/scales.h"
#include "core/hf/special_tokens.h"
#include "core/hf/tokenizer_json.h"
#include "core/model/safetensors.h"
#include "core/model/strict_json.h"

namespace apr {

namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::string_view kSingle = "model.safetensors", kIndex = "model.safetensors.index.json";

struct Source {
  SafeTensor tensor;
  uint32_t part;
  bool used = false;
};

// Tensors that change nothing where activations are floats, and one that older exports keep though it follows from the
// configuration.
bool unneeded(std::string_view name) {
  for (const std::string_view end :
       {".rotary_emb.inv_freq", ".input_scale", ".activation_scale", ".output_scale", ".k_scale", ".v_scale",
        ".q_scale", ".prob_output_scale"})
    if (name.ends_with(end)) return true;
  return false;
}

class Folder {
 public:
  explicit Folder(const std::string& path) {
    const fs::path given(path);
    std::error_code ignored;
    folder_ = fs::is_directory(given, ignored) ? given : given.parent_path();
    if (folder_.empty()) folder_ = ".";
    weight_files_ = find_weight_files(given);
    json_ = read("config.json");
    config_ = read_hf_config(json_, (folder_ / "config.json").string());
  }

  Model open() {
    model_.meta = config_.meta;
    const std::string name = fs::absolute(folder_).lexically_normal().filename().string();
    model_.meta.add("general.name",
                    name.empty() ? fs::absolute(folder_).parent_path().filename().string() : name);
    for (const fs::path& file : weight_files_) add_part(file);
    check_index();
    for (const HfTensorName& wanted : hf_tensor_names(config_)) add(wanted);
    report_unused();
    add_rope_factors();
    add_tokenizer();
    for (auto& file : other_files_) model_.files.push_back(std::move(file));
    return std::move(model_);
  }

 private:
  json read(std::string_view name) {
    auto file = MappedFile::open((folder_ / name).string());
    json content = parse_json_object(file->bytes(), file->path());
    other_files_.push_back(std::move(file));
    return content;
  }

  // What people mistake for such a folder.
  std::string what_is_there() const {
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(folder_, ignored)) {
      const std::string name = printable(entry.path().filename().string());
      if (name.ends_with(".gguf")) return fmt::format("; it holds {}, which can be given by its name", name);
      if (name.starts_with("pytorch_model") && name.ends_with(".bin"))
        return fmt::format("; {} is a pickle, which is not read: save the model as SafeTensors", name);
    }
    return {};
  }

  std::vector<fs::path> find_weight_files(const fs::path& given) {
    std::error_code ignored;
    if (!fs::is_directory(given, ignored)) return {given};
    if (fs::exists(folder_ / kSingle, ignored)) return {folder_ / kSingle};
    if (!fs::exists(folder_ / kIndex, ignored))
      throw Error("{}: neither {} nor {} is in this folder{}", printable(given.string(), kLongPath), kSingle,
                  kIndex, what_is_there());
    const std::string origin = (folder_ / kIndex).string();
    const json index = read(kIndex);
    if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object())
      throw Error("{}: it has no object 'weight_map'", origin);
    std::set<std::string> names;
    for (const auto& [tensor, file] : index["weight_map"].items()) {
      // Never outside the folder.
      if (!file.is_string() || fs::path(file.get<std::string>()).filename() != file.get<std::string>() ||
          !file.get<std::string>().ends_with(".safetensors"))
        throw Error("{}: the file of tensor '{}' must be a .safetensors file of this folder", origin,
                    printable(tensor));
      index_[tensor] = file.get<std::string>();
      names.insert(file.get<std::string>());
    }
    std::vector<fs::path> files;
    for (const std::string& name : names) files.push_back(folder_ / name);
    return files;
  }

  void add_part(const fs::path& file) {
    auto mapped = MappedFile::open(file.string());
    for (SafeTensor& tensor : parse_safetensors(mapped->bytes(), file.string())) {
      const std::string name = tensor.name;
      const auto part = static_cast<uint32_t>(model_.files.size());
      const auto [place, is_new] = sources_.emplace(name, Source{std::move(tensor), part});
      if (!is_new)
        throw Error("{}: tensor '{}' is also in {}", file.string(), printable(name),
                    model_.files[place->second.part]->path());
    }
    model_.files.push_back(std::move(mapped));
  }

  void check_index() const {
    for (const auto& [tensor, file] : index_) {
      const auto found = sources_.find(tensor);
      if (found == sources_.end() || weight_files_[found->second.part].filename() != file)
        throw Error("{}: tensor '{}' is missing, which {} says is there", (folder_ / file).string(),
                    printable(tensor), kIndex);
    }
  }

  const std::string& origin(const Source& source) const { return model_.files[source.part]->path(); }

  void add(const HfTensorName& wanted) {
    const auto found = sources_.find(wanted.hf);
    if (found == sources_.end()) {
      if (!wanted.required) return;
      throw Error("{}: tensor '{}' is missing among the model's {} tensors; {} demands it",
                  printable(folder_.string(), kLongPath), wanted.hf, sources_.size(), config_.meta.origin());
    }
    Source& source = found->second;
    source.used = true;
    const SafeTensor& t = source.tensor;
    if (t.shape != wanted.shape)
      throw Error("{}: tensor '{}' has shape [{}], but {} demands [{}]", origin(source), wanted.hf,
                  joined(t.shape, ","), config_.meta.origin(), joined(wanted.shape, ","));
    const auto qtype = qtype_of_safetensors(t.dtype);
    if (!qtype)
      throw Error("{}: tensor '{}' is {}; F32, F16, BF16, F8_E4M3 and F8_E5M2 are supported", origin(source),
                  wanted.hf, t.dtype);
    Tensor tensor{
        wanted.gguf, *qtype,     std::string(name(*qtype)), {t.shape.rbegin(), t.shape.rend()}, t.data,
        t.bytes,     source.part};
    if (scaled_block(*qtype)) tensor.scales = scales(wanted.hf, tensor, source);
    model_.tensors.push_back(std::move(tensor));
  }

  ElementScales scales(const std::string& hf, const Tensor& tensor, const Source& of) {
    for (const char* suffix : {"_scale", "_scale_inv"}) {
      const auto found = sources_.find(hf + suffix);
      if (found == sources_.end()) continue;
      found->second.used = true;
      return read_scales(tensor, found->second.tensor, config_, origin(found->second));
    }
    if (config_.scaled)
      throw Error(
          "{}: tensor '{}' has 8-bit floats, but neither '{}_scale' nor '{}_scale_inv' is in the model",
          origin(of), hf, hf, hf);
    return {{1.0f}, tensor.n(), tensor.k(), 1};
  }

  // A scale that belongs to nothing would be a weight computed wrongly; other tensors are none of the architecture's.
  void report_unused() const {
    std::vector<std::string> others;
    for (const auto& [name, source] : sources_) {
      if (source.used || unneeded(name) || (config_.tied && name == "lm_head.weight")) continue;
      if (name.ends_with("_scale") || name.ends_with("_scale_inv"))
        throw Error("{}: tensor '{}' is a scale of no 8-bit floats", origin(source), printable(name));
      others.push_back(printable(name));
    }
    if (others.empty()) return;
    constexpr size_t kShown = 4;
    const size_t n = others.size();
    others.resize(std::min(n, kShown));
    log_warning("{}: {} tensors that the architecture does not have are left out: {}{}",
                printable(folder_.string(), kLongPath), n, joined(others), n > kShown ? ", ..." : "");
  }

  void add_rope_factors() {
    const auto& factors = config_.rope_factors;
    if (factors.empty()) return;
    auto bytes = std::make_shared<std::vector<std::byte>>(factors.size() * sizeof(float));
    std::memcpy(bytes->data(), factors.data(), bytes->size());
    const WeightQuantType plain = *qtype_of_safetensors("F32");
    model_.tensors.push_back({"rope_freqs.weight",
                              plain,
                              std::string(name(plain)),
                              {factors.size()},
                              bytes->data(),
                              bytes->size(),
                              kNoPart});
    model_.made.push_back(std::move(bytes));
  }

  json read_if_there(const char* name) {
    std::error_code ignored;
    return fs::exists(folder_ / name, ignored) ? read(name) : json();
  }

  // A model whose text cannot be tokenised still computes logits: the reason is told, and again by whoever needs text.
  void add_tokenizer() {
    Metadata with = model_.meta;
    try {
      const std::string origin = (folder_ / "tokenizer.json").string();
      std::error_code ignored;
      if (!fs::exists(folder_ / "tokenizer.json", ignored))
        throw Error("{}: no such file: without it text cannot become tokens (tokenizer.model is not read)",
                    origin);
      read_tokenizer_json(read("tokenizer.json"), origin, config_.vocab, with);
      const json generation = read_if_there("generation_config.json"),
                 tokenizer = read_if_there("tokenizer_config.json");
      const auto part = [&](const json& content, const char* name) {
        return JsonPart(content, (folder_ / name).string() + ": ");
      };
      HfTokenFiles files{part(json_, "config.json"),
                         part(generation, "generation_config.json"),
                         part(tokenizer, "tokenizer_config.json"),
                         {}};
      if (fs::exists(folder_ / "chat_template.jinja", ignored)) {
        auto file = MappedFile::open((folder_ / "chat_template.jinja").string());
        files.chat_template.assign(reinterpret_cast<const char*>(file->data()), file->size());
        other_files_.push_back(std::move(file));
      }
      add_special_tokens(files, with);
      model_.meta = std::move(with);
    } catch (const Error& e) {
      log_warning("{}", e.what());
      model_.meta.add("apr.tokenizer.error", std::string(e.what()));
    }
  }

  fs::path folder_;
  json json_;                                             // config.json
  std::map<std::string, std::string> index_;              // tensor -> file, where there are several
  std::vector<std::shared_ptr<MappedFile>> other_files_;  // config.json and the like
  std::vector<fs::path> weight_files_;
  HfConfig config_;
  std::map<std::string, Source> sources_;  // by Hugging Face's name
  Model model_;
};

}  // namespace

Model open_hugging_face(const std::string& path) { return Folder(path).open(); }

Model open_model(const std::string& path) {
  std::error_code ignored;
  if (fs::is_directory(fs::path(path), ignored) || path.ends_with(".safetensors"))
    return open_hugging_face(path);
  return open_gguf(path);
}

}  // namespace apr
