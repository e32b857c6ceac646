// The context switch by itself. Needs nothing but exec/fiber.cpp, so it also runs where no kernel
// can be compiled, for example under an emulator of another machine.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "../exec/fiber.hpp"

namespace {

using softmetal::exec::Context;
using softmetal::exec::Stack;

constexpr std::size_t kStackBytes = 64 * 1024;
int failures = 0;

void expect(bool ok, const char* what, int line) {
  if (ok) return;
  ++failures;
  std::printf("exec_fiber_test.cpp:%d: FAILED: %s\n", line, what);
}
#define EXPECT(condition) expect((condition), #condition, __LINE__)

/// A ring of fibers that run in turn; the last one of a round goes back to the main context.
struct Ring {
  Context main;
  std::vector<std::unique_ptr<Stack>> stacks;
  std::vector<Context> contexts;
  std::size_t current = 0;
  std::vector<std::uint64_t> sums;
  int rounds = 0;

  void next() {
    const std::size_t from = current;
    if (from + 1 == contexts.size()) {
      softmetal::exec::switch_context(contexts[from], main);
    } else {
      current = from + 1;
      softmetal::exec::switch_context(contexts[from], contexts[current]);
    }
  }
};

/// Twelve integers and twelve floating point numbers that live across every switch, more than a
/// machine keeps in registers of one kind.
void body(void* argument) {
  Ring& ring = *static_cast<Ring*>(argument);
  const std::size_t me = ring.current;
  softmetal::exec::arrived(ring.contexts[me]);
  alignas(32) char aligned[32];
  EXPECT(reinterpret_cast<std::uintptr_t>(&aligned) % 32 == 0);
  std::uint64_t n[12];
  double d[12];
  for (std::uint64_t i = 0; i < 12; ++i) {
    n[i] = me * 100 + i;
    d[i] = static_cast<double>(n[i]) * 0.5;
  }
  for (int round = 0; round < ring.rounds; ++round) {
    for (std::uint64_t i = 0; i < 12; ++i) {
      n[i] += i + 1;
      d[i] += 0.25;
    }
    ring.next();
    EXPECT(ring.current == me);
  }
  std::uint64_t sum = 0;
  for (std::uint64_t i = 0; i < 12; ++i) {
    const auto rounds = static_cast<std::uint64_t>(ring.rounds);
    sum += n[i] == me * 100 + i + rounds * (i + 1);
    sum += d[i] == static_cast<double>(me * 100 + i) * 0.5 + 0.25 * ring.rounds;
  }
  ring.sums[me] = sum;
  for (;;) ring.next();
}

/// Enters the ring at its first fiber and comes back when the last one has had its turn.
void go_round(Ring& ring) {
  ring.current = 0;
  softmetal::exec::switch_context(ring.main, ring.contexts[0]);
}

void registers_survive(std::size_t fibers, int rounds) {
  Ring ring;
  ring.rounds = rounds;
  ring.sums.resize(fibers);
  softmetal::exec::adopt_thread(ring.main);
  for (std::size_t i = 0; i < fibers; ++i) {
    ring.stacks.push_back(std::make_unique<Stack>(kStackBytes, 13 * 64 * i));
    ring.contexts.push_back(ring.stacks.back()->prepare(&body, &ring));
  }
  double own = 0.125;
  for (int round = 0; round <= rounds; ++round) {
    go_round(ring);
    own += 1;
  }
  EXPECT(own == 0.125 + rounds + 1);
  for (const std::uint64_t sum : ring.sums) EXPECT(sum == 24);
}

/// Uses most of a stack, returns, and uses it again after it was prepared anew.
__attribute__((noinline)) std::uint64_t deep(std::uint64_t depth) {
  volatile std::uint64_t here[16];
  for (auto& h : here) h = depth;
  return depth == 0 ? 0 : here[depth % 16] + deep(depth - 1);
}

struct Once {
  Context main, self;
  std::uint64_t result = 0;
};

void deep_body(void* argument) {
  Once& once = *static_cast<Once*>(argument);
  softmetal::exec::arrived(once.self);
  once.result = deep(100);
  softmetal::exec::leave_context(once.self, once.main);
}

void stacks_are_used_again() {
  Stack stack(kStackBytes, 0);
  Once once;
  softmetal::exec::adopt_thread(once.main);
  for (int i = 0; i < 1000; ++i) {
    once.result = 0;
    once.self = stack.prepare(&deep_body, &once);
    softmetal::exec::switch_context(once.main, once.self);
    EXPECT(once.result == 5050);
  }
}

void a_guard_page_lies_below() {
  Stack stack(kStackBytes, 0);
  int outside = 0;
  EXPECT(!stack.guards(&outside));
  Once once;
  const Context context = stack.prepare(&deep_body, &once);
  const auto* top = static_cast<const char*>(context.sp);
  bool found = false;
  for (std::size_t down = 0; down < 4 * kStackBytes && !found; down += 1024) {
    found = stack.guards(top - down);
    if (found) EXPECT(down + 1024 >= kStackBytes);
  }
  EXPECT(found);
}

}  // namespace

int main() {
  registers_survive(1, 10);
  registers_survive(2, 10);
  registers_survive(100, 50);
  stacks_are_used_again();
  a_guard_page_lies_below();
  std::puts(failures == 0 ? "ok" : "failed");
  return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
