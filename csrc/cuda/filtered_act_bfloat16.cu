// SPDX-License-Identifier: BSD-3-Clause
//
// The kernels of filtered activations of bfloat16.
#define FILTERED_ACT_TYPE BFloat16
#include "filtered_act_launch.h"
