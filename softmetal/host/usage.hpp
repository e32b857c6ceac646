// Which messages the program has sent: SOFTMETAL_SELECTORS=FILE writes them when it ends, newest
// macOS first, so that the first line says what system the program needs.
#pragma once

#include <string>

#include "environment.hpp"

namespace softmetal {

bool lists_messages();
void note_message(const std::string& name, OsVersion since);
void write_messages();

// "14.0", or "always".
std::string version_name(OsVersion version);

}  // namespace softmetal
