// What figures depend on, printed and written beside them.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace ingot::cli {

std::string cpu_model();  ///< "unknown" where the system does not say
std::string utc_date();   ///< "2026-01-31T12:00:00Z"

/// {"cpu", "threads", "version", "date", "compiler"}
nlohmann::json environment(int threads);

}  // namespace ingot::cli
