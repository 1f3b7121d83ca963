// One plugin library in memory. Opening runs the library's static constructors (the dynamic loader offers no
// way around them), but none of its functions is called until its table has been checked completely.
#pragma once

#include "apr/abi.h"
#include "apr/backend.h"
#include "apr/quant.h"
#include "core/plugin/manifest.h"

namespace apr {

// Opens the manifest's library by its absolute path (RTLD_NOW | RTLD_LOCAL) and reads apr_plugin_entry as
// data. The library stays in memory until the process ends, and so does the table. Throws apr::Error that
// names the library's file: it cannot be opened, no such symbol, another ABI, a short struct, a missing
// function, a geometry that disagrees with the core's table of well-known types, a table that disagrees with
// the manifest.
const apr_plugin& open_library(const Manifest& manifest);

// The checks alone, on a table that is in memory already. `where` is the library's file, for messages.
void check_plugin(const apr_plugin& plugin, const Manifest& manifest, const std::string& where);

}  // namespace apr
