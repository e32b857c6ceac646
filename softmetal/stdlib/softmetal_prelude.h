// Everything a kernel may use; compiled once and kept as a precompiled header.
#pragma once
#include "softmetal_atomic.h"
#include "softmetal_entry.h"
#include "softmetal_float_matrix.h"
#include "softmetal_integer.h"
#include "softmetal_math.h"
#include "softmetal_matrix.h"
#include "softmetal_packing.h"
#include "softmetal_simdgroup.h"
#include "softmetal_tensor_ops.h"
#include "softmetal_traits.h"
#include "softmetal_types.h"
