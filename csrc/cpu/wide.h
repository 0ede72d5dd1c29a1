// Many classes: one row at a time, in segments that stay in L1 between the sweep for the maximum
// and the sweep for the sums. A segment that holds the target, ends within a vector or is float16
// is first copied to a float buffer, where the target becomes -inf and drops out of every sum.
#pragma once

#include "group.h"

namespace hvdfilter {
namespace HVD_ISA {

// Elements of a segment: few enough for L1, and for sums of float that lose nothing (256 terms a
// lane). Rows are cut here in the same way whatever the threads.
constexpr int64_t kSegment = 256 * W;
// Floats of scratch: rows that fit into one segment are taken several at a time up to this much.
constexpr int64_t kScratch = 4096;

HVD_FN int64_t padded(int64_t n) { return (n + W - 1) / W * W; }

// n elements as floats, filled up with -inf to whole vectors.
template <class E>
HVD_FN void copy_segment(const typename E::Storage* p, int64_t n, float* buffer) {
  const int64_t whole = n / W * W;
  for (int64_t c = 0; c < whole; c += W) store_as(buffer + c, E::load(p + c));
  if (whole < n) store_as(buffer + whole, load_first<E>(p + whole, n - whole));
}

// use(vector, k) for each k of the next vectors of floats; of 16 bits the evens, then the odds.
template <class E, class F>
HVD_FN void for_vectors(const typename E::Storage* p, int vectors, F use) {
  for (int k = 0; k < vectors; k += E::kPerLane) {
    VF v[E::kPerLane];
    E::split(load_as<VU>(p + k * W), v);
    for (int j = 0; j < E::kPerLane; j++) use(v[j], k + j);
  }
}

// n: whole vectors of memory.
template <class E>
HVD_FN float max_of(const typename E::Storage* z, int64_t n) {
  constexpr int kChains = 4;
  const VF none = splat(-INFINITY);
  VF m[kChains] = {none, none, none, none};
  const auto step = [&](VF v, int k) __attribute__((always_inline)) { m[k] = max(m[k], v); };
  int64_t i = 0;
  for (; i + kChains * W <= n; i += kChains * W) for_vectors<E>(z + i, kChains, step);
  for (; i < n; i += W * E::kPerLane) for_vectors<E>(z + i, E::kPerLane, step);
  return max_lane(max(max(m[0], m[1]), max(m[2], m[3])));
}

// Sums over whole vectors of memory on the base m; with Keep the exponentials are stored.
//
// Summed as a tree: kRun terms in each of four lanes' chains, then up to kRun such blocks. One
// chain over a segment would lose the many small terms beside a large one to its rounding, always
// in the same direction: 5e-6 for 255 terms of 4e-8 beside 1.
template <class E, bool Keep, class Storage>
HVD_FN RowSums<float> sums_of(const typename E::Storage* z, int64_t n, float m, float* kept,
                              const Storage* ahead) {
  constexpr int kChains = 4;
  const VF base = splat(m == -INFINITY ? 0.0f : m);
  VF t1 = VF{}, t2 = VF{};
  for (int64_t i = 0; i < n;) {
    const int64_t block = i + kRun * kChains * W;
    const int64_t end = block < n ? block : n;
    VF a1[kChains] = {}, a2[kChains] = {};
    const auto step = [&](VF v, int k) __attribute__((always_inline)) {
      const VF e = exp_below(v - base);
      if (Keep) store_as(kept + i + k * W, e);
      a1[k] += e;
      a2[k] += e * e;
    };
    for (; i + kChains * W <= end; i += kChains * W) {
      fetch_ahead(ahead + i, kChains * W);
      for_vectors<E>(z + i, kChains, step);
    }
    const int left = static_cast<int>((end - i) / W);  // a multiple of kPerLane
    if (left == 1) for_vectors<E>(z + i, 1, step);
    if (left == 2) for_vectors<E>(z + i, 2, step);
    if (left == 3) for_vectors<E>(z + i, 3, step);
    i = end;
    t1 += (a1[0] + a1[1]) + (a1[2] + a1[3]);
    t2 += (a2[0] + a2[1]) + (a2[2] + a2[3]);
  }
  return {m, add_lanes(t1), add_lanes(t2)};
}

// Out of line, so that a row cut up for several threads is joined by the same instructions.
__attribute__((noinline)) static RowSums<double> join(RowSums<double> a, RowSums<float> b) {
  return merge<double>(a, {b.m, b.t1, b.t2}, [](double x) { return ScalarMath::exp(x); });
}

// One segment of a row, the target excluded if it is inside (0 <= y < n).
template <class E>
__attribute__((noinline)) static RowSums<float> sum_segment(const typename E::Storage* p,
                                                            int64_t n, int64_t y, float* buffer) {
  if (E::kSplitIsCheap && (y < 0 || y >= n) && n % (W * E::kPerLane) == 0) {
    return sums_of<E, false>(p, n, max_of<E>(p, n), nullptr, p + n);
  }
  copy_segment<E>(p, n, buffer);
  if (y >= 0 && y < n) buffer[y] = -INFINITY;
  const float m = max_of<Float32>(buffer, padded(n));
  return sums_of<Float32, false>(buffer, padded(n), m, nullptr, p + n);
}

template <class E>
HVD_FN RowSums<float> sum_one_segment(const Rows& job, const Group& g, int r, int64_t segment,
                                      float* buffer) {
  using Storage = typename E::Storage;
  const int64_t c = segment * kSegment;
  const int64_t n = job.classes - c < kSegment ? job.classes - c : kSegment;
  const Storage* row = reinterpret_cast<const Storage*>(job.row(g.first + r));
  return sum_segment<E>(row + c, n, g.y[r] - c, buffer);
}

// Adds all segments of a row to `sums`, in order.
template <class E>
HVD_FN void sum_long_row(const Rows& job, Group& g, int r, RowSums<double> sums, float* buffer) {
  for (int64_t s = 0; s * kSegment < job.classes; s++) {
    sums = join(sums, sum_one_segment<E>(job, g, r, s, buffer));
  }
  g.m[r] = sums.m;
  g.t1[r] = sums.t1;
  g.t2[r] = sums.t2;
}

template <class E>
HVD_FN double target_logit(const Rows& job, int64_t i, int64_t y) {
  return y < 0 ? -INFINITY : hvdfilter::load(job.row(i), E::kDtype, y);
}

// Rows of one segment each: every sweep runs over all rows of the group before the next one, so
// that the store of -inf has long left the store buffer when it is read. With Keep scratch holds
// exp(z - m) afterwards, `padded(classes)` floats a row.
template <class E, bool Keep>
HVD_FN void sum_short_rows(const Rows& job, Group& g, float* scratch) {
  using Storage = typename E::Storage;
  const int64_t pitch = padded(job.classes);
  for (int r = 0; r < g.count; r++) {
    float* buffer = scratch + r * pitch;
    copy_segment<E>(reinterpret_cast<const Storage*>(job.row(g.first + r)), job.classes, buffer);
    g.zy[r] = target_logit<E>(job, g.first + r, g.y[r]);
    if (g.y[r] >= 0) buffer[g.y[r]] = -INFINITY;
  }
  float m[W];
  for (int r = 0; r < g.count; r++) m[r] = max_of<Float32>(scratch + r * pitch, pitch);
  for (int r = 0; r < g.count; r++) {
    float* buffer = scratch + r * pitch;
    const auto* ahead = reinterpret_cast<const Storage*>(job.row(g.first + r + g.count));
    const RowSums<float> sums = sums_of<Float32, Keep>(buffer, pitch, m[r], buffer, ahead);
    g.m[r] = sums.m;
    g.t1[r] = sums.t1;
    g.t2[r] = sums.t2;
  }
}

HVD_FN bool fits_segment(const Rows& job) { return job.classes <= kSegment; }

// How many rows a group takes: all lanes if scratch holds them.
HVD_FN int rows_per_group(const Rows& job) {
  const int64_t fit = kScratch / padded(job.classes);
  return fit < 1 ? 1 : fit < W ? static_cast<int>(fit) : W;
}

template <class E, bool Keep>
HVD_FN void sum_wide(const Rows& job, Group& g, float* scratch) {
  if (fits_segment(job)) return sum_short_rows<E, Keep>(job, g, scratch);
  for (int r = 0; r < g.count; r++) {
    if (g.state[r] != kGoodRow) continue;
    g.zy[r] = target_logit<E>(job, g.first + r, g.y[r]);
    sum_long_row<E>(job, g, r, RowSums<double>::empty(), scratch);
  }
}

// What every element of an ignored or a bad row's gradient is.
HVD_FN float special_gradient(const Group& g, int r) {
  return g.state[r] == kIgnoredRow ? 0.0f : NAN;
}

template <class E>
HVD_FN void fill_row(const Rows& job, int64_t i, float value, int64_t begin, int64_t end) {
  using Storage = typename E::Storage;
  Storage* out = reinterpret_cast<Storage*>(job.grad_row(i));
  int64_t c = begin;
  for (; c + W <= end; c += W) E::store(out + c, splat(value));
  if (c < end) store_first<E>(out + c, splat(value), end - c);
}

// scale * p from kept exponentials (Kept) or from the logits of classes [begin, end), then the
// target's own element.
template <class E, bool Kept>
HVD_FN void gradient_row(const Rows& job, const Group& g, int r, double scale, const float* kept,
                         int64_t begin, int64_t end) {
  using Storage = typename E::Storage;
  const Storage* row = Kept ? nullptr : reinterpret_cast<const Storage*>(job.row(g.first + r));
  Storage* out = reinterpret_cast<Storage*>(job.grad_row(g.first + r));
  const VF others = splat(static_cast<float>(scale * g.others[r]));
  const VF m = splat(g.m[r] == -INFINITY ? 0.0f : static_cast<float>(g.m[r]));
  int64_t c = begin;
  for (; c + W <= end; c += W) {
    const VF e = Kept ? load_as<VF>(kept + c) : exp_below(E::load(row + c) - m);
    E::store(out + c, e * others);
  }
  if (c < end) {
    const VF e = Kept ? load_as<VF>(kept + c) : exp_below(load_first<E>(row + c, end - c) - m);
    store_first<E>(out + c, e * others, end - c);
  }
  const int64_t y = g.y[r];
  if (y >= begin && y < end) hvdfilter::store(out, E::kDtype, y, -scale * g.miss[r]);
}

}  // namespace HVD_ISA
}  // namespace hvdfilter
