// Arrays, dictionaries and their enumerators.
#include "foundation.hpp"
#include "runtime.hpp"

namespace softmetal {
namespace {

class Enumerator : public Object {
 public:
  explicit Enumerator(Array::Items items = {}) : items_(std::move(items)) {}
  Object* next() { return at_ < items_.size() ? items_[at_++].get() : nullptr; }
  Ref<Array> rest() {
    Array::Items rest(items_.begin() + static_cast<std::ptrdiff_t>(at_), items_.end());
    at_ = items_.size();
    return make<Array>(std::move(rest));
  }

 private:
  Array::Items items_;
  std::size_t at_ = 0;
};

Array::Items items_of(ObjectArray objects, std::uint64_t count) {
  Array::Items items;
  for (std::uint64_t i = 0; i < count; ++i) {
    if (Object* object = element<Object>(objects, i)) {
      items.emplace_back(object);
    } else {
      error("null-argument", text(current_message(), ": object ", i, " must not be nil"));
    }
  }
  return items;
}

Ref<Array> array() { return make<Array>(); }
Ref<Array> array_with_object(Object* object) { return make<Array>(Array::Items{object}); }
Ref<Array> array_with(ObjectArray objects, std::uint64_t count) {
  return make<Array>(items_of(objects, count));
}
void init_array(Array& self, ObjectArray objects, std::uint64_t count) {
  self.assign(items_of(objects, count));
}
Ref<Enumerator> enumerate(Array& self) { return make<Enumerator>(self.items()); }

Dictionary::Items pairs_of(ObjectArray objects, ObjectArray keys, std::uint64_t count) {
  const Array::Items values = items_of(objects, count);
  const Array::Items names = items_of(keys, count);
  Dictionary::Items items;
  for (std::size_t i = 0; i < std::min(values.size(), names.size()); ++i) {
    items.emplace_back(names[i], values[i]);
  }
  return items;
}

Ref<Dictionary> dictionary() { return make<Dictionary>(); }
Ref<Dictionary> dictionary_with_object(Object* object, Object* key) {
  Dictionary::Items items;
  items.emplace_back(key, object);
  return make<Dictionary>(std::move(items));
}
Ref<Dictionary> dictionary_with(ObjectArray objects, ObjectArray keys, std::uint64_t count) {
  return make<Dictionary>(pairs_of(objects, keys, count));
}
void init_dictionary(Dictionary& self, ObjectArray objects, ObjectArray keys, std::uint64_t count) {
  self.assign(pairs_of(objects, keys, count));
}
Ref<Enumerator> enumerate_keys(Dictionary& self) {
  Array::Items keys;
  for (const auto& [key, value] : self.items()) {
    keys.push_back(key);
  }
  return make<Enumerator>(std::move(keys));
}

}  // namespace

Object* Array::at(std::uint64_t index) const {
  if (index >= items_.size()) {
    error("out-of-range",
          text(current_message(), ": index ", index, " of an array of ", items_.size()));
    return nullptr;
  }
  return items_[index].get();
}

std::string Array::description() const {
  std::string all = "(";
  for (const Ref<Object>& item : items_) {
    all += text(all.size() > 1 ? ", " : "", item->description());
  }
  return all + ")";
}

bool Array::is_equal(const Object& other) const {
  const auto* array = dynamic_cast<const Array*>(&other);
  return array != nullptr &&
         std::equal(items_.begin(), items_.end(), array->items_.begin(), array->items_.end(),
                    [](const auto& a, const auto& b) { return a->is_equal(*b); });
}

std::string Dictionary::description() const {
  std::string all = "{";
  for (const auto& [key, value] : items_) {
    all += text(all.size() > 1 ? "; " : "", key->description(), " = ", value->description());
  }
  return all + "}";
}

Object* Dictionary::find(Object* key) const {
  for (const auto& [name, value] : items_) {
    if (key != nullptr && name->is_equal(*key)) {
      return value.get();
    }
  }
  return nullptr;
}

void define_foundation_collections() {
  Definition<Enumerator>("NSEnumerator", class_of<Object>)
      .method<&Enumerator::next>("nextObject")
      .method<&Enumerator::rest>("allObjects");
  Definition<Array>("NSArray", class_of<Object>)
      .allocatable()
      .class_method<&array>("array")
      .class_method<&array_with_object>("arrayWithObject:")
      .class_method<&array_with>("arrayWithObjects:count:")
      .initialiser<&init_array>("initWithObjects:count:")
      .method<&Array::count>("count")
      .method<&Array::at>("objectAtIndex:")
      .method<&enumerate>("objectEnumerator");
  Definition<Dictionary>("NSDictionary", class_of<Object>)
      .allocatable()
      .class_method<&dictionary>("dictionary")
      .class_method<&dictionary_with_object>("dictionaryWithObject:forKey:")
      .class_method<&dictionary_with>("dictionaryWithObjects:forKeys:count:")
      .initialiser<&init_dictionary>("initWithObjects:forKeys:count:")
      .method<&Dictionary::count>("count")
      .method<&Dictionary::find>("objectForKey:")
      .method<&enumerate_keys>("keyEnumerator");
}

}  // namespace softmetal
