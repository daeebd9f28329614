// SPDX-License-Identifier: BSD-3-Clause
//
// The specialised kernels: one for each row of the table, storage type and epilogue.
#pragma once

#include "planar.cuh"
#include "separable.cuh"

namespace resample_layers {

// The epilogue needs registers too: with it, one block less shall fit.
constexpr int blocks_with(int blocks, bool epilogue) {
  return epilogue && blocks > 1 ? blocks - 1 : blocks;
}

template <class T, int Row, class Epilogue>
__global__ void __launch_bounds__(Shape<T, Row>::kThreads,
                                  blocks_with(Shape<T, Row>::kBlocks, Epilogue::kActive))
    tile_kernel(const TileArgs args, const Epilogue epilogue) {
  using S = Shape<T, Row>;
  if constexpr (S::v.method == Method::separable) {
    if constexpr (S::v.layout == Layout::contiguous) {
      separable_contiguous<T, S>(args, epilogue);
    } else {
      separable_channels_last<T, S>(args, epilogue);
    }
  } else {
    if constexpr (S::v.layout == Layout::contiguous) {
      planar_contiguous<T, S>(args, epilogue);
    } else {
      planar_channels_last<T, S>(args, epilogue);
    }
  }
}

}  // namespace resample_layers
