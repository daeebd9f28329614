// SPDX-License-Identifier: BSD-3-Clause
//
// The emulated kernels of bfloat16.
#include "check_impl.h"

namespace check {

template double run<BFloat16>(const Call&);
template double run_kernel_grad<BFloat16>(const Call&);
template double run_bias_act_grad<BFloat16>(const ActGradCall&);

}  // namespace check
