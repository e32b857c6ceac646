// Random schedules: what they show of programs that lack synchronisation, and that they leave
// correct programs alone.
#include <set>

#include "msl_harness.hpp"

namespace softmetal::test {
namespace {

// Threads of a grid add to one number; `increment` says how.
std::string adding(const char* increment) {
  return kHeader +
         "kernel void add(device uint* sum [[buffer(0)]], device atomic_uint* exact "
         "[[buffer(1)]],\n"
         "                uint i [[thread_position_in_grid]]) {\n  " +
         increment + "\n}\n";
}

std::vector<unsigned> add(const std::string& text, std::uint64_t seed) {
  Program p(text, "add");
  std::vector<unsigned> sum(1), exact(1);
  p.options.schedule_seed = seed;
  p.options.workers = 1;
  p.options.races = false;  // the race would be a finding; here it is to be seen in the numbers
  EXPECT_CLEAN(p.buffer(0, sum).buffer(1, exact).groups({4}, {64}));
  return {sum[0], exact[0]};
}

void lost_updates_show() {
  const std::string text = adding("sum[0] = sum[0] + 1;");
  EXPECT(add(text, 0)[0] == 256);  // in order, the bug does not show
  std::set<unsigned> results;
  for (std::uint64_t seed = 1; seed <= 8; ++seed) {
    const unsigned result = add(text, seed)[0];
    EXPECT(result < 256);
    EXPECT(add(text, seed)[0] == result);  // the same seed, the same schedule
    results.insert(result);
  }
  EXPECT(results.size() > 2);
}

void atomic_updates_are_exact() {
  const std::string text = adding("atomic_fetch_add_explicit(exact, 1u, memory_order_relaxed);");
  for (std::uint64_t seed = 0; seed < 8; ++seed) EXPECT(add(text, seed)[1] == 256);
}

// A check and an act that are atomic each, but not together: several threads find the number below
// the limit before any has raised it.
void torn_check_and_act_shows() {
  const std::string text = adding(
      "if (atomic_load_explicit(exact, memory_order_relaxed) < 10)\n"
      "    atomic_fetch_add_explicit(exact, 1u, memory_order_relaxed);");
  EXPECT(add(text, 0)[1] == 10);
  bool over = false;
  for (std::uint64_t seed = 1; seed <= 8; ++seed) over |= add(text, seed)[1] > 10;
  EXPECT(over);
}

// Threads of one simdgroup that rely on running in step: lanes hand a value to their neighbour
// without simdgroup_barrier.
void missing_simdgroup_barrier_shows() {
  const auto run = [](const char* barrier, std::uint64_t seed) {
    Program p(kHeader +
                  "kernel void pass(device uint* out [[buffer(0)]],\n"
                  "                 uint i [[thread_index_in_threadgroup]]) {\n"
                  "  threadgroup uint x[32];\n  x[i] = 0;\n  simdgroup_barrier(mem_flags::"
                  "mem_threadgroup);\n  x[i] = i + 1;\n  " +
                  barrier + "\n  out[i] = x[(i + 1) % 32];\n}\n",
              "pass");
    std::vector<unsigned> out(32);
    p.options.schedule_seed = seed;
    p.options.races = false;
    EXPECT_CLEAN(p.buffer(0, out).groups({1}, {32}));
    int wrong = 0;
    for (unsigned i = 0; i < 32; ++i) wrong += out[i] != (i + 1) % 32 + 1;
    return wrong;
  };
  for (std::uint64_t seed = 1; seed <= 4; ++seed) {
    EXPECT(run("", seed) > 0);
    EXPECT(run("simdgroup_barrier(mem_flags::mem_threadgroup);", seed) == 0);
  }
}

// The flags of a barrier say which memory it orders.
void barriers_order_what_their_flags_say() {
  const auto races = [](const std::string& barrier, const char* memory) {
    Program p(
        kHeader +
            "kernel void pass(device uint* out [[buffer(0)]], device uint* far [[buffer(1)]],\n"
            "                 uint i [[thread_index_in_threadgroup]]) {\n"
            "  threadgroup uint near[32];\n  " +
            memory + "[i] = i;\n  " + barrier + ";\n  out[i] = " + memory + "[(i + 1) % 32];\n}\n",
        "pass");
    std::vector<unsigned> out(32), far(32);
    const DispatchResult r = p.buffer(0, out).buffer(1, far).groups({1}, {32});
    return r.findings.size() == 1 && (r.findings[0].kind == FindingKind::device_race ||
                                      r.findings[0].kind == FindingKind::threadgroup_race);
  };
  for (const std::string kind : {"simdgroup_barrier", "threadgroup_barrier"}) {
    EXPECT(races(kind + "(mem_flags::mem_none)", "near"));
    EXPECT(races(kind + "(mem_flags::mem_device)", "near"));
    EXPECT(!races(kind + "(mem_flags::mem_threadgroup)", "near"));
    EXPECT(races(kind + "(mem_flags::mem_none)", "far"));
    EXPECT(races(kind + "(mem_flags::mem_threadgroup)", "far"));
    EXPECT(!races(kind + "(mem_flags::mem_device)", "far"));
    EXPECT(!races(kind + "(mem_flags::mem_device | mem_flags::mem_threadgroup)", "near"));
  }
}

// One thread waits for another of its threadgroup: no order of the device's choosing makes that
// end, a schedule that takes the core away does.
void waiting_threads_make_progress() {
  const std::string text = kHeader + R"(
kernel void hand_over(device atomic_uint* flag [[buffer(0)]], device uint* out [[buffer(1)]],
                      uint i [[thread_position_in_grid]]) {
  if (i == 0) {
    while (atomic_load_explicit(flag, memory_order_relaxed) == 0u) {}
    out[0] = 7;
  }
  if (i == 63) atomic_store_explicit(flag, 1u, memory_order_relaxed);
})";
  for (std::uint64_t seed = 0; seed < 3; ++seed) {
    Program p(text, "hand_over");
    std::vector<unsigned> flag(1), out(1);
    p.options.schedule_seed = seed;
    p.options.step_budget = 100000;
    const DispatchResult r = p.buffer(0, flag).buffer(1, out).groups({1}, {64});
    const bool timed_out = !r.findings.empty() && r.findings[0].kind == FindingKind::timeout;
    EXPECT(timed_out == (seed == 0));
    EXPECT((out[0] == 7) == (seed != 0));
  }
}

// Threadgroups come in another order by seed, and each exactly once.
void threadgroups_are_shuffled() {
  const auto order = [](std::uint64_t seed) {
    Program p(kHeader +
                  "kernel void k(device atomic_uint* next [[buffer(0)]], device uint* turn "
                  "[[buffer(1)]],\n uint3 g [[threadgroup_position_in_grid]]) {\n"
                  " turn[(g.z * 4 + g.y) * 5 + g.x] = atomic_fetch_add_explicit(next, 1u, "
                  "memory_order_relaxed);\n}\n",
              "k");
    std::vector<unsigned> next(1), turn(60, 99);
    p.options.schedule_seed = seed;
    p.options.workers = 1;
    EXPECT_CLEAN(p.buffer(0, next).buffer(1, turn).groups({5, 4, 3}, {1}));
    return turn;
  };
  std::set<std::vector<unsigned>> orders;
  for (std::uint64_t seed = 0; seed < 6; ++seed) {
    const std::vector<unsigned> turns = order(seed);
    EXPECT(std::set<unsigned>(turns.begin(), turns.end()).size() == 60);
    orders.insert(turns);
  }
  EXPECT(orders.size() == 6);
}

// Long threadgroups: more barriers than a stamp of the race check can count. Neither does that make
// findings, nor does it hide any.
void many_barriers_change_nothing() {
  const auto run = [](const char* last) {
    Program p(kHeader + R"(
kernel void k(device uint* out [[buffer(0)]], uint i [[thread_index_in_threadgroup]]) {
  threadgroup uint x[2];
  x[i] = i;
  for (uint n = 0; n < 300000; ++n) {
    simdgroup_barrier(mem_flags::mem_threadgroup);
    const uint y = x[i ^ 1];
    simdgroup_barrier(mem_flags::mem_threadgroup);
    x[i] = y;
  }
)" + last + "\n  out[i] = x[i ^ 1];\n}\n",
              "k");
    std::vector<unsigned> out(2);
    const DispatchResult r = p.buffer(0, out).groups({1}, {2});
    EXPECT(out[0] == 1 && out[1] == 0);
    return r.findings.size();
  };
  EXPECT(run("simdgroup_barrier(mem_flags::mem_threadgroup);") == 0);
  EXPECT(run("simdgroup_barrier(mem_flags::mem_none);") == 1);
}

}  // namespace
}  // namespace softmetal::test

int main() {
  using namespace softmetal::test;
  lost_updates_show();
  atomic_updates_are_exact();
  torn_check_and_act_shows();
  missing_simdgroup_barrier_shows();
  barriers_order_what_their_flags_say();
  waiting_threads_make_progress();
  threadgroups_are_shuffled();
  many_barriers_change_nothing();
  return report();
}
