#include "core/last_error.hpp"

#include <cstdlib>
#include <cstring>

#if __has_include(<pthread.h>)
#include <pthread.h>
#endif

namespace ingot {
namespace {

// No objects with destructors: noting one for the end of a thread takes memory, and the system's
// library ends the process where there is none.
thread_local char brief[512];
thread_local char* whole = nullptr;  // a text that is longer, a kernel compiler's log

#if __has_include(<pthread.h>)
/// Frees a thread's long text when the thread ends.
struct Key {
  pthread_key_t key{};
  const bool exists = pthread_key_create(&key, &std::free) == 0;
};
const Key key_of_long_texts;

bool free_at_thread_exit(void* text) {
  return key_of_long_texts.exists && pthread_setspecific(key_of_long_texts.key, text) == 0;
}
#else
bool free_at_thread_exit(void*) { return false; }
#endif

void keep_whole(const char* message, std::size_t bytes) {
  auto* const text = static_cast<char*>(std::malloc(bytes));
  if (text == nullptr) return;
  if (!free_at_thread_exit(text)) return std::free(text);
  std::memcpy(text, message, bytes);
  whole = text;
}

void drop_whole() {
  if (whole == nullptr) return;
  free_at_thread_exit(nullptr);  // cannot fail: there is room for what it replaces
  std::free(whole);
  whole = nullptr;
}

}  // namespace

void set_last_error(const char* message) noexcept {
  drop_whole();
  const std::size_t length = std::strlen(message);
  const std::size_t kept = length < sizeof brief ? length : sizeof brief - 1;
  std::memcpy(brief, message, kept);
  brief[kept] = '\0';
  if (length > kept) keep_whole(message, length + 1);
}

const char* last_error() noexcept { return whole != nullptr ? whole : brief; }

}  // namespace ingot
