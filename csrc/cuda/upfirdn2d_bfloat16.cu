// SPDX-License-Identifier: BSD-3-Clause
//
// The tile kernels of bfloat16.
#include "launch_tile.h"

namespace resample_layers {

template cudaError_t launch_tile<BFloat16>(const TilePlan&, const EpilogueParams*, cudaStream_t);

}  // namespace resample_layers
