// The formats that the test executable was given as plugin libraries.
#pragma once

#include <string>
#include <vector>

#include "apr/quant.h"
#include "core/conformance/samples.h"

namespace apr::test {

// Opens the library as the program does and adds its formats. Throws std::runtime_error with what is wrong.
void add_plugin(const std::string& path);
const std::vector<const apr_quant_format*>& formats();
const apr_quant_format* find_format(const std::string& name);  // null when no given library has it

// What the conformance test tries formats with serves here too.
using conformance::edge_blocks;
using conformance::Message;
using conformance::normal_rows;
using conformance::Random;
using conformance::row_bytes;
using conformance::runnable;
using conformance::same;

}  // namespace apr::test
