#include "counter_samples.hpp"

#include <cstring>
#include <ctime>

#include "runtime.hpp"

namespace softmetal {
namespace {

constexpr std::uint64_t most_samples = 4096;  // Metal allows 32 KB a buffer

class Counter : public Object {
 public:
  Ref<String> name() const { return make_string("GPUTimestamp"); }
};

class CounterSet : public Object {
 public:
  Ref<String> name() const { return make_string("timestamp"); }
  Ref<Array> counters() const { return make<Array>(Array::Items{make<Counter>()}); }
};

class SamplesDescriptor : public Object {
 public:
  Ref<CounterSet> counter_set;
  Ref<String> label;
  std::uint64_t sample_count = 0;
  std::uint64_t storage_mode = 0;
};

Ref<Array> counter_sets(const Device&) { return make<Array>(Array::Items{make<CounterSet>()}); }

Ref<CounterSamples> new_samples(Device& device, SamplesDescriptor* descriptor, ErrorSlot slot) {
  if (descriptor == nullptr || !descriptor->counter_set || descriptor->sample_count == 0 ||
      descriptor->sample_count > most_samples) {
    slot.set(
        make_error("MTLCounterErrorDomain", 1,
                   text("the descriptor needs a counter set and 1 to ", most_samples, " samples")));
    return nullptr;
  }
  return make<CounterSamples>(&device, descriptor->label, descriptor->sample_count);
}

}  // namespace

CounterSamples::CounterSamples(Ref<Device> device, Ref<String> label, std::uint64_t count)
    : device_(std::move(device)), label_(std::move(label)), samples_(count) {}

void CounterSamples::sample_now(std::uint64_t index) {
  const std::lock_guard lock(mutex_);
  if (index >= samples_.size()) {
    error("sample-index",
          text(name_for_findings(), ": index ", index, " of ", samples_.size(), " samples"));
    return;
  }
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  samples_[index] = static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 +
                    static_cast<std::uint64_t>(now.tv_nsec);
}

Ref<Data> CounterSamples::resolve(Range range) const {
  const std::lock_guard lock(mutex_);
  if (range.location > samples_.size() || range.length > samples_.size() - range.location) {
    error("sample-index", text(current_message(), ": range ", range.location, "+", range.length,
                               " of ", samples_.size(), " samples"));
    return nullptr;
  }
  std::vector<std::byte> bytes(range.length * sizeof(std::uint64_t));
  std::memcpy(bytes.data(), samples_.data() + range.location, bytes.size());
  return make<Data>(std::move(bytes));
}

SampleAttachments::SampleAttachments() {
  for (auto& attachment : attachments_) {
    attachment = make<SampleAttachment>();
  }
}

SampleAttachment* SampleAttachments::at(std::uint64_t index) const {
  if (index >= attachments_.size()) {
    error("sample-index",
          text(current_message(), ": attachment ", index, " of ", attachments_.size()));
    return nullptr;
  }
  return attachments_[index].get();
}

void SampleAttachments::set(SampleAttachment* attachment, std::uint64_t index) {
  if (at(index) != nullptr) {
    attachments_[index] = attachment != nullptr ? attachment : make<SampleAttachment>();
  }
}

void define_counter_samples() {
  Definition<Counter>("MTLCounter", class_of<Object>).method<&Counter::name>("name", {10, 15});
  Definition<CounterSet>("MTLCounterSet", class_of<Object>)
      .method<&CounterSet::name>("name", {10, 15})
      .method<&CounterSet::counters>("counters", {10, 15});
  using D = SamplesDescriptor;
  Definition<D>("MTLCounterSampleBufferDescriptor", class_of<Object>)
      .allocatable()
      .property<&D::counter_set>("counterSet", {10, 15})
      .property<&D::label>("label", {10, 15})
      .property<&D::sample_count>("sampleCount", {10, 15})
      .property<&D::storage_mode>("storageMode", {10, 15});
  using S = CounterSamples;
  Definition<S>("MTLCounterSampleBuffer", class_of<Object>)
      .method<&S::device>("device", {10, 15})
      .method<&S::label>("label", {10, 15})
      .method<&S::count>("sampleCount", {10, 15})
      .method<&S::resolve>("resolveCounterRange:", {10, 15});
  using A = SampleAttachment;
  Definition<A>("MTLComputePassSampleBufferAttachmentDescriptor", class_of<Object>)
      .allocatable()
      .property<&A::samples>("sampleBuffer", {11, 0})
      .property<&A::start_index>("startOfEncoderSampleIndex", {11, 0})
      .property<&A::end_index>("endOfEncoderSampleIndex", {11, 0});
  Definition<SampleAttachments>("MTLComputePassSampleBufferAttachmentDescriptorArray",
                                class_of<Object>)
      .method<&SampleAttachments::at>("objectAtIndexedSubscript:", {11, 0})
      .method<&SampleAttachments::set>("setObject:atIndexedSubscript:", {11, 0});
  Definition<Device>()
      .method<&counter_sets>("counterSets", {10, 15})
      .method<&new_samples>("newCounterSampleBufferWithDescriptor:error:", {10, 15});
}

}  // namespace softmetal
