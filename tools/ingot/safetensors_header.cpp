#include "safetensors_header.hpp"

#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "failure.hpp"
#include "text.hpp"

namespace ingot::cli {
namespace {

using nlohmann::json;

constexpr std::size_t max_rank = 64;

[[noreturn]] void fail(const std::string& what) {
  throw Failure("bad safetensors header: " + what);
}

/// Events of the parser. Values are taken as they come, so that neither a second reading nor a tree
/// of the whole header is needed: it may be 100 MB.
class Reader {
 public:
  SafetensorsHeader header;

  bool null() { return scalar("null"); }
  bool boolean(bool value) { return scalar(value ? "true" : "false"); }
  bool number_float(double, const std::string& text) { return scalar(text); }
  bool binary(std::vector<std::uint8_t>&) { return false; }  // not of JSON

  bool number_integer(std::int64_t value) {
    return scalar(value == 0 ? "-0" : std::to_string(value));  // without a sign it is unsigned
  }

  bool number_unsigned(std::uint64_t value) {
    if (list_ == nullptr || value > INT64_MAX) return scalar(std::to_string(value));
    if (list_->size() == max_rank) fail(where() + " has more than 64 numbers");
    list_->push_back(static_cast<std::int64_t>(value));
    return true;
  }

  bool string(std::string& text) {
    if (level() == Level::metadata) {
      header.metadata[key_] = text;
    } else if (level() == Level::tensor && key_ == "dtype") {
      dtype_ = text;
    } else {
      scalar(text);
    }
    return true;
  }

  bool key(std::string& text) {
    if (level() == Level::header) {
      name_ = text;
      const bool again = name_ == "__metadata__" ? has_metadata_ : header.tensors.contains(name_);
      if (again) fail("tensor " + quote(name_) + " appears twice");
      return true;
    }
    key_ = text;
    if (level() == Level::metadata && header.metadata.contains(key_)) {
      fail("metadata " + quote(key_) + " appears twice");
    }
    const bool again = (key_ == "dtype" && dtype_) || (key_ == "shape" && shape_) ||
                       (key_ == "data_offsets" && offsets_);
    if (level() == Level::tensor && again) fail(where() + " appears twice");
    return true;
  }

  bool start_object(std::size_t) {
    if (levels_.empty()) {
      levels_.push_back(Level::header);
    } else if (level() == Level::header && name_ == "__metadata__") {
      has_metadata_ = true;
      levels_.push_back(Level::metadata);
    } else if (level() == Level::header) {
      levels_.push_back(Level::tensor);
    } else {
      start_other();
    }
    return true;
  }

  bool start_array(std::size_t) {
    if (levels_.empty()) return false;
    start_other();
    if (levels_[levels_.size() - 2] != Level::tensor) return true;
    if (key_ == "shape") list_ = &shape_.emplace();
    if (key_ == "data_offsets") list_ = &offsets_.emplace();
    return true;
  }

  bool end_object() {
    if (level() == Level::tensor) add_tensor();
    return end_array();
  }

  bool end_array() {
    list_ = nullptr;
    levels_.pop_back();
    // Neither a tensor nor metadata: what came within was read to find deeper nesting first.
    if (!levels_.empty() && level() == Level::header && !header.tensors.contains(name_) &&
        !(name_ == "__metadata__" && has_metadata_)) {
      not_an_object();
    }
    return true;
  }

  bool parse_error(std::size_t, const std::string&, const json::exception&) { return false; }

 private:
  enum class Level { header, metadata, tensor, other };

  Level level() const { return levels_.empty() ? Level::other : levels_.back(); }

  std::string where() const { return key_ + " of tensor " + quote(name_); }

  void start_other() {
    constexpr std::size_t deepest = 3;
    if (levels_.size() == deepest) fail("nested deeper than the format allows");
    if (level() == Level::metadata) not_a_string();
    levels_.push_back(Level::other);
  }

  [[noreturn]] void not_an_object() const {
    fail((name_ == "__metadata__" ? name_ : quote(name_)) + " is not an object");
  }
  [[noreturn]] void not_a_string() const { fail("metadata " + quote(key_) + " is not a string"); }

  // A value that is none of those a header has; of keys that it does not know, all are left out.
  bool scalar(const std::string& text) {
    if (list_ != nullptr) fail(where() + " holds " + quote(text) + ", not a size");
    if (level() == Level::header) not_an_object();
    if (level() == Level::metadata) not_a_string();
    if (level() == Level::tensor && key_ == "dtype") fail(where() + " is not a string");
    if (level() == Level::tensor && (key_ == "shape" || key_ == "data_offsets")) {
      fail(where() + " is not a list");
    }
    return !levels_.empty();
  }

  void add_tensor() {
    const std::string of = " of tensor " + quote(name_);
    if (!dtype_) fail("dtype" + of + " is not a string");
    if (!shape_) fail("shape" + of + " is not a list");
    if (!offsets_) fail("data_offsets" + of + " is not a list");
    if (offsets_->size() != 2 || offsets_->at(0) > offsets_->at(1)) {
      fail("data_offsets" + of + " are not [begin, end]");
    }
    header.tensors[name_] = {*std::exchange(dtype_, {}), *std::exchange(shape_, {}),
                             offsets_->at(0), offsets_->at(1)};
    offsets_.reset();
  }

  std::vector<Level> levels_;
  std::string name_, key_;
  std::optional<std::string> dtype_;
  std::optional<Shape> shape_, offsets_;
  Shape* list_ = nullptr;  ///< where numbers go
  bool has_metadata_ = false;
};

}  // namespace

SafetensorsHeader parse_safetensors_header(std::string_view text) {
  // The parser takes a byte order mark at the start, and a NUL for the end.
  if (!text.starts_with('{')) fail("not a JSON object that starts with '{'");
  if (text.find('\0') != std::string_view::npos) fail("holds a NUL byte");
  Reader reader;
  if (!json::sax_parse(text, &reader)) fail("not a JSON object");
  return std::move(reader.header);
}

std::string quote(const std::string& name) {
  constexpr std::size_t most = 60;
  return "'" + printable(name.substr(0, most)) + (name.size() > most ? "...'" : "'");
}

}  // namespace ingot::cli
