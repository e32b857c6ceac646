// A small test frame: one program per file, TEST(name) { ... }, REQUIRE(condition).
#pragma once

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace check {

struct Test {
  const char* name;
  void (*run)();
};

inline std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}

inline int& failures() {
  static int count = 0;
  return count;
}

struct Registration {
  Registration(const char* name, void (*run)()) { tests().push_back({name, run}); }
};

inline void require(bool condition, const char* what, const char* file, int line) {
  if (!condition) {
    std::printf("%s:%d: failed: %s\n", file, line, what);
    ++failures();
  }
}

}  // namespace check

#define TEST(name)                                                             \
  static void test_##name();                                                   \
  static const ::check::Registration registration_##name(#name, &test_##name); \
  static void test_##name()

#define REQUIRE(condition) \
  ::check::require(static_cast<bool>(condition), #condition, __FILE__, __LINE__)

// Runs the tests whose names contain the first argument (all without one).
int main(int count, char** arguments) {
  int run = 0;
  for (const check::Test& test : check::tests()) {
    if (count > 1 && std::strstr(test.name, arguments[1]) == nullptr) {
      continue;
    }
    const int before = check::failures();
    test.run();
    ++run;
    std::printf("%s %s\n", check::failures() == before ? "passed" : "FAILED", test.name);
  }
  std::printf("%d tests, %d failures\n", run, check::failures());
  return check::failures() == 0 && run > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
