// Vector types of the instruction set this file is compiled for, and the few operations on them
// that plain operators do not cover. GCC's and Clang's vector extension, so that baseline x86-64,
// AVX2, AVX-512 and other processors share one source; intrinsics only where they save much.
#pragma once

#include <cstdint>
#include <cstring>

#include "../row_score.h"

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

#define HVD_QUOTE(name) #name
#define HVD_QUOTED(name) HVD_QUOTE(name)
#define HVD_NAME HVD_QUOTED(HVD_ISA)

namespace hvdfilter {
namespace HVD_ISA {

constexpr int kBytes = HVD_VECTOR_BYTES;
constexpr int W = kBytes / 4;  // float lanes; also the rows of a group

typedef float VF __attribute__((vector_size(kBytes)));
typedef int32_t VI __attribute__((vector_size(kBytes)));
typedef uint32_t VU __attribute__((vector_size(kBytes)));
typedef double VD __attribute__((vector_size(kBytes)));
typedef uint64_t VL __attribute__((vector_size(kBytes)));
typedef uint16_t VH __attribute__((vector_size(kBytes / 2)));  // W halves

template <class V, class T>
HVD_FN V load_as(const T* p) {
  V v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

template <class V, class T>
HVD_FN void store_as(T* p, V v) {
  std::memcpy(p, &v, sizeof v);
}

template <class To, class From>
HVD_FN To bits(From v) {
  static_assert(sizeof(To) == sizeof(From), "a reinterpretation, not a conversion");
  To to;
  std::memcpy(&to, &v, sizeof to);
  return to;
}

HVD_FN VF splat(float x) { return VF{} + x; }

// a > b ? a : b, so b where either is NaN; the rest of the row's arithmetic brings NaN to light.
HVD_FN VF max(VF a, VF b) {
#if defined(__AVX512F__)
  return _mm512_max_ps(a, b);
#elif defined(__AVX2__)
  return _mm256_max_ps(a, b);
#elif defined(__SSE2__)
  return _mm_max_ps(a, b);
#else
  return a > b ? a : b;
#endif
}

HVD_FN VD sqrt(VD x) {
#if defined(__AVX512F__)
  return _mm512_sqrt_pd(x);
#elif defined(__AVX2__)
  return _mm256_sqrt_pd(x);
#elif defined(__SSE2__)
  return _mm_sqrt_pd(x);
#else
  VD root;
  for (int l = 0; l < W / 2; l++) root[l] = __builtin_sqrt(x[l]);
  return root;
#endif
}

// Whether all lanes of a comparison of VD hold.
template <class M>
HVD_FN bool all_lanes(M mask) {
#if defined(__AVX512F__)
  return _mm512_movepi64_mask(bits<__m512i>(mask)) == 0xff;
#elif defined(__AVX2__)
  return _mm256_movemask_pd(bits<__m256d>(mask)) == 0xf;
#elif defined(__SSE2__)
  return _mm_movemask_pd(bits<__m128d>(mask)) == 0x3;
#else
  bool all = true;
  for (int l = 0; l < W / 2; l++) all &= mask[l] != 0;
  return all;
#endif
}

// Lists of lane numbers, as constants for the shuffles below: lane l of list F is F(l).
#if HVD_VECTOR_BYTES == 64
#define HVD_LANES(F, S)                                                                        \
  F(0, S), F(1, S), F(2, S), F(3, S), F(4, S), F(5, S), F(6, S), F(7, S), F(8, S), F(9, S),     \
      F(10, S), F(11, S), F(12, S), F(13, S), F(14, S), F(15, S)
#elif HVD_VECTOR_BYTES == 32
#define HVD_LANES(F, S) F(0, S), F(1, S), F(2, S), F(3, S), F(4, S), F(5, S), F(6, S), F(7, S)
#else
#define HVD_LANES(F, S) F(0, S), F(1, S), F(2, S), F(3, S)
#endif
#if defined(__clang__)
#define HVD_SHUFFLE(a, b, F, S) __builtin_shufflevector(a, b, HVD_LANES(F, S))
#else
#define HVD_SHUFFLE(a, b, F, S) __builtin_shuffle(a, b, VI{HVD_LANES(F, S)})
#endif
#define HVD_SWAP(l, S) ((l) ^ (S))

template <int S>
HVD_FN VF swap_lanes(VF v) {
  return HVD_SHUFFLE(v, v, HVD_SWAP, S);
}

// Over all lanes, in one fixed order.
HVD_FN float max_lane(VF v) {
  if constexpr (W == 16) v = max(v, swap_lanes<W == 16 ? 8 : 0>(v));
  if constexpr (W >= 8) v = max(v, swap_lanes<W >= 8 ? 4 : 0>(v));
  v = max(v, swap_lanes<2>(v));
  v = max(v, swap_lanes<1>(v));
  return v[0];
}

HVD_FN float add_lanes(VF v) {
  if constexpr (W == 16) v = v + swap_lanes<W == 16 ? 8 : 0>(v);
  if constexpr (W >= 8) v = v + swap_lanes<W >= 8 ? 4 : 0>(v);
  v = v + swap_lanes<2>(v);
  v = v + swap_lanes<1>(v);
  return v[0];
}

// Within each block of four lanes: a0 b0 a1 b1 and a2 b2 a3 b3 (unpacking single lanes), then
// a0 a1 b0 b1 and a2 a3 b2 b3 (pairs). And the even and the odd ones of the blocks of a and b.
#define HVD_BLOCK(l) ((l) & ~3)
#define HVD_LOW1(l, S) (HVD_BLOCK(l) + ((l) & 3) / 2 + ((l) & 1) * W)
#define HVD_HIGH1(l, S) (HVD_LOW1(l, S) + 2)
#define HVD_LOW2(l, S) (HVD_BLOCK(l) + ((l) & 1) + ((l) & 2) / 2 * W)
#define HVD_HIGH2(l, S) (HVD_LOW2(l, S) + 2)
#define HVD_EVEN(l, S) (2 * HVD_BLOCK(l) + ((l) & 3))
#define HVD_ODD(l, S) (HVD_EVEN(l, S) + 4)

// W x W, by shuffles that need no index vector.
HVD_FN void transpose(VF (&rows)[W]) {
  constexpr int kBlocks = W / 4;
  VF x[W];  // x[4 i + k]: of column 4 q + k block q holds rows 4 i .. 4 i + 3
  for (int i = 0; i < W; i += 4) {
    const VF *r = rows + i;
    const VF l0 = HVD_SHUFFLE(r[0], r[1], HVD_LOW1, 0), h0 = HVD_SHUFFLE(r[0], r[1], HVD_HIGH1, 0);
    const VF l1 = HVD_SHUFFLE(r[2], r[3], HVD_LOW1, 0), h1 = HVD_SHUFFLE(r[2], r[3], HVD_HIGH1, 0);
    x[i] = HVD_SHUFFLE(l0, l1, HVD_LOW2, 0);
    x[i + 1] = HVD_SHUFFLE(l0, l1, HVD_HIGH2, 0);
    x[i + 2] = HVD_SHUFFLE(h0, h1, HVD_LOW2, 0);
    x[i + 3] = HVD_SHUFFLE(h0, h1, HVD_HIGH2, 0);
  }
  for (int k = 0; k < 4; k++) {
    if constexpr (kBlocks == 1) rows[k] = x[k];
    if constexpr (kBlocks == 2) {
      rows[k] = HVD_SHUFFLE(x[k], x[4 + k], HVD_EVEN, 0);
      rows[4 + k] = HVD_SHUFFLE(x[k], x[4 + k], HVD_ODD, 0);
    }
    if constexpr (kBlocks == 4) {
      const VF e0 = HVD_SHUFFLE(x[k], x[4 + k], HVD_EVEN, 0);
      const VF e1 = HVD_SHUFFLE(x[8 + k], x[12 + k], HVD_EVEN, 0);
      const VF o0 = HVD_SHUFFLE(x[k], x[4 + k], HVD_ODD, 0);
      const VF o1 = HVD_SHUFFLE(x[8 + k], x[12 + k], HVD_ODD, 0);
      rows[k] = HVD_SHUFFLE(e0, e1, HVD_EVEN, 0);
      rows[4 + k] = HVD_SHUFFLE(o0, o1, HVD_EVEN, 0);
      rows[8 + k] = HVD_SHUFFLE(e0, e1, HVD_ODD, 0);
      rows[12 + k] = HVD_SHUFFLE(o0, o1, HVD_ODD, 0);
    }
  }
}

}  // namespace HVD_ISA
}  // namespace hvdfilter
