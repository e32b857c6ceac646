#include "cuda/operands.hpp"

#include "core/error.hpp"
#include "core/operands.hpp"

namespace ingot::cuda {
namespace {

/// Collects operands; their places are in the arguments that they come from.
class List {
 public:
  auto inputs() {
    return [this](const OperandInfo& info, ConstTensor& t) { add(info, t, false, &t.data); };
  }
  auto outputs() {
    return [this](const OperandInfo& info, Tensor& t) {
      add(info, t, true, const_cast<const void**>(&t.data));
    };
  }
  const OperandList& all() const { return all_; }

 private:
  template <class AnyTensor>
  void add(const OperandInfo& info, AnyTensor& t, bool is_output, const void** place) {
    if (!info.is_on) return;
    all_.all[all_.count++] = {info.name, t.data, t.stride, info.shape, size_bytes(info.dtype),
                              is_output, place};
  }

  OperandList all_;
};

}  // namespace

OperandList operands_of(const Problem& p, ForwardArgs& args) {
  List list;
  for_each_input_of_forward(p, args, list.inputs());
  for_each_output_of_forward(p, args, list.outputs());
  return list.all();
}

OperandList operands_of(const Problem& p, BackwardArgs& args) {
  List list;
  for_each_input_of_backward(p, args, list.inputs());
  for_each_output_of_backward(p, args, list.outputs());
  return list.all();
}

Place common_place(const Device& device, std::span<const Operand> operands) {
  const Operand* first = nullptr;
  Place place = Place::device;
  for (const Operand& operand : operands) {
    if (operand.is_empty()) continue;
    const Place here = device.place_of(operand.data, operand.name);
    if (first == nullptr) {
      first = &operand;
      place = here;
    } else if (here != place) {
      const auto name = [](Place p) { return p == Place::host ? " in host" : " in device"; };
      throw Error(Code::invalid_argument, std::string(operand.name) + ".data: must lie where " +
                                              first->name + ".data lies; " + first->name + " is" +
                                              name(place) + " memory, " + operand.name + " is" +
                                              name(here) + " memory");
    }
  }
  return place;
}

void copy_in(std::span<const Operand> operands, HostTensors& tensors) {
  for (const Operand& o : operands) {
    if (o.is_empty()) continue;
    *o.place = o.is_output ? tensors.add_output(const_cast<void*>(o.data), o.sizes, o.stride,
                                                o.element_bytes)
                           : tensors.add_input(o.data, o.sizes, o.stride, o.element_bytes);
  }
}

}  // namespace ingot::cuda
