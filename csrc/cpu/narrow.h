// Few classes: W rows at a time, one row a lane. A block of W x W logits is read row by row and
// transposed in registers, so that no lane idles and no row needs a horizontal sum. The transposed
// logits, then their exponentials, stay in L1: [classes][W] floats.
#pragma once

#include "group.h"

namespace hvdfilter {
namespace HVD_ISA {

// Up to here transposing costs less than half-empty vectors and horizontal sums do.
constexpr int64_t kNarrowClasses = 64;

// Rows first .. first + W - 1 transposed into columns[class][row]; rows past the last one repeat
// it. Reads whole vectors, past a row's end into the next one, where the memory is the tensor's.
template <class E>
HVD_FN void load_columns(const Rows& job, const Group& g, VF* columns) {
  using Storage = typename E::Storage;
  const Storage* base = static_cast<const Storage*>(job.logits);
  const int64_t end = (job.rows - 1) * job.row_stride + job.classes;
  for (int64_t c = 0; c < job.classes; c += W) {
    const int64_t left = job.classes - c;
    const bool inside = (g.first + g.count - 1) * job.row_stride + c + W <= end;
    VF block[W];
    for (int r = 0; r < W; r++) {
      const int row = r < g.count ? r : g.count - 1;
      const Storage* p = base + (g.first + row) * job.row_stride + c;
      block[r] = left >= W || inside ? E::load(p) : load_first<E>(p, left);
    }
    transpose(block);
    for (int i = 0; i < W && i < left; i++) columns[c + i] = block[i];
  }
}

HVD_FN void widen_lanes(double* out, VF v) {
  for (int r = 0; r < W; r++) out[r] = v[r];
}

// Fills in the group's sums and with Keep leaves exp(z - m) in columns, 0 at the target.
template <class E, bool Keep>
HVD_FN void sum_narrow(const Rows& job, Group& g, VF* columns) {
  load_columns<E>(job, g, columns);
  const VI y = load_as<VI>(g.y);
  const VF none = splat(-INFINITY);
  VF m = none, zy = none;
  for (int64_t c = 0; c < job.classes; c++) {
    const auto is_target = y == static_cast<int32_t>(c);
    const VF z = columns[c];
    zy = is_target ? z : zy;
    columns[c] = is_target ? none : z;
    m = max(m, columns[c]);
  }
  const VF base = m == none ? VF{} : m;
  // Four chains of at most 16 terms, for the reason given in wide.h.
  VF t1[4] = {}, t2[4] = {};
  const auto step = [&](int64_t c, int k) __attribute__((always_inline)) {
    const VF e = exp_below(columns[c] - base);
    if (Keep) columns[c] = e;
    t1[k] += e;
    t2[k] += e * e;
  };
  int64_t c = 0;
  for (; c + 4 <= job.classes; c += 4) {
    for (int k = 0; k < 4; k++) step(c + k, k);
  }
  if (c < job.classes) step(c, 0);
  if (c + 1 < job.classes) step(c + 1, 1);
  if (c + 2 < job.classes) step(c + 2, 2);
  widen_lanes(g.m, m);
  widen_lanes(g.t1, (t1[0] + t1[1]) + (t1[2] + t1[3]));
  widen_lanes(g.t2, (t2[0] + t2[1]) + (t2[2] + t2[3]));
  widen_lanes(g.zy, zy);
}

// The gradient from the exponentials in columns. Special rows get what they get elsewhere.
template <class E>
HVD_FN void gradient_narrow(const Rows& job, const Group& g, const VF* columns, double per_row) {
  using Storage = typename E::Storage;
  float scale_others[W] = {}, scale_target[W] = {};
  for (int r = 0; r < g.count; r++) {
    const double scale = row_scale(job, g.first + r, per_row);
    scale_others[r] = static_cast<float>(scale * g.others[r]);
    scale_target[r] = static_cast<float>(-scale * g.miss[r]);
  }
  const VF others = load_as<VF>(scale_others), target = load_as<VF>(scale_target);
  const VI y = load_as<VI>(g.y);
  Storage* base = static_cast<Storage*>(job.grad) + g.first * job.grad_row_stride;
  for (int64_t c = 0; c < job.classes; c += W) {
    const int64_t left = job.classes - c;
    VF block[W];
    for (int i = 0; i < W; i++) {
      block[i] = VF{};
      if (i >= left) continue;
      const VF gradient = columns[c + i] * others;
      block[i] = y == static_cast<int32_t>(c + i) ? target : gradient;
    }
    transpose(block);
    for (int r = 0; r < g.count; r++) {
      Storage* p = base + r * job.grad_row_stride + c;
      if (left >= W) {
        E::store(p, block[r]);
      } else {
        store_first<E>(p, block[r], left);
      }
    }
  }
}

}  // namespace HVD_ISA
}  // namespace hvdfilter
