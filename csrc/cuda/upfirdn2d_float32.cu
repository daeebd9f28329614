// SPDX-License-Identifier: BSD-3-Clause
//
// The tile kernels of float32.
#include "launch_tile.h"

namespace resample_layers {

template cudaError_t launch_tile<float>(const TilePlan&, const EpilogueParams*, cudaStream_t);

}  // namespace resample_layers
