#include "process.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <string_view>

#include "failure.hpp"
#include "text.hpp"

namespace ingot::cli {
namespace {

// What the handler may read at any moment, on any thread. A slot whose text is null is free.
struct Temporary {
  std::atomic<const char*> name{nullptr};
  std::atomic<int> folder{AT_FDCWD};
};
struct Mapping {
  std::atomic<const char*> message{nullptr};
  std::atomic<std::uintptr_t> begin{0}, end{0};
};
std::array<Temporary, 64> temporaries;
std::array<Mapping, 64> mappings;

// Who may act on the files: the program, a step of it that must not be cut in two, or the signal
// that ends it.
enum class State : int { running, held, ending };
std::atomic<State> state{State::running};
std::atomic<int> waiting_signal{0};
int holds = 0;  // a hold within a hold is of the same thread

static_assert(std::atomic<State>::is_always_lock_free &&
              std::atomic<const char*>::is_always_lock_free);

bool become_ending() {
  State expected = State::running;
  return state.compare_exchange_strong(expected, State::ending);
}

// Of the processor, about the instruction it is at: such a signal cannot wait.
bool is_fault(int number, const siginfo_t& info) {
  const bool kind = number == SIGSEGV || number == SIGBUS || number == SIGFPE || number == SIGILL;
  return kind && info.si_code > 0;
}

const char* message_of_mapping(std::uintptr_t address) {
  for (const Mapping& mapping : mappings) {
    const char* message = mapping.message;
    if (message != nullptr && address >= mapping.begin && address < mapping.end) return message;
  }
  return nullptr;
}

// Only what POSIX allows in a handler: unlinkat, write, signal, raise, _exit.
void end_program(int number, const siginfo_t& info) {
  for (std::size_t i = temporaries.size(); i > 0; --i) {
    const Temporary& temporary = temporaries[i - 1];
    const char* name = temporary.name;
    if (name == nullptr) continue;
    // From the last to the first: files before the folder they are in.
    if (::unlinkat(temporary.folder, name, 0) != 0) {
      ::unlinkat(temporary.folder, name, AT_REMOVEDIR);
    }
  }
  if (number == SIGBUS && is_fault(number, info)) {
    const char* message = message_of_mapping(reinterpret_cast<std::uintptr_t>(info.si_addr));
    if (message != nullptr) {
      const std::string_view text(message);
      if (::write(STDERR_FILENO, text.data(), text.size()) < 0) ::_exit(1);
      ::_exit(1);
    }
  }
  std::signal(number, SIG_DFL);
  std::raise(number);  // delivered when the handler returns
}

void on_signal(int number, siginfo_t* info, void*) {
  const int saved_errno = errno;
  const bool fault = is_fault(number, *info);
  if (!fault && !become_ending()) {
    waiting_signal = number;
    // The hold may have ended between the two.
    if (!become_ending()) {
      errno = saved_errno;
      return;
    }
  }
  end_program(number, *info);
  errno = saved_errno;
}

// Whether a signal ends a program that says nothing about it.
bool ends_programs(int number) {
  switch (number) {
    case SIGKILL:
    case SIGSTOP:
    case SIGTSTP:
    case SIGTTIN:
    case SIGTTOU:
    case SIGCONT:
    case SIGCHLD:
    case SIGURG:
    case SIGWINCH:
    case SIGXFSZ:  // ignored
#if defined(__APPLE__)
    case SIGINFO:
    case SIGIO:
#endif
      return false;
    default:
      return true;
  }
}

constexpr int last_signal() {
#if defined(_NSIG)
  return _NSIG - 1;
#else
  return NSIG - 1;
#endif
}

template <class Slots, class Text>
std::size_t take_slot(Slots& slots, Text&& text, const char* what) {
  for (std::size_t i = 0; i < slots.size(); ++i) {
    if (text(slots[i]) == nullptr) return i;
  }
  throw Failure(std::string("more than 64 ") + what);
}

}  // namespace

void open_standard_streams() {
  for (const int number : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(number, F_GETFD) >= 0 || errno != EBADF) continue;
    // The lowest free number is this one.
    if (::open("/dev/null", O_RDWR) < 0) ::_exit(1);
  }
}

void handle_signals() {
  std::signal(SIGXFSZ, SIG_IGN);
  struct sigaction action{};
  action.sa_sigaction = on_signal;
  action.sa_flags = SA_SIGINFO | SA_RESTART;
  ::sigfillset(&action.sa_mask);
  for (int number = 1; number <= last_signal(); ++number) {
    struct sigaction before{};
    // Whatever else is set, to ignore it or to report a fault, stays.
    if (!ends_programs(number) || ::sigaction(number, nullptr, &before) != 0) continue;
    if ((before.sa_flags & SA_SIGINFO) != 0 || before.sa_handler != SIG_DFL) continue;
    ::sigaction(number, &action, nullptr);
  }
}

SignalHold::SignalHold() {
  if (holds++ > 0) return;
  State expected = State::running;
  while (!state.compare_exchange_strong(expected, State::held)) {
    ::pause();  // a signal on another thread ends the program
    expected = State::running;
  }
}

SignalHold::~SignalHold() {
  if (--holds > 0) return;
  state = State::running;
  if (const int number = waiting_signal.exchange(0); number != 0) std::raise(number);
}

TemporaryName::TemporaryName(int folder, std::string name)
    : slot_(take_slot(
          temporaries, [](const Temporary& t) { return t.name.load(); }, "temporary files")),
      name_(std::move(name)) {
  temporaries[slot_].folder = folder;
  temporaries[slot_].name = name_.c_str();
}

TemporaryName::~TemporaryName() { temporaries[slot_].name = nullptr; }

WatchedMapping::WatchedMapping(const void* begin, std::size_t bytes, const std::string& path)
    : slot_(take_slot(
          mappings, [](const Mapping& m) { return m.message.load(); }, "mapped files")),
      message_("ingot: " + printable(path) + ": became shorter while it was read\n") {
  Mapping& mapping = mappings[slot_];
  mapping.begin = reinterpret_cast<std::uintptr_t>(begin);
  mapping.end = mapping.begin + bytes;
  mapping.message = message_.c_str();
}

WatchedMapping::~WatchedMapping() { mappings[slot_].message = nullptr; }

}  // namespace ingot::cli
