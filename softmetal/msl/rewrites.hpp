// Local rewrites of MSL text that need no knowledge of declarations around them.
#pragma once

#include "tokens.hpp"

namespace softmetal::msl {

/// threadgroup T x[n]; inside a function becomes one variable a worker thread.
void place_threadgroup_variables(Cursor& cursor);
/// float4(a, b), vec<T, 2>(x), T(x) and static_cast<float4>(x) go through softmetal::make.
void rewrite_constructors(Cursor& cursor);
/// A parameter `constant int x[2]` is a pointer; clang rejects address spaces on arrays there.
void rewrite_array_parameters(Cursor& cursor);
/// 1.0h and 1.0bf.
void rewrite_literals(Cursor& cursor);

/// c ? a : b with structs in memory: each operand is copied out first.
void rewrite_conditionals(Cursor& cursor);
/// f({x, y, z}) with a vector parameter.
void rewrite_braced_lists(Cursor& cursor);

/// `coherent` and `coherent(device)` before a type go: all memory is coherent here.
void drop_coherent(Cursor& cursor);

/// Member functions overloaded by the object's address space become one.
void merge_method_variants(Cursor& cursor);

}  // namespace softmetal::msl
