// Which addresses are objects, and what the dead ones were.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace softmetal {

class Object;

namespace registry {

void add(Object* object);
// Marks the address as deallocated; `obituary` says what was there.
void bury(const Object* object, std::string obituary);

struct Found {
  Object* live = nullptr;
  std::string obituary;  // "" when the address was never an object, or is live
};
Found find(const void* pointer);

// The live objects, in no order. Each is held for the caller, who must let go.
std::vector<Object*> live_objects();

// Keeps the memory of a dead object from being used again too soon.
void retire_memory(void* memory);

}  // namespace registry
}  // namespace softmetal
