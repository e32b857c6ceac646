// Pictures as SVG text: a canvas, and the two charts the program draws.
#pragma once

#include <string>
#include <vector>

namespace ingot::cli {

class Svg {
 public:
  Svg(double width, double height);
  void rect(double x, double y, double width, double height, const std::string& fill,
            const std::string& tooltip = "");
  void line(double x1, double y1, double x2, double y2, const std::string& stroke,
            bool dashed = false);
  /// anchor: start, middle or end. angle in degrees, clockwise, about (x, y).
  void text(double x, double y, const std::string& text, const std::string& anchor = "start",
            double size = 12, double angle = 0, const std::string& fill = "#24292f");
  std::string finish() const;

 private:
  std::string body_;
};

/// Groups of horizontal bars, one series a colour, over one axis that starts at 0.
struct BarChart {
  struct Group {
    std::string label;
    std::vector<double> values;  ///< one a series; negative: there is none
  };
  std::string title, subtitle, axis;
  std::vector<std::string> series;
  std::vector<Group> groups;
  double limit = 0;  ///< a vertical line, 0: none
  std::string limit_label;
};
std::string draw(const BarChart& chart);

/// A matrix of values from 0 to 1 with a label for each row and column.
struct HeatMap {
  std::string title, subtitle, row_axis, column_axis;
  std::vector<std::string> labels;
  std::vector<double> values;  ///< [labels, labels], a row after the other
};
std::string draw(const HeatMap& map);

/// Light to dark blue for 0 to 1, "#rrggbb".
std::string shade(double value);

}  // namespace ingot::cli
