// SPDX-License-Identifier: BSD-3-Clause
//
// The tile kernels of float16.
#include "launch_tile.h"

namespace resample_layers {

template cudaError_t launch_tile<Half>(const TilePlan&, const EpilogueParams*, cudaStream_t);

}  // namespace resample_layers
