// ingot._core: what python/ingot is made of. The Python side has the documentation.
#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include "calls.hpp"
#include "errors.hpp"
#include "jax_calls.hpp"
#include "openmp.hpp"
#include "shared_context.hpp"

namespace {

/// Gives the module a class: the one of an earlier import in this process if there is one.
template <class T, class F>
void define_once(nanobind::module_& m, const char* name, F&& members) {
  if (const nanobind::handle known = nanobind::type<T>(); known.is_valid()) {
    m.attr(name) = known;
    return;
  }
  members(nanobind::class_<T>(m, name));
}

}  // namespace

NB_MODULE(_core, m) {
  using namespace nanobind::literals;
  using ingot_python::Options;
  namespace nb = nanobind;

  nb::set_leak_warnings(false);
  m.attr("version") = ingot_version();
  ingot_python::translate_exceptions();
  m.def("set_exceptions", &ingot_python::set_exceptions);
  m.def("set_num_threads", [](std::int32_t num_threads) {
    ingot_python::check(ingot_python::set_num_threads(num_threads));
  });
  m.def("use_openmp_of", &ingot_python::use_openmp_of, "library"_a);
  define_once<ingot_python::MetalTensor>(m, "MetalTensor", [](auto type) {
    type.def(nb::init<std::uintptr_t, std::size_t, const std::string&,
                      const std::vector<std::int64_t>&, const std::vector<std::int64_t>&>(),
             "buffer"_a, "offset"_a, "dtype"_a, "shape"_a, "strides"_a);
  });
  define_once<ingot_python::Bfloat16>(
      m, "Bfloat16", [](auto type) { type.def(nb::init<nb::object>(), "bits"_a); });
  m.def("devices", &ingot_python::devices);
  m.def("jax_check",
        [](const std::array<std::int64_t, 7>& shape, const std::array<std::string, 3>& dtypes,
           const std::array<std::optional<ingot_python::DescribedArray>, 5>& arrays, double dropout,
           int causal, std::int64_t window_left, std::int64_t window_right, double scale,
           double softcap, int precision, std::int64_t workspace_limit) {
          ingot_python::jax_check(
              shape, dtypes, arrays, dropout,
              {causal, window_left, window_right, scale, softcap, precision, workspace_limit});
        });
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
  // What came after the first release of a function has a default and stands last, so that calls
  // that were written before go on working.
  m.def(
      "forward",
      [](nb::handle q, nb::handle k, nb::handle v, nb::handle o, nb::handle lse, int causal,
         std::int64_t window_left, std::int64_t window_right, double scale, double softcap,
         int precision, std::int64_t workspace_limit, const std::string& device,
         std::uintptr_t stream, nb::handle parts) {
        const Options options{causal,  window_left, window_right,   scale,
                              softcap, precision,   workspace_limit};
        ingot_python::forward(q, k, v, o, lse, parts, options, device, stream);
      },
      "q"_a.none(), "k"_a.none(), "v"_a.none(), "o"_a.none(), "lse"_a.none(), "causal"_a,
      "window_left"_a, "window_right"_a, "scale"_a, "softcap"_a, "precision"_a, "workspace_limit"_a,
      "device"_a, "stream"_a, "parts"_a.none() = nb::none());
  m.def(
      "backward",
      [](nb::handle q, nb::handle k, nb::handle v, nb::handle o, nb::handle lse, nb::handle dout,
         nb::handle dq, nb::handle dk, nb::handle dv, int causal, std::int64_t window_left,
         std::int64_t window_right, double scale, double softcap, int precision,
         std::int64_t workspace_limit, const std::string& device, std::uintptr_t stream,
         nb::handle parts, nb::handle dbias, nb::handle dsinks) {
        const Options options{causal,  window_left, window_right,   scale,
                              softcap, precision,   workspace_limit};
        ingot_python::backward(q, k, v, o, lse, dout, dq, dk, dv, dbias, dsinks, parts, options,
                               device, stream);
      },
      "q"_a.none(), "k"_a.none(), "v"_a.none(), "o"_a.none(), "lse"_a.none(), "dout"_a.none(),
      "dq"_a.none(), "dk"_a.none(), "dv"_a.none(), "causal"_a, "window_left"_a, "window_right"_a,
      "scale"_a, "softcap"_a, "precision"_a, "workspace_limit"_a, "device"_a, "stream"_a,
      "parts"_a.none() = nb::none(), "dbias"_a.none() = nb::none(), "dsinks"_a.none() = nb::none());
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
      "q"_a.none(), "k"_a.none(), "v"_a.none(), "o"_a.none(), "lse"_a.none(), "blocks"_a,
      "causal"_a, "window_left"_a, "window_right"_a, "scale"_a, "softcap"_a, "precision"_a,
      "workspace_limit"_a, "device"_a, "stream"_a);
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
      "q"_a.none(), "k"_a.none(), "v"_a.none(), "o"_a.none(), "lse"_a.none(), "dout"_a.none(),
      "dq"_a.none(), "dk"_a.none(), "dv"_a.none(), "blocks"_a, "causal"_a, "window_left"_a,
      "window_right"_a, "scale"_a, "softcap"_a, "precision"_a, "workspace_limit"_a, "device"_a,
      "stream"_a);
  m.def("explain",
        [](const std::array<std::int64_t, 7>& shape, const std::string& dtype, int causal,
           std::int64_t window_left, std::int64_t window_right, double scale, double softcap,
           int precision, std::int64_t workspace_limit, const std::string& device, bool json) {
          const Options options{causal,  window_left, window_right,   scale,
                                softcap, precision,   workspace_limit};
          return ingot_python::explain(shape, dtype, options, device, json);
        });
}
