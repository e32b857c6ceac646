// The functions and types of the Metal Shading Language and the version that first had each.
#pragma once

#include <string_view>

namespace softmetal::msl {

/// "1.0" and so on; empty when the language has no function of that name.
std::string_view function_since(std::string_view name);
/// The same for types, attributes and other names; empty for names that are not newer than 2.0.
std::string_view name_since(std::string_view name);

}  // namespace softmetal::msl
