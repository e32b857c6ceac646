#include "sentence.hpp"

#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <numeric>

#include "failure.hpp"
#include "safetensors.hpp"
#include "terminal.hpp"
#include "text.hpp"
#if defined(__APPLE__)
#include <mach-o/dyld.h>
#endif

namespace ingot::cli {
namespace {

namespace fs = std::filesystem;

// Neither [CLS] and [SEP] nor punctuation.
bool is_word(const std::string& token) {
  if (token.size() > 2 && token.starts_with('[') && token.ends_with(']')) return false;
  const auto letter = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 ||
           static_cast<unsigned char>(c) >= 0x80;
  };
  return std::any_of(token.begin(), token.end(), letter);
}

std::string metadata_of(const SafetensorsFile& file, const std::string& key) {
  const auto found = file.metadata().find(key);
  return found == file.metadata().end() ? "" : found->second;
}

std::vector<std::string> parse_tokens(const std::string& path, const std::string& text) {
  const auto list = nlohmann::json::parse(text, nullptr, false);
  std::vector<std::string> tokens;
  const auto is_text = [](const nlohmann::json& token) { return token.is_string(); };
  if (list.is_array() && std::all_of(list.begin(), list.end(), is_text)) {
    for (const auto& token : list) tokens.push_back(printable(token.get<std::string>()));
  }
  if (tokens.empty()) throw Failure(path + ": metadata tokens is not a JSON list of strings");
  return tokens;
}

void check(const std::string& path, const Sentence& s) {
  const std::int64_t count = static_cast<std::int64_t>(s.tokens.size());
  if (s.q.shape.size() != 4 || s.q.shape != s.k.shape || s.q.shape != s.v.shape ||
      s.q.shape[2] != count || element_count(s.q.shape) == 0) {
    throw Failure(path + ": q, k and v must be [layers, heads, " + std::to_string(count) +
                  " tokens, head_dim], q is " + shape_text(s.q.shape));
  }
  if (s.o && s.o->shape != s.q.shape) throw Failure(path + ": o must have the shape of q");
}

fs::path program_folder() {
#if defined(__APPLE__)
  char name[4096];
  std::uint32_t bytes = sizeof name;
  if (::_NSGetExecutablePath(name, &bytes) != 0) return {};
  const fs::path path = name;
#else
  const fs::path path = "/proc/self/exe";
#endif
  std::error_code error;
  return fs::canonical(path, error).parent_path();
}

const float* row_of(const Array& array, std::int64_t layer, std::int64_t head, std::int64_t token) {
  const std::int64_t offset =
      layer * array.strides[0] + head * array.strides[1] + token * array.strides[2];
  return reinterpret_cast<const float*>(array.data.get()) + offset;
}

// Indices of the words a row attends to, most first, without [CLS], [SEP] and punctuation.
std::vector<std::size_t> ranking(const Sentence& s, const Weights& weights, std::size_t row) {
  const std::size_t n = s.tokens.size();
  std::vector<std::size_t> order(n);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::erase_if(order, [&](std::size_t i) { return !is_word(s.tokens[i]); });
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    const double weight_a = weights[row * n + a], weight_b = weights[row * n + b];
    return weight_a > weight_b || (weight_a == weight_b && a < b);
  });
  return order;
}

std::string cell(double value, bool colour) {
  if (colour) {
    // Greys and blues of the 256-colour palette, dark for little.
    static const int shades[] = {234, 17, 18, 19, 25, 31, 38, 44, 80, 123};
    const auto level = static_cast<std::size_t>(std::clamp(std::sqrt(value) * 10, 0.0, 9.0));
    return "\033[48;5;" + std::to_string(shades[level]) + "m  \033[0m";
  }
  static const char* const blocks[] = {"··", "░░", "▒▒", "▓▓", "██"};
  return blocks[static_cast<std::size_t>(std::clamp(std::sqrt(value) * 5, 0.0, 4.0))];
}

}  // namespace

Sentence load_sentence(const std::string& path) {
  const SafetensorsFile file(path);
  Sentence s;
  s.q = converted(file.tensor("q"), INGOT_F32);
  s.k = converted(file.tensor("k"), INGOT_F32);
  s.v = converted(file.tensor("v"), INGOT_F32);
  if (file.contains("o")) s.o = converted(file.tensor("o"), INGOT_F32);
  s.tokens = parse_tokens(path, metadata_of(file, "tokens"));
  s.model = metadata_of(file, "model");
  s.text = metadata_of(file, "text");
  check(path, s);
  const std::string scale = metadata_of(file, "scale");
  const double usual = 1 / std::sqrt(static_cast<double>(s.q.shape[3]));
  char* end = nullptr;
  const double given = std::strtod(scale.c_str(), &end);
  s.scale = static_cast<float>(scale.empty() ? usual : given);
  if (!(s.scale > 0) || !std::isfinite(s.scale) || *end != '\0')
    throw Failure(path + ": metadata scale is not a number above 0");
  return s;
}

std::string default_sentence() {
  const fs::path name = "minilm.safetensors";
  const fs::path folder = program_folder();
  std::error_code error;
  // The tree that the program was built in, or what is installed with it; never a file that only
  // happens to be in the current folder.
  const bool in_build_folder = fs::exists(folder / "CMakeCache.txt", error);
  const fs::path data = folder / (in_build_folder ? "../../examples/data" : "../share/ingot");
  if (fs::exists(data / name, error)) return (data / name).lexically_normal().string();
  throw Failure("--data: minilm.safetensors is not in " + data.lexically_normal().string() +
                ", where the program is installed with it; name a file");
}

Weights head_weights(const Sentence& s, const Array& lse, std::int64_t layer, std::int64_t head) {
  const auto n = static_cast<std::int64_t>(s.tokens.size());
  const std::int64_t dim = s.q.shape[3];
  const auto* lse_row =
      reinterpret_cast<const float*>(lse.data.get()) + (layer * s.heads() + head) * n;
  Weights weights;
  for (std::int64_t i = 0; i < n; ++i) {
    const float* q = row_of(s.q, layer, head, i);
    for (std::int64_t j = 0; j < n; ++j) {
      const double dot = std::inner_product(q, q + dim, row_of(s.k, layer, head, j), 0.0);
      weights.push_back(
          std::exp(static_cast<double>(s.scale) * dot - static_cast<double>(lse_row[i])));
    }
  }
  return weights;
}

Weights mean_weights(const Sentence& s, const Array& lse) {
  Weights mean(s.tokens.size() * s.tokens.size(), 0.0);
  for (std::int64_t layer = 0; layer < s.layers(); ++layer) {
    for (std::int64_t head = 0; head < s.heads(); ++head) {
      const Weights weights = head_weights(s, lse, layer, head);
      for (std::size_t i = 0; i < mean.size(); ++i) {
        mean[i] += weights[i] / static_cast<double>(s.layers() * s.heads());
      }
    }
  }
  return mean;
}

HeadIndex most_focused(const Sentence& s, const Array& lse) {
  const std::size_t n = s.tokens.size();
  HeadIndex best;
  double best_focus = -1;
  for (std::int64_t i = 0; i < s.layers() * s.heads(); ++i) {
    const HeadIndex at{i / s.heads(), i % s.heads()};
    const Weights weights = head_weights(s, lse, at.layer, at.head);
    double focus = 0;
    for (std::size_t row = 0; row < n; ++row) {
      if (!is_word(s.tokens[row])) continue;
      for (const std::size_t col : ranking(s, weights, row)) {
        if (col == row || col + 1 == row || col == row + 1)
          continue;  // neighbours are no discovery
        focus += weights[row * n + col];
        break;
      }
    }
    if (focus > best_focus) best_focus = focus, best = at;
  }
  return best;
}

std::string picture(const Sentence& s, const Weights& weights, bool colour, std::size_t width) {
  constexpr std::size_t max_list = 40;
  const std::size_t n = s.tokens.size();
  std::size_t label = 0;
  for (const std::string& token : s.tokens) label = std::max(label, display_width(token));
  const bool fits = label + 1 + 2 * n <= width;
  const bool list_beside = label + 3 + 2 * n + max_list <= std::max<std::size_t>(width, 100);
  std::string text;
  for (std::size_t row = 0; row < n; ++row) {
    text += std::string(label - display_width(s.tokens[row]), ' ') + s.tokens[row] + ' ';
    for (std::size_t col = 0; col < n && (fits || list_beside); ++col)
      text += cell(weights[row * n + col], colour);
    const auto order = ranking(s, weights, row);
    for (std::size_t i = 0; i < std::min<std::size_t>(2, order.size()); ++i) {
      text += (i == 0 ? "  " : ", ") + s.tokens[order[i]] + ' ' +
              fixed(100 * weights[row * n + order[i]], 0) + " %";
    }
    text += '\n';
  }
  return text;
}

}  // namespace ingot::cli
