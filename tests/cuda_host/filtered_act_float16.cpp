// SPDX-License-Identifier: BSD-3-Clause
//
// The emulated kernels of filtered activations of float16 and bfloat16.
#include "filtered_act_emulate.h"

namespace filtered {

template double run<Half>(const Call&);
template double run<BFloat16>(const Call&);

}  // namespace filtered
