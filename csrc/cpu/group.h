// A group: up to W rows that are finished together, one row a lane. The sweeps (narrow.h, wide.h)
// fill in its sums; this file turns them into scores, in the same lanes whatever the sweep was, so
// that a row's bits depend on the row alone.
#pragma once

#include "elements.h"
#include "vector_math.h"

namespace hvdfilter {
namespace HVD_ISA {

// Also the type of a row's state: kGoodRow, a BadRow reason, or this.
constexpr int kIgnoredRow = -1;

// The order of a first-bad-row word: see csrc/README.md. Larger than any row: none.
constexpr int64_t kNoBadRow = INT64_MAX;

// Terms of one chain of additions: see sums_of in wide.h.
constexpr int64_t kRun = 8;

struct alignas(64) Group {
  // The sweep's result, and what it needs.
  double m[W], t1[W], t2[W], zy[W];
  // finish_group's result.
  double loss[W], grad_norm[W], confidence[W], margin[W], others[W], miss[W], base[W];
  int32_t y[W];  // -1: not among these classes
  int state[W];
  int64_t first;
  int count;
  bool special;  // some row is ignored or bad
};

// Asks for the cache lines that the next sweep over memory will read while this one computes:
// reading and computing would take turns otherwise. An address past the end does no harm.
template <class Storage>
HVD_FN void fetch_ahead(const Storage* ahead, int elements) {
  const char* p = reinterpret_cast<const char*>(ahead);
  for (int b = 0; b < elements * static_cast<int>(sizeof(Storage)); b += 64) {
    __builtin_prefetch(p + b);
  }
}

// W labels at once. False if one of them is not in [0, classes): then label or classes - 1 - label
// has its sign bit set.
template <class T>
HVD_FN bool read_plain_labels(const T* labels, int64_t classes, int32_t* y) {
  uint64_t odd = 0;
  for (int r = 0; r < W; r++) {
    const uint64_t label = static_cast<uint64_t>(static_cast<int64_t>(labels[r]));
    y[r] = static_cast<int32_t>(label);
    odd |= label | (static_cast<uint64_t>(classes - 1) - label);
  }
  return odd >> 63 == 0;
}

// Reads the labels of rows [first, first + count). Soft labels are spread.h's business.
HVD_FN void begin_group(const Rows& job, int64_t first, int count, int64_t all_classes, Group& g) {
  g.first = first;
  g.count = count;
  g.special = false;
  for (int r = 0; r < W; r++) {
    g.m[r] = g.t1[r] = g.t2[r] = g.zy[r] = 0;
    g.state[r] = kGoodRow;
  }
  const auto is_class = [&](int64_t label) __attribute__((always_inline)) {
    return static_cast<uint64_t>(label) < static_cast<uint64_t>(all_classes);
  };
  if (count == W && all_classes == job.classes && !job.soft() && !is_class(job.ignore_index)) {
    const bool plain =
        job.label_code == kInt32
            ? read_plain_labels(static_cast<const int32_t*>(job.labels) + first, all_classes, g.y)
            : read_plain_labels(static_cast<const int64_t*>(job.labels) + first, all_classes, g.y);
    if (plain) return;
  }
  for (int r = 0; r < W; r++) g.y[r] = -1;
  if (job.soft()) return;
  for (int r = 0; r < count; r++) {
    const int64_t label = job.label(first + r);
    // A label that is in range can be the one to ignore, too.
    if (label == job.ignore_index) {
      g.state[r] = kIgnoredRow;
      g.special = true;
    } else if (!is_class(label)) {
      g.state[r] = kBadLabel;
      g.special = true;
    } else if (label >= job.first_class && label - job.first_class < job.classes) {
      g.y[r] = static_cast<int32_t>(label - job.first_class);
    }
  }
}

// From the sums to the scores. Returns whether all sums can be trusted. Out of line, so that there
// is one sequence of instructions and one result for equal sums.
__attribute__((noinline)) static bool finish_group(Group& g) {
  constexpr int kHalf = W / 2;
  bool good = true;
  for (int h = 0; h < W; h += kHalf) {
    const VD m = load_as<VD>(g.m + h), t1 = load_as<VD>(g.t1 + h), t2 = load_as<VD>(g.t2 + h);
    const VD zy = load_as<VD>(g.zy + h);
    const RowScore<VD> row = finish_sums<VectorMath>(m, t1, t2, zy);
    store_as(g.loss + h, row.loss);
    store_as(g.grad_norm + h, row.grad_norm);
    store_as(g.confidence + h, row.confidence);
    store_as(g.margin + h, row.margin);
    store_as(g.others + h, row.others);
    store_as(g.miss + h, row.miss);
    store_as(g.base + h, row.base);
    good &= all_lanes(good_sums(m, t1, zy));
  }
  return good;
}

// Notes the rows whose sums cannot be trusted.
__attribute__((noinline)) static void find_bad_sums(Group& g) {
  for (int r = 0; r < g.count; r++) {
    const BadRow reason = check_sums(g.m[r], g.t1[r], g.zy[r]);
    if (g.state[r] == kGoodRow && reason != kGoodRow) {
      g.state[r] = reason;
      g.special = true;
    }
  }
}

// Ignored and bad rows: what they hold instead of scores. Returns the first bad row's word.
__attribute__((noinline)) static int64_t mark_special(Group& g) {
  int64_t first_bad = kNoBadRow;
  for (int r = g.count - 1; r >= 0; r--) {
    if (g.state[r] == kGoodRow) continue;
    const bool ignored = g.state[r] == kIgnoredRow;
    g.loss[r] = g.grad_norm[r] = g.margin[r] = ignored ? 0.0 : NAN;
    g.confidence[r] = ignored ? 0.0 : -g.state[r];
    g.others[r] = g.miss[r] = 0;
    if (!ignored) first_bad = (g.first + r) * 4 + g.state[r];
  }
  return first_bad;
}

HVD_FN void write_column(float* out, const double* values, int count) {
  if (count == W) {
    for (int r = 0; r < W; r++) out[r] = static_cast<float>(values[r]);
  } else {
    for (int r = 0; r < count; r++) out[r] = static_cast<float>(values[r]);
  }
}

HVD_FN void write_scores(const Rows& job, const Group& g) {
  float* out = static_cast<float*>(job.out) + g.first;
  write_column(out, g.loss, g.count);
  write_column(out + job.rows, g.grad_norm, g.count);
  write_column(out + 2 * job.rows, g.confidence, g.count);
  write_column(out + 3 * job.rows, g.margin, g.count);
}

HVD_FN void write_sums(const Rows& job, const Group& g) {
  for (int r = 0; r < g.count; r++) {
    double* sums = job.sums + g.first + r;
    sums[0] = g.m[r];
    sums[job.rows] = g.t1[r];
    sums[2 * job.rows] = g.t2[r];
    sums[3 * job.rows] = g.zy[r];
  }
}

HVD_FN void read_sums(const Rows& job, Group& g) {
  for (int r = 0; r < g.count; r++) {
    const double* sums = job.sums + g.first + r;
    g.m[r] = sums[0];
    g.t1[r] = sums[job.rows];
    g.t2[r] = sums[2 * job.rows];
    g.zy[r] = sums[3 * job.rows];
  }
}

// What a row's gradient is multiplied by: its weight over the number of rows, or what was given.
HVD_FN double row_scale(const Rows& job, int64_t i, double per_row) {
  if (job.scale != nullptr) return static_cast<const float*>(job.scale)[i];
  return job.weight == nullptr ? per_row : static_cast<const float*>(job.weight)[i] * per_row;
}

}  // namespace HVD_ISA
}  // namespace hvdfilter
