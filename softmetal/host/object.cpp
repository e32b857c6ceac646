#include "object.hpp"

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <mutex>

#include <CoreFoundation/CoreFoundation.h>

#include "foundation.hpp"
#include "registry.hpp"
#include "runtime.hpp"

namespace softmetal {
namespace {

constexpr std::uint64_t one_client = 1;
constexpr std::uint64_t one_held = std::uint64_t{1} << 32;

// The same where a sandbox or an emulator has no process_vm_readv: write() looks before it reads.
const void* word_by_pipe(const void* pointer) {
  static std::mutex mutex;
  static int ends[2] = {-1, -1};
  const std::lock_guard lock(mutex);
  const void* word = nullptr;
  if (ends[0] < 0 && pipe2(ends, O_CLOEXEC) != 0) {
    return nullptr;
  }
  const ssize_t bytes = write(ends[1], pointer, sizeof(word));
  if (bytes <= 0) {
    return nullptr;
  }
  return read(ends[0], &word, static_cast<std::size_t>(bytes)) == sizeof(word) ? word : nullptr;
}

// Reads one word at an address that may be anything, without a fault.
const void* word_at(const void* pointer) {
  const void* word = nullptr;
  const iovec here{static_cast<void*>(&word), sizeof(word)};
  const iovec there{const_cast<void*>(pointer), sizeof(word)};
  const ssize_t bytes = process_vm_readv(getpid(), &here, 1, &there, 1, 0);
  if (bytes < 0 && (errno == ENOSYS || errno == EPERM)) {
    return word_by_pipe(pointer);
  }
  return bytes == sizeof(word) ? word : nullptr;
}

}  // namespace

void Object::operator delete(void* memory) { registry::retire_memory(memory); }

Object* adopt(Object* object, const Class& type) {
  static std::atomic<std::uint64_t> serial{1};
  object->type_ = &type;
  object->serial_ = serial++;
  if (const Message* message = Message::current()) {
    object->made_by_ = message->selector();
  }
  registry::add(object);
  return object;
}

std::string Object::name_for_findings() const {
  std::string name = type_->name;
  if (const std::string label = label_text(); !label.empty()) {
    name += text(" '", label, "'");
  }
  if (made_by_ != nullptr) {
    name += text(" (made by ", made_by_->name, ")");
  }
  return name;
}

Ref<Object> Object::copy() { return nullptr; }

void Object::hold() { counts_.fetch_add(one_held); }

bool Object::try_hold() {
  std::uint64_t before = counts_.load();
  while (before != 0 || immortal) {
    if (counts_.compare_exchange_weak(before, before + one_held)) {
      return true;
    }
  }
  return false;
}

void Object::client_retain() {
  if (!immortal) {
    counts_.fetch_add(one_client);
  }
}

void Object::hold_to_client() {
  if (!immortal) {
    counts_.fetch_add(one_client);
  }
  let_go();
}

void Object::let_go() {
  if (counts_.fetch_sub(one_held) == one_held && !immortal) {
    registry::bury(this, name_for_findings());
    delete this;
  }
}

void Object::client_release() {
  if (immortal) {
    return;
  }
  std::uint64_t before = counts_.load();
  do {
    if (static_cast<std::uint32_t>(before) == 0) {
      error("over-release", text(current_message(), ": ", name_for_findings(),
                                 " has no reference left that the program could give back"));
      return;
    }
  } while (!counts_.compare_exchange_weak(before, before - one_client));
  if (before == one_client) {
    registry::bury(this, name_for_findings());
    delete this;
  }
}

Object* resolve(const void* pointer, const char* role) {
  const registry::Found found = registry::find(pointer);
  if (found.live != nullptr) {
    return found.live;
  }
  if (found.obituary.empty() && word_at(pointer) == &__CFConstantStringClassReference) {
    return constant_string(pointer);
  }
  if (role == nullptr) {
    return nullptr;
  }
  const Message* message = Message::current();
  const std::string where = message != nullptr ? message->name() + ": " : std::string();
  if (found.obituary.empty()) {
    error("not-an-object", text(where, role, " ", pointer, " is not an object"));
  } else if (message != nullptr && message->selector()->name == "release") {
    error("over-release", text(where, role, " was deallocated before: ", found.obituary));
  } else {
    error("use-after-free", text(where, role, " was deallocated: ", found.obituary));
  }
  return nullptr;
}

std::string current_message() {
  const Message* message = Message::current();
  return message != nullptr ? message->name() : std::string("softmetal");
}

}  // namespace softmetal
