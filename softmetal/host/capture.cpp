// MTLCaptureManager: there is no capture tool here, which is what it says when asked.
#include "command_buffer.hpp"
#include "runtime.hpp"

namespace softmetal {
namespace {

constexpr std::int64_t error_not_supported = 1;

class CaptureDescriptor : public Object {
 public:
  Ref<Object> object;
  std::int64_t destination = 1;
  Ref<Url> url;
};

class CaptureScope : public Object {
 public:
  explicit CaptureScope(Ref<Device> device = {}, Ref<CommandQueue> queue = {})
      : device_(std::move(device)), queue_(std::move(queue)) {}
  std::string label_text() const override { return value_of(label.get()); }
  Device* device() const { return device_.get(); }
  CommandQueue* queue() const { return queue_.get(); }
  void begin() { open_ = true; }
  void end() {
    if (!open_) {
      error("capture-scope", text(current_message(), ": beginScope must come first"));
    }
    open_ = false;
  }
  Ref<String> label;

 private:
  Ref<Device> device_;
  Ref<CommandQueue> queue_;
  bool open_ = false;
};

class CaptureManager : public Object {
 public:
  bool capturing() const { return false; }
  bool supports(std::int64_t) const { return false; }
  void stop() {}
  bool start(CaptureDescriptor*, ErrorSlot slot) {
    slot.set(make_error("MTLCaptureErrorDomain", error_not_supported,
                        "softmetal cannot capture; set METAL_CAPTURE_ENABLED=1 on a Mac"));
    return false;
  }
  Ref<CaptureScope> scope_of_device(Device* device) { return make<CaptureScope>(device); }
  Ref<CaptureScope> scope_of_queue(CommandQueue* queue) {
    return make<CaptureScope>(queue->device(), queue);
  }
  Ref<CaptureScope> default_scope;
};

CaptureManager* shared_manager() {
  static CaptureManager* const manager = [] {
    CaptureManager* made = make<CaptureManager>().detach();
    made->immortal = true;
    return made;
  }();
  return manager;
}

}  // namespace

void define_capture() {
  using D = CaptureDescriptor;
  Definition<D>("MTLCaptureDescriptor", class_of<Object>)
      .allocatable()
      .property<&D::object>("captureObject", {10, 15})
      .property<&D::destination>("destination", {10, 15})
      .property<&D::url>("outputURL", {10, 15});
  using S = CaptureScope;
  Definition<S>("MTLCaptureScope", class_of<Object>)
      .property<&S::label>("label", {10, 13})
      .method<&S::device>("device", {10, 13})
      .method<&S::queue>("commandQueue", {10, 13})
      .method<&S::begin>("beginScope", {10, 13})
      .method<&S::end>("endScope", {10, 13});
  using M = CaptureManager;
  Definition<M>("MTLCaptureManager", class_of<Object>)
      .class_method<&shared_manager>("sharedCaptureManager", {10, 13})
      .property<&M::default_scope>("defaultCaptureScope", {10, 13})
      .method<&M::capturing>("isCapturing", {10, 13})
      .method<&M::supports>("supportsDestination:", {10, 15})
      .method<&M::start>("startCaptureWithDescriptor:error:", {10, 15})
      .method<&M::stop>("stopCapture", {10, 13})
      .method<&M::scope_of_device>("newCaptureScopeWithDevice:", {10, 13})
      .method<&M::scope_of_queue>("newCaptureScopeWithCommandQueue:", {10, 13});
}

}  // namespace softmetal
