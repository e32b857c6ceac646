#include "cuda/tuned_table.hpp"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <span>
#include <sstream>

#include "core/environment.hpp"
#include "core/error.hpp"
#include "core/kernel_cache.hpp"
#include "core/regular_file.hpp"

namespace ingot::cuda {
namespace {

constexpr std::int64_t rows_of_warpgroup = 64, mma_columns = 16;
constexpr off_t most_bytes = 1 << 20;  // thousands of rows

std::string_view trimmed(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(" \t\r");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r") - begin + 1);
}

/// The next part of a line, up to '|'; `line` keeps the rest.
std::string_view take_part(std::string_view& line) {
  const std::size_t length = std::min(line.find('|'), line.size());
  const std::string_view part = trimmed(line.substr(0, length));
  line.remove_prefix(std::min(length + 1, line.size()));
  return part;
}

[[noreturn]] void fail(const std::string& text) { throw Error(Code::invalid_argument, text); }

std::string text_of(bool value) { return value ? "true" : "false"; }
std::string text_of(std::int64_t value) { return std::to_string(value); }
std::string text_of(TypeName value) { return std::string(value.name); }
std::string text_of(std::string_view value) { return std::string(value); }

bool matches(const Config& config, const std::string& name, const std::string& wanted) {
  bool found = false;
  config.visit([&](std::string_view field, const auto& value) {
    if (field == name) found = text_of(value) == wanted;
  });
  return found;
}

/// The fields that a row may set, within bounds that every kernel can be built with.
struct Tunable {
  std::string_view name;
  std::int64_t Config::* field;
  std::int64_t least, most, multiple;
};
constexpr Tunable tunables[] = {
    {"block_n", &Config::block_n, 16, 256, mma_columns},
    {"warpgroups", &Config::warpgroups, 1, 3, 1},
    {"stages", &Config::stages, 2, 8, 1},
    {"cluster", &Config::cluster, 1, 2, 1},
};

std::int64_t number_of(const std::string& name, const std::string& value) {
  std::int64_t number = 0;
  const char* end = value.data() + value.size();
  const auto [stop, error] = std::from_chars(value.data(), end, number);
  if (error != std::errc() || stop != end) fail(name + " must be a number, is " + value);
  return number;
}

void set(Config& config, const std::string& name, const std::string& value) {
  if (name == "ordered") {
    if (value != "true" && value != "false") fail("ordered must be true or false, is " + value);
    config.ordered = value == "true";
    return;
  }
  const auto* const tunable = std::ranges::find(tunables, name, &Tunable::name);
  if (tunable == std::end(tunables)) fail("a row cannot set " + name);
  const std::int64_t number = number_of(name, value);
  if (number < tunable->least || number > tunable->most || number % tunable->multiple != 0) {
    fail(name + " must be a multiple of " + std::to_string(tunable->multiple) + " from " +
         std::to_string(tunable->least) + " to " + std::to_string(tunable->most) + ", is " + value);
  }
  config.*tunable->field = number;
}

std::string file_of_this_user(const std::string& chosen) {
  if (!chosen.empty()) return chosen == "off" ? "" : chosen;
  const std::filesystem::path folder = DiskCache::default_folder();
  return folder.empty() ? "" : (folder / "tuning" / "cuda.txt").string();
}

/// The text of a file of sensible size. Throws where there is none.
std::string read_text(const std::string& path) {
  const RegularFile file = open_regular_file(AT_FDCWD, path.c_str());
  if (!file) fail(errno == EINVAL ? "is no regular file" : std::strerror(errno));
  if (file.status.st_size > most_bytes) {
    fail("must be at most " + std::to_string(most_bytes) + " bytes, is " +
         std::to_string(file.status.st_size));
  }
  std::string text(static_cast<std::size_t>(file.status.st_size), '\0');
  if (!read_fully(file, std::as_writable_bytes(std::span(text)))) fail("cannot be read");
  return text;
}

}  // namespace

TunedTable::Row TunedTable::parse_row(std::string_view line, std::string_view gpu,
                                      bool& is_for_gpu) {
  is_for_gpu = take_part(line) == gpu;
  const auto fields_of = [](std::istringstream& words) {
    Fields fields;
    for (std::string word; words >> word;) {
      const std::size_t equals = word.find('=');
      if (equals == std::string::npos) fail("must be name=value: " + word);
      fields.emplace_back(word.substr(0, equals), word.substr(equals + 1));
    }
    return fields;
  };
  Row row;
  std::istringstream match_words{std::string(take_part(line))};
  match_words >> row.kernel;
  row.matches = fields_of(match_words);
  std::istringstream set_words{std::string(take_part(line))};
  row.sets = fields_of(set_words);
  if (row.kernel.empty() || row.sets.empty()) fail("must be GPU | kernel fields | fields");
  Config trial;
  for (const auto& [name, value] : row.sets) set(trial, name, value);
  return row;
}

TunedTable TunedTable::parse(std::string_view text, std::string_view gpu) {
  TunedTable table;
  for (int number = 1; !text.empty(); ++number) {
    const std::size_t length = std::min(text.find('\n'), text.size());
    const std::string_view line = trimmed(text.substr(0, length));
    text.remove_prefix(std::min(length + 1, text.size()));
    if (line.empty() || line.front() == '#') continue;
    try {
      bool is_for_gpu = false;
      Row row = parse_row(line, gpu, is_for_gpu);
      if (is_for_gpu) table.rows_.push_back(std::move(row));
    } catch (const Error& error) {
      table.rows_.clear();
      table.complaint_ = "line " + std::to_string(number) + ": " + error.what();
      break;
    }
  }
  return table;
}

TunedTable TunedTable::load(std::string_view gpu) {
  const std::string chosen = environment("INGOT_CUDA_TUNING");
  const std::string path = file_of_this_user(chosen);
  if (path.empty() || (chosen.empty() && ::access(path.c_str(), F_OK) != 0)) return {};
  TunedTable table;
  try {
    table = parse(read_text(path), gpu);
  } catch (const Error& error) {
    table.complaint_ = error.what();
  }
  table.file_ = path;
  return table;
}

bool TunedTable::apply(Config& config) const {
  const auto fits = [&](const Row& row) {
    return row.kernel == config.kernel && std::ranges::all_of(row.matches, [&](const auto& field) {
             return matches(config, field.first, field.second);
           });
  };
  const auto row = std::find_if(rows_.rbegin(), rows_.rend(), fits);
  if (row == rows_.rend()) return false;
  for (const auto& [name, value] : row->sets) set(config, name, value);
  if (config.warpgroups > 0 && !config.wide) {
    config.block_m = rows_of_warpgroup * config.warpgroups;
  }
  return true;
}

}  // namespace ingot::cuda
