// The weight formats that were built, for tests: read from the plugins of the build folder.
#pragma once

#include <string>
#include <vector>

#include "apr/quant.h"

namespace apr::test {

// The build folder's plugins, or those of $APR_TEST_PLUGINS: tests may run on another machine than they were built on.
std::string plugin_folder();
// Where their kernel templates are: beside the plugins in a build tree, in share/apr of a bundle or an installation.
std::string data_folder();

// Every format of every quant plugin, by name. Loaded once per process.
const std::vector<const apr_quant_format*>& formats();
// Throws std::runtime_error for an unknown name.
const apr_quant_format& format(const std::string& name);

}  // namespace apr::test
