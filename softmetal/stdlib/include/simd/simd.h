// Only the macros: the declarations are in the precompiled prelude.
#pragma once
#include "../../softmetal_macros.h"
