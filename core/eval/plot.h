// Quality against bits as a picture: a small SVG that needs nothing else.
#pragma once

#include <string>
#include <vector>

namespace apr {

struct PlotPoint {
  std::string label;
  double x = 0, y = 0;  // y > 0 on a logarithmic axis
  double error = 0;     // of y; 0 or NaN: no bar
};

struct Plot {
  std::string title, x_label, y_label, note;  // note: a line below, "" for none
  bool log_y = false;
  std::vector<PlotPoint> points;  // at least 1, all finite
};

// Ascending round numbers (1, 2 or 5 times a power of ten) that cover [low, high], about `count` of them.
std::vector<double> round_ticks(double low, double high, int count);
// Throws apr::Error for no points, and for values that cannot be drawn.
std::string svg_of(const Plot& plot);

}  // namespace apr
