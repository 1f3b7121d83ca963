// The picture: round ticks, every point inside the frame, texts that cannot break it.
#include <doctest/doctest.h>

#include <cmath>
#include <string>

#include "core/base/error.h"
#include "core/eval/plot.h"

using namespace apr;

TEST_CASE("ticks are round and cover the range") {
  CHECK(round_ticks(0, 10, 5) == std::vector<double>{0, 2, 4, 6, 8, 10});
  CHECK(round_ticks(2.3, 9.1, 7).front() <= 2.3);
  CHECK(round_ticks(2.3, 9.1, 7).back() >= 9.1);
  CHECK(round_ticks(1.2443, 1.2531, 6).size() < 12);
}

TEST_CASE("points lie where their values say") {
  Plot plot;
  plot.title = "a < b & \"c\"", plot.x_label = "bits per weight", plot.y_label = "KL divergence";
  plot.log_y = true;
  plot.points = {{"q4", 4, 1e-2, 1e-3}, {"q6", 6, 1e-3, 0}, {"q8", 8, 1e-4, std::nan("")}};
  const std::string svg = svg_of(plot);
  CHECK(svg.find("a &lt; b &amp; &quot;c&quot;") != std::string::npos);
  // Equal steps of x and of ln y are equal steps on the picture.
  double cx[3], cy[3];
  size_t at = 0;
  for (int i = 0; i < 3; ++i) {
    at = svg.find("cx=\"", at) + 4;
    cx[i] = std::stod(svg.substr(at));
    cy[i] = std::stod(svg.substr(svg.find("cy=\"", at) + 4));
    CHECK((cx[i] > 90 && cx[i] < 730 && cy[i] > 50 && cy[i] < 400));
  }
  CHECK(cx[2] - cx[1] == doctest::Approx(cx[1] - cx[0]).epsilon(0.01));
  CHECK(cy[2] - cy[1] == doctest::Approx(cy[1] - cy[0]).epsilon(0.01));
  CHECK(cy[2] > cy[0]);
  plot.points[0].y = 0;
  CHECK_THROWS_AS(svg_of(plot), Error);
  plot.points.clear();
  CHECK_THROWS_AS(svg_of(plot), Error);
  plot.log_y = false;
  plot.points = {{"one", 4.5, 1.25, 0}};
  CHECK(svg_of(plot).find("nan") == std::string::npos);
}
