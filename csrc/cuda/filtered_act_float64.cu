// SPDX-License-Identifier: BSD-3-Clause
//
// The kernels of filtered activations of float64.
#define FILTERED_ACT_TYPE double
#include "filtered_act_launch.h"
