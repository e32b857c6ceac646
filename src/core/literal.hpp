// Literals: the members of a kernel's generated `struct Config`, in the order of Config::visit.
#pragma once

#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace ingot {

/// A type of the kernel's language, by name: `half`, `__nv_bfloat16`.
struct TypeName {
  std::string_view name;

  bool operator==(const TypeName&) const = default;
};

struct Literal {
  std::string name;
  std::variant<bool, std::int64_t, TypeName, std::string> value;  ///< a string becomes a comment

  bool operator==(const Literal&) const = default;
};

/// The literals of any configuration with a visit(f) that calls f(name, value).
template <class Config>
std::vector<Literal> literals_of(const Config& config) {
  std::vector<Literal> literals;
  config.visit([&](std::string_view name, const auto& value) {
    using Value = std::remove_cvref_t<decltype(value)>;
    Literal literal{std::string(name), {}};
    if constexpr (std::same_as<Value, bool> || std::same_as<Value, TypeName>) {
      literal.value = value;
    } else if constexpr (std::integral<Value>) {
      literal.value = static_cast<std::int64_t>(value);
    } else {
      literal.value = std::string(value);
    }
    literals.push_back(std::move(literal));
  });
  return literals;
}

}  // namespace ingot
