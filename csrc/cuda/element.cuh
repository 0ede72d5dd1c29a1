// The three types of logits, and how 16 bytes of them become floats and back. Sums are float32
// whatever the type; only memory is narrow.
#pragma once

#include "machine.cuh"

namespace hvdfilter {
namespace cuda {

struct Half {
  uint16_t bits;
};
struct Brain {  // bfloat16: the upper half of a float32
  uint16_t bits;
};

HVD_DEVICE float to_float(float x) { return x; }
HVD_DEVICE float to_float(Half x) { return machine::half_to_float(x.bits); }
HVD_DEVICE float to_float(Brain x) {
  return machine::bits_to_float(static_cast<uint32_t>(x.bits) << 16);
}

template <class T>
HVD_DEVICE T from_float(float x);
template <>
HVD_METHOD float from_float<float>(float x) {
  return x;
}
template <>
HVD_METHOD Half from_float<Half>(float x) {
  return Half{machine::float_to_half(x)};
}
template <>
HVD_METHOD Brain from_float<Brain>(float x) {
  return Brain{machine::float_to_brain(x)};
}

template <class T>
struct Pack {
  static constexpr int kElements = 16 / sizeof(T);
  float x[kElements];
};

HVD_DEVICE void unpack(const Vector& v, Pack<float>& pack) {
  HVD_UNROLL
  for (int i = 0; i < 4; ++i) pack.x[i] = machine::bits_to_float(v.word[i]);
}
template <class T>
HVD_DEVICE void unpack(const Vector& v, Pack<T>& pack) {
  HVD_UNROLL
  for (int i = 0; i < 4; ++i) {
    pack.x[2 * i] = to_float(T{static_cast<uint16_t>(v.word[i] & 0xffffu)});
    pack.x[2 * i + 1] = to_float(T{static_cast<uint16_t>(v.word[i] >> 16)});
  }
}

HVD_DEVICE Vector packed_vector(const Pack<float>& pack) {
  Vector v;
  HVD_UNROLL
  for (int i = 0; i < 4; ++i) v.word[i] = machine::float_to_bits(pack.x[i]);
  return v;
}
template <class T>
HVD_DEVICE Vector packed_vector(const Pack<T>& pack) {
  Vector v;
  HVD_UNROLL
  for (int i = 0; i < 4; ++i)
    v.word[i] = static_cast<uint32_t>(from_float<T>(pack.x[2 * i]).bits) |
                static_cast<uint32_t>(from_float<T>(pack.x[2 * i + 1]).bits) << 16;
  return v;
}

template <class T>
HVD_DEVICE uint32_t word_max(uint32_t a, uint32_t b);
template <>
HVD_METHOD uint32_t word_max<float>(uint32_t a, uint32_t b) {
  return machine::float_to_bits(fmaxf(machine::bits_to_float(a), machine::bits_to_float(b)));
}
template <>
HVD_METHOD uint32_t word_max<Half>(uint32_t a, uint32_t b) {
  return machine::half_max(a, b);
}
template <>
HVD_METHOD uint32_t word_max<Brain>(uint32_t a, uint32_t b) {
  return machine::brain_max(a, b);
}

// The largest element of some vectors, found without widening them. NaN elements are passed over;
// the sum of the exponentials will show them.
template <class T, int kVectors>
HVD_DEVICE float largest_of(const Vector (&v)[kVectors]) {
  uint32_t word[4];
  HVD_UNROLL
  for (int i = 0; i < 4; ++i) {
    word[i] = v[0].word[i];
    HVD_UNROLL
    for (int k = 1; k < kVectors; ++k) word[i] = word_max<T>(word[i], v[k].word[i]);
  }
  const uint32_t both = word_max<T>(word_max<T>(word[0], word[1]), word_max<T>(word[2], word[3]));
  if constexpr (sizeof(T) == 4) {
    return machine::bits_to_float(both);
  } else {
    const float low = to_float(T{static_cast<uint16_t>(both & 0xffffu)});
    return fmaxf(low, to_float(T{static_cast<uint16_t>(both >> 16)}));
  }
}

// A vector whose elements are all -inf: the neutral element of a maximum and, exponentiated, of a
// sum, so that a slot without a vector needs no test later.
template <class T>
HVD_DEVICE Vector nothing() {
  const uint32_t word = sizeof(T) == 4 ? 0xff800000u : 0u;
  Vector v{{word, word, word, word}};
  if (sizeof(T) == 2) {
    Pack<T> pack;
    HVD_UNROLL
    for (int i = 0; i < Pack<T>::kElements; ++i) pack.x[i] = -INFINITY;
    v = packed_vector(pack);
  }
  return v;
}

// Element `at` of the vector, which becomes -inf. No array is indexed by a run-time value, which
// would move it out of the registers; values pass through float32 unchanged.
template <class T>
HVD_DEVICE float take(Vector& v, int at) {
  Pack<T> pack;
  unpack(v, pack);
  float taken = 0.0f;
  HVD_UNROLL
  for (int i = 0; i < Pack<T>::kElements; ++i) {
    if (i == at) {
      taken = pack.x[i];
      pack.x[i] = -INFINITY;
    }
  }
  v = packed_vector(pack);
  return taken;
}

}  // namespace cuda
}  // namespace hvdfilter
