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

// The first kElements of the pack as words.
template <class T, int kElements>
HVD_DEVICE void pack_words(const Pack<T>& pack, uint32_t* word) {
  if constexpr (sizeof(T) == 4) {
    HVD_UNROLL
    for (int i = 0; i < kElements; ++i) word[i] = machine::float_to_bits(pack.x[i]);
  } else {
    HVD_UNROLL
    for (int i = 0; i < kElements; ++i) {
      const uint32_t bits = from_float<T>(pack.x[i]).bits;
      word[i / 2] = i % 2 == 0 ? bits : word[i / 2] | bits << 16;
    }
  }
}
template <class T>
HVD_DEVICE Vector packed_vector(const Pack<T>& pack) {
  Vector v;
  pack_words<T, Pack<T>::kElements>(pack, v.word);
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

template <class T>
HVD_DEVICE float largest_in(uint32_t word) {
  if constexpr (sizeof(T) == 4) {
    return machine::bits_to_float(word);
  } else {
    const float low = to_float(T{static_cast<uint16_t>(word & 0xffffu)});
    return fmaxf(low, to_float(T{static_cast<uint16_t>(word >> 16)}));
  }
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
  return largest_in<T>(
      word_max<T>(word_max<T>(word[0], word[1]), word_max<T>(word[2], word[3])));
}

// -inf in every element of a word: the neutral element of a maximum and, exponentiated, of a sum.
template <class T>
HVD_DEVICE uint32_t nothing_word();
template <>
HVD_METHOD uint32_t nothing_word<float>() {
  return 0xff800000u;
}
template <>
HVD_METHOD uint32_t nothing_word<Half>() {
  return 0xfc00fc00u;
}
template <>
HVD_METHOD uint32_t nothing_word<Brain>() {
  return 0xff80ff80u;
}

template <class T>
HVD_DEVICE Vector nothing() {
  const uint32_t word = nothing_word<T>();
  return Vector{{word, word, word, word}};
}

// Element `at` of the word, which becomes -inf.
template <class T>
HVD_DEVICE float take(uint32_t& word, int at) {
  if constexpr (sizeof(T) == 4) {
    const float taken = machine::bits_to_float(word);
    word = nothing_word<T>();
    return taken;
  } else {
    const int shift = at * 16;
    const uint32_t mask = 0xffffu << shift;
    const float taken = to_float(T{static_cast<uint16_t>(word >> shift)});
    word = (word & ~mask) | (nothing_word<T>() & mask);
    return taken;
  }
}

// Element `at` of the vector, which becomes -inf. No array is indexed by a run-time value, which
// would move it out of the registers.
template <class T>
HVD_DEVICE float take(Vector& v, int at) {
  constexpr int kWord = 4 / sizeof(T);
  const int which = at / kWord;
  uint32_t word = v.word[0];
  HVD_UNROLL
  for (int i = 1; i < 4; ++i) word = which == i ? v.word[i] : word;
  const float taken = take<T>(word, at % kWord);
  HVD_UNROLL
  for (int i = 0; i < 4; ++i) v.word[i] = which == i ? word : v.word[i];
  return taken;
}

}  // namespace cuda
}  // namespace hvdfilter
