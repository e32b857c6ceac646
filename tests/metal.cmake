# Tests of device metal:0 on softmetal: the table of cases without checks (fast), a part of it with every check of
# softmetal on, as several devices and in several orders of execution, and what Apple's compilers would say.
set(results "${PROJECT_BINARY_DIR}/results")

# ingot_metal_test(NAME FILTER [VARIABLE=VALUE...])
function(ingot_metal_test name filter)
  add_test(NAME ${name} COMMAND ingot_tests --gtest_brief=1 "--gtest_filter=${filter}"
                                            "--gtest_output=xml:${results}/${name}.xml")
  set_tests_properties(${name} PROPERTIES ENVIRONMENT "${ARGN}" TIMEOUT 1200)
endfunction()

set(table "*.AgreesWithReference/metal_0_*")

# ingot_metal_table(NAME [VARIABLE=VALUE...]): the whole table in shards, without softmetal's checks.
function(ingot_metal_table name)
  set(shards 4)
  foreach(shard RANGE 1 ${shards})
    math(EXPR index "${shard} - 1")
    ingot_metal_test(${name}.${shard} "${table}" SOFTMETAL_CHECKS=off GTEST_TOTAL_SHARDS=${shards}
                     GTEST_SHARD_INDEX=${index} ${ARGN})
  endforeach()
endfunction()

ingot_metal_table(ingot_tests SOFTMETAL_DEVICE=m1)
# Of `./dev test --metal`: as other devices, and in other orders of execution.
ingot_metal_table(metal_table_m3-max SOFTMETAL_DEVICE=m3-max)
ingot_metal_table(metal_table_m4 SOFTMETAL_DEVICE=m4)
ingot_metal_table(metal_table_order_1 SOFTMETAL_DEVICE=m1 SOFTMETAL_SCHEDULE=random:1)
ingot_metal_table(metal_table_order_2 SOFTMETAL_DEVICE=m3-max SOFTMETAL_SCHEDULE=random:2)
ingot_metal_table(metal_table_order_3 SOFTMETAL_DEVICE=m4 SOFTMETAL_SCHEDULE=random:3)

ingot_metal_test(metal_host "Metal*")
# The languages of the systems, and messages that an older one lacks.
set(host "MetalDevice.*:MetalHost.*-MetalHost.SlicesAtOddOffsets")
ingot_metal_test(metal_host_macos_13 "${host}" SOFTMETAL_OS=13.0 SOFTMETAL_DEVICE=m2 SOFTMETAL_CHECKS=off)
ingot_metal_test(metal_host_macos_14 "${host}" SOFTMETAL_OS=14.0 SOFTMETAL_DEVICE=m3 SOFTMETAL_CHECKS=off)
ingot_metal_test(metal_host_macos_15 "${host}" SOFTMETAL_OS=15.0 SOFTMETAL_DEVICE=m4-max SOFTMETAL_CHECKS=off)

# With every check of softmetal, a small part of the table: as each device and in several orders.
ingot_metal_test(metal_checked_m1 "${table}" INGOT_TEST_QUICK=1 SOFTMETAL_DEVICE=m1)
ingot_metal_test(metal_checked_m1_order_1 "${table}" INGOT_TEST_QUICK=1 SOFTMETAL_DEVICE=m1 SOFTMETAL_SCHEDULE=random:1)
ingot_metal_test(metal_checked_m1_order_2 "${table}" INGOT_TEST_QUICK=1 SOFTMETAL_DEVICE=m1 SOFTMETAL_SCHEDULE=random:2)
ingot_metal_test(metal_checked_m3-max "${table}" INGOT_TEST_QUICK=1 SOFTMETAL_DEVICE=m3-max)
ingot_metal_test(metal_checked_m4 "${table}" INGOT_TEST_QUICK=1 SOFTMETAL_DEVICE=m4 SOFTMETAL_SCHEDULE=random:3)

# What Apple's compiler of kernels would object to, in every kernel that the tuning tables lead to.
add_executable(write_kernels metal/write_kernels.cpp $<TARGET_OBJECTS:ingot_objects> ${ingot_bundled_objects})
target_link_libraries(write_kernels PRIVATE ingot_objects hwy::hwy)
ingot_target_settings(write_kernels)
add_test(NAME metal_kernels_written COMMAND write_kernels "${PROJECT_BINARY_DIR}/kernels")
add_test(NAME metal_kernels_lint
         COMMAND "${CMAKE_CURRENT_SOURCE_DIR}/metal/lint.sh" $<TARGET_FILE:softmetal_lint> "${PROJECT_BINARY_DIR}/kernels")
set_tests_properties(metal_kernels_written PROPERTIES FIXTURES_SETUP metal_kernels)
set_tests_properties(metal_kernels_lint PROPERTIES FIXTURES_REQUIRED metal_kernels TIMEOUT 1800)

# The host compiles for a Mac and asks for nothing that a Mac lacks.
file(GLOB metal_host_files CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/src/metal/*.cpp" "${PROJECT_SOURCE_DIR}/src/metal/device/*.cpp")
get_target_property(metal_cpp softmetal_metal_cpp INTERFACE_INCLUDE_DIRECTORIES)
add_test(NAME metal_host_compiles_for_macos
         COMMAND "${PROJECT_SOURCE_DIR}/softmetal/apple_check.sh" "${metal_cpp}" ${metal_host_files} --
                 "-I${PROJECT_SOURCE_DIR}/src" "-I${PROJECT_SOURCE_DIR}/include" -DINGOT_WITH_METAL)
set_tests_properties(metal_host_compiles_for_macos PROPERTIES ENVIRONMENT "CXX=${CMAKE_CXX_COMPILER}" TIMEOUT 600)
