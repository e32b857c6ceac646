#include "svg.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include "terminal.hpp"
#include "text.hpp"

namespace ingot::cli {
namespace {

constexpr std::array<const char*, 4> colours{"#2f6fb7", "#e08a3c", "#4a9a6a", "#8a5fb0"};
constexpr const char* grey = "#57606a";
constexpr const char* faint = "#d8dee4";

std::string escaped(const std::string& text) {
  std::string result;
  for (const char c : printable(text)) {
    switch (c) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '"':
        result += "&quot;";
        break;
      default:
        result += c;
        break;
    }
  }
  return result;
}

std::string attribute(const char* name, double value) {
  return std::string(" ") + name + "=\"" + fixed(value, 1) + "\"";
}

// 1, 2 or 5 times a power of ten, so that the axis has four to ten marks.
double axis_step(double largest) {
  const double power = std::pow(10.0, std::floor(std::log10(largest)));
  for (const double factor : {0.1, 0.2, 0.5, 1.0, 2.0}) {
    if (largest / (factor * power) <= 8) return factor * power;
  }
  return power;
}

double largest_value(const BarChart& chart) {
  double largest = chart.limit;
  for (const auto& group : chart.groups) {
    for (const double value : group.values) largest = std::max(largest, value);
  }
  return largest > 0 ? largest : 1;
}

std::size_t longest_label(const std::vector<std::string>& labels) {
  std::size_t longest = 0;
  for (const std::string& label : labels) longest = std::max(longest, display_width(label));
  return longest;
}

// Where the parts of a bar chart lie, in pixels.
struct BarLayout {
  static constexpr double bar = 11, gap = 9, top = 92, plot_width = 560;
  double left, group_height, height, largest;

  explicit BarLayout(const BarChart& chart) : largest(1.06 * largest_value(chart)) {
    std::vector<std::string> labels;
    for (const auto& group : chart.groups) labels.push_back(group.label);
    left = 24 + 7.0 * static_cast<double>(longest_label(labels));
    group_height = bar * static_cast<double>(chart.series.size()) + gap;
    height = group_height * static_cast<double>(chart.groups.size());
  }
  double x(double value) const { return left + plot_width * value / largest; }
};

void draw_axis(Svg& svg, const BarChart& chart, const BarLayout& at) {
  const double bottom = at.top + at.height;
  const double step = axis_step(at.largest);
  const int digits = step < 1 ? static_cast<int>(std::ceil(-std::log10(step))) : 0;
  for (int i = 0; i * step <= at.largest; ++i) {
    svg.line(at.x(i * step), at.top, at.x(i * step), bottom, faint);
    svg.text(at.x(i * step), bottom + 16, fixed(i * step, digits), "middle", 11, 0, grey);
  }
  svg.text(at.left + BarLayout::plot_width / 2, bottom + 38, chart.axis, "middle");
  if (chart.limit <= 0) return;
  svg.line(at.x(chart.limit), at.top - 6, at.x(chart.limit), bottom, "#c0392b", true);
  svg.text(at.x(chart.limit), at.top - 10, chart.limit_label, "end", 11, 0, "#c0392b");
}

void draw_legend(Svg& svg, const BarChart& chart, double left) {
  for (std::size_t i = 0; i < chart.series.size(); ++i) {
    const double x = left + 80.0 * static_cast<double>(i);
    svg.rect(x, 58, 11, 11, colours[i % colours.size()]);
    svg.text(x + 16, 68, chart.series[i]);
  }
}

}  // namespace

Svg::Svg(double width, double height)
    : body_("<svg xmlns=\"http://www.w3.org/2000/svg\"" + attribute("width", width) +
            attribute("height", height) + " viewBox=\"0 0 " + fixed(width, 1) + " " +
            fixed(height, 1) + "\" font-family=\"system-ui, Helvetica, Arial, sans-serif\">\n") {
  rect(0, 0, width, height, "#ffffff");
}

void Svg::rect(double x, double y, double width, double height, const std::string& fill,
               const std::string& tooltip) {
  body_ += "<rect" + attribute("x", x) + attribute("y", y) + attribute("width", width) +
           attribute("height", height) + " fill=\"" + fill + "\"";
  body_ += tooltip.empty() ? "/>\n" : "><title>" + escaped(tooltip) + "</title></rect>\n";
}

void Svg::line(double x1, double y1, double x2, double y2, const std::string& stroke, bool dashed) {
  body_ += "<line" + attribute("x1", x1) + attribute("y1", y1) + attribute("x2", x2) +
           attribute("y2", y2) + " stroke=\"" + stroke + "\"" +
           (dashed ? " stroke-dasharray=\"5 3\"" : "") + "/>\n";
}

void Svg::text(double x, double y, const std::string& text, const std::string& anchor, double size,
               double angle, const std::string& fill) {
  body_ += "<text" + attribute("x", x) + attribute("y", y) + attribute("font-size", size) +
           " text-anchor=\"" + anchor + "\" fill=\"" + fill + "\"";
  if (angle != 0) {
    body_ +=
        " transform=\"rotate(" + fixed(angle, 0) + " " + fixed(x, 1) + " " + fixed(y, 1) + ")\"";
  }
  body_ += ">" + escaped(text) + "</text>\n";
}

std::string Svg::finish() const { return body_ + "</svg>\n"; }

std::string draw(const BarChart& chart) {
  const BarLayout at(chart);
  Svg svg(at.left + BarLayout::plot_width + 70, at.top + at.height + 56);
  svg.text(24, 28, chart.title, "start", 18);
  svg.text(24, 47, chart.subtitle, "start", 12, 0, grey);
  draw_axis(svg, chart, at);
  draw_legend(svg, chart, at.left);
  for (std::size_t g = 0; g < chart.groups.size(); ++g) {
    const BarChart::Group& group = chart.groups[g];
    const double top = at.top + BarLayout::gap / 2 + at.group_height * static_cast<double>(g);
    svg.text(at.left - 8, top + (at.group_height - BarLayout::gap) / 2 + 4, group.label, "end");
    for (std::size_t s = 0; s < group.values.size(); ++s) {
      if (group.values[s] < 0) continue;
      const double y = top + BarLayout::bar * static_cast<double>(s);
      const std::string value = fixed(group.values[s], group.values[s] < 10 ? 2 : 0);
      svg.rect(at.left, y, at.x(group.values[s]) - at.left, BarLayout::bar - 1,
               colours[s % colours.size()], group.label + ", " + chart.series[s] + ": " + value);
      svg.text(at.x(group.values[s]) + 4, y + 9, value, "start", 9, 0, grey);
    }
  }
  return svg.finish();
}

std::string shade(double value) {
  // The square root shows the small probabilities that most of a row is made of.
  const double t = std::sqrt(std::clamp(value, 0.0, 1.0));
  const auto mix = [t](double light, double dark) {
    return static_cast<int>(light + (dark - light) * t);
  };
  char text[8];
  std::snprintf(text, sizeof text, "#%02x%02x%02x", mix(247, 8), mix(251, 48), mix(255, 107));
  return text;
}

std::string draw(const HeatMap& map) {
  constexpr double cell = 18, top = 84;
  const std::size_t n = map.labels.size();
  const double side = cell * static_cast<double>(n);
  const double margin = 50 + 7.0 * static_cast<double>(longest_label(map.labels));
  Svg svg(std::max(margin + side + 90, 640.0), top + margin + side + 16);
  svg.text(24, 28, map.title, "start", 18);
  svg.text(24, 48, map.subtitle, "start", 12, 0, grey);
  const double y0 = top + margin - 24;
  svg.text(margin + side / 2, 74, map.column_axis, "middle", 12, 0, grey);
  svg.text(20, y0 + side / 2, map.row_axis, "middle", 12, -90, grey);
  for (std::size_t i = 0; i < n; ++i) {
    const double offset = cell * static_cast<double>(i);
    svg.text(margin - 6, y0 + offset + 13, map.labels[i], "end", 11);
    svg.text(margin + offset + 13, y0 - 6, map.labels[i], "start", 11, -90);
    for (std::size_t j = 0; j < n; ++j) {
      const double value = map.values[i * n + j];
      svg.rect(margin + cell * static_cast<double>(j), y0 + offset, cell - 1, cell - 1,
               shade(value),
               map.labels[i] + " to " + map.labels[j] + ": " + fixed(100 * value, 1) + " %");
    }
  }
  const double x = margin + side + 24;
  for (int i = 0; i <= 10; ++i) svg.rect(x, y0 + 10 * (10 - i), 14, 10, shade(i / 10.0));
  svg.text(x + 20, y0 + 9, "100 %", "start", 10, 0, grey);
  svg.text(x + 20, y0 + 109, "0 %", "start", 10, 0, grey);
  return svg.finish();
}

}  // namespace ingot::cli
