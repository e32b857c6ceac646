// Numbers, data, file URLs and errors.
#include "foundation.hpp"
#include "runtime.hpp"

namespace softmetal {
namespace {

template <class T>
void init_number(Number& self, T value) {
  if constexpr (std::is_same_v<T, bool>) {
    self.assign(value);
  } else if constexpr (std::is_floating_point_v<T>) {
    self.assign(static_cast<double>(value));
  } else if constexpr (std::is_signed_v<T>) {
    self.assign(static_cast<std::int64_t>(value));
  } else {
    self.assign(static_cast<std::uint64_t>(value));
  }
}

template <class T>
Ref<Number> number_with(T value) {
  Ref<Number> number = make<Number>();
  init_number(*number, value);
  return number;
}

template <class T>
void define_number_type(Definition<Number>& numbers, const std::string& capitalised,
                        const std::string& getter) {
  numbers.template class_method<&number_with<T>>(("numberWith" + capitalised + ":").c_str());
  numbers.template initialiser<&init_number<T>>(("initWith" + capitalised + ":").c_str());
  numbers.template method<&Number::as<T>>((getter + "Value").c_str());
}

void init_url(Url& self, String* path) { self.assign(value_of(path)); }
Ref<Url> file_url(String* path) { return make<Url>(value_of(path)); }

void define_numbers() {
  Definition<Number> numbers("NSNumber", class_of<Object>);
  numbers.allocatable();
  define_number_type<bool>(numbers, "Bool", "bool");
  define_number_type<std::int8_t>(numbers, "Char", "char");
  define_number_type<std::uint8_t>(numbers, "UnsignedChar", "unsignedChar");
  define_number_type<std::int16_t>(numbers, "Short", "short");
  define_number_type<std::uint16_t>(numbers, "UnsignedShort", "unsignedShort");
  define_number_type<std::int32_t>(numbers, "Int", "int");
  define_number_type<std::uint32_t>(numbers, "UnsignedInt", "unsignedInt");
  define_number_type<std::int64_t>(numbers, "Long", "long");
  define_number_type<std::uint64_t>(numbers, "UnsignedLong", "unsignedLong");
  define_number_type<std::int64_t>(numbers, "LongLong", "longLong");
  define_number_type<std::uint64_t>(numbers, "UnsignedLongLong", "unsignedLongLong");
  define_number_type<float>(numbers, "Float", "float");
  define_number_type<double>(numbers, "Double", "double");
  numbers.method<&Number::as<std::int64_t>>("integerValue")
      .method<&Number::as<std::uint64_t>>("unsignedIntegerValue")
      .method<&Number::describe>("stringValue")
      .method<&Number::equals>("isEqualToNumber:");
}

void init_error(Error& self, String* domain, std::int64_t code, Dictionary* info) {
  self.assign(domain, code, info);
}
Ref<Error> error_with(String* domain, std::int64_t code, Dictionary* info) {
  return make<Error>(domain, code, info);
}

}  // namespace

std::string Number::description() const {
  return std::visit([](auto value) { return text(value); }, value_);
}

bool Number::is_equal(const Object& other) const {
  const auto* number = dynamic_cast<const Number*>(&other);
  return number != nullptr && number->as<double>() == as<double>() &&
         number->as<std::int64_t>() == as<std::int64_t>();
}

void Error::assign(Ref<String> domain, std::int64_t code, Ref<Dictionary> info) {
  domain_ = std::move(domain);
  code_ = code;
  info_ = std::move(info);
}

std::string Error::description() const {
  return text("Error Domain=", value_of(domain_.get()), " Code=", code_, " \"",
              localized_description()->value(), "\"");
}

Ref<String> Error::localized_description() const {
  if (info_) {
    const Ref<String> key = make_string("NSLocalizedDescription");
    if (auto* found = dynamic_cast<String*>(info_->find(key.get()))) {
      return found;
    }
  }
  return make_string(text("The operation could not be completed. (", value_of(domain_.get()),
                          " error ", code_, ".)"));
}

Ref<Error> make_error(std::string_view domain, std::int64_t code, std::string description) {
  Dictionary::Items items;
  items.emplace_back(make_string("NSLocalizedDescription"), make_string(std::move(description)));
  return make<Error>(make_string(std::string(domain)), code, make<Dictionary>(std::move(items)));
}

void ErrorSlot::set(Ref<Error> error) const {
  if (slot_ != nullptr) {
    *slot_ = autoreleased(std::move(error));
  }
}

void define_foundation_values() {
  define_strings();
  define_numbers();
  Definition<Data>("NSData", class_of<Object>)
      .method<&Data::mutable_bytes>("mutableBytes")
      .method<&Data::length>("length");
  Definition<Url>("NSURL", class_of<Object>)
      .allocatable()
      .initialiser<&init_url>("initWithString:")
      .initialiser<&init_url>("initFileURLWithPath:")
      .class_method<&file_url>("fileURLWithPath:")
      .method<&Url::file_system_representation>("fileSystemRepresentation");
  Definition<Error>("NSError", class_of<Object>)
      .allocatable()
      .initialiser<&init_error>("initWithDomain:code:userInfo:")
      .class_method<&error_with>("errorWithDomain:code:userInfo:")
      .method<&Error::code>("code")
      .method<&Error::domain>("domain")
      .method<&Error::user_info>("userInfo")
      .method<&Error::localized_description>("localizedDescription");
}

}  // namespace softmetal
