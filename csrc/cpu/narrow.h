// Few classes: W rows at a time, one row a lane. Vectors are read row by row and transposed W x W
// in registers, so that no lane idles and no row needs a horizontal sum; two neighbours of 16 bits
// stay together in a lane until then. The transposed logits, then their exponentials, stay in L1:
// [classes][W] floats.
#pragma once

#include "group.h"

namespace hvdfilter {
namespace HVD_ISA {

// Up to here transposing costs less than half-empty vectors and horizontal sums do.
constexpr int64_t kNarrowClasses = 16 * W;

// Rows first .. first + W - 1 transposed into columns[class][row]; rows past the last one repeat
// it. Reads whole vectors, past a row's end into the next one, where the memory is the tensor's.
// Of 16 bits and an odd number of classes one column more is written, which means nothing.
template <class E>
HVD_FN void load_columns(const Rows& job, const Group& g, VF* columns) {
  using Storage = typename E::Storage;
  constexpr int64_t kStep = W * E::kPerLane;
  const Storage* base = static_cast<const Storage*>(job.logits);
  const Storage* end = base + (job.rows - 1) * job.row_stride + job.classes;
  for (int64_t c = 0; c < job.classes; c += kStep) {
    const Storage* p = base + g.first * job.row_stride + c;
    const bool inside = end - p >= (g.count - 1) * job.row_stride + kStep;
    const int64_t readable = inside ? kStep : job.classes - c;
    VF block[W];
    for (int r = 0; r < W; r++) {
      block[r] = load_lanes<E>(p, readable);
      if (r + 1 < g.count) p += job.row_stride;
    }
    transpose(block);
    for (int i = 0; i < W; i++) {
      const int64_t first = c + i * E::kPerLane;
      if (first < job.classes) E::split(bits<VU>(block[i]), columns + first);
    }
  }
}

HVD_FN void widen_lanes(double* out, VF v) {
  for (int r = 0; r < W; r++) out[r] = v[r];
}

// Takes the targets' logits out of columns, leaving -inf. A store into one lane must reach the
// cache before the whole vector can be read again: with few columns, most would wait for that.
HVD_FN void take_targets(Group& g, VF* columns, int64_t classes) {
  constexpr int64_t kFewColumns = 24;
  if (classes <= kFewColumns) {
    const VI y = load_as<VI>(g.y);
    const VF none = splat(-INFINITY);
    VF zy = none;
    for (int64_t c = 0; c < classes; c++) {
      const auto is_target = y == static_cast<int32_t>(c);
      zy = is_target ? columns[c] : zy;
      columns[c] = is_target ? none : columns[c];
    }
    widen_lanes(g.zy, zy);
    return;
  }
  for (int r = 0; r < W; r++) {
    g.zy[r] = -INFINITY;
    if (g.y[r] < 0) continue;
    float* z = reinterpret_cast<float*>(columns + g.y[r]) + r;
    g.zy[r] = *z;
    *z = -INFINITY;
  }
}

HVD_FN VF max_column(const VF* columns, int64_t classes) {
  const VF none = splat(-INFINITY);
  VF m[4] = {none, none, none, none};
  int64_t c = 0;
  for (; c + 4 <= classes; c += 4) {
    for (int k = 0; k < 4; k++) m[k] = max(m[k], columns[c + k]);
  }
  for (; c < classes; c++) m[0] = max(m[0], columns[c]);
  return max(max(m[0], m[1]), max(m[2], m[3]));
}

// Fills in the group's sums and with Keep leaves exp(z - m) in columns, 0 at the target. Summed as
// the tree of wide.h: kRun terms in each of four chains, then those blocks.
template <class E, bool Keep>
HVD_FN void sum_narrow(const Rows& job, Group& g, VF* columns) {
  constexpr int kChains = 4;
  load_columns<E>(job, g, columns);
  take_targets(g, columns, job.classes);
  const VF m = max_column(columns, job.classes);
  const VF base = m == splat(-INFINITY) ? VF{} : m;
  const auto* ahead = reinterpret_cast<const typename E::Storage*>(job.row(g.first + g.count));
  VF t1 = VF{}, t2 = VF{};
  for (int64_t c = 0; c < job.classes;) {
    const int64_t block = c + kRun * kChains;
    const int64_t end = block < job.classes ? block : job.classes;
    VF a1[kChains] = {}, a2[kChains] = {};
    const auto step = [&](int k) __attribute__((always_inline)) {
      const VF e = exp_below(columns[c + k] - base);
      if (Keep) columns[c + k] = e;
      a1[k] += e;
      a2[k] += e * e;
    };
    for (; c + kChains <= end; c += kChains) {
      fetch_ahead(ahead + c * W, kChains * W);
      for (int k = 0; k < kChains; k++) step(k);
    }
    const int64_t left = end - c;
    if (left > 0) step(0);
    if (left > 1) step(1);
    if (left > 2) step(2);
    c = end;
    t1 += (a1[0] + a1[1]) + (a1[2] + a1[3]);
    t2 += (a2[0] + a2[1]) + (a2[2] + a2[3]);
  }
  widen_lanes(g.m, m);
  widen_lanes(g.t1, t1);
  widen_lanes(g.t2, t2);
}

// The gradient from the exponentials in columns. Special rows get what they get elsewhere.
template <class E>
HVD_FN void gradient_narrow(const Rows& job, const Group& g, const VF* columns, double per_row) {
  using Storage = typename E::Storage;
  constexpr int kPer = E::kPerLane;
  float scale_others[W] = {}, scale_target[W] = {};
  for (int r = 0; r < g.count; r++) {
    const double scale = row_scale(job, g.first + r, per_row);
    scale_others[r] = static_cast<float>(scale * g.others[r]);
    scale_target[r] = static_cast<float>(-scale * g.miss[r]);
  }
  const VF others = load_as<VF>(scale_others), target = load_as<VF>(scale_target);
  const VI y = load_as<VI>(g.y);
  Storage* base = static_cast<Storage*>(job.grad) + g.first * job.grad_row_stride;
  for (int64_t c = 0; c < job.classes; c += W * kPer) {
    VF block[W];
    for (int i = 0; i < W; i++) {
      block[i] = VF{};
      const int64_t first = c + i * kPer;
      if (first >= job.classes) continue;
      VF pair[kPer];
      for (int k = 0; k < kPer; k++) {
        const VF gradient = columns[first + k] * others;
        pair[k] = y == static_cast<int32_t>(first + k) ? target : gradient;
      }
      block[i] = bits<VF>(E::join(pair));
    }
    transpose(block);
    for (int r = 0; r < g.count; r++) {
      store_lanes<E>(base + r * job.grad_row_stride + c, block[r], job.classes - c);
    }
  }
}

}  // namespace HVD_ISA
}  // namespace hvdfilter
