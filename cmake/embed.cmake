# cmake -DROOT=src -DFILES=a;b -DOUT=file.cpp -P embed.cmake: C++ that holds the files as text, by their paths from ROOT.
string(APPEND code "// Generated from the kernel files.\n#include \"core/kernel_files.hpp\"\n\nnamespace ingot {\nnamespace {\n\nusing namespace std::string_view_literals;\n\n"
                   "constexpr EmbeddedFile files[] = {\n")
string(REPLACE "," ";" FILES "${FILES}")
foreach(path IN LISTS FILES)
  file(READ "${ROOT}/${path}" text)
  # Compilers limit the length of one literal: adjacent ones are joined.
  set(literal "")
  string(LENGTH "${text}" length)
  set(position 0)
  while(position LESS length)
    string(SUBSTRING "${text}" ${position} 8000 part)
    string(APPEND literal "R\"~~(${part})~~\" ")
    math(EXPR position "${position} + 8000")
  endwhile()
  # With the suffix the compiler knows the length: counting a million characters is more than clang does for a constant.
  string(APPEND code "    {\"${path}\", ${literal}\"\"sv},\n")
endforeach()
string(APPEND code "};\n\n}  // namespace\n\nstd::span<const EmbeddedFile> embedded_kernel_files() { return files; }\n\n}  // namespace ingot\n")
file(WRITE "${OUT}" "${code}")
