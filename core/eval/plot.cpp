#include "core/eval/plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/base/error.h"
#include "core/base/format.h"

namespace apr {
namespace {

// Pixels: of the picture, and of the frame that the points are in.
constexpr double kWidth = 760, kHeight = 480, kLeft = 90, kRight = 730, kTop = 50, kBottom = 400;

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : printable(text)) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '"')
      out += "&quot;";
    else
      out += c;
  }
  return out;
}

struct Axis {
  double low, high, from, to;  // values, and the pixels that they lie at
  bool log;
  double at(double value) const {
    const auto scaled = [&](double v) { return log ? std::log10(v) : v; };
    return from + (scaled(value) - scaled(low)) / (scaled(high) - scaled(low)) * (to - from);
  }
};

// Of a logarithmic axis: 1, 2 and 5 times each power of ten; of more than three decades the powers alone.
std::vector<double> log_ticks(double low, double high) {
  const bool few = std::log10(high / low) <= 3;
  std::vector<double> ticks;
  for (int power = static_cast<int>(std::floor(std::log10(low))); power <= std::log10(high); ++power)
    for (const double digit : {1.0, 2.0, 5.0})
      if (const double tick = digit * std::pow(10, power);
          (few || digit == 1) && tick >= low * 0.999 && tick <= high * 1.001)
        ticks.push_back(tick);
  return ticks;
}

}  // namespace

std::vector<double> round_ticks(double low, double high, int count) {
  const double raw = (high - low) / count, power = std::pow(10, std::floor(std::log10(raw)));
  double step = 10 * power;
  for (const double digit : {5.0, 2.0, 1.0})
    if (digit * power >= raw * 0.999) step = digit * power;
  std::vector<double> ticks;
  for (double i = std::floor(low / step + 1e-9);; ++i) {
    ticks.push_back(i * step);
    if (i * step >= high - 1e-9 * step) return ticks;
  }
}

std::string svg_of(const Plot& plot) {
  if (plot.points.empty()) throw Error("a plot needs at least one point");
  double x_low = plot.points[0].x, x_high = x_low, y_low = plot.points[0].y, y_high = y_low;
  for (const PlotPoint& p : plot.points) {
    if (!std::isfinite(p.x) || !std::isfinite(p.y) || (plot.log_y && p.y <= 0))
      throw Error("'{}' at ({}, {}) cannot be drawn", printable(p.label), p.x, p.y);
    const double bar = p.error > 0 && std::isfinite(p.error) ? p.error : 0;
    x_low = std::min(x_low, p.x), x_high = std::max(x_high, p.x);
    y_low = std::min(y_low, plot.log_y ? p.y : p.y - bar), y_high = std::max(y_high, p.y + bar);
  }
  const double x_room = std::max(0.08 * (x_high - x_low), 0.25);
  const std::vector<double> x_ticks = round_ticks(std::max(0.0, x_low - x_room), x_high + x_room, 7);
  const Axis x{x_ticks.front(), x_ticks.back(), kLeft, kRight, false};
  if (!(y_high > y_low))
    y_low -= plot.log_y ? 0 : 0.5 * std::fabs(y_low) + 1e-9, y_high += 0.5 * std::fabs(y_high) + 1e-9;
  std::vector<double> y_ticks;
  Axis y{y_low, y_high, kBottom, kTop, plot.log_y};
  if (plot.log_y) {
    y.low = y_low / 1.6, y.high = y_high * 1.6;
    y_ticks = log_ticks(y.low, y.high);
  } else {
    y_ticks = round_ticks(y_low, y_high, 6);
    y.low = y_ticks.front(), y.high = y_ticks.back();
  }

  std::string out = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} {1}\" "
      "font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"{0}\" height=\"{1}\" fill=\"white\"/>\n",
      kWidth, kHeight);
  const auto text = [&](double at_x, double at_y, const char* anchor, const std::string& what,
                        const char* more = "") {
    out += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\" {}>{}</text>\n", at_x, at_y,
                       anchor, more, escaped(what));
  };
  const auto segment = [&](double x1, double y1, double x2, double y2, const char* stroke) {
    out += fmt::format("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"{}\"/>\n", x1,
                       y1, x2, y2, stroke);
  };
  for (const double tick : x_ticks) {
    segment(x.at(tick), kTop, x.at(tick), kBottom, "#e4e4e4");
    text(x.at(tick), kBottom + 20, "middle", fmt::format("{:.6g}", tick));
  }
  for (const double tick : y_ticks) {
    segment(kLeft, y.at(tick), kRight, y.at(tick), "#e4e4e4");
    text(kLeft - 8, y.at(tick) + 4, "end", fmt::format("{:.6g}", tick));
  }
  out +=
      fmt::format("<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"none\" stroke=\"#404040\"/>\n",
                  kLeft, kTop, kRight - kLeft, kBottom - kTop);
  text((kLeft + kRight) / 2, 28, "middle", plot.title, "font-size=\"16\"");
  text((kLeft + kRight) / 2, kBottom + 45, "middle", plot.x_label);
  text(0, 0, "middle", plot.y_label,
       fmt::format("transform=\"translate(22 {:.1f}) rotate(-90)\"", (kTop + kBottom) / 2).c_str());
  if (!plot.note.empty())
    text((kLeft + kRight) / 2, kHeight - 12, "middle", plot.note, "font-size=\"11\" fill=\"#606060\"");
  for (const PlotPoint& p : plot.points) {
    const double px = x.at(p.x), py = y.at(p.y);
    if (p.error > 0 && std::isfinite(p.error)) {
      const double top = y.at(p.y + p.error),
                   bottom = plot.log_y && p.y - p.error < y.low ? kBottom : y.at(p.y - p.error);
      segment(px, std::max(top, kTop), px, bottom, "#1f5fa8");
    }
    out += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"4\" fill=\"#1f5fa8\"/>\n", px, py);
    const bool right = px > (kLeft + 2 * kRight) / 3;
    text(right ? px - 8 : px + 8, py - 6, right ? "end" : "start", p.label);
  }
  return out + "</svg>\n";
}

}  // namespace apr
