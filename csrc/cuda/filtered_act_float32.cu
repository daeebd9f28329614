// SPDX-License-Identifier: BSD-3-Clause
//
// The kernels of filtered activations of float32.
#define FILTERED_ACT_TYPE float
#include "filtered_act_launch.h"
