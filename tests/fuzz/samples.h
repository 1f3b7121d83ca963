// Small whole models for the fuzzer to damage: among them every weight format of this build, both kinds of
// vocabulary, and the architectures' optional keys and tensors.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "core/plugin/catalog.h"

namespace apr_test {

struct SampleModel {
  std::string name;
  std::vector<std::byte> bytes;
};

// One layer of 256 columns; weights are small noise, quantised by the formats' own plugins.
std::vector<SampleModel> sample_models(apr::Catalog& catalog);

}  // namespace apr_test
