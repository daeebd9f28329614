// SPDX-License-Identifier: BSD-3-Clause
//
// The CUDA kernels' entry points. They launch on the stream given and on the
// current device, allocate nothing and never synchronise; the params are trusted.
// An empty output is the caller's to skip (N, C, or a side of 0).
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

#include "../upfirdn2d.h"

namespace resample_layers {

cudaError_t upfirdn2d_cuda(const UpFirDn2dParams& params, cudaStream_t stream);

// The same with noise, bias, leaky ReLU, gain and clamp applied before rounding.
cudaError_t upfirdn2d_bias_act_cuda(const UpFirDn2dParams& params, const EpilogueParams& epilogue,
                                    cudaStream_t stream);

// The kernel's gradient needs scratch memory [bytes], whose content does not matter.
int64_t upfirdn2d_kernel_grad_workspace(const KernelGradParams& params);
cudaError_t upfirdn2d_kernel_grad_cuda(const KernelGradParams& params, void* workspace,
                                       cudaStream_t stream);

// The activation's gradient with its sums, of at least one element; scratch memory as above.
int64_t bias_act_grad_workspace(const BiasActGradParams& params);
cudaError_t bias_act_grad_cuda(const BiasActGradParams& params, void* workspace,
                               cudaStream_t stream);

// Name of the variant that serves a call, for tests and benchmarks; "generic" where none does.
const char* upfirdn2d_cuda_variant(const UpFirDn2dParams& params, bool fused, char* buffer,
                                   size_t size);

}  // namespace resample_layers
