#include "core/base/error.h"

#include <doctest/doctest.h>

#include <string>

TEST_CASE("an error keeps its text and its kind") {
  const apr::Error plain("a text with {braces} stays as it is");
  CHECK(std::string(plain.what()) == "a text with {braces} stays as it is");
  CHECK(plain.kind() == apr::ErrorKind::Failure);

  const apr::Error gate("no", apr::ErrorKind::Gate);
  CHECK(gate.kind() == apr::ErrorKind::Gate);

  const apr::Error formatted("{}: tensor '{}'", "a.gguf", std::string("x"));
  CHECK(std::string(formatted.what()) == "a.gguf: tensor 'x'");
  CHECK(formatted.kind() == apr::ErrorKind::Failure);

  const apr::Error usage = apr::usage_error("unknown option '{}'", "--x");
  CHECK(std::string(usage.what()) == "unknown option '--x'");
  CHECK(usage.kind() == apr::ErrorKind::Usage);
}
