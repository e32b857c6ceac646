include(CMakePackageConfigHelpers)
set(package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/ingot")

install(TARGETS ingot EXPORT ingot_targets)
install(DIRECTORY include/ingot DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
install(FILES README.md LICENSE DESTINATION "${CMAKE_INSTALL_DOCDIR}")
install(EXPORT ingot_targets NAMESPACE ingot:: FILE ingotTargets.cmake DESTINATION "${package_dir}")

configure_package_config_file(cmake/ingotConfig.cmake.in "${PROJECT_BINARY_DIR}/ingotConfig.cmake"
                              INSTALL_DESTINATION "${package_dir}")
write_basic_package_version_file("${PROJECT_BINARY_DIR}/ingotConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/ingotConfig.cmake" "${PROJECT_BINARY_DIR}/ingotConfigVersion.cmake"
        DESTINATION "${package_dir}")

file(RELATIVE_PATH prefix_from_pc "${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig" "${CMAKE_INSTALL_PREFIX}")
configure_file(cmake/ingot.pc.in "${PROJECT_BINARY_DIR}/ingot.pc" @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/ingot.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig")

if(INGOT_BUILD_CLI)
  # The installed program finds the library beside it, wherever the prefix is moved to.
  file(RELATIVE_PATH library_from_program "${CMAKE_INSTALL_FULL_BINDIR}" "${CMAKE_INSTALL_FULL_LIBDIR}")
  if(APPLE)
    set_target_properties(ingot_cli PROPERTIES INSTALL_RPATH "@loader_path/${library_from_program}")
  else()
    set_target_properties(ingot_cli PROPERTIES INSTALL_RPATH "$ORIGIN/${library_from_program}")
  endif()
  install(TARGETS ingot_cli)
  install(FILES examples/data/minilm.safetensors DESTINATION "${CMAKE_INSTALL_DATADIR}/ingot")
endif()
