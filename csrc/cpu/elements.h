// Logits and gradients of each storage type as vectors of float: one struct a type, with the same
// functions: load and store W neighbours; split a vector of memory as it is, kPerLane neighbours
// to a 32-bit lane, into kPerLane vectors of float, and join them again (kSplitIsCheap: doing the
// former twice costs less than a copy as floats). Nothing else in the vector kernels knows what a
// logit is stored as.
#pragma once

#include "rows.h"
#include "simd.h"

namespace hvdfilter {
namespace HVD_ISA {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "split takes low halves for first ones");

struct Float32 {
  using Storage = float;
  static constexpr int kDtype = kFloat32;
  static constexpr int kPerLane = 1;
  static constexpr bool kSplitIsCheap = true;
  static HVD_MEMBER VF load(const float* p) { return load_as<VF>(p); }
  static HVD_MEMBER void store(float* p, VF v) { store_as(p, v); }
  static HVD_MEMBER void split(VU lanes, VF* out) { out[0] = bits<VF>(lanes); }
  static HVD_MEMBER VU join(const VF* in) { return bits<VU>(in[0]); }
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

// A 16-bit type brings to_float and to_bits between floats and bits in the low half of a lane.
template <class E, int Dtype>
struct Half {
  using Storage = uint16_t;
  static constexpr int kDtype = Dtype;
  static constexpr int kPerLane = 2;
  static constexpr bool kSplitIsCheap = Dtype == kBFloat16;
  static HVD_MEMBER VF load(const uint16_t* p) { return E::to_float(widen(load_as<VH>(p))); }
  static HVD_MEMBER void store(uint16_t* p, VF v) { store_as(p, narrow(E::to_bits(v))); }
  static HVD_MEMBER void split(VU lanes, VF* out) {
    out[0] = E::to_float(lanes & 0xffff);
    out[1] = E::to_float(lanes >> 16);
  }
  static HVD_MEMBER VU join(const VF* in) { return E::to_bits(in[0]) | E::to_bits(in[1]) << 16; }
};

struct BFloat16 : Half<BFloat16, kBFloat16> {
  static HVD_MEMBER VF to_float(VU u) { return bits<VF>(u << 16); }
  // To the nearest, ties to even. A NaN's payload must not round into another number.
  static HVD_MEMBER VU to_bits(VF v) {
    const VU u = bits<VU>(v);
    return v == v ? (u + 0x7fff + ((u >> 16) & 1)) >> 16 : VU{} + 0x7fc0;
  }
  static HVD_MEMBER void split(VU lanes, VF* out) {
    out[0] = bits<VF>(lanes << 16);
    out[1] = bits<VF>(lanes & 0xffff0000);
  }
};

struct Float16 : Half<Float16, kFloat16> {
#if defined(__AVX512F__)
  static HVD_MEMBER VF load(const uint16_t* p) { return _mm512_cvtph_ps(load_as<__m256i>(p)); }
  static HVD_MEMBER void store(uint16_t* p, VF v) { store_as(p, halves(v)); }
  static HVD_MEMBER VF to_float(VU u) { return _mm512_cvtph_ps(bits<__m256i>(narrow(u))); }
  static HVD_MEMBER VU to_bits(VF v) { return widen(bits<VH>(halves(v))); }
  static HVD_MEMBER __m256i halves(VF v) {
    return _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
#elif defined(__AVX2__)
  static HVD_MEMBER VF load(const uint16_t* p) { return _mm256_cvtph_ps(load_as<__m128i>(p)); }
  static HVD_MEMBER void store(uint16_t* p, VF v) { store_as(p, halves(v)); }
  static HVD_MEMBER VF to_float(VU u) { return _mm256_cvtph_ps(bits<__m128i>(narrow(u))); }
  static HVD_MEMBER VU to_bits(VF v) { return widen(bits<VH>(halves(v))); }
  static HVD_MEMBER __m128i halves(VF v) {
    return _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
#else
  // As widen_float16 and narrow_float16, lane by lane.
  static HVD_MEMBER VF to_float(VU h) {
    VU wide = bits<VU>(bits<VF>((h & 0x7fff) << 13) * 5.192296858534828e33f);
    wide |= (h & 0x7c00) == 0x7c00 ? VU{} + 0x7f800000u : VU{};
    return bits<VF>(wide | (h & 0x8000) << 16);
  }
  static HVD_MEMBER VU to_bits(VF v) {
    VU h{};
    for (int l = 0; l < W; l++) h[l] = narrow_float16(v[l]);
    return h;
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

// A vector of memory as it is, and the first n of its elements, whatever the others are.
template <class E>
HVD_FN VF load_lanes(const typename E::Storage* p, int64_t n) {
  if (n >= W * E::kPerLane) return load_as<VF>(p);
  typename E::Storage whole[W * E::kPerLane] = {};
  for (int64_t l = 0; l < n; l++) whole[l] = p[l];
  return load_as<VF>(whole);
}

template <class E>
HVD_FN void store_lanes(typename E::Storage* p, VF v, int64_t n) {
  if (n >= W * E::kPerLane) return store_as(p, v);
#if defined(__AVX512F__)
  if constexpr (E::kPerLane == 1) {
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1), v);
  } else {
    _mm512_mask_storeu_epi16(p, static_cast<__mmask32>((uint64_t{1} << n) - 1), bits<__m512i>(v));
  }
#else
  typename E::Storage whole[W * E::kPerLane];
  store_as(whole, v);
  for (int64_t l = 0; l < n; l++) p[l] = whole[l];
#endif
}

}  // namespace HVD_ISA
}  // namespace hvdfilter
