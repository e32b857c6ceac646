#include <map>

#include "../stdlib/softmetal_abi.h"
#include "source_pass.hpp"

namespace softmetal::msl {

int argument_kind(std::string_view attribute) {
  using namespace softmetal_abi;
  static const std::map<std::string_view, int> kKinds{
      {"buffer", arg_buffer},
      {"threadgroup", arg_threadgroup},
      {"texture", arg_unsupported},
      {"sampler", arg_unsupported},
      {"thread_position_in_grid", arg_thread_position_in_grid},
      {"thread_position_in_threadgroup", arg_thread_position_in_threadgroup},
      {"thread_index_in_threadgroup", arg_thread_index_in_threadgroup},
      {"thread_index_in_simdgroup", arg_thread_index_in_simdgroup},
      {"simdgroup_index_in_threadgroup", arg_simdgroup_index_in_threadgroup},
      {"thread_index_in_quadgroup", arg_thread_index_in_quadgroup},
      {"quadgroup_index_in_threadgroup", arg_quadgroup_index_in_threadgroup},
      {"threadgroup_position_in_grid", arg_threadgroup_position_in_grid},
      {"threads_per_threadgroup", arg_threads_per_threadgroup},
      {"dispatch_threads_per_threadgroup", arg_dispatch_threads_per_threadgroup},
      {"threads_per_grid", arg_threads_per_grid},
      {"threadgroups_per_grid", arg_threadgroups_per_grid},
      {"simdgroups_per_threadgroup", arg_simdgroups_per_threadgroup},
      {"dispatch_simdgroups_per_threadgroup", arg_dispatch_simdgroups_per_threadgroup},
      {"threads_per_simdgroup", arg_threads_per_simdgroup},
      {"thread_execution_width", arg_threads_per_simdgroup},
      {"quadgroups_per_threadgroup", arg_quadgroups_per_threadgroup},
      {"dispatch_quadgroups_per_threadgroup", arg_dispatch_quadgroups_per_threadgroup},
      {"grid_origin", arg_grid_origin},
      {"grid_size", arg_threads_per_grid}};
  const auto known = kKinds.find(attribute);
  return known == kKinds.end() ? -1 : known->second;
}

}  // namespace softmetal::msl
