// Counts what this test program allocates with new, so that a test can say how much a call may take at most.
#pragma once

#include <cstddef>

namespace apr_test {

// Starts a new measurement: the peak is reset to what is allocated now.
void reset_peak();
// The most bytes allocated at once since reset_peak(), less what was allocated then. Of this thread only.
size_t peak_since_reset();

}  // namespace apr_test
