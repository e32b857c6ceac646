// softmetal-selectors: the messages that softmetal answers and the macOS version each needs.
//   softmetal-selectors             the whole table: class, selector, minimum macOS
//   softmetal-selectors 14.0        only those that are missing on macOS 14.0
#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "runtime.hpp"
#include "usage.hpp"

namespace {

struct Row {
  std::string name;
  softmetal::OsVersion since;
};

std::vector<Row> all_rows() {
  std::vector<Row> rows;
  for (const softmetal::Class* type : softmetal::all_classes()) {
    for (const auto& [selector, method] : type->instance_methods) {
      rows.push_back({"-[" + type->name + " " + selector->name + "]", method.since});
    }
    for (const auto& [selector, method] : type->class_methods) {
      rows.push_back({"+[" + type->name + " " + selector->name + "]", method.since});
    }
  }
  std::sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) { return a.name < b.name; });
  return rows;
}

}  // namespace

int main(int count, char** arguments) {
  softmetal::OsVersion system;
  if (count > 2 ||
      (count == 2 && std::sscanf(arguments[1], "%d.%d", &system.major, &system.minor) < 1)) {
    std::fprintf(stderr, "usage: softmetal-selectors [MACOS_VERSION]\n");
    return 2;
  }
  for (const Row& row : all_rows()) {
    if (count == 1 || row.since > system) {
      std::printf("%-7s %s\n", softmetal::version_name(row.since).c_str(), row.name.c_str());
    }
  }
  return 0;
}
