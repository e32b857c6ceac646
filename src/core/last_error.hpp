// The text of ingot_last_error(), one for every thread. Keeping it never fails: a text that no
// memory can be had for is cut short.
#pragma once

namespace ingot {

void set_last_error(const char* message) noexcept;
const char* last_error() noexcept;

}  // namespace ingot
