#include "runtime.hpp"

#include <cctype>
#include <mutex>
#include <optional>
#include <unordered_set>

#include <objc/runtime.h>
#include <softmetal/abi.hpp>

#include "lifetime.hpp"
#include "registry.hpp"
#include "usage.hpp"

namespace softmetal {
namespace {

struct Names {
  std::mutex mutex;
  std::unordered_map<std::string, std::unique_ptr<objc_selector>> selectors;
};

Names& names() {
  static Names* const instance = new Names;
  return *instance;
}

// Written while classes are defined, read afterwards.
struct Classes {
  std::unordered_map<std::string, std::unique_ptr<Class>> by_name;
  std::unordered_set<const void*> pointers;
};

Classes& classes() {
  static Classes* const instance = new Classes;
  return *instance;
}

thread_local const Message* innermost_message = nullptr;

bool in_family(std::string_view name, std::string_view family) {
  if (name.substr(0, family.size()) != family) {
    return false;
  }
  return name.size() == family.size() ||
         std::islower(static_cast<unsigned char>(name[family.size()])) == 0;
}

void define_everything() {
  define_object();
  define_foundation_values();
  define_foundation_collections();
  define_foundation_system();
  define_device();
  define_resources();
  define_library();
  define_pipeline();
  define_command_buffer();
  define_encoders();
  define_synchronisation();
  define_capture();
  check_leaks_at_exit();
}

const char* type_name(char letter) {
  switch (letter) {
    case 'v':
      return "void";
    case 'p':
      return "pointer";
    case 'b':
      return "bool";
    case 'f':
      return "float";
    case 'd':
      return "double";
    default:
      return nullptr;
  }
}

// "pointer (unsigned 64, structure of 24 bytes)" from the letters of abi.hpp.
std::string readable(std::string_view signature) {
  std::string result;
  for (std::size_t i = 0; i < signature.size(); ++i) {
    result += i == 0 ? "" : i == 1 ? " (" : ", ";
    const char letter = signature[i];
    if (const char* plain = type_name(letter)) {
      result += plain;
    } else if (letter == '{' && i + 1 < signature.size()) {
      result += text("structure of ", (signature[++i] - '0') * 8, " bytes");
    } else {
      const std::string_view sizes = "csiqCSIQ";
      const auto at = sizes.find(letter);
      result += text(at < 4 ? "signed " : "unsigned ", 8 << (at % 4));
    }
  }
  return result + (signature.size() > 1 ? ")" : "");
}

bool allowed_before_init(const objc_selector& selector) {
  return selector.initialises || selector.name == "release" || selector.name == "retain" ||
         selector.name == "autorelease" || selector.name == "retainCount";
}

// Nothing when the receiver itself is at fault, which has been reported then.
std::optional<const Method*> find_method(const void* receiver, const objc_selector* selector) {
  if (is_class(receiver)) {
    return static_cast<const Class*>(receiver)->find(selector, true);
  }
  const Object* object = resolve(receiver, "the receiver");
  if (object == nullptr) {
    return std::nullopt;
  }
  if (!object->initialised && !allowed_before_init(*selector)) {
    error("uninitialised-object",
          text(current_message(), ": the object came from alloc and init was not sent"));
    return std::nullopt;
  }
  return object->type().find(selector, false);
}

}  // namespace

objc_selector* selector(std::string_view name) {
  auto& all = names();
  const std::lock_guard lock(all.mutex);
  auto& slot = all.selectors[std::string(name)];
  if (slot == nullptr) {
    const bool owned = in_family(name, "alloc") || in_family(name, "new") ||
                       in_family(name, "copy") || in_family(name, "mutableCopy") ||
                       in_family(name, "init");
    slot = std::make_unique<objc_selector>(
        objc_selector{std::string(name), owned, in_family(name, "init")});
  }
  return slot.get();
}

void ensure_classes() {
  static std::once_flag once;
  std::call_once(once, define_everything);
}

Class* find_class(std::string_view name) {
  ensure_classes();
  const auto found = classes().by_name.find(std::string(name));
  return found == classes().by_name.end() ? nullptr : found->second.get();
}

bool is_class(const void* pointer) { return classes().pointers.contains(pointer); }

std::vector<const Class*> all_classes() {
  ensure_classes();
  std::vector<const Class*> all;
  for (const auto& [name, type] : classes().by_name) {
    all.push_back(type.get());
  }
  return all;
}

Class& add_class(std::string name, const Class* parent) {
  auto& slot = classes().by_name[name];
  slot = std::make_unique<Class>();
  slot->name = std::move(name);
  slot->parent = parent;
  classes().pointers.insert(slot.get());
  return *slot;
}

const Method* Class::find(const objc_selector* wanted, bool of_class) const {
  for (const Class* type = this; type != nullptr; type = type->parent) {
    const auto& methods = of_class ? type->class_methods : type->instance_methods;
    if (const auto found = methods.find(wanted); found != methods.end()) {
      return &found->second;
    }
  }
  return nullptr;
}

bool responds(const void* receiver, const objc_selector* wanted) {
  const bool of_class = is_class(receiver);
  const Object* object = of_class ? nullptr : resolve(receiver, "the receiver");
  if (!of_class && object == nullptr) {
    return false;
  }
  const Class& type = of_class ? *static_cast<const Class*>(receiver) : object->type();
  const Method* method = type.find(wanted, of_class);
  return method != nullptr && method->since <= os_version();
}

Message::Message(const void* receiver, SEL selector)
    : receiver_(receiver), selector_(selector), outer_(innermost_message) {
  innermost_message = this;
}

Message::~Message() { innermost_message = outer_; }

const Message* Message::current() { return innermost_message; }

bool Message::gives_ownership() const { return selector_->gives_ownership; }

std::string Message::name() const {
  if (is_class(receiver_)) {
    return text("+[", static_cast<const Class*>(receiver_)->name, " ", selector_->name, "]");
  }
  const Object* object = resolve(receiver_, nullptr);
  std::string type = "?";
  if (object != nullptr) {
    type = object->type().name;
  } else if (const std::string was = registry::find(receiver_).obituary; !was.empty()) {
    type = was.substr(0, was.find(' '));
  }
  return text("-[", type, " ", selector_->name, "]");
}

std::string argument_role(int argument) { return text("argument ", argument); }

void report_wrong_class(const Object& object, const Class& wanted, int argument) {
  error("wrong-class", text(current_message(), ": argument ", argument, " must be a ", wanted.name,
                            ", not ", object.name_for_findings()));
}

}  // namespace softmetal

using namespace softmetal;

SEL sel_registerName(const char* name) { return selector(name); }
const char* sel_getName(SEL selector) { return selector->name.c_str(); }
void* objc_lookUpClass(const char* name) { return find_class(name); }
void* objc_getProtocol(const char* name) { return find_class(name); }

void (*softmetal_find_method(const void* receiver, SEL wanted, const char* signature))() {
  if (receiver == nullptr) {
    return nullptr;
  }
  ensure_classes();
  const Message message(receiver, wanted);
  const std::optional<const Method*> found = find_method(receiver, wanted);
  if (!found.has_value()) {
    return nullptr;
  }
  const Method* method = *found;
  if (method == nullptr) {
    error("unknown-selector", text(message.name(), ": softmetal has no such method"));
    return nullptr;
  }
  if (method->since.major != 0 && method->since > os_version()) {
    error("unavailable-selector",
          text(message.name(), " needs macOS ", method->since.major, ".", method->since.minor,
               ", the system played is ", os_version().major, ".", os_version().minor));
    return nullptr;
  }
  if (std::string_view(method->signature) != signature) {
    error("wrong-signature", text(message.name(), " is called as ", readable(signature),
                                  ", but is ", readable(method->signature)));
    return nullptr;
  }
  if (lists_messages()) {
    note_message(message.name(), method->since);
  }
  return method->call;
}
