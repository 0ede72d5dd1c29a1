// Logits and gradients of each storage type as vectors of float: one struct a type, with the same
// four functions. Nothing else in the vector kernels knows what a logit is stored as.
#pragma once

#include "rows.h"
#include "simd.h"

namespace hvdfilter {
namespace HVD_ISA {

struct Float32 {
  using Storage = float;
  static constexpr int kDtype = kFloat32;
  static HVD_MEMBER VF load(const float* p) { return load_as<VF>(p); }
  static HVD_MEMBER void store(float* p, VF v) { store_as(p, v); }
};

#if defined(__AVX512F__)
HVD_FN VU widen(VH v) { return bits<VU>(_mm512_cvtepu16_epi32(bits<__m256i>(v))); }
HVD_FN VH narrow(VU v) { return bits<VH>(_mm512_cvtepi32_epi16(bits<__m512i>(v))); }
#elif defined(__AVX2__)
HVD_FN VU widen(VH v) { return bits<VU>(_mm256_cvtepu16_epi32(bits<__m128i>(v))); }
HVD_FN VH narrow(VU v) { return __builtin_convertvector(v, VH); }
#else
HVD_FN VU widen(VH v) { return __builtin_convertvector(v, VU); }
HVD_FN VH narrow(VU v) { return __builtin_convertvector(v, VH); }
#endif

struct BFloat16 {
  using Storage = uint16_t;
  static constexpr int kDtype = kBFloat16;
  static HVD_MEMBER VF load(const uint16_t* p) { return bits<VF>(widen(load_as<VH>(p)) << 16); }
  // To the nearest, ties to even. A NaN's payload must not round into another number.
  static HVD_MEMBER void store(uint16_t* p, VF v) {
    const VU u = bits<VU>(v);
    const VU rounded = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
    store_as(p, narrow(v == v ? rounded : VU{} + 0x7fc0));
  }
};

struct Float16 {
  using Storage = uint16_t;
  static constexpr int kDtype = kFloat16;
#if defined(__AVX512F__)
  static HVD_MEMBER VF load(const uint16_t* p) {
    return _mm512_cvtph_ps(load_as<__m256i>(p));
  }
  static HVD_MEMBER void store(uint16_t* p, VF v) {
    store_as(p, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
#elif defined(__AVX2__)
  static HVD_MEMBER VF load(const uint16_t* p) { return _mm256_cvtph_ps(load_as<__m128i>(p)); }
  static HVD_MEMBER void store(uint16_t* p, VF v) {
    store_as(p, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
#else
  // As widen_float16, lane by lane.
  static HVD_MEMBER VF load(const uint16_t* p) {
    const VU h = widen(load_as<VH>(p));
    VU wide = bits<VU>(bits<VF>((h & 0x7fff) << 13) * 5.192296858534828e33f);
    wide |= (h & 0x7c00) == 0x7c00 ? VU{} + 0x7f800000u : VU{};
    return bits<VF>(wide | (h & 0x8000) << 16);
  }
  static HVD_MEMBER void store(uint16_t* p, VF v) {
    for (int l = 0; l < W; l++) p[l] = narrow_float16(v[l]);
  }
#endif
};

// The first n < W elements; the other lanes are -inf, whose exponential is 0.
template <class E>
HVD_FN VF load_first(const typename E::Storage* p, int64_t n) {
#if defined(__AVX512F__)
  const __mmask16 lanes = static_cast<__mmask16>((1u << n) - 1);
  if constexpr (E::kDtype == kFloat32) {
    return _mm512_mask_loadu_ps(splat(-INFINITY), lanes, p);
  } else {
    typename E::Storage whole[W];
    store_as(whole, _mm256_maskz_loadu_epi16(lanes, p));
    return _mm512_mask_mov_ps(splat(-INFINITY), lanes, E::load(whole));
  }
#else
  float whole[W];
  for (int l = 0; l < W; l++) {
    whole[l] = l < n ? static_cast<float>(hvdfilter::load(p, E::kDtype, l)) : -INFINITY;
  }
  return load_as<VF>(whole);
#endif
}

template <class E>
HVD_FN void store_first(typename E::Storage* p, VF v, int64_t n) {
#if defined(__AVX512F__)
  const __mmask16 lanes = static_cast<__mmask16>((1u << n) - 1);
  if constexpr (E::kDtype == kFloat32) {
    _mm512_mask_storeu_ps(p, lanes, v);
  } else {
    typename E::Storage whole[W];
    E::store(whole, v);
    _mm256_mask_storeu_epi16(p, lanes, load_as<__m256i>(whole));
  }
#else
  typename E::Storage whole[W];
  E::store(whole, v);
  for (int64_t l = 0; l < n; l++) p[l] = whole[l];
#endif
}

}  // namespace HVD_ISA
}  // namespace hvdfilter
