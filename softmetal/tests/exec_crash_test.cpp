// Kernels that crash take the program down with a line that names them. Each crash runs in a
// process of its own: this program, started again with the crash's name.
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>

#include "msl_harness.hpp"

extern char** environ;

namespace softmetal::test {
namespace {

struct Crash {
  const char* name;
  bool checked;
  const char* body;
  int signal;
  std::vector<const char*> says;
};

const Crash kCrashes[] = {
    {"wild",
     false,
     "if (i == 37) *(device int*)(0x123456780ul) = i;",
     SIGSEGV,
     {"kernel 'k' touched memory that is not its own: thread (5,0,0) of threadgroup (1,0,0)",
      "run it again with checks"}},
    {"null", false, "if (i == 3) none[0] = i;", SIGSEGV, {"thread (3,0,0) of threadgroup (0,0,0)"}},
    {"far",
     false,
     "if (i == 64) out[1ul << 44] = 1;",
     SIGSEGV,
     {"thread (0,1,0) of threadgroup (0,0,0)"}},
#if defined(__x86_64__)  // other machines divide by zero without a fault
    {"division",
     false,
     "out[i] = 5 / (in[0] + int(i) - int(i));",
     SIGFPE,
     {"divided an integer by zero"}},
    {"division_checked",
     true,
     "out[i] = in[1];\n out[i] = 5 / in[0];",
     SIGFPE,
     {"divided an integer by zero: thread (0,0,0)", "behind the access at program_source:"}},
#endif
    {"recursion", false, "out[i] = down(1, in[1]);", SIGSEGV, {"used up a thread's stack"}},
};

std::string text_of(const Crash& crash) {
  return kHeader + R"(
int down(int n, int step) { return n == 0 ? 0 : (down(n + step, step) * 3) ^ n; }
kernel void k(device int* out [[buffer(0)]], device const int* in [[buffer(1)]],
              device int* none [[buffer(2)]], uint2 at [[thread_position_in_grid]],
              uint2 size [[threads_per_grid]]) {
  const uint i = at.y * size.x + at.x;
)" + crash.body +
         "\n}\n";
}

void run(const Crash& crash, int threads_y) {
  Program p(text_of(crash), "k", {}, crash.checked);
  std::vector<int> out(256), in{0, 1, 0, 0};
  p.options.workers = 1;
  p.options.step_budget = 0;
  p.buffer(0, out).buffer(1, in).groups({2}, {32, static_cast<std::uint32_t>(threads_y)});
}

struct Outcome {
  int status;
  std::string text;
};

Outcome child(const char* name) {
  int ends[2];
  if (pipe(ends) != 0) return {0, ""};
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO);
  posix_spawn_file_actions_addclose(&actions, ends[0]);
  std::string self = "exec_crash_test", argument = name;
  char* arguments[] = {self.data(), argument.data(), nullptr};
  pid_t pid = 0;
  posix_spawn(&pid, "/proc/self/exe", &actions, nullptr, arguments, environ);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  Outcome outcome{0, ""};
  char chunk[512];
  for (ssize_t n = 0; (n = read(ends[0], chunk, sizeof chunk)) > 0;) {
    outcome.text.append(chunk, static_cast<std::size_t>(n));
  }
  close(ends[0]);
  waitpid(pid, &outcome.status, 0);
  return outcome;
}

void check(const Crash& crash) {
  const Outcome outcome = child(crash.name);
  const std::string what = std::string(crash.name) + ": " + outcome.text;
  expect(WIFSIGNALED(outcome.status) && WTERMSIG(outcome.status) == crash.signal, what, __FILE__,
         __LINE__);
  expect(outcome.text.find("softmetal: error [kernel-crash] kernel 'k'") != std::string::npos, what,
         __FILE__, __LINE__);
  for (const char* part : crash.says) {
    expect(outcome.text.find(part) != std::string::npos, what + " lacks: " + part, __FILE__,
           __LINE__);
  }
}

// A handler that the program had installed before still gets the faults of the program.
void faults_elsewhere_go_where_they_went() {
  const Outcome outcome = child("host");
  EXPECT(WIFEXITED(outcome.status) && WEXITSTATUS(outcome.status) == 42);
  EXPECT(outcome.text.find("kernel-crash") == std::string::npos);
}

[[noreturn]] void crash_of_the_program() {
  struct sigaction action{};
  action.sa_handler = [](int) { _exit(42); };
  sigaction(SIGSEGV, &action, nullptr);
  static const Crash kNone{"none", false, "out[i] = 1;", 0, {}};
  run(kNone, 1);
  raise(SIGSEGV);
  _exit(0);
}

}  // namespace
}  // namespace softmetal::test

int main(int count, char** arguments) {
  using namespace softmetal::test;
  if (count > 1) {
    if (std::strcmp(arguments[1], "host") == 0) crash_of_the_program();
    for (const Crash& crash : kCrashes) {
      if (std::strcmp(arguments[1], crash.name) == 0) run(crash, 2);
    }
    return 0;
  }
  for (const Crash& crash : kCrashes) check(crash);
  faults_elsewhere_go_where_they_went();
  return report();
}
