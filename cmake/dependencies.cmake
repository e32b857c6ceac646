# Installed packages first; a pinned release from its home where one is missing.
include(FetchContent)
set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)

# ingot_dependency(NAME URL SHA256 [find_package arguments...])
macro(ingot_dependency name url sha256)
  FetchContent_Declare(${name} URL "${url}" URL_HASH SHA256=${sha256} DOWNLOAD_EXTRACT_TIMESTAMP ON
                       FIND_PACKAGE_ARGS ${ARGN})
  FetchContent_MakeAvailable(${name})
endmacro()

block()
  # What is fetched is a static, hidden part of ingot: built without its tests, never installed by its own rules.
  set(CMAKE_POLICY_DEFAULT_CMP0077 NEW)
  set(CMAKE_POLICY_DEFAULT_CMP0126 NEW)
  set(CMAKE_POSITION_INDEPENDENT_CODE ON)
  set(CMAKE_CXX_VISIBILITY_PRESET hidden)
  set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)
  set(BUILD_SHARED_LIBS OFF)
  foreach(switch HWY_ENABLE_CONTRIB HWY_ENABLE_EXAMPLES HWY_ENABLE_TESTS HWY_ENABLE_INSTALL
                 CLI11_BUILD_TESTS CLI11_BUILD_EXAMPLES CLI11_BUILD_DOCS CLI11_INSTALL
                 JSON_BuildTests JSON_Install BUILD_GMOCK INSTALL_GTEST)
    set(${switch} OFF)
  endforeach()
  set(HWY_FORCE_STATIC_LIBS ON)

  ingot_dependency(hwy https://github.com/google/highway/archive/refs/tags/1.2.0.tar.gz
    7e0be78b8318e8bdbf6fa545d2ecb4c90f947df03f7aadc42c1967f019e63343 1.0.3 CONFIG)
  if(INGOT_BUILD_CLI OR INGOT_BUILD_TESTS)
    ingot_dependency(nlohmann_json https://github.com/nlohmann/json/releases/download/v3.11.3/json.tar.xz
      d6c65aca6b1ed68e7a182f4757257b107ae403032760ed6ef121c9d55e81757d 3.10 CONFIG)
  endif()
  if(INGOT_BUILD_CLI)
    ingot_dependency(CLI11 https://github.com/CLIUtils/CLI11/archive/refs/tags/v2.4.2.tar.gz
      f2d893a65c3b1324c50d4e682c0cdc021dd0477ae2c048544f39eed6654b699a 2.1 CONFIG)
  endif()
  if(INGOT_BUILD_TESTS)
    ingot_dependency(googletest https://github.com/google/googletest/archive/refs/tags/v1.14.0.tar.gz
      8ad598c73ad796e0d8280b082cebd82a630d73e73cd3c70057938a6501bba5d7 NAMES GTest 1.10 CONFIG)
  endif()
  foreach(target hwy CLI11 nlohmann_json gtest gtest_main)
    if(TARGET ${target})
      set_property(TARGET ${target} PROPERTY SYSTEM ON)  # its headers' warnings are not ours
    endif()
  endforeach()
endblock()

# ingot_highway is what libingot links; ingot_bundled_objects what it contains where Highway was fetched, so that an
# installed static libingot is complete.
if(NOT TARGET hwy::hwy)
  add_library(hwy::hwy ALIAS hwy)
endif()
get_target_property(ingot_highway_installed hwy::hwy IMPORTED)
if(ingot_highway_installed)
  set(ingot_highway hwy::hwy)
  set(ingot_bundled_objects)
  set(ingot_pc_private "-lhwy -lstdc++ -lm -pthread")
else()
  set(ingot_highway)
  set(ingot_bundled_objects $<TARGET_OBJECTS:hwy>)
  set(ingot_pc_private "-lstdc++ -lm -pthread")
endif()
