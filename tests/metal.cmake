# Tests of device metal:0 on softmetal: the table of cases without checks (fast), a part of it with every check of
# softmetal on, as several devices and in several orders of execution, and what Apple's compilers would say.
set(table "*.AgreesWithReference/metal_0_*")

# ingot_metal_table(NAME [VARIABLE=VALUE...]): the whole table, without softmetal's checks. A shard has 29 rows (93 of
# the full table) and takes 75 s of one core where no kernel is in softmetal's cache: compiling them is most of it.
function(ingot_metal_table name)
  ingot_sharded_test(${name} 24 "${table}" SOFTMETAL_CHECKS=off ${ARGN})
endfunction()

ingot_metal_table(ingot_tests SOFTMETAL_DEVICE=m1)
# Of `./dev test --metal`: as other devices, and in other orders of execution.
ingot_metal_table(metal_table_m3-max SOFTMETAL_DEVICE=m3-max)
ingot_metal_table(metal_table_m4 SOFTMETAL_DEVICE=m4)
ingot_metal_table(metal_table_order_1 SOFTMETAL_DEVICE=m1 SOFTMETAL_SCHEDULE=random:1)
ingot_metal_table(metal_table_order_2 SOFTMETAL_DEVICE=m3-max SOFTMETAL_SCHEDULE=random:2)
ingot_metal_table(metal_table_order_3 SOFTMETAL_DEVICE=m4 SOFTMETAL_SCHEDULE=random:3)

ingot_sharded_test(metal_host 4 "Metal*")
# The languages of the systems, and messages that an older one lacks.
set(host "MetalDevice.*:MetalHost.*-MetalHost.SlicesAtOddOffsets")
ingot_sharded_test(metal_host_macos_13 1 "${host}" SOFTMETAL_OS=13.0 SOFTMETAL_DEVICE=m2 SOFTMETAL_CHECKS=off)
ingot_sharded_test(metal_host_macos_14 1 "${host}" SOFTMETAL_OS=14.0 SOFTMETAL_DEVICE=m3 SOFTMETAL_CHECKS=off)
ingot_sharded_test(metal_host_macos_15 1 "${host}" SOFTMETAL_OS=15.0 SOFTMETAL_DEVICE=m4-max SOFTMETAL_CHECKS=off)

# ingot_metal_checked(NAME [VARIABLE=VALUE...]): a small part of the table, with every check of softmetal.
function(ingot_metal_checked name)
  ingot_sharded_test(${name} 2 "${table}" INGOT_TEST_QUICK=1 ${ARGN})
endfunction()

# As each device and in several orders.
ingot_metal_checked(metal_checked_m1 SOFTMETAL_DEVICE=m1)
ingot_metal_checked(metal_checked_m1_order_1 SOFTMETAL_DEVICE=m1 SOFTMETAL_SCHEDULE=random:1)
ingot_metal_checked(metal_checked_m1_order_2 SOFTMETAL_DEVICE=m1 SOFTMETAL_SCHEDULE=random:2)
ingot_metal_checked(metal_checked_m3-max SOFTMETAL_DEVICE=m3-max)
ingot_metal_checked(metal_checked_m4 SOFTMETAL_DEVICE=m4 SOFTMETAL_SCHEDULE=random:3)

# What Apple's compiler of kernels would object to, in every kernel that the tuning tables lead to.
add_executable(write_kernels metal/write_kernels.cpp $<TARGET_OBJECTS:ingot_objects> ${ingot_bundled_objects})
target_link_libraries(write_kernels PRIVATE ingot_objects hwy::hwy)
ingot_target_settings(write_kernels)
add_test(NAME metal_kernels_written COMMAND write_kernels "${PROJECT_BINARY_DIR}/kernels")
add_test(NAME metal_kernels_lint
         COMMAND "${CMAKE_CURRENT_SOURCE_DIR}/metal/lint.sh" $<TARGET_FILE:softmetal_lint> "${PROJECT_BINARY_DIR}/kernels")
set_tests_properties(metal_kernels_written PROPERTIES FIXTURES_SETUP metal_kernels)
set_tests_properties(metal_kernels_lint PROPERTIES FIXTURES_REQUIRED metal_kernels TIMEOUT ${shard_timeout})

# The host compiles for a Mac and asks for nothing that a Mac lacks.
file(GLOB metal_host_files CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/src/metal/*.cpp" "${PROJECT_SOURCE_DIR}/src/metal/device/*.cpp")
get_target_property(metal_cpp softmetal_metal_cpp INTERFACE_INCLUDE_DIRECTORIES)
add_test(NAME metal_host_compiles_for_macos
         COMMAND "${PROJECT_SOURCE_DIR}/softmetal/apple_check.sh" "${metal_cpp}" ${metal_host_files} --
                 "-I${PROJECT_SOURCE_DIR}/src" "-I${PROJECT_SOURCE_DIR}/include" -DINGOT_WITH_METAL)
set_tests_properties(metal_host_compiles_for_macos PROPERTIES ENVIRONMENT "CXX=${CMAKE_CXX_COMPILER}" TIMEOUT 600)
