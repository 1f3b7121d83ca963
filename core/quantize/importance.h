// How much each column of a matrix matters: the mean square of the activation that it is multiplied with, as
// llama.cpp's imatrix tool measures it on a text. Read are both forms of its files:
//  - GGUF (general.type "imatrix"): tensors NAME.in_sum2 [K, matrices] and NAME.counts [1, matrices];
//  - the older binary form: count; for each entry a name, calls, values, floats; then calls and the text's
//  name.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/model/model.h"

namespace apr {

class Importance {
 public:
  // Throws apr::Error that names the file and what is wrong in it.
  static Importance read(const std::string& path);

  // Of the tensor's K columns, or of each of its experts' ([experts][K]); null when the file does not have
  // it. Throws apr::Error when it has another number of columns.
  const std::vector<float>* find(const Tensor& tensor) const;

  const std::string& path() const { return path_; }
  size_t entries() const { return values_.size(); }
  // Of the text that it was measured on, as the file says; "" and 0 when it does not.
  const std::string& dataset() const { return dataset_; }
  uint64_t chunks() const { return chunks_; }

 private:
  void read_gguf(const Model& file);
  void read_legacy(const MappedFile& file);
  void add(std::string name, std::vector<float> values);

  std::string path_;
  std::map<std::string, std::vector<float>, std::less<>> values_;  // by tensor name
  std::string dataset_;
  uint64_t chunks_ = 0;
};

}  // namespace apr
