# The Metal back end. Plans, tuning tables and kernel texts are plain C++ and always built; src/metal/device/ speaks
# to Metal through metal-cpp, and is built where there is a Metal: macOS, or softmetal.
string(TOLOWER "${INGOT_METAL}" metal)
set(ingot_metal_libraries)  # what ingot's objects use and link
if(metal STREQUAL "softmetal")
  add_subdirectory(softmetal)
  if(NOT TARGET softmetal::metal_cpp)
    message(FATAL_ERROR "INGOT_METAL=softmetal needs metal-cpp (see softmetal/README.md)")
  endif()
  set(ingot_metal_libraries softmetal::metal_cpp)
  set(INGOT_INSTALL OFF)  # a software device is for tests
elseif(metal STREQUAL "on")
  if(NOT APPLE)
    message(FATAL_ERROR "INGOT_METAL=ON needs macOS; elsewhere there is INGOT_METAL=softmetal")
  endif()
  set(INGOT_METAL_CPP "${PROJECT_BINARY_DIR}/metal-cpp" CACHE PATH
      "A folder that holds metal-cpp; fetched when it is not there")
  if(NOT EXISTS "${INGOT_METAL_CPP}/Metal/Metal.hpp")
    execute_process(COMMAND "${PROJECT_SOURCE_DIR}/softmetal/fetch_metal_cpp.sh" "${PROJECT_BINARY_DIR}"
                    COMMAND_ERROR_IS_FATAL ANY)
  endif()
  add_library(ingot_metal_cpp INTERFACE)
  target_include_directories(ingot_metal_cpp SYSTEM INTERFACE "${INGOT_METAL_CPP}")
  target_link_libraries(ingot_metal_cpp INTERFACE "-framework Foundation" "-framework Metal")
  set(ingot_metal_libraries $<BUILD_INTERFACE:ingot_metal_cpp>)
elseif(NOT metal STREQUAL "off")
  message(FATAL_ERROR "INGOT_METAL: must be ON, OFF or softmetal, got ${INGOT_METAL}")
endif()

# Adds the device's sources to ingot's objects.
function(ingot_use_metal target)
  if(NOT ingot_metal_libraries)
    return()
  endif()
  file(GLOB device_sources CONFIGURE_DEPENDS src/metal/device/*.cpp)
  target_sources(${target} PRIVATE ${device_sources})
  target_link_libraries(${target} PUBLIC ${ingot_metal_libraries})
  target_compile_definitions(${target} PUBLIC INGOT_WITH_METAL)
  if(metal STREQUAL "softmetal")
    target_compile_definitions(${target} PUBLIC INGOT_METAL_IN_SOFTWARE)
  endif()
endfunction()
