// SPDX-License-Identifier: BSD-3-Clause
//
// The emulated kernels of filtered activations of float32 and float64.
#include "filtered_act_emulate.h"

namespace filtered {

template double run<float>(const Call&);
template double run<double>(const Call&);

}  // namespace filtered
