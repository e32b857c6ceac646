// A fork must not take the CPU device's threads away from the child, and a long call can be ended.
#include <gtest/gtest.h>
#include <ingot/ingot.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "devices.hpp"

namespace ingot::conformance {
namespace {

struct Call {
  explicit Call(std::int64_t seqlen, std::int64_t heads = 4)
      : data(static_cast<std::size_t>(heads * seqlen * 64), 0.5F), o(data.size()) {
    ingot_problem_init(&problem);
    problem.num_heads = problem.num_heads_kv = heads;
    problem.seqlen_q = problem.seqlen_k = seqlen;
    problem.head_dim = problem.head_dim_v = 64;
    ingot_forward_args_init(&args);
    const auto view = [&](std::vector<float>& from) {
      return ingot_tensor{from.data(), {heads * seqlen * 64, seqlen * 64, 64, 1}};
    };
    args.q = args.k = args.v = view(data);
    args.o = view(o);
  }

  ingot_status run(const char* device = "cpu") {
    return ingot_attention_forward(shared_context(), device, &problem, &args);
  }

  std::vector<float> data, o;
  ingot_problem problem;
  ingot_forward_args args;
};

TEST(Fork, TheChildComputesWithThreadsOfItsOwn) {
#if defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "skipped: ThreadSanitizer does not follow threads started after a fork";
#endif
  Call call(512);
  ASSERT_EQ(call.run(), INGOT_OK);  // the parent's threads run
  std::atomic<bool> stop{false};
  std::thread busy([&] {
    Call other(512);
    while (!stop) other.run();
  });
  for (int i = 0; i < 8; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      alarm(60);  // a child that hangs ends by itself
      std::fill(call.o.begin(), call.o.end(), 0.0F);
      const bool good = call.run() == INGOT_OK && call.o.front() == 0.5F && call.o.back() == 0.5F;
      _exit(good && call.run() == INGOT_OK ? 0 : 1);
    }
    int status = -1;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  }
  stop = true;
  busy.join();
}

TEST(Cancel, EndsALongCallEarly) {
  for (const char* device : {"cpu", "reference"}) {
    Call call(std::string(device) == "cpu" ? 16384 : 1024, 16);
    std::int32_t cancel = 0;
    call.args.submission.cancel = &cancel;
    std::thread later([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      __atomic_store_n(&cancel, 1, __ATOMIC_RELAXED);
    });
    EXPECT_EQ(call.run(device), INGOT_CANCELLED) << device;
    EXPECT_STREQ(ingot_last_error(), "cancelled: the caller set submission.cancel during the call");
    later.join();
    cancel = 0;
    Call small(64);
    small.args.submission.cancel = &cancel;
    EXPECT_EQ(small.run(device), INGOT_OK);
  }
  EXPECT_STREQ(ingot_status_name(INGOT_CANCELLED), "cancelled");
}

}  // namespace
}  // namespace ingot::conformance
