// One row, seen from any kernel: the exponential, its label, its targets. The formulas are
// row_score.h's; how threads share a row is the kernels' business.
#pragma once

#include "../row_score.h"
#include "element.cuh"
#include "job.h"
#include "mapping.h"

namespace hvdfilter {
namespace cuda {

constexpr float kLog2E = 1.44269504088896340736f;
constexpr float kLog2ERest = 1.925963033500011e-08f;  // what kLog2E lacks of log2(e)

// A finite base, so that -inf - (-inf) never happens.
HVD_DEVICE float base(float m) { return m == -INFINITY ? 0.0f : m; }

// exp(z - m) = fix * raised(z), with one multiplication and addition a logit: `offset` is m * scale
// rounded, and `fix` makes up for that rounding, which is the same for the whole row. Beyond 2^29
// the rounding would be beyond every power of two; there logits differ by 64 or not at all, so that
// the scale does not matter, and on a scale of 1 nothing is rounded.
struct Exponential {
  float scale, offset, fix;
};
HVD_DEVICE Exponential exponential(float m) {
  const float b = fmaxf(m, -3.4028235e38f);  // finite where there is nothing
  Exponential e;
  e.scale = fabsf(b) <= 0x1p29f ? kLog2E : 1.0f;
  e.offset = b * e.scale;
  e.fix = machine::exp2(machine::fma(-b, e.scale, e.offset));
  return e;
}
HVD_DEVICE float raised(float z, const Exponential& e) {
  return machine::exp2(machine::fma(z, e.scale, -e.offset));
}

// exp(z - m) for a single z <= m: the difference first, which is nearly exact.
HVD_DEVICE float exp_above(float z, float base) { return machine::exp2((z - base) * kLog2E); }

template <class T>
HVD_DEVICE int misalignment(const T* address) {
  return static_cast<int>(reinterpret_cast<uintptr_t>(address) % kVectorBytes);
}

// ---- labels ----

// A hard label, and the column of this block of classes that it names, or -1. Of an ignored row the
// column may be any: nothing that comes of it is written.
struct Label {
  int column;
  int64_t value;
};

HVD_DEVICE bool soft(const Job& job) { return job.label_code == kSoftLabels; }

HVD_DEVICE int64_t label_of(const Job& job, int64_t row) {
  const char* place = static_cast<const char*>(job.labels) + row * job.label_bytes;
  const int32_t* word = reinterpret_cast<const int32_t*>(place);
  const int32_t low = machine::load(word);
  const int32_t high = job.label_bytes == 8 ? machine::load(word + 1) : low >> 31;
  return static_cast<int64_t>(high) << 32 | static_cast<uint32_t>(low);
}
// By halves: a comparison of 64 bits is two, and every warp makes this one.
HVD_DEVICE int column_of(const Job& job, int64_t value) {
  const int column = static_cast<int>(static_cast<uint32_t>(value) - job.first_class);
  const bool here = value >> 32 == 0 && static_cast<uint32_t>(column) < uint32_t(job.classes);
  return here ? column : -1;
}
template <bool kSpread>
HVD_DEVICE bool ignored(const Job& job, const Label& label) {
  return !(kSpread && soft(job)) && label.value == job.ignore_index;
}
template <bool kSpread>
HVD_DEVICE BadRow check_label(const Job& job, const Label& label) {
  const bool outside = label.value < 0 || label.value >= job.total_classes;
  return !(kSpread && soft(job)) && outside ? kBadLabel : kGoodRow;
}

// ---- targets spread over the classes ----

HVD_DEVICE float soft_label(const Job& job, int64_t row, int column) {
  const float* row_of_labels =
      static_cast<const float*>(job.labels) + row_begin(row, job.label_stride);
  return machine::load(row_of_labels + column);
}

// t_i of a class that is not the target of a hard label.
HVD_DEVICE float spread_target(const Job& job, int64_t row, int column) {
  const float uniform = static_cast<float>(job.smoothing / job.classes);
  if (!soft(job)) return uniform;
  return static_cast<float>(1.0 - job.smoothing) * soft_label(job, row, column) + uniform;
}

// t_y. For soft labels y is the class with the largest t_i.
HVD_DEVICE float main_target(const Job& job, int64_t row, int column) {
  if (soft(job)) return column < 0 ? NAN : spread_target(job, row, column);
  return static_cast<float>(1.0 - job.smoothing + job.smoothing / job.classes);
}

// A soft label as a sum sees it: one that is no probability turns the sum into NaN.
HVD_DEVICE float checked(float t) { return t >= 0.0f && t < INFINITY ? t : NAN; }

// The class with the largest soft label so far, the lowest of equals.
struct Largest {
  float value;
  int column;
};
HVD_DEVICE Largest larger(Largest a, Largest b) {
  const bool second = b.value > a.value || (b.value == a.value && b.column < a.column);
  return second ? b : a;
}

}  // namespace cuda
}  // namespace hvdfilter
