// SPDX-License-Identifier: BSD-3-Clause
//
// The kernels of filtered activations of float16.
#define FILTERED_ACT_TYPE Half
#include "filtered_act_launch.h"
