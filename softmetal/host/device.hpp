// MTLDevice, and the values that many Metal calls share.
#pragma once

#include <atomic>
#include <cstdint>

#include "foundation.hpp"
#include "profile.hpp"

namespace softmetal {

// MTLSize and NSRange, as they are passed.
struct Extent {
  std::uint64_t width = 0;
  std::uint64_t height = 0;
  std::uint64_t depth = 0;
  std::uint64_t count() const { return width * height * depth; }
};
struct Range {
  std::uint64_t location = 0;
  std::uint64_t length = 0;
};

class Device : public Object {
 public:
  Device() : profile_(softmetal::profile()) {}
  ~Device() override;
  // The one device, made on first use; it lives as long as something refers to it.
  static Ref<Device> shared();

  const Profile& profile() const { return profile_; }
  std::string label_text() const override { return profile_.name; }

  // Counts `bytes` of buffer memory; false when the working set would be exceeded.
  bool reserve(std::uint64_t bytes);
  void give_back(std::uint64_t bytes) { allocated_ -= bytes; }
  std::uint64_t allocated() const { return allocated_; }
  String* name() const { return name_.get(); }

 private:
  const Profile& profile_;
  Ref<String> name_ = make_string(profile_.name);
  std::atomic<std::uint64_t> allocated_{0};
};

}  // namespace softmetal
