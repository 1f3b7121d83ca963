#include "model.h"

#include <boost/dll/runtime_symbol_info.hpp>

#include "core/base/log.h"
#include "core/model/model.h"
#include "core/plugin/catalog.h"

namespace apr::test {

LoadedModel load_model(const std::string& path, const std::string& isa, uint32_t threads,
                       const LoadRequest& request) {
  set_log_level(LogLevel::Error);
  static Catalog catalog(
      {{(boost::dll::program_location().parent_path() / "../../plugins").lexically_normal(), "the build tree",
        true}});
  LoadedModel m;
  m.plan = build_plan(open_gguf(path), catalog);
  DeviceRequest device;
  device.threads = threads;
  if (!isa.empty()) device.settings.emplace_back("isa", isa);
  m.device = std::make_unique<Device>(catalog.backend("cpu"), device);
  m.session = std::make_unique<Session>(*m.device, m.plan->c(), request);
  return m;
}

}  // namespace apr::test
