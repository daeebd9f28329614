// SPDX-License-Identifier: BSD-3-Clause
//
// The entry points of the CUDA kernels of filtered activations; as those of upfirdn2d_cuda.h
// they launch on the stream given and on the current device, allocate nothing and never
// synchronise. A call without an element in the input or the output is the caller's to serve.
#pragma once

#include <cuda_runtime_api.h>

#include "../filtered_act.h"

namespace resample_layers {

cudaError_t filtered_act_cuda(const FilteredActParams& params, cudaStream_t stream);

// The gradient needs scratch memory [bytes], whose content does not matter; 0: none.
cudaError_t filtered_act_grad_workspace(const FilteredActGradParams& params, int64_t* bytes);
cudaError_t filtered_act_grad_cuda(const FilteredActGradParams& params, void* workspace,
                                   cudaStream_t stream);

}  // namespace resample_layers
