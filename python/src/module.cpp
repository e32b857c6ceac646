// ingot._core: what python/ingot is made of. The Python side has the documentation.
#include <nanobind/stl/array.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include "calls.hpp"
#include "errors.hpp"
#include "jax_calls.hpp"
#include "openmp.hpp"
#include "shared_context.hpp"

NB_MODULE(_core, m) {
  using namespace nanobind::literals;
  using ingot_python::Options;
  namespace nb = nanobind;

  nb::set_leak_warnings(false);
  m.attr("version") = ingot_version();
  m.def("set_exceptions", &ingot_python::set_exceptions);
  m.def("set_num_threads", [](std::int32_t num_threads) {
    ingot_python::check(ingot_python::set_num_threads(num_threads));
  });
  m.def("use_openmp_of", &ingot_python::use_openmp_of, "library"_a);
  nb::class_<ingot_python::MetalTensor>(m, "MetalTensor")
      .def(nb::init<std::uintptr_t, std::size_t, const std::string&,
                    const std::vector<std::int64_t>&, const std::vector<std::int64_t>&>(),
           "buffer"_a, "offset"_a, "dtype"_a, "shape"_a, "strides"_a);
  m.def("devices", &ingot_python::devices);
  m.def("jax_handlers", [] {
    using ingot_python::xla::CallFrame;
    const auto capsule = [](ingot_python::xla::Error* (*handler)(CallFrame*)) {
      return nb::capsule(reinterpret_cast<void*>(handler), "xla._CUSTOM_CALL_TARGET");
    };
    return nb::make_tuple(
        nb::make_tuple("ingot_forward", "cpu", capsule(&ingot_python::jax_forward_cpu)),
        nb::make_tuple("ingot_forward", "CUDA", capsule(&ingot_python::jax_forward_cuda)),
        nb::make_tuple("ingot_backward", "cpu", capsule(&ingot_python::jax_backward_cpu)),
        nb::make_tuple("ingot_backward", "CUDA", capsule(&ingot_python::jax_backward_cuda)));
  });
  m.def(
      "forward",
      [](nb::handle q, nb::handle k, nb::handle v, nb::handle o, nb::handle lse, int causal,
         std::int64_t window_left, std::int64_t window_right, double scale, double softcap,
         int precision, std::int64_t workspace_limit, const std::string& device,
         std::uintptr_t stream) {
        const Options options{causal,  window_left, window_right,   scale,
                              softcap, precision,   workspace_limit};
        ingot_python::forward(q, k, v, o, lse, options, device, stream);
      },
      "q"_a, "k"_a, "v"_a, "o"_a, "lse"_a.none(), "causal"_a, "window_left"_a, "window_right"_a,
      "scale"_a, "softcap"_a, "precision"_a, "workspace_limit"_a, "device"_a, "stream"_a);
  m.def(
      "backward",
      [](nb::handle q, nb::handle k, nb::handle v, nb::handle o, nb::handle lse, nb::handle dout,
         nb::handle dq, nb::handle dk, nb::handle dv, int causal, std::int64_t window_left,
         std::int64_t window_right, double scale, double softcap, int precision,
         std::int64_t workspace_limit, const std::string& device, std::uintptr_t stream) {
        const Options options{causal,  window_left, window_right,   scale,
                              softcap, precision,   workspace_limit};
        ingot_python::backward(q, k, v, o, lse, dout, dq, dk, dv, options, device, stream);
      },
      "q"_a, "k"_a, "v"_a, "o"_a, "lse"_a, "dout"_a, "dq"_a.none(), "dk"_a.none(), "dv"_a.none(),
      "causal"_a, "window_left"_a, "window_right"_a, "scale"_a, "softcap"_a, "precision"_a,
      "workspace_limit"_a, "device"_a, "stream"_a);
  m.def(
      "forward_ragged",
      [](nb::handle q, nb::handle k, nb::handle v, nb::handle o, nb::handle lse,
         const std::vector<std::int64_t>& blocks, int causal, std::int64_t window_left,
         std::int64_t window_right, double scale, double softcap, int precision,
         std::int64_t workspace_limit, const std::string& device, std::uintptr_t stream) {
        const Options options{causal,  window_left, window_right,   scale,
                              softcap, precision,   workspace_limit};
        ingot_python::forward_ragged(q, k, v, o, lse, blocks, options, device, stream);
      },
      "q"_a, "k"_a, "v"_a, "o"_a, "lse"_a.none(), "blocks"_a, "causal"_a, "window_left"_a,
      "window_right"_a, "scale"_a, "softcap"_a, "precision"_a, "workspace_limit"_a, "device"_a,
      "stream"_a);
  m.def(
      "backward_ragged",
      [](nb::handle q, nb::handle k, nb::handle v, nb::handle o, nb::handle lse, nb::handle dout,
         nb::handle dq, nb::handle dk, nb::handle dv, const std::vector<std::int64_t>& blocks,
         int causal, std::int64_t window_left, std::int64_t window_right, double scale,
         double softcap, int precision, std::int64_t workspace_limit, const std::string& device,
         std::uintptr_t stream) {
        const Options options{causal,  window_left, window_right,   scale,
                              softcap, precision,   workspace_limit};
        ingot_python::backward_ragged(q, k, v, o, lse, dout, dq, dk, dv, blocks, options, device,
                                      stream);
      },
      "q"_a, "k"_a, "v"_a, "o"_a, "lse"_a, "dout"_a, "dq"_a.none(), "dk"_a.none(), "dv"_a.none(),
      "blocks"_a, "causal"_a, "window_left"_a, "window_right"_a, "scale"_a, "softcap"_a,
      "precision"_a, "workspace_limit"_a, "device"_a, "stream"_a);
  m.def("explain",
        [](const std::array<std::int64_t, 7>& shape, const std::string& dtype, int causal,
           std::int64_t window_left, std::int64_t window_right, double scale, double softcap,
           int precision, std::int64_t workspace_limit, const std::string& device, bool json) {
          const Options options{causal,  window_left, window_right,   scale,
                                softcap, precision,   workspace_limit};
          return ingot_python::explain(shape, dtype, options, device, json);
        });
}
