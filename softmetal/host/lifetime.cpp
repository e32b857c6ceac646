#include "lifetime.hpp"

#include <algorithm>
#include <cstdlib>
#include <unordered_map>

#include <softmetal/softmetal.h>

#include "foundation.hpp"
#include "registry.hpp"
#include "runtime.hpp"
#include "serial_thread.hpp"
#include "usage.hpp"

namespace softmetal {

void arrange_exit_status();

namespace {

std::vector<Pool*>& pools_of_this_thread() {
  thread_local std::vector<Pool*> pools;
  return pools;
}

void* retain(void* self, SEL selector) {
  const Message message(self, selector);
  if (Object* object = resolve(self, "the receiver")) {
    object->client_retain();
  }
  return self;
}

void release(void* self, SEL selector) {
  const Message message(self, selector);
  if (Object* object = resolve(self, "the receiver")) {
    object->client_release();
  }
}

void* autorelease_method(void* self, SEL selector) {
  const Message message(self, selector);
  if (Object* object = resolve(self, "the receiver")) {
    autorelease(object);
  }
  return self;
}

std::uint64_t retain_count(void* self, SEL) {
  const Object* object = resolve(self, "the receiver");
  return object == nullptr ? 0 : std::uint64_t{object->client_count()} + object->held_count();
}

void* alloc(void* self, SEL selector) {
  const Message message(self, selector);
  const auto& type = *static_cast<const Class*>(self);
  if (type.create == nullptr) {
    error("cannot-alloc", text(message.name(), ": only Metal itself makes objects of this class"));
    return nullptr;
  }
  Object* object = adopt(type.create(), type);
  object->initialised = false;
  object->hold_to_client();
  return object;
}

bool responds_to_selector(void* self, SEL, void* wanted) {
  return responds(self, static_cast<const objc_selector*>(wanted));
}

void* no_method_signature(void*, SEL, void*) { return nullptr; }

void* copy(void* self, SEL selector) {
  const Message message(self, selector);
  const Ref<Object> object(resolve(self, "the receiver"));
  Ref<Object> result = object->copy();
  if (!result) {
    error("unknown-selector", text(message.name(), ": objects of this class cannot be copied"));
    return nullptr;
  }
  return Adapt<Ref<Object>>::out(std::move(result), message);
}

void show_pools() {
  for (const Pool* pool : pools_of_this_thread()) {
    std::fprintf(stderr, "softmetal: pool %p holds %zu objects\n", static_cast<const void*>(pool),
                 pool->objects().size());
  }
}

template <class Function>
Method raw(Function* function, const char* signature) {
  return {reinterpret_cast<void (*)()>(function), signature, {}};
}

}  // namespace

bool Object::equals(Object* other) const { return other != nullptr && is_equal(*other); }
std::uint64_t Object::hash() const { return hash_value(); }
Ref<String> Object::describe() const { return make_string(description()); }

Pool::~Pool() {
  if (current_) {
    give_back();
  }
}

void Pool::begin(Pool& pool) {
  pool.current_ = true;
  pools_of_this_thread().push_back(&pool);
}

void Pool::add_object(Object* object) { objects_.push_back(object); }

void Pool::give_back() {
  current_ = false;
  auto& pools = pools_of_this_thread();
  const auto found = std::find(pools.begin(), pools.end(), this);
  if (found == pools.end()) {
    error("pool-of-other-thread",
          text(current_message(), ": the pool belongs to another thread or was drained before"));
  } else {
    if (found + 1 != pools.end()) {
      warning("pool-order", text(current_message(), ": ", pools.end() - found - 1,
                                 " newer pool(s) of this thread have not been drained"));
    }
    pools.erase(found);
  }
  while (!objects_.empty()) {  // releasing may autorelease more into this pool's parent
    std::vector<Object*> objects = std::move(objects_);
    objects_.clear();
    for (Object* object : objects) {
      if (Object* live = resolve(object, "an object of the pool")) {
        live->client_release();
      }
    }
  }
}

void Pool::drain() { client_release(); }

PoolScope::PoolScope() : pool_(make<Pool>()) { Pool::begin(*pool_); }
PoolScope::~PoolScope() = default;

void autorelease(Object* object) {
  if (object->immortal) {
    return;
  }
  auto& pools = pools_of_this_thread();
  if (!pools.empty()) {
    pools.back()->objects_.push_back(object);
    return;
  }
  object->leak_known = true;
  warning("missing-pool", text(current_message(), ": ", object->name_for_findings(),
                               " is autoreleased, but this thread has no pool: it leaks"));
}

// How often each object waits in a pool to be released.
std::unordered_map<const Object*, std::uint32_t> count_in_pools(const std::vector<Object*>& live) {
  std::unordered_map<const Object*, std::uint32_t> counts;
  for (const Object* object : live) {
    if (const auto* pool = dynamic_cast<const Pool*>(object)) {
      for (const Object* pooled : pool->objects()) {
        ++counts[pooled];
      }
    }
  }
  return counts;
}

bool is_open_pool(const Object& object) {
  const auto* pool = dynamic_cast<const Pool*>(&object);
  return pool != nullptr && pool->is_open();
}

std::size_t check_leaks(bool at_exit) {
  std::vector<Object*> live = registry::live_objects();
  std::sort(live.begin(), live.end(),
            [](const Object* a, const Object* b) { return a->serial() < b->serial(); });
  auto in_pools = count_in_pools(live);
  std::size_t leaks = 0;
  for (Object* object : live) {
    const std::uint32_t owned = object->client_count();
    if (object->immortal || object->leak_known || owned <= in_pools[object] ||
        (!at_exit && is_open_pool(*object))) {
      continue;
    }
    ++leaks;
    object->leak_known = true;
    warning("leak", text(object->name_for_findings(), ": the program still owns ",
                         owned - in_pools[object], " reference(s)"));
  }
  for (Object* object : live) {
    if (const std::string complaint = object->complaint_at_end(); at_exit && !complaint.empty()) {
      warning("never-committed", complaint);
    }
    object->let_go();
  }
  return leaks;
}

void check_leaks_at_exit() {
  arrange_exit_status();
  std::atexit([] {
    write_messages();
    // Handlers that have told the program to end may still hold its objects.
    wait_for_background(std::chrono::milliseconds(500));
    if (environment_choice("SOFTMETAL_LEAKS", {"on", "off"}) == "on") {
      check_leaks(true);
    }
  });
}

void define_object() {
  Definition<Object> shared("NSObject", nullptr);
  shared.method<&Object::equals>("isEqual:")
      .method<&Object::hash>("hash")
      .method<&Object::describe>("description")
      .method<&Object::describe>("debugDescription");
  Class& type = *const_cast<Class*>(class_of<Object>);
  auto& methods = type.instance_methods;
  methods[selector("retain")] = raw(&retain, "p");
  methods[selector("release")] = raw(&release, "v");
  methods[selector("autorelease")] = raw(&autorelease_method, "p");
  methods[selector("retainCount")] = raw(&retain_count, "Q");
  methods[selector("copy")] = raw(&copy, "p");
  methods[selector("respondsToSelector:")] = raw(&responds_to_selector, "bp");
  methods[selector("methodSignatureForSelector:")] = raw(&no_method_signature, "pp");
  type.class_methods[selector("alloc")] = raw(&alloc, "p");
  type.class_methods[selector("respondsToSelector:")] = raw(&responds_to_selector, "bp");

  Definition<Pool>("NSAutoreleasePool", class_of<Object>)
      .allocatable()
      .initialiser<&Pool::begin>("init")
      .method<&Pool::drain>("drain")
      .method<&Pool::add_object>("addObject:")
      .class_method<&show_pools>("showPools");
}

}  // namespace softmetal

size_t softmetal_check_leaks(void) { return softmetal::check_leaks(false); }

__attribute__((constructor)) static void start_before_the_program() { softmetal::ensure_classes(); }
