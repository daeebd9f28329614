// SPDX-License-Identifier: BSD-3-Clause
//
// The specialised kernels: one for each row of the table, storage type and epilogue.
#pragma once

#include <utility>

#include "columns.cuh"
#include "planar.cuh"
#include "separable.cuh"

namespace resample_layers {

// The epilogue needs registers too: with it, one block less shall fit.
constexpr int blocks_with(int blocks, bool epilogue) {
  return epilogue && blocks > 1 ? blocks - 1 : blocks;
}

template <class T, int Row, class Epilogue>
__global__ void __launch_bounds__(kVariants[Row].threads,
                                  blocks_with(kVariants[Row].blocks, Epilogue::kActive))
    tile_kernel(const TileArgs args, const Epilogue epilogue) {
  constexpr Variant v = kVariants[Row];
  if constexpr (v.method == Method::columns) {
    separable_columns<T, ColumnShape<T, Row>>(args, epilogue);
  } else if constexpr (v.method == Method::separable) {
    using S = Shape<T, Row>;
    if constexpr (v.layout == Layout::contiguous) {
      separable_contiguous<T, S>(args, epilogue);
    } else {
      separable_channels_last<T, S>(args, epilogue);
    }
  } else {
    using S = Shape<T, Row>;
    if constexpr (v.layout == Layout::contiguous) {
      planar_contiguous<T, S>(args, epilogue);
    } else {
      planar_channels_last<T, S>(args, epilogue);
    }
  }
}

template <class T, class Epilogue>
using TileKernel = void (*)(TileArgs, Epilogue);

// The kernel of one row; null where there is none for this type and epilogue.
template <class T, int Row, class Epilogue>
TileKernel<T, Epilogue> tile_kernel_of() {
  if constexpr (has_kernel<T>(kVariants[Row], Epilogue::kActive)) {
    return tile_kernel<T, Row, Epilogue>;
  } else {
    return nullptr;
  }
}

template <class T, class Epilogue, int... Rows>
TileKernel<T, Epilogue> find_tile_kernel(int row, std::integer_sequence<int, Rows...>) {
  static const TileKernel<T, Epilogue> kernels[] = {tile_kernel_of<T, Rows, Epilogue>()...};
  return kernels[row];
}

template <class T, class Epilogue>
TileKernel<T, Epilogue> find_tile_kernel(int row) {
  return find_tile_kernel<T, Epilogue>(row, std::make_integer_sequence<int, kVariantCount>{});
}

}  // namespace resample_layers
