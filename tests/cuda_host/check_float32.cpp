// SPDX-License-Identifier: BSD-3-Clause
//
// The emulated kernels of float32.
#include "check_impl.h"

namespace check {

template double run<float>(const Call&);
template double run_kernel_grad<float>(const Call&);
template double run_bias_act_grad<float>(const ActGradCall&);

}  // namespace check
