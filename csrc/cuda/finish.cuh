// The sums of a row and what becomes of them: how parts are merged, the finished row in float32 or
// float64, and all that one thread writes about it.
#pragma once

#include "row.cuh"

namespace hvdfilter {
namespace cuda {

// The sums of a part of a row, on its own base, and the target's logit, -inf where it is elsewhere.
struct alignas(16) Part {
  float m, t1, t2, zy;
  static HVD_METHOD Part empty() { return Part{-INFINITY, 0.0f, 0.0f, -INFINITY}; }
};

// Puts this thread's sums, made by raised(), on the base that they were made for.
HVD_DEVICE void fix(Part& part, const Exponential& e) {
  part.t1 *= e.fix;
  part.t2 *= e.fix * e.fix;
}

// Moves a part to a higher base. An empty part (m = -inf) keeps its zeros.
HVD_DEVICE void rebase(Part& part, float m) {
  const float shrink = exp_above(part.m, base(m));
  part.t1 *= shrink;
  part.t2 *= shrink * shrink;
  part.m = m;
}

// A maximum passes over NaN, so a target that is NaN shows itself in a sum.
HVD_DEVICE void show_nan(Part& part) {
  if (part.zy != part.zy) part.t1 = NAN;
}

// What every thread of a row must know once the row is finished: g_i = scaled * exp(z_i - m) for
// i != y and at_target for y; spread targets t_i subtract scale * t_i.
struct Verdict {
  float m;
  float others;  // w * others of row_score.h, unscaled
  float scaled;
  float at_target;
  float scale;
};

// ---- the finished row ----

struct FloatMath {
  static HVD_METHOD float log1p(float x) { return ::log1pf(x); }
  static HVD_METHOD float sqrt(float x) { return machine::root(x); }
  static HVD_METHOD float reciprocal(float x) { return machine::reciprocal(x); }
  static HVD_METHOD float select(bool c, float a, float b) { return c ? a : b; }
};

template <class D>
struct Finished {
  RowScore<D> row;
  BadRow bad;
};

// exp(-a - rest) for a >= 0 as a product of two normal numbers, to 2^-21 of its value: the fraction
// of the exponent apart, for a float near 100 has no digits left for it. Beyond kFarthest all is 0.
struct Product {
  float a, b;
};
constexpr float kFarthest = 160.0f;
HVD_DEVICE Product exp_minus(float a, float rest) {
  const float bounded = fminf(a, kFarthest);
  const float exponent = bounded * kLog2E;
  const float whole = rintf(exponent);
  const float fraction = machine::fma(bounded, kLog2E, -whole) +
                         (bounded * kLog2ERest + rest * kLog2E);
  const float half = machine::exp2(-0.5f * whole);
  return Product{machine::exp2(-fraction) * half, half};
}

// In float32, with the gap as a sum of two: on its own z_y - m would cost 4e-6 at a gap of 80.
HVD_DEVICE Finished<float> finish_row(const Part& part, BadRow bad) {
  const float gap = part.zy - part.m;
  const float back = gap - part.zy;
  const float rest = (part.zy - (gap - back)) - (part.m + back);
  const float away = fabsf(gap);
  const Product r = exp_minus(away, away < kFarthest ? (gap > 0.0f ? rest : -rest) : 0.0f);
  Finished<float> done;
  done.row = finish<FloatMath>(gap, r.a * r.b, part.t1, part.t2);
  if (gap > 60.0f) {
    // So easy that loss and norm are multiples of exp(-gap), which may be subnormal where they are
    // not.
    done.row.loss = part.t1 * r.a * r.b;
    done.row.grad_norm = machine::root(part.t1 * part.t1 + part.t2) * r.a * r.b;
  }
  done.bad = bad != kGoodRow ? bad : good_sums(part.m, part.t1, part.zy) ? kGoodRow : kBadLogits;
  return done;
}

// In float64, for sums that come in float64 and targets that are spread.
struct RowTotals {
  double m, t1, t2, zy;
};
HVD_DEVICE Finished<double> finish_row(const RowTotals& sums, BadRow bad) {
  Finished<double> done;
  done.row = finish_sums<LibMath>(sums.m, sums.t1, sums.t2, sums.zy);
  done.bad = bad != kGoodRow ? bad : check_sums(sums.m, sums.t1, sums.zy);
  return done;
}
HVD_DEVICE RowTotals totals_of(const Part& part) {
  return RowTotals{double(part.m), double(part.t1), double(part.t2), double(part.zy)};
}

template <class D>
HVD_DEVICE void write_scores(const Job& job, int64_t row, const Finished<D>& done, bool ignored) {
  float score[4] = {float(done.row.loss), float(done.row.grad_norm), float(done.row.confidence),
                    float(done.row.margin)};
  if (ignored || done.bad != kGoodRow) {
    HVD_UNROLL
    for (int i = 0; i < 4; ++i) score[i] = ignored ? 0.0f : i == 2 ? -float(done.bad) : NAN;
  }
  float* to = job.out + row;
  HVD_UNROLL
  for (int i = 0; i < 4; ++i, to += job.rows) machine::store(to, score[i]);
}

// What weight, mean and caller multiply this row's gradient by.
template <class D>
HVD_DEVICE D gradient_scale(const Job& job, int64_t row) {
  D scale = 1;
  if (job.weight) scale *= machine::load(job.weight + row);
  if (job.upstream) scale *= machine::load(job.upstream);
  if (!job.count) return scale;
  const float count = machine::load(job.count);
  if constexpr (sizeof(D) == sizeof(float)) return scale * machine::reciprocal(count);
  return scale / count;
}

// ty, rest: t_y and the sum of the other t_i; 1 and 0 for a one-hot target.
template <class D>
HVD_DEVICE Verdict verdict(const Job& job, int64_t row, const Finished<D>& done, D m, D ty, D rest,
                           bool ignored) {
  Verdict v{base(float(m)), 0.0f, 0.0f, 0.0f, 0.0f};
  if (ignored) return v;
  const D scale = done.bad == kGoodRow ? gradient_scale<D>(job, row) : D(NAN);
  const D others = (ty + rest) * done.row.others;
  v.others = float(others);
  v.scaled = float(others * scale);
  v.at_target = float(spread_target_gradient(done.row.miss, ty, rest) * scale);
  v.scale = float(scale);
  return v;
}

// The sums a caller asked for. An ignored or mislabelled row has empty ones.
HVD_DEVICE void write_sums(const Job& job, int64_t row, const Part& part, bool empty) {
  double* to = job.sums + row;
  machine::store(to, empty ? double(-INFINITY) : double(part.m));
  machine::store(to + job.rows, empty ? 0.0 : double(part.t1));
  machine::store(to + 2 * job.rows, empty ? 0.0 : double(part.t2));
  machine::store(to + 3 * job.rows, empty ? double(-INFINITY) : double(part.zy));
}

// The sums that a caller brings, as this kernel's own would be: they were made of float32 parts.
HVD_DEVICE Part given_sums(const Job& job, int64_t row) {
  const double* from = job.sums + row;
  return Part{float(machine::load(from)), float(machine::load(from + job.rows)),
              float(machine::load(from + 2 * job.rows)), float(machine::load(from + 3 * job.rows))};
}

// Adds a block of classes to the sums of the blocks before it; an ignored row has none.
HVD_DEVICE void merge_sums(const Job& job, int64_t row, const Part& part, const Label& label) {
  if (ignored<false>(job, label)) return;
  double* to = job.sums + row;
  // merge() of row_score.h chooses between addresses, which would put both parts on the stack.
  const double m0 = machine::load(to);
  const double m = part.m > m0 ? double(part.m) : m0;
  const double shrink0 = m0 == m ? 1.0 : LibMath::exp(m0 - m);
  const double shrink = part.m == m ? 1.0 : LibMath::exp(part.m - m);
  const double t1 = machine::load(to + job.rows), t2 = machine::load(to + 2 * job.rows);
  machine::store(to, m);
  machine::store(to + job.rows, t1 * shrink0 + part.t1 * shrink);
  machine::store(to + 2 * job.rows, t2 * (shrink0 * shrink0) + part.t2 * (shrink * shrink));
  if (label.column >= 0) machine::store(to + 3 * job.rows, double(part.zy));
}

}  // namespace cuda
}  // namespace hvdfilter
