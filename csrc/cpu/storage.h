// SPDX-License-Identifier: BSD-3-Clause
//
// The 16-bit storage types: bits in memory, float in arithmetic. The scalar
// conversions here serve row ends, strided rows and processors without their own.
#pragma once

#include <cstdint>

namespace resample_layers {
namespace cpu {

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

inline float float_of(uint32_t bits) {
  float value;
  __builtin_memcpy(&value, &bits, 4);
  return value;
}

inline uint32_t bits_of(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, 4);
  return bits;
}

inline float widen(BFloat16 h) { return float_of(uint32_t(h.bits) << 16); }

inline float widen(Half h) {
  // Shift exponent and mantissa into place and correct the exponent's bias by
  // a multiplication, which also normalises subnormal numbers.
  const uint32_t sign = uint32_t(h.bits & 0x8000u) << 16;
  const uint32_t rest = uint32_t(h.bits & 0x7fffu) << 13;
  if (rest >= 0x0f800000u) return float_of(sign | 0x70000000u | rest);
  return float_of(sign | bits_of(float_of(rest) * float_of(0x77800000u)));
}

inline void narrow(BFloat16* to, float value) {
  const uint32_t bits = bits_of(value);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  to->bits = value != value ? uint16_t(0x7fc0u) : uint16_t(rounded);
}

inline void narrow(Half* to, float value) {
  const uint32_t bits = bits_of(value), sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  uint32_t half;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00u;
  } else if (magnitude >= 0x477ff000u) {  // rounds to 65536 or more
    half = 0x7c00u;
  } else if (magnitude >= 0x38800000u) {  // normal: round to nearest, ties to even
    half = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  } else {  // subnormal: the addition rounds at the right bit
    half = bits_of(float_of(magnitude) + 0.5f) - 0x3f000000u;
  }
  to->bits = uint16_t(sign | half);
}

inline float widen(float value) { return value; }
inline double widen(double value) { return value; }
inline void narrow(float* to, float value) { *to = value; }
inline void narrow(double* to, double value) { *to = value; }

}  // namespace cpu
}  // namespace resample_layers
