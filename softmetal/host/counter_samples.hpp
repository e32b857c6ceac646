// MTLCounterSampleBuffer: GPU timestamps at the borders of encoders.
#pragma once

#include <array>
#include <mutex>
#include <vector>

#include "device.hpp"

namespace softmetal {

class CounterSamples : public Object {
 public:
  CounterSamples(Ref<Device> device, Ref<String> label, std::uint64_t count);
  std::string label_text() const override { return value_of(label_.get()); }
  Device* device() const { return device_.get(); }
  String* label() const { return label_.get(); }
  std::uint64_t count() const { return samples_.size(); }
  // Writes the time, in nanoseconds, at `index`; behind the end is an error.
  void sample_now(std::uint64_t index);
  Ref<Data> resolve(Range range) const;

 private:
  Ref<Device> device_;
  Ref<String> label_;
  mutable std::mutex mutex_;
  std::vector<std::uint64_t> samples_;
};

inline constexpr std::uint64_t dont_sample = ~std::uint64_t{0};

// Where an encoder writes its times.
class SampleAttachment : public Object {
 public:
  Ref<CounterSamples> samples;
  std::uint64_t start_index = 0;
  std::uint64_t end_index = 1;
};

class SampleAttachments : public Object {
 public:
  SampleAttachments();
  SampleAttachment* at(std::uint64_t index) const;
  void set(SampleAttachment* attachment, std::uint64_t index);
  const std::array<Ref<SampleAttachment>, 4>& all() const { return attachments_; }

 private:
  std::array<Ref<SampleAttachment>, 4> attachments_;
};

void define_counter_samples();

}  // namespace softmetal
