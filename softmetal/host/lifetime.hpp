// Autorelease pools and the report of leaks.
#pragma once

#include <vector>

#include "object.hpp"

namespace softmetal {

class Pool : public Object {
 public:
  ~Pool() override;
  static void begin(Pool& pool);  // init: becomes the current pool of the thread
  void drain();
  void add_object(Object* object);
  const std::vector<Object*>& objects() const { return objects_; }
  bool is_open() const { return current_; }

 private:
  friend void autorelease(Object* object);
  void give_back();
  std::vector<Object*> objects_;
  bool current_ = false;
};

// A pool around a call into the program from one of softmetal's threads.
class PoolScope {
 public:
  PoolScope();
  ~PoolScope();
  PoolScope(const PoolScope&) = delete;
  PoolScope& operator=(const PoolScope&) = delete;

 private:
  Ref<Pool> pool_;
};

// Reports what the program still owns and returns how many objects that are. Open pools count only
// when the process ends.
std::size_t check_leaks(bool at_exit);
void check_leaks_at_exit();

}  // namespace softmetal
