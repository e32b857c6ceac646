// What C++, MSL and NVRTC spell differently, and nothing else. The rest of algorithm/ is written in
// their common part (C++14 without lambdas, exceptions or the standard library).
//
// A compiler's own code may define these names before including algorithm/:
//
//   INGOT_FN          in front of every function here
//
//   INGOT_NAMESPACE   where the names go: the CPU back end has one for each instruction set
//
//   INGOT_INDEX       type of a position in a sequence
//
//   INGOT_GLOBAL      in front of what a pointer to memory of the device points at
//
// and must make exp2_(F), tanh_(F), max_(F, F) and finite_or_(F, F) visible for every number type F
// it uses (float, or a vector of lanes).
#ifndef INGOT_DIALECT_H
#define INGOT_DIALECT_H

#ifndef INGOT_FN
#define INGOT_FN inline
#endif
#ifndef INGOT_NAMESPACE
#define INGOT_NAMESPACE ingot
#endif
#ifndef INGOT_INDEX
#define INGOT_INDEX long long
#endif
#ifndef INGOT_GLOBAL
#define INGOT_GLOBAL
#endif

#endif
