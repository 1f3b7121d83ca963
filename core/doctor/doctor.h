// What this machine and installation have of all that the program needs, measured where that takes a second, and for
// every problem what to do. No model is needed, and nothing is changed.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/plugin/catalog.h"

namespace apr {

enum class HealthLevel {
  Good,
  Absent,   // not here, and nothing says that it should be
  Problem,  // something is wrong, or stands in the way
};
const char* to_string(HealthLevel level);  // "ok", "absent", "problem"

struct HealthFinding {
  std::string area;  // "cpu", "plugins", "cache": what it belongs to
  std::string what;  // "driver", "bandwidth"
  HealthLevel level = HealthLevel::Good;
  std::string found;   // what is there, or what is wrong
  std::string advice;  // what to do, "" for nothing
  // Nothing can run on the reference backend until this is mended.
  bool blocks = false;
  std::optional<double> value = {};  // of a measurement
  std::string unit = {};             // "GB/s", "bytes"
};

struct DoctorRequest {
  Catalog* catalog;
  std::string reference;                                      // the backend that everything must run on
  std::vector<std::pair<std::string, std::string>> settings;  // of every device that is opened
  std::string kernel_cache;                                   // folder, "" for none
  std::string model;          // the one that ships with the program, "" where there is none
  std::string model_missing;  // then: why
  std::vector<std::string> unknown_probes;
};

using HealthFn = std::function<void(HealthFinding)>;

// Areas, in the order in which they are told.
void examine_plugins(const DoctorRequest& request, const HealthFn& tell);   // plugins.cpp
void examine_backends(const DoctorRequest& request, const HealthFn& tell);  // backends.cpp
void examine_cache(const DoctorRequest& request, const HealthFn& tell);     // storage.cpp
void examine_model(const DoctorRequest& request, const HealthFn& tell);     // storage.cpp
void examine_probes(const DoctorRequest& request, const HealthFn& tell);    // storage.cpp

}  // namespace apr
