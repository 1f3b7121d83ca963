// One side of a comparison: a backend in one of its modes, loaded from a plan that it shares with the other
// side.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/gate/parity.h"
#include "core/plugin/catalog.h"
#include "core/probe/probe.h"
#include "core/runtime/session.h"

namespace apr::ctl {

struct SideSpec {
  std::string text;     // as it was written: "cpu:precise"
  std::string backend;  // "cpu"
  bool precise = false;
  std::vector<std::pair<std::string, std::string>> settings;  // no_fusion -> 1
};

// "cuda", "cpu:precise", "cuda:no_fusion", "cpu:isa=avx2". Options are `precise` and the settings that probes
// have (no_graph, no_fusion, isa), a flag's =1 left out. Throws a usage error that lists them.
SideSpec parse_side(const std::string& text);
// "a,b": two of them; "a" alone: cpu:precise and a.
std::pair<SideSpec, SideSpec> parse_sides(const std::string& text);

class Side {
 public:
  // device: index, threads and the settings that every device of this program gets; the spec's own come on
  // top. rules: of a profile, for the backend that they were made for.
  Side(Catalog& catalog, const apr_plan& plan, const SideSpec& spec, DeviceRequest device, uint32_t n_tokens,
       const apr_kernel_rule* const* rules = nullptr, uint32_t n_rules = 0);

  const SideSpec& spec() const { return spec_; }
  Device& device() { return device_; }
  Session& session() { return session_; }
  ParitySide gate_side() const { return {&device_.backend(), session_.handle()}; }

 private:
  SideSpec spec_;
  Device device_;
  Session session_;
};

}  // namespace apr::ctl
