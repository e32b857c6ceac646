// What a finding does to a process that installs no handler, seen from outside.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>

#include "host_support.hpp"

namespace {

struct Outcome {
  int exit_status = -1;  // -1 when a signal ended it
  int signal = 0;
  std::string output;
  bool says(const char* what) const { return output.find(what) != std::string::npos; }
};

// Runs `body` in a child process, with `settings` ("NAME=VALUE") in its environment.
Outcome run(const std::function<void()>& body, std::initializer_list<const char*> settings = {}) {
  int ends[2];
  if (pipe(ends) != 0) {
    return {};
  }
  std::fflush(nullptr);  // or the child prints what was buffered again
  const pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], STDERR_FILENO);
    close(ends[0]);
    for (const char* setting : settings) {
      putenv(const_cast<char*>(setting));
    }
    body();
    std::exit(0);
  }
  close(ends[1]);
  Outcome outcome;
  char block[4096];
  for (ssize_t got; (got = read(ends[0], block, sizeof(block))) > 0;) {
    outcome.output.append(block, static_cast<std::size_t>(got));
  }
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  outcome.exit_status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  outcome.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  return outcome;
}

void clean() {
  const Pool pool;
  auto device = NS::TransferPtr(MTL::CreateSystemDefaultDevice());
  NS::TransferPtr(device->newBuffer(64, MTL::ResourceStorageModeShared));
}

void leak() { NS::String::alloc()->init("lost", NS::UTF8StringEncoding); }

void over_release() {
  auto* text = NS::String::alloc()->init("x", NS::UTF8StringEncoding);
  text->release();
  text->release();
}

NS::SharedPtr<MTL::Device> kept;

}  // namespace

TEST(a_clean_program_ends_with_0) {
  const Outcome outcome = run(clean);
  REQUIRE(outcome.exit_status == 0 && outcome.output.empty());
}

TEST(a_leak_is_printed_and_changes_the_exit_status) {
  const Outcome outcome = run(leak);
  REQUIRE(outcome.exit_status == 86);
  REQUIRE(outcome.says("softmetal: warning [leak] NSString"));
}

TEST(an_error_stops_the_program_at_once) {
  const Outcome outcome = run(over_release);
  REQUIRE(outcome.signal == SIGABRT);
  REQUIRE(outcome.says("softmetal: error [over-release] -[NSString release]"));
}

TEST(findings_can_be_only_reported) {
  const Outcome outcome = run(over_release, {"SOFTMETAL_FINDINGS=report"});
  REQUIRE(outcome.exit_status == 0 && outcome.says("[over-release]"));
}

TEST(the_leak_report_can_be_switched_off) {
  const Outcome outcome = run(leak, {"SOFTMETAL_LEAKS=off"});
  REQUIRE(outcome.exit_status == 0 && outcome.output.empty());
}

TEST(an_undrained_pool_is_a_leak) {
  const Outcome outcome = run([] { NS::AutoreleasePool::alloc()->init(); });
  REQUIRE(outcome.exit_status == 86 && outcome.says("NSAutoreleasePool"));
}

TEST(seeded_enqueue_without_commit) {
  const Outcome outcome = run([] {
    const Pool pool;
    auto device = NS::TransferPtr(MTL::CreateSystemDefaultDevice());
    auto queue = NS::TransferPtr(device->newCommandQueue());
    queue->commandBuffer()->enqueue();
  });
  REQUIRE(outcome.exit_status == 86 && outcome.says("[never-committed] MTLCommandBuffer"));
}

TEST(objects_of_static_life_are_no_leak) {
  const Outcome outcome = run([] { kept = NS::TransferPtr(MTL::CreateSystemDefaultDevice()); });
  REQUIRE(outcome.exit_status == 0 && outcome.output.empty());
}

TEST(an_unknown_device_is_refused_with_the_list) {
  const Outcome outcome = run(clean, {"SOFTMETAL_DEVICE=m99"});
  REQUIRE(outcome.signal == SIGABRT);
  REQUIRE(outcome.says("m99 is not one of") && outcome.says("m3-max"));
}

TEST(settings_that_mean_nothing_are_refused) {
  const struct {
    const char* setting;
    const char* says;
  } cases[] = {
      {"SOFTMETAL_CHECKS=no", "SOFTMETAL_CHECKS must be on or off, not \"no\""},
      {"SOFTMETAL_LEAKS=0", "SOFTMETAL_LEAKS must be on or off, not \"0\""},
      {"SOFTMETAL_PIPELINE_THREADS=few", "SOFTMETAL_PIPELINE_THREADS must be a number"},
      {"SOFTMETAL_OS=Sonoma", "SOFTMETAL_OS must be like"},
      {"SOFTMETAL_INJECT=fire", "SOFTMETAL_INJECT must be NAME:SKIP:COUNT"},
      {"SOFTMETAL_SCHEDULE=chaos", "SOFTMETAL_SCHEDULE must be inorder or random:SEED, got chaos"},
      {"SOFTMETAL_SCHEDULE=random:x", "SOFTMETAL_SCHEDULE=random:SEED takes a number, got x"},
      {"SOFTMETAL_WORKERS=two", "SOFTMETAL_WORKERS takes a number, got two"}};
  for (const auto& one : cases) {
    const Outcome outcome = run(
        [] {
          Metal metal;
          const AddJob job(metal);
          auto* commands = metal.queue->commandBuffer();
          job.encode(commands);
          commands->commit();
          commands->waitUntilCompleted();
          if (commands->error() != nullptr) {
            std::fputs(commands->error()->localizedDescription()->utf8String(), stderr);
            std::abort();
          }
        },
        {one.setting});
    REQUIRE(outcome.signal == SIGABRT);
    REQUIRE(outcome.says(one.says));
  }
}

TEST(failures_can_be_injected_from_outside) {
  const Outcome outcome = run(
      [] {
        const Pool pool;
        auto device = NS::TransferPtr(MTL::CreateSystemDefaultDevice());
        auto first = NS::TransferPtr(device->newBuffer(64, MTL::ResourceStorageModeShared));
        auto second = NS::TransferPtr(device->newBuffer(64, MTL::ResourceStorageModeShared));
        std::_Exit(first && !second ? 7 : 8);
      },
      {"SOFTMETAL_INJECT=out-of-memory:1:1"});
  REQUIRE(outcome.exit_status == 7);
}

TEST(the_messages_a_program_sends_can_be_listed) {
  char path[] = "/tmp/softmetal_selectors_XXXXXX";
  close(mkstemp(path));
  const std::string setting = std::string("SOFTMETAL_SELECTORS=") + path;
  const Outcome outcome = run(
      [] {
        const Pool pool;
        auto device = NS::TransferPtr(MTL::CreateSystemDefaultDevice());
        device->architecture();
      },
      {setting.c_str()});
  REQUIRE(outcome.exit_status == 0);
  std::FILE* file = std::fopen(path, "r");
  char text[4096] = {};
  REQUIRE(std::fread(text, 1, sizeof(text) - 1, file) > 0);
  std::fclose(file);
  unlink(path);
  REQUIRE(std::strstr(text, "14.0    -[MTLDevice architecture]\n") == text);  // newest first
  REQUIRE(std::strstr(text, "always  +[NSAutoreleasePool alloc]") != nullptr);
  REQUIRE(std::strstr(text, "newCommandQueue") == nullptr);
}
