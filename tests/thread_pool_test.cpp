// ThreadPool and WorkspacePool under several callers, and with units that throw.
#include "cpu/thread_pool.hpp"

#include <gtest/gtest.h>
#if defined(__linux__)
#include <sys/resource.h>
#endif

#include <chrono>
#include <filesystem>
#include <set>
#include <stdexcept>

#include "core/error.hpp"
#include "cpu/workspace.hpp"

namespace ingot {
namespace {

TEST(ThreadPool, RunsEveryUnitOnce) {
  ThreadPool pool(4);
  for (const std::int64_t units : {0, 1, 2, 3, 100, 5000}) {
    std::vector<std::atomic<int>> count(static_cast<std::size_t>(units));
    pool.run(units, [&](std::int64_t unit, int) { ++count[static_cast<std::size_t>(unit)]; });
    for (const std::atomic<int>& c : count) ASSERT_EQ(c, 1);
  }
}

TEST(ThreadPool, WorkersOfOneRunAreDistinctAndWithinTheLimit) {
  ThreadPool pool(4);
  for (const int limit : {1, 2, 3, 9}) {
    std::atomic<int> busy[4] = {};
    pool.run(
        200,
        [&](std::int64_t, int worker) {
          ASSERT_LT(worker, std::min(limit, 4));
          ASSERT_EQ(busy[worker].fetch_add(1), 0);
          std::this_thread::sleep_for(std::chrono::microseconds(20));
          busy[worker].fetch_sub(1);
        },
        limit);
  }
}

// Two units that wait for each other finish only if two threads run them.
TEST(ThreadPool, UnitsRunAtTheSameTime) {
  ThreadPool pool(2);
  std::atomic<int> arrived{0};
  std::atomic<bool> timed_out{false};
  pool.run(2, [&](std::int64_t, int) {
    ++arrived;
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (arrived < 2 && !timed_out) {
      std::this_thread::yield();
      if (std::chrono::steady_clock::now() > end) timed_out = true;
    }
  });
  EXPECT_FALSE(timed_out);
}

/// A parallel region that is played: how often it calls its body, one call after the other or at
/// the same time.
struct PlayedRegion {
  int calls = 0;
  bool at_once = false;
  int asked = 0;  ///< members of the last run

  ParallelRegion region() { return {&run, this}; }

  static void run(void* user, std::int32_t members, void (*body)(void*), void* argument) {
    auto& played = *static_cast<PlayedRegion*>(user);
    played.asked = members;
    std::vector<std::thread> threads;
    for (int i = 0; i < played.calls; ++i) {
      if (played.at_once) threads.emplace_back(body, argument);
      if (!played.at_once) body(argument);
    }
    for (std::thread& thread : threads) thread.join();
  }
};

TEST(ThreadPool, RegionRunsEveryUnitOnce) {
  for (const bool at_once : {false, true}) {
    for (const int calls : {1, 2, 3, 7}) {  // fewer than asked for, as many, more
      PlayedRegion played{.calls = calls, .at_once = at_once};
      ThreadPool pool(3, played.region());
      std::vector<std::atomic<int>> count(500);
      std::atomic<int> most{0};
      pool.run(500, [&](std::int64_t unit, int worker) {
        ++count[static_cast<std::size_t>(unit)];
        std::this_thread::sleep_for(std::chrono::microseconds(20));  // every call finds a unit
        for (int seen = most; worker > seen && !most.compare_exchange_weak(seen, worker);) continue;
      });
      for (const std::atomic<int>& c : count) ASSERT_EQ(c, 1);
      EXPECT_EQ(played.asked, 3);
      EXPECT_LT(most, 3);
    }
  }
}

TEST(ThreadPool, RegionIsAskedForNoMoreThanTheLimit) {
  PlayedRegion played{.calls = 1};
  ThreadPool pool(8, played.region());
  pool.run(100, [](std::int64_t, int) {}, 2);
  EXPECT_EQ(played.asked, 2);
  pool.run(5, [](std::int64_t, int) {});
  EXPECT_EQ(played.asked, 5);
  played.asked = 0;
  pool.run(1, [](std::int64_t, int) {});
  EXPECT_EQ(played.asked, 0) << "one unit needs no other thread";
}

TEST(ThreadPool, OwnThreadsWorkWhereARegionDeclines) {
  PlayedRegion played{.calls = 0};
  ThreadPool pool(3, played.region());
  std::mutex mutex;
  std::set<std::thread::id> ids;
  pool.run(60, [&](std::int64_t, int) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    const std::lock_guard lock(mutex);
    ids.insert(std::this_thread::get_id());
  });
  EXPECT_EQ(played.asked, 3);
  EXPECT_GT(ids.size(), 1U);
}

TEST(ThreadPool, ARunWithinAUnitStaysOnItsThread) {
  PlayedRegion played{.calls = 2, .at_once = true};
  for (const ParallelRegion& region : {ParallelRegion{}, played.region()}) {
    ThreadPool pool(2, region);
    std::atomic<int> inner{0}, elsewhere{0};
    pool.run(6, [&](std::int64_t, int) {
      const std::thread::id here = std::this_thread::get_id();
      pool.run(5, [&](std::int64_t, int worker) {
        ++inner;
        if (std::this_thread::get_id() != here || worker != 0) ++elsewhere;
      });
    });
    EXPECT_EQ(inner, 30);
    EXPECT_EQ(elsewhere, 0);
  }
}

TEST(ThreadPool, ExceptionsLeaveARegion) {
  PlayedRegion played{.calls = 2, .at_once = true};
  ThreadPool pool(2, played.region());
  EXPECT_THROW(pool.run(50,
                        [](std::int64_t unit, int) {
                          if (unit == 7) throw std::runtime_error("unit 7");
                        }),
               std::runtime_error);
}

TEST(ThreadPool, SleepingWorkersWake) {
  ThreadPool pool(3);
  for (int i = 0; i < 20; ++i) {
    std::atomic<int> sum{0};
    pool.run(50, [&](std::int64_t, int) { ++sum; });
    ASSERT_EQ(sum, 50);
    std::this_thread::sleep_for(std::chrono::milliseconds(i % 4));
  }
}

TEST(ThreadPool, AnExceptionReachesTheCallerAndThePoolLivesOn) {
  ThreadPool pool(3);
  for (const std::int64_t bad : {0, 40, 99}) {
    const auto fail = [&] {
      pool.run(100, [&](std::int64_t unit, int) {
        if (unit == bad) throw std::runtime_error("unit " + std::to_string(unit));
      });
    };
    try {
      fail();
      FAIL() << "no exception";
    } catch (const std::runtime_error& error) {
      EXPECT_EQ(error.what(), "unit " + std::to_string(bad));
    }
  }
  std::atomic<int> sum{0};
  pool.run(100, [&](std::int64_t, int) { ++sum; });
  EXPECT_EQ(sum, 100);
}

TEST(ThreadPool, SeveralCallersAtOnce) {
  ThreadPool pool(3);
  std::vector<std::thread> callers;
  std::atomic<std::int64_t> total{0};
  for (int c = 0; c < 4; ++c) {
    callers.emplace_back([&] {
      for (int i = 0; i < 100; ++i) {
        std::atomic<std::int64_t> sum{0};
        pool.run(17, [&](std::int64_t unit, int) { sum += unit; });
        total += sum;
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(total, 4 * 100 * 17 * 16 / 2);
}

#if defined(__linux__)
/// Threads of this process, as the system counts them.
int threads_alive() {
  int count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/task"))
    ++count;
  return count;
}

/// Units enough for every thread to find one.
void use_all(ThreadPool& pool) {
  pool.run(2 * pool.threads(),
           [](std::int64_t, int) { std::this_thread::sleep_for(std::chrono::milliseconds(1)); });
}

TEST(ThreadPool, PoolsOfAnyNumberOfThreadsShareThem) {
  const int before = threads_alive();  // those of other tests' contexts among them
  std::vector<std::unique_ptr<ThreadPool>> pools;
  for (int threads = 1; threads <= 24; ++threads) {
    pools.push_back(std::make_unique<ThreadPool>(threads));
    use_all(*pools.back());
    EXPECT_LE(threads_alive(), before + threads - 1);
  }
}

TEST(ThreadPool, PoolsAtWorkAtTheSameTimeHaveTheirOwnNumberOfThreads) {
  ThreadPool first(3), second(3);
  std::atomic<int> arrived{0};
  std::atomic<bool> timed_out{false};
  const auto all_meet = [&](std::int64_t, int) {  // six units that wait for each other
    ++arrived;
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (arrived < 6 && !timed_out) {
      std::this_thread::yield();
      if (std::chrono::steady_clock::now() > end) timed_out = true;
    }
  };
  std::thread other([&] { second.run(3, all_meet); });
  first.run(3, all_meet);
  other.join();
  EXPECT_FALSE(timed_out);
}

TEST(ThreadPool, CallersOfOnePoolShareItsThreads) {
  ThreadPool large(16), small(2);  // threads in plenty
  use_all(large);
  std::atomic<int> busy{0}, most{0};
  std::vector<std::thread> callers;
  for (int c = 0; c < 3; ++c) {
    callers.emplace_back([&] {
      small.run(40, [&](std::int64_t, int) {
        const int now = ++busy;
        for (int seen = most; now > seen && !most.compare_exchange_weak(seen, now);) continue;
        std::this_thread::sleep_for(std::chrono::microseconds(100));
        --busy;
      });
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_LE(most, 4) << "three callers and the one worker of two threads";
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
TEST(ThreadPool, GoesOnWhereTheSystemHasNoThreadToGive) {
  // In a child, because a limit on address space is for good: a stack of 8 MiB fits no more.
  EXPECT_EXIT(
      {
        rlimit limit{};
        getrlimit(RLIMIT_AS, &limit);
        limit.rlim_cur = 1 << 20;
        setrlimit(RLIMIT_AS, &limit);
        ThreadPool pool(8);
        std::atomic<int> done{0};
        for (int i = 0; i < 3; ++i) pool.run(100, [&](std::int64_t, int) { ++done; });
        std::_Exit(done == 300 ? 0 : 1);
      },
      testing::ExitedWithCode(0), "");
}
#endif
#endif

TEST(WorkspacePool, BuffersAreAlignedDistinctAndUsedAgain) {
  WorkspacePool pool;
  std::byte* first = nullptr;
  {
    const WorkspacePool::Lease a = pool.take(1000);
    const WorkspacePool::Lease b = pool.take(1000);
    first = a.bytes().data();
    EXPECT_NE(a.bytes().data(), b.bytes().data());
    EXPECT_GE(a.bytes().size(), 1000U);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(first) % 64, 0U);
  }
  std::set<std::byte*> again;
  const WorkspacePool::Lease a = pool.take(900);
  const WorkspacePool::Lease b = pool.take(900);
  again.insert(a.bytes().data());
  again.insert(b.bytes().data());
  EXPECT_TRUE(again.contains(first));
}

TEST(WorkspacePool, TooMuchIsAnErrorThatNamesTheSize) {
  WorkspacePool pool;
  const std::size_t bytes = std::size_t{1} << 63;
  try {
    pool.take(bytes);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::out_of_memory);
    EXPECT_EQ(error.what(), "workspace: cannot allocate " + std::to_string(bytes) + " bytes");
  }
}

}  // namespace
}  // namespace ingot
