// Timing of every CPU kernel of the given formats.
#pragma once

#include <string>
#include <vector>

namespace apr::test {

// Prints a table: per format, instruction set and kernel the GB/s of packed weights that one core gets
// through, from memory (a matrix beyond the last cache that a core would keep) and from L2. names: formats to
// time, all when empty.
int run_benchmarks(const std::vector<std::string>& names);

}  // namespace apr::test
