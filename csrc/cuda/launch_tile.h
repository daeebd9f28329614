// SPDX-License-Identifier: BSD-3-Clause
//
// Launching a tile kernel. Each storage type instantiates its kernels in a file of
// its own (upfirdn2d_<type>.cu), so that a build can compile them side by side.
#pragma once

#include <cuda_runtime_api.h>

#include "choose.cuh"

namespace resample_layers {

// epilogue: null for the plain op.
template <class T>
cudaError_t launch_tile(const TilePlan& plan, const EpilogueParams* epilogue,
                        cudaStream_t stream);

}  // namespace resample_layers

#if defined(__CUDACC__)
#include "tile.cuh"

namespace resample_layers {

template <class T, class Epilogue>
cudaError_t launch_tile_with(const TilePlan& plan, const Epilogue& epilogue,
                             cudaStream_t stream) {
  const auto kernel = find_tile_kernel<T, Epilogue>(plan.variant);
  if (kernel == nullptr) return cudaErrorInvalidDeviceFunction;
  if (plan.shared > 48 * 1024) {
    const cudaError_t error =
        cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                             cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(plan.shared));
    if (error != cudaSuccess) return error;
  }
  kernel<<<plan.grid, plan.block, plan.shared, stream>>>(plan.args, epilogue);
  return cudaGetLastError();
}

template <class T>
cudaError_t launch_tile(const TilePlan& plan, const EpilogueParams* epilogue,
                        cudaStream_t stream) {
  if (epilogue == nullptr) return launch_tile_with<T>(plan, Identity<T>{}, stream);
  return launch_tile_with<T>(plan, make_bias_act<T>(*epilogue), stream);
}

}  // namespace resample_layers
#endif
