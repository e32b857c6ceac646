#include "cuda/operands.hpp"

#include "core/error.hpp"

namespace ingot::cuda {
namespace {

/// Collects operands.
class List {
 public:
  void input(const char* name, const ConstTensor& t, const Sizes& sizes, Dtype dtype,
             ConstTensor& place) {
    add({name, t.data, &t.stride, sizes, size_bytes(dtype), false, &place.data});
  }
  void output(const char* name, const Tensor& t, const Sizes& sizes, Dtype dtype, Tensor& place) {
    add({name, t.data, &t.stride, sizes, size_bytes(dtype), true,
         const_cast<const void**>(&place.data)});
  }
  const OperandList& all() const { return all_; }

 private:
  void add(const Operand& operand) { all_.all[all_.count++] = operand; }

  OperandList all_;
};

struct Shapes {
  Sizes q, k, v, o, lse;
};

Shapes shapes_of(const Problem& p) {
  return {{p.batch, p.num_heads, p.seqlen_q, p.head_dim},
          {p.batch, p.num_heads_kv, p.seqlen_k, p.head_dim},
          {p.batch, p.num_heads_kv, p.seqlen_k, p.head_dim_v},
          {p.batch, p.num_heads, p.seqlen_q, p.head_dim_v},
          {p.batch, p.num_heads, p.seqlen_q, 1}};
}

}  // namespace

OperandList operands_of(const Problem& p, const ForwardArgs& from, ForwardArgs& to) {
  const Shapes shapes = shapes_of(p);
  List list;
  list.input("q", from.q, shapes.q, p.q, to.q);
  list.input("k", from.k, shapes.k, p.k, to.k);
  list.input("v", from.v, shapes.v, p.v, to.v);
  list.output("o", from.o, shapes.o, p.o, to.o);
  list.output("lse", from.lse, shapes.lse, Dtype::f32, to.lse);
  return list.all();
}

OperandList operands_of(const Problem& p, const BackwardArgs& from, BackwardArgs& to) {
  const Shapes shapes = shapes_of(p);
  List list;
  list.input("q", from.q, shapes.q, p.q, to.q);
  list.input("k", from.k, shapes.k, p.k, to.k);
  list.input("v", from.v, shapes.v, p.v, to.v);
  list.input("o", from.o, shapes.o, p.o, to.o);
  list.input("lse", from.lse, shapes.lse, Dtype::f32, to.lse);
  list.input("dout", from.dout, shapes.o, p.dout, to.dout);
  list.output("dq", from.dq, shapes.q, p.dq, to.dq);
  list.output("dk", from.dk, shapes.k, p.dk, to.dk);
  list.output("dv", from.dv, shapes.v, p.dv, to.dv);
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
    *o.place = o.is_output ? tensors.add_output(const_cast<void*>(o.data), o.sizes, *o.stride,
                                                o.element_bytes)
                           : tensors.add_input(o.data, o.sizes, *o.stride, o.element_bytes);
  }
}

}  // namespace ingot::cuda
