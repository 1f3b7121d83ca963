#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include "core/base/log.h"

int main(int argc, char** argv) {
  apr::set_log_level(apr::LogLevel::Error);  // folders without a tokenizer are warned of
  doctest::Context context(argc, argv);
  return context.run();
}
