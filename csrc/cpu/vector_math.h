// exp for float logits and exp, log1p, sqrt for the float64 end of a row: branch-free polynomials
// over vectors. Their errors stand beside them; none of them handles what its caller rules out.
#pragma once

#include "simd.h"

namespace hvdfilter {
namespace HVD_ISA {

// exp(x) for x <= 0, x = -inf included: relative error 2e-7 (9e-8 from the polynomial), exactly 1
// at 0, exactly 0 below the smallest normal float, NaN for NaN. Anything may come of x > 0.
HVD_FN VF exp_below(VF x) {
  const VF t = x * 1.44269504f;
#if defined(__AVX512F__)
  // 2^t = 2^floor(t) 2^f, f = t - floor(t): two instructions that also do what is right at -inf.
  const VF f = _mm512_reduce_ps(t, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  VF p = f * 0.0018671300495043397f + 0.009017030708491802f;
  p = p * f + 0.05579991266131401f;
  p = p * f + 0.24016444385051727f;
  p = p * f + 0.6931512951850891f;
  p = p * f + 1.0f;
  return _mm512_scalef_ps(p, t);
#else
  // Adding 1.5 * 2^23 rounds to the nearest integer and leaves it in the low bits.
  const VF shifted = t + 12582912.0f;
  const VF f = t - (shifted - 12582912.0f);
  VF p = f * 0.001326472731307149f + 0.009671512991189957f;
  p = p * f + 0.05550733581185341f;
  p = p * f + 0.24022242426872253f;
  p = p * f + 0.6931470036506653f;
  p = p * f + 1.0f;
  const VF power = bits<VF>((bits<VU>(shifted) + 127) << 23);
  return x < -87.0f ? VF{} : p * power;
#endif
}

// For D a vector of doubles, or one double; L is its unsigned integer.
template <class D, class L>
struct PolynomialMath {
  template <class C>
  static HVD_MEMBER D select(C c, D a, D b) {
    return c ? a : b;
  }

  // x <= 0 or NaN: relative error 1e-10; 3e-308 for anything below -708.
  static HVD_MEMBER D exp(D x) {
    const D lowest = D{} - 708.0;
    x = x < lowest ? lowest : x;
    const D t = x * 1.4426950408889634;
    const D shifted = t + 6755399441055744.0;  // 1.5 * 2^52
    const D f = t - (shifted - 6755399441055744.0);
    D p = f * 1.5196156360205208e-05 + 0.00015466756326010383;
    p = p * f + 0.001333393505634727;
    p = p * f + 0.00961803813202828;
    p = p * f + 0.055504103659904915;
    p = p * f + 0.24022651066561387;
    p = p * f + 0.6931471807045324;
    p = p * f + 1.0;
    return p * bits<D>((bits<L>(shifted) + 1023) << 52);
  }

  // 0 <= x < 2^23: relative error 1e-10 down to the smallest x. log of the rounded u = 1 + x, plus
  // what the rounding left out (over u, but it only matters where u is nearly 1); u = 2^k v with v
  // in [sqrt(1/2), sqrt(2)), log v = 2 atanh((v-1)/(v+1)).
  static HVD_MEMBER D log1p(D x) {
    const D u = x + 1.0;
    constexpr uint64_t kRootHalf = 0x3fe6a09e667f3bcd;
    const L k = (bits<L>(u) - kRootHalf) >> 52;
    const D v = bits<D>(bits<L>(u) - (k << 52));
    // k is a small integer >= 0: put it into the low bits of 2^52.
    const D exponent = bits<D>(k | (L{} + 0x4330000000000000)) - 4503599627370496.0;
    const D s = (v - 1.0) / (v + 1.0);
    const D q = s * s;
    D p = q * (2.0 / 11) + 2.0 / 9;
    p = p * q + 2.0 / 7;
    p = p * q + 2.0 / 5;
    p = p * q + 2.0 / 3;
    p = p * q + 2.0;
    return exponent * 0.6931471805599453 + p * s + (x - (u - 1.0));
  }

  static HVD_MEMBER D sqrt(D x) { return root(x); }
  static HVD_MEMBER D reciprocal(D x) { return 1.0 / x; }

 private:
  static HVD_MEMBER VD root(VD x) { return HVD_ISA::sqrt(x); }
  static HVD_MEMBER double root(double x) { return __builtin_sqrt(x); }
};

using VectorMath = PolynomialMath<VD, VL>;
using ScalarMath = PolynomialMath<double, uint64_t>;

}  // namespace HVD_ISA
}  // namespace hvdfilter
