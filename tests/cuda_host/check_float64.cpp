// SPDX-License-Identifier: BSD-3-Clause
//
// The emulated kernels of float64.
#include "check_impl.h"

namespace check {

template double run<double>(const Call&);
template double run_kernel_grad<double>(const Call&);
template double run_bias_act_grad<double>(const ActGradCall&);

}  // namespace check
