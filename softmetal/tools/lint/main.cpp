// softmetal-lint [-std=3.1] [-D NAME=VALUE] FILE...: what Apple's compiler would object to.

#include <cstdio>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "msl/lint.hpp"

namespace {

using softmetal::msl::CompileOptions;

int usage() {
  std::fputs("usage: softmetal-lint [-std=3.1] [-DNAME=VALUE] FILE...\n", stderr);
  return 2;
}

int lint_file(const std::string& path, const CompileOptions& options) {
  std::ifstream in(path);
  if (!in) {
    std::fprintf(stderr, "softmetal-lint: cannot read %s\n", path.c_str());
    return 2;
  }
  std::ostringstream text;
  text << in.rdbuf();
  const auto found = softmetal::msl::lint(text.str(), options);
  for (const auto& d : found) {
    const std::string& file = d.file == "program_source" ? path : d.file;
    std::printf("%s:%d: %s\n", file.c_str(), d.line, d.text.c_str());
  }
  return found.empty() ? 0 : 1;
}

}  // namespace

int main(int count, char** arguments) {
  CompileOptions options;
  std::vector<std::string> files;
  for (int i = 1; i < count; ++i) {
    const std::string a = arguments[i];
    if (a.rfind("-std=", 0) == 0) {
      options.language_version = a.substr(5);
    } else if (a.rfind("-D", 0) == 0 && a.size() > 2) {
      const std::size_t equals = a.find('=');
      options.macros.emplace_back(a.substr(2, equals == std::string::npos ? equals : equals - 2),
                                  equals == std::string::npos ? "1" : a.substr(equals + 1));
    } else if (a[0] == '-') {
      return usage();
    } else {
      files.push_back(a);
    }
  }
  if (files.empty()) return usage();
  int worst = 0;
  try {
    for (const auto& f : files) worst = std::max(worst, lint_file(f, options));
  } catch (const std::exception& e) {
    std::fprintf(stderr, "softmetal-lint: %s\n", e.what());
    return 2;
  }
  return worst;
}
