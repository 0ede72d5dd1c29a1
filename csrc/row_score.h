// The arithmetic of one row of logits, shared word for word by the CPU and the CUDA kernels:
// from the sums over all classes but the target to the loss, the gradient norm and what the
// backward pass needs. It never touches memory and knows nothing of threads or tensors.
//
// For logits z with target y, on the base of the largest other logit m = max_{i!=y} z_i,
//     t1 = sum_{i!=y} exp(z_i - m),    t2 = sum_{i!=y} exp(2 (z_i - m)).
// Both lie in [1, C], so nothing cancels or underflows however easy the row is. The textbook
// forms lse - z_y and S2 / S^2 - 2 p_y + 1 do cancel: at a gap of 20 in float32 they are wrong by
// their whole value, and on exactly the easy samples that a filter has to rank.
//
// D is double, a vector of doubles with the same operators (one row a lane), or float. M supplies
// exp, log1p, sqrt and reciprocal for D, and select(condition, a, b).
#pragma once

#include <math.h>

// static: this file is compiled once per instruction set, and no two may share a function.
#if defined(__CUDACC__)
#define HVD_FN static __host__ __device__ __forceinline__
#define HVD_MEMBER __host__ __device__ __forceinline__
#else
#define HVD_FN static inline __attribute__((always_inline))
#define HVD_MEMBER inline __attribute__((always_inline))
#endif

namespace hvdfilter {

// Why a row cannot be scored. The kernels report row * 4 + reason of the first such row, and
// write a NaN loss and a confidence of -reason into every such row.
enum BadRow { kGoodRow = 0, kBadLabel = 1, kBadLogits = 2, kBadTarget = 3 };

// Scalar double functions from the C library (or CUDA's): the most exact choice of M.
struct LibMath {
  static HVD_MEMBER double exp(double x) { return ::exp(x); }
  static HVD_MEMBER double log1p(double x) { return ::log1p(x); }
  static HVD_MEMBER double sqrt(double x) { return ::sqrt(x); }
  static HVD_MEMBER double reciprocal(double x) { return 1.0 / x; }
  static HVD_MEMBER double select(bool c, double a, double b) { return c ? a : b; }
};

// The three sums of a part of a row. T is the type the parts are summed in.
template <class T>
struct RowSums {
  T m, t1, t2;

  static HVD_MEMBER RowSums empty() { return {-T(INFINITY), T(0), T(0)}; }
  // exp(x - m) when the part's maximum m is known beforehand.
  HVD_MEMBER void add(T e) {
    t1 += e;
    t2 += e * e;
  }
};

// The sums of two parts of one row: on the new base the smaller one shrinks by a = exp(m - m'),
// its t2 by a^2. Two empty parts (m = -inf) stay empty. `exp` is the caller's, for x <= 0.
template <class T, class Exp>
HVD_FN RowSums<T> merge(const RowSums<T>& a, const RowSums<T>& b, Exp exp) {
  const bool a_is_base = a.m >= b.m;
  const RowSums<T>& high = a_is_base ? a : b;
  const RowSums<T>& low = a_is_base ? b : a;
  const T shrink = low.m == -T(INFINITY) ? T(0) : exp(low.m - high.m);
  return {high.m, high.t1 + low.t1 * shrink, high.t2 + low.t2 * (shrink * shrink)};
}

// What the sums of a whole row say. The gradient of the loss with respect to the logits is
//     p_i = others * exp(z_i - m)  for i != y,      p_y - 1 = -miss.
template <class D>
struct RowScore {
  D loss;        // -log p_y
  D grad_norm;   // ||p - onehot(y)||
  D confidence;  // max_i p_i
  D margin;      // z_y - m; the row is correct when it is positive
  D others;      // exp(m) / sum_i exp(z_i)
  D miss;        // 1 - p_y, never formed by that difference
  D base;        // log(sum_i exp(z_i)) - m
};

// From the gap z_y - m and r = exp(-|gap|), which the caller takes with more digits than D has.
// Without another class (C = 1, or all others -inf) gap is +inf: loss and norm 0, confidence 1.
template <class M, class D>
HVD_FN RowScore<D> finish(D gap, D r, D t1, D t2) {
  const D zero = D{}, one = D{} + 1;
  const auto easy = gap > zero;                        // the target is the largest
  const D other = M::select(easy, r, one);             // exp(m - max)
  const D target = M::select(easy, one, r);            // exp(z_y - max)
  const D sum = t1 * other + target;
  RowScore<D> row;
  row.confidence = M::reciprocal(sum);
  row.others = other * row.confidence;
  row.miss = t1 * row.others;
  row.grad_norm = row.others * M::sqrt(t1 * t1 + t2);
  const D log_sum = M::log1p(M::select(easy, t1 * r, sum - one));
  row.loss = M::select(easy, log_sum, log_sum - gap);
  row.base = M::select(easy, log_sum + gap, log_sum);
  row.margin = gap;
  return row;
}

// In float64 the difference of two float32 numbers is exact: at a gap of 80 a rounded one costs
// 4e-6.
template <class M, class D>
HVD_FN RowScore<D> finish_sums(D m, D t1, D t2, D zy) {
  const D gap = zy - m;
  return finish<M>(gap, M::exp(M::select(gap > D{}, -gap, gap)), t1, t2);
}

// Whether the sums can be trusted, a bool or a mask of lanes: a NaN logit makes t1 or zy NaN, and
// so does +inf unless it is the target's own. A row of nothing but -inf has no softmax: its gap is
// NaN.
template <class D>
HVD_FN auto good_sums(D m, D t1, D zy) {
  const D gap = zy - m;
  return (t1 >= 0.0) & (zy < D{} + INFINITY) & (gap == gap);
}

HVD_FN BadRow check_sums(double m, double t1, double zy) {
  return good_sums(m, t1, zy) ? kGoodRow : kBadLogits;
}

// Targets t that are spread over the classes: soft labels, label smoothing. The loss is
// sum_i t_i (lse - z_i), its gradient w p_i - t_i with w = sum_i t_i. y is the largest t_i.
// A second sweep over the row brings, over all classes but y:
template <class D>
struct SpreadSums {
  D rest;     // sum t_i
  D below;    // sum t_i (m - z_i)
  D squares;  // sum (w p_i - t_i)^2
};

// The gradient at y itself: w p_y - t_y = rest - w (1 - p_y), nothing cancelling when t is one-hot.
template <class D>
HVD_FN D spread_target_gradient(D miss, D ty, D rest) {
  return rest - (rest + ty) * miss;
}

template <class M, class D>
HVD_FN void spread(RowScore<D>& row, const SpreadSums<D>& sums, D ty) {
  const D at_target = spread_target_gradient(row.miss, ty, sums.rest);
  row.grad_norm = M::sqrt(sums.squares + at_target * at_target);
  const D loss_others = M::select(sums.rest > 0.0, sums.rest * row.base + sums.below, D{});
  row.loss = ty * row.loss + loss_others;
}

}  // namespace hvdfilter
