// Targets spread over the classes, by label smoothing or soft labels: a second sweep over each row
// after its sums are known. Formulas in row_score.h, SpreadSums. Serves any number of classes.
#pragma once

#include "wide.h"

namespace hvdfilter {
namespace HVD_ISA {

// A row's target distribution: share(c) = soft label c * kept + even, or `even` off the target.
struct Spread {
  const float* soft;  // null: one class has all but the smoothing
  int64_t classes, y;
  double even, kept;
  double at_y, rest;

  // Lanes c .. c + W - 1; -inf, the filling of load_first, has no share.
  HVD_MEMBER VF shares(int64_t c) const {
    if (soft == nullptr) return splat(static_cast<float>(even));
    const int64_t left = classes - c;
    VF t = left >= W ? load_as<VF>(soft + c) : load_first<Float32>(soft + c, left);
    t = t > 0.0f ? t : VF{};
    return t * static_cast<float>(kept) + static_cast<float>(even);
  }

  // All lanes but the target's and those past the last class.
  HVD_MEMBER VI others(int64_t c) const {
    VI lane;
    for (int l = 0; l < W; l++) lane[l] = l;
    const VI index = lane + static_cast<int32_t>(c);
    return (index != static_cast<int32_t>(y)) & (index < static_cast<int32_t>(classes));
  }
};

// The largest soft label's class, or -1 if a label is negative, NaN or infinite.
HVD_FN int64_t largest_label(const float* soft, int64_t classes) {
  int64_t y = 0;
  bool good = true;
  for (int64_t c = 0; c < classes; c++) {
    good &= soft[c] >= 0.0f && soft[c] < INFINITY;
    y = soft[c] > soft[y] ? c : y;
  }
  return good ? y : -1;
}

HVD_FN double sum_of_others(const Spread& t) {
  double sum = 0;
  for (int64_t c = 0; c < t.classes; c++) sum += c == t.y ? 0.0 : t.soft[c];
  return sum;
}

// Finds the targets of a soft group: y, and the rows that have none.
HVD_FN void find_soft_targets(const Rows& job, Group& g) {
  if (!job.soft()) return;
  for (int r = 0; r < g.count; r++) {
    const auto* soft = reinterpret_cast<const float*>(job.label_row(g.first + r));
    g.y[r] = static_cast<int32_t>(largest_label(soft, job.classes));
    if (g.y[r] >= 0) continue;
    g.state[r] = kBadTarget;
    g.special = true;
  }
}

HVD_FN Spread spread_of(const Rows& job, const Group& g, int r) {
  Spread t;
  t.soft = job.soft() ? reinterpret_cast<const float*>(job.label_row(g.first + r)) : nullptr;
  t.classes = job.classes;
  t.y = g.y[r];
  t.even = job.smoothing / static_cast<double>(job.classes);
  t.kept = 1 - job.smoothing;
  t.at_y = t.kept * (t.soft == nullptr ? 1.0 : t.soft[t.y]) + t.even;
  t.rest = t.kept * (t.soft == nullptr ? 0.0 : sum_of_others(t)) +
           t.even * static_cast<double>(job.classes - 1);
  return t;
}

template <class E>
HVD_FN VF load_logits(const Rows& job, const typename E::Storage* row, int64_t c) {
  const int64_t left = job.classes - c;
  return left >= W ? E::load(row + c) : load_first<E>(row + c, left);
}

// Replaces a row's loss and norm, which finish_group made for a target of one class.
template <class E>
HVD_FN void spread_row(const Rows& job, Group& g, int r) {
  using Storage = typename E::Storage;
  const Storage* row = reinterpret_cast<const Storage*>(job.row(g.first + r));
  const Spread t = spread_of(job, g, r);
  const VF m = splat(g.m[r] == -INFINITY ? 0.0f : static_cast<float>(g.m[r]));
  // Squares of 1e-26 would underflow: the differences are summed in units of their upper bound.
  const double bound = (t.rest + t.at_y) * g.others[r] + t.rest;
  const double unit = bound < 1e-37 ? 1e-37 : bound;
  const VF factor = splat(static_cast<float>((t.rest + t.at_y) * g.others[r] / unit));
  const VF per_unit = splat(static_cast<float>(1 / unit));
  SpreadSums<double> sums = {t.rest, 0, 0};
  // Short runs of floats, summed in double: a lane that holds a large term would round away the
  // many small and equal ones that smoothing makes.
  constexpr int64_t kRun = 16 * W;
  for (int64_t run = 0; run < job.classes; run += kRun) {
    const int64_t end = job.classes - run < kRun ? job.classes : run + kRun;
    VF below = VF{}, squares = VF{};
    for (int64_t c = run; c < end; c += W) {
      const VI others = t.others(c);
      const VF d = load_logits<E>(job, row, c) - m;
      const VF share = t.shares(c);
      const VF difference = exp_below(d) * factor - share * per_unit;
      below += (others & (share > 0.0f)) != 0 ? share * -d : VF{};
      squares += others != 0 ? difference * difference : VF{};
    }
    sums.below += add_lanes(below);
    sums.squares += add_lanes(squares) * (unit * unit);
  }
  RowScore<double> score;
  score.loss = g.loss[r];
  score.base = g.base[r];
  score.miss = g.miss[r];
  spread<ScalarMath>(score, sums, t.at_y);
  g.loss[r] = score.loss;
  g.grad_norm[r] = score.grad_norm;
}

// scale * (w p - t).
template <class E>
HVD_FN void spread_gradient(const Rows& job, const Group& g, int r, double scale) {
  using Storage = typename E::Storage;
  const Storage* row = reinterpret_cast<const Storage*>(job.row(g.first + r));
  Storage* out = reinterpret_cast<Storage*>(job.grad_row(g.first + r));
  const Spread t = spread_of(job, g, r);
  const VF m = splat(g.m[r] == -INFINITY ? 0.0f : static_cast<float>(g.m[r]));
  const VF factor = splat(static_cast<float>((t.rest + t.at_y) * g.others[r]));
  const VF scales = splat(static_cast<float>(scale));
  for (int64_t c = 0; c < job.classes; c += W) {
    const VF e = exp_below(load_logits<E>(job, row, c) - m);
    const VF gradient = (e * factor - t.shares(c)) * scales;
    if (job.classes - c >= W) {
      E::store(out + c, gradient);
    } else {
      store_first<E>(out + c, gradient, job.classes - c);
    }
  }
  const double at_y = spread_target_gradient(g.miss[r], t.at_y, t.rest);
  hvdfilter::store(out, E::kDtype, t.y, scale * at_y);
}

}  // namespace HVD_ISA
}  // namespace hvdfilter
