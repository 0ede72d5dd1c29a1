// The arguments of the scoring kernels as plain structs, and scalar access to logits and labels of
// every dtype. Holds no arithmetic of its own.
#pragma once

#include <cstdint>
#include <cstring>

#include "../row_score.h"

namespace hvdfilter {

enum Dtype { kFloat32 = 0, kFloat64 = 1, kBFloat16 = 2, kFloat16 = 3 };
enum LabelCode { kInt32 = 0, kInt64 = 1, kSoft = 16 };  // soft labels are of row_dtype

HVD_FN int64_t dtype_size(int dtype) { return dtype == kFloat64 ? 8 : dtype == kFloat32 ? 4 : 2; }

// Per-row numbers (scores, weights) are float32, or float64 beside float64 logits.
HVD_FN int row_dtype(int dtype) { return dtype == kFloat64 ? kFloat64 : kFloat32; }

// One call's worth of work: see csrc/README.md for every field. Null pointers stand for what is
// not wanted.
struct Rows {
  const void* logits;
  int dtype;
  int64_t rows, classes, row_stride;
  const void* labels;
  int label_code;
  int64_t label_stride, ignore_index;
  const void* weight = nullptr;
  double smoothing = 0;
  void* out = nullptr;
  double* sums = nullptr;
  void* loss = nullptr;
  void* count = nullptr;
  const void* upstream = nullptr;
  void* grad = nullptr;
  int64_t grad_row_stride = 0;
  int64_t first_class = 0;
  const void* scale = nullptr;  // per row, instead of weight, count and upstream
  int threads = 1;

  HVD_MEMBER bool soft() const { return label_code == kSoft; }
  HVD_MEMBER bool spread() const { return soft() || smoothing > 0; }
  HVD_MEMBER const char* row(int64_t i) const {
    return static_cast<const char*>(logits) + i * row_stride * dtype_size(dtype);
  }
  HVD_MEMBER char* grad_row(int64_t i) const {
    return static_cast<char*>(grad) + i * grad_row_stride * dtype_size(dtype);
  }
  HVD_MEMBER const char* label_row(int64_t i) const {
    return static_cast<const char*>(labels) + i * label_stride * dtype_size(row_dtype(dtype));
  }
  HVD_MEMBER int64_t label(int64_t i) const {
    return label_code == kInt32 ? static_cast<const int32_t*>(labels)[i]
                                : static_cast<const int64_t*>(labels)[i];
  }
};

// bfloat16 is the upper half of a float32; float16 is widened by its fields.
HVD_FN float widen_bfloat16(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}

HVD_FN float widen_float16(uint16_t bits) {
  // Shift exponent and mantissa into place, then let one exact product with 2^112 correct the
  // exponent's bias; it also normalises subnormal values. Infinity and NaN get all exponent bits.
  const uint32_t magnitude = static_cast<uint32_t>(bits & 0x7fff) << 13;
  float value;
  std::memcpy(&value, &magnitude, sizeof value);
  value *= 5.192296858534828e33f;
  uint32_t wide;
  std::memcpy(&wide, &value, sizeof wide);
  if ((bits & 0x7c00) == 0x7c00) wide |= 0x7f800000u;
  wide |= static_cast<uint32_t>(bits & 0x8000) << 16;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}

HVD_FN uint16_t narrow_bfloat16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  if (value != value) return 0x7fc0;
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

HVD_FN uint16_t narrow_float16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const uint32_t sign = (bits >> 16) & 0x8000;
  bits &= 0x7fffffff;
  if (bits > 0x7f800000) return static_cast<uint16_t>(sign | 0x7e00);
  if (bits >= 0x477ff000) return static_cast<uint16_t>(sign | 0x7c00);  // rounds to infinity
  if (bits < 0x38800000) {  // subnormal: adding 0.5 aligns the mantissa and rounds to even
    float magnitude;
    std::memcpy(&magnitude, &bits, sizeof magnitude);
    magnitude += 0.5f;
    std::memcpy(&bits, &magnitude, sizeof bits);
    return static_cast<uint16_t>(sign | (bits - 0x3f000000));
  }
  bits += 0xfff + ((bits >> 13) & 1);
  return static_cast<uint16_t>(sign | ((bits - 0x38000000) >> 13));
}

HVD_FN double load(const void* data, int dtype, int64_t i) {
  switch (dtype) {
    case kFloat32:
      return static_cast<const float*>(data)[i];
    case kFloat64:
      return static_cast<const double*>(data)[i];
    case kBFloat16:
      return widen_bfloat16(static_cast<const uint16_t*>(data)[i]);
    default:
      return widen_float16(static_cast<const uint16_t*>(data)[i]);
  }
}

HVD_FN void store(void* data, int dtype, int64_t i, double value) {
  switch (dtype) {
    case kFloat32:
      static_cast<float*>(data)[i] = static_cast<float>(value);
      break;
    case kFloat64:
      static_cast<double*>(data)[i] = value;
      break;
    case kBFloat16:
      static_cast<uint16_t*>(data)[i] = narrow_bfloat16(static_cast<float>(value));
      break;
    default:
      static_cast<uint16_t*>(data)[i] = narrow_float16(static_cast<float>(value));
  }
}

}  // namespace hvdfilter
