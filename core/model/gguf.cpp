#include <filesystem>
#include <optional>
#include <unordered_set>

#include "core/base/error.h"
#include "core/base/format.h"
#include "core/model/gguf_format.h"
#include "core/model/gguf_parse.h"
#include "core/model/model.h"

namespace apr {

namespace {

constexpr uint64_t kMaxParts = 65535;  // split.count is 16 bits wide

// "PREFIX-00002-of-00005.gguf"
struct PartName {
  std::string prefix;
  uint64_t number;  // from 1
  uint64_t count;
};

std::string part_path(const std::string& prefix, uint64_t number, uint64_t count) {
  return fmt::format("{}-{:05}-of-{:05}.gguf", prefix, number, count);
}

std::optional<PartName> parse_part_name(const std::string& path) {
  constexpr std::string_view kShape = "-#####-of-#####.gguf";
  if (path.size() < kShape.size()) return std::nullopt;
  const size_t start = path.size() - kShape.size();
  uint64_t numbers[2] = {0, 0};
  size_t digits = 0;
  for (size_t i = 0; i < kShape.size(); ++i) {
    const char c = path[start + i];
    if (kShape[i] == '#') {
      if (c < '0' || c > '9') return std::nullopt;
      uint64_t& number = numbers[digits++ / 5];
      number = number * 10 + static_cast<uint64_t>(c - '0');
    } else if (c != kShape[i]) {
      return std::nullopt;
    }
  }
  return PartName{path.substr(0, start), numbers[0], numbers[1]};
}

// How many files the model has. gguf-split leaves split.count = 0 in a file that it has merged.
uint64_t split_count(const Metadata& meta) {
  return std::max<uint64_t>(1, meta.get_uint_or(kGgufSplitCount, kMaxParts, 1));
}

struct OpenPart {
  std::shared_ptr<MappedFile> file;
  GgufPart content;
};

OpenPart open_part(const std::string& path) {
  auto file = MappedFile::open(path);
  GgufPart content = parse_gguf(file->bytes(), path);
  return {std::move(file), std::move(content)};
}

void require_all_parts_exist(const PartName& name) {
  std::vector<std::string> missing;
  uint64_t total = 0;
  for (uint64_t number = 1; number <= name.count; ++number) {
    std::string path = part_path(name.prefix, number, name.count);
    std::error_code ignored;  // a folder that cannot be searched is told apart when the part is opened
    if (std::filesystem::exists(std::filesystem::path(path), ignored)) continue;
    ++total;
    if (missing.size() < 3) missing.push_back(printable(path, kLongPath));
  }
  if (total == 0) return;
  throw Error("the model has {} parts, and {} missing: {}{}; fetch {} into the same folder", name.count,
              total == 1 ? "one is" : fmt::format("{} are", total), joined(missing),
              total > missing.size() ? ", ..." : "", total == 1 ? "it" : "them");
}

void check_part(const OpenPart& part, uint64_t number, uint64_t count) {
  const Metadata& meta = part.content.meta;
  const uint64_t said_count = split_count(meta);
  const uint64_t said_number = meta.get_uint(kGgufSplitNo, kMaxParts) + 1;
  if (said_count != count || said_number != number) {
    throw Error(
        "{}: by its name it is part {} of {}, but its metadata says part {} of {}; the file was renamed or "
        "belongs to another model",
        meta.origin(), number, count, said_number, said_count);
  }
}

// All parts, in order, as one model; the first part's metadata is the model's.
Model join_parts(std::vector<OpenPart> parts) {
  Model model;
  model.meta = parts[0].content.meta;
  std::unordered_set<std::string> names;
  for (size_t i = 0; i < parts.size(); ++i) {
    for (Tensor& tensor : parts[i].content.tensors) {
      if (!names.insert(tensor.name).second) {
        throw Error("{}: tensor '{}' is also in an earlier part of the model", parts[i].content.meta.origin(),
                    printable(tensor.name));
      }
      tensor.part = static_cast<uint32_t>(i);
      model.tensors.push_back(std::move(tensor));
    }
    model.files.push_back(std::move(parts[i].file));
  }
  for (const OpenPart& part : parts) {
    const Metadata& meta = part.content.meta;
    const auto said = meta.find_uint(kGgufSplitTensors, UINT64_MAX);
    if (said && *said != model.tensors.size()) {
      throw Error(
          "{}: {} says {} tensors, but the {} parts together have {}; the parts do not belong together",
          meta.origin(), kGgufSplitTensors, *said, parts.size(), model.tensors.size());
    }
  }
  return model;
}

}  // namespace

Model open_gguf(const std::string& path) {
  OpenPart given = open_part(path);
  const Metadata& meta = given.content.meta;
  const uint64_t count = split_count(meta);
  const std::optional<PartName> name = parse_part_name(path);

  std::vector<OpenPart> parts;
  if (count == 1) {
    if (name && name->count > 1) {
      throw Error(
          "{}: by its name it is part {} of {}, but its metadata has no {}; if a whole file was cut into "
          "pieces, join them with cat",
          meta.origin(), name->number, name->count, kGgufSplitCount);
    }
    parts.push_back(std::move(given));
    return join_parts(std::move(parts));
  }

  if (!name) {
    throw Error(
        "{}: it is part {} of {} of a model, but is not named NAME-00001-of-{:05}.gguf, so the other parts "
        "cannot be found; give the parts their names back",
        meta.origin(), meta.get_uint(kGgufSplitNo, kMaxParts) + 1, count, count);
  }
  check_part(given, name->number, name->count);
  require_all_parts_exist(*name);
  for (uint64_t number = 1; number <= count; ++number) {
    parts.push_back(number == name->number ? std::move(given)
                                           : open_part(part_path(name->prefix, number, count)));
    check_part(parts.back(), number, count);
  }
  return join_parts(std::move(parts));
}

}  // namespace apr
