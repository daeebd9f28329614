// SPDX-License-Identifier: BSD-3-Clause
//
// The emulated kernels of float16.
#include "check_impl.h"

namespace check {

template double run<Half>(const Call&);
template double run_kernel_grad<Half>(const Call&);
template double run_bias_act_grad<Half>(const ActGradCall&);

}  // namespace check
