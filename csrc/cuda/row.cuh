// One row, seen from any kernel: its label, its targets, the exponential, and what becomes of the
// finished sums. The formulas are row_score.h's; how threads share a row is the kernels' business.
#pragma once

#include "../row_score.h"
#include "element.cuh"
#include "job.h"
#include "mapping.h"

namespace hvdfilter {
namespace cuda {

constexpr float kLog2E = 1.44269504088896340736f;

// exp(z - m) for z <= m. The difference first, then the factor: folding log2(e) into m would round
// m * log2(e), a relative error of |m| * 4e-8. m = -inf means that there was nothing, see base().
HVD_DEVICE float exp_above(float z, float base) { return machine::exp2((z - base) * kLog2E); }

// A finite base, so that -inf - (-inf) never happens.
HVD_DEVICE float base(float m) { return m == -INFINITY ? 0.0f : m; }

template <class T>
HVD_DEVICE int misalignment(const T* address) {
  return static_cast<int>(reinterpret_cast<uintptr_t>(address) % kVectorBytes);
}

// ---- labels ----

struct Label {
  int column;    // where in this block of classes the target is, or -1
  bool ignored;
  bool bad;
};

HVD_DEVICE bool soft(const Job& job) { return job.label_code == kSoftLabels; }

HVD_DEVICE Label read_label(const Job& job, int64_t row, bool live) {
  Label label{-1, true, false};
  if (!live || soft(job)) {
    label.ignored = !live;
    return label;
  }
  const int64_t value = job.label_code == kLabels64
                            ? machine::load(static_cast<const int64_t*>(job.labels) + row)
                            : machine::load(static_cast<const int32_t*>(job.labels) + row);
  label.ignored = value == job.ignore_index;
  label.bad = !label.ignored && (value < 0 || value >= job.total_classes);
  if (label.ignored || label.bad) return label;
  const int64_t column = value - job.first_class;
  if (column >= 0 && column < job.classes) label.column = static_cast<int>(column);
  return label;
}

// ---- targets spread over the classes ----

HVD_DEVICE float soft_label(const Job& job, int64_t row, int column) {
  return machine::load(static_cast<const float*>(job.labels) + row * job.label_stride + column);
}

// t_i of a class that is not the target of a hard label.
HVD_DEVICE float spread_target(const Job& job, int64_t row, int column) {
  const float uniform = static_cast<float>(job.smoothing / job.classes);
  if (!soft(job)) return uniform;
  return static_cast<float>(1.0 - job.smoothing) * soft_label(job, row, column) + uniform;
}

// t_y. For soft labels y is the class with the largest t_i.
HVD_DEVICE float main_target(const Job& job, int64_t row, int column) {
  if (soft(job)) return column < 0 ? NAN : spread_target(job, row, column);
  return static_cast<float>(1.0 - job.smoothing + job.smoothing / job.classes);
}

// A soft label as a sum sees it: one that is no probability turns the sum into NaN.
HVD_DEVICE float checked(float t) { return t >= 0.0f && t < INFINITY ? t : NAN; }

// The class with the largest soft label so far, the lowest of equals.
struct Largest {
  float value;
  int column;
};
HVD_DEVICE Largest larger(Largest a, Largest b) {
  const bool second = b.value > a.value || (b.value == a.value && b.column < a.column);
  return second ? b : a;
}

// ---- sums ----

// The sums of a part of a row, on its own base, and for soft labels the sum of t_i but t_y.
struct alignas(16) Part {
  float m, t1, t2, rest;
};

// What every thread of a row must know once the row is finished: g_i = scaled * exp(z_i - m) for
// i != y and at_target for y; spread targets t_i subtract scale * t_i.
struct Verdict {
  float m;
  float others;  // w * others of row_score.h, unscaled
  float scaled;
  float at_target;
  float scale;
};

// Moves a part to a higher base. An empty part (m = -inf) keeps its zeros.
HVD_DEVICE void rebase(Part& part, float m) {
  const float shrink = exp_above(part.m, base(m));
  part.t1 *= shrink;
  part.t2 *= shrink * shrink;
  part.m = m;
}

struct Finished {
  RowScore<double> row;
  BadRow bad;
};

// m, t1, t2 and z_y of a whole row, from this kernel or from the one that was asked before.
struct RowTotals {
  double m, t1, t2, zy;
};

HVD_DEVICE RowTotals row_totals(const Job& job, int64_t row, const Part& part, float zy) {
  if (job.sums_use != Sums::given)
    return RowTotals{double(part.m), double(part.t1), double(part.t2), double(zy)};
  const double* from = job.sums + row;
  return RowTotals{machine::load(from), machine::load(from + job.rows),
                   machine::load(from + 2 * job.rows), machine::load(from + 3 * job.rows)};
}

HVD_DEVICE Finished finish_row(const RowTotals& sums, BadRow bad) {
  Finished done;
  done.row = finish<LibMath>(sums.m, sums.t1, sums.t2, sums.zy);
  done.bad = bad != kGoodRow ? bad : check_sums(sums.m, sums.t1, sums.zy);
  return done;
}

HVD_DEVICE void write_scores(const Job& job, int64_t row, const Finished& done, bool ignored) {
  float score[4] = {float(done.row.loss), float(done.row.grad_norm), float(done.row.confidence),
                    float(done.row.margin)};
  HVD_UNROLL
  for (int i = 0; i < 4; ++i) {
    if (done.bad != kGoodRow) score[i] = i == 2 ? -float(done.bad) : NAN;
    if (ignored) score[i] = 0.0f;
    machine::store(job.out + i * job.rows + row, score[i]);
  }
}

// What weight, mean and caller multiply this row's gradient by.
HVD_DEVICE double gradient_scale(const Job& job, int64_t row) {
  double scale = 1.0;
  if (job.weight) scale *= machine::load(job.weight + row);
  if (job.upstream) scale *= machine::load(job.upstream);
  if (job.count) scale /= machine::load(job.count);
  return scale;
}

// ty, rest: t_y and the sum of the other t_i; 1 and 0 for a one-hot target.
HVD_DEVICE Verdict verdict(const Job& job, int64_t row, const Finished& done, double m, double ty,
                           double rest, bool ignored) {
  Verdict v{base(float(m)), 0.0f, 0.0f, 0.0f, 0.0f};
  if (ignored) return v;
  const double scale = done.bad == kGoodRow ? gradient_scale(job, row) : double(NAN);
  const double others = (ty + rest) * done.row.others;
  v.others = float(others);
  v.scaled = float(others * scale);
  v.at_target = float(spread_target_gradient(done.row.miss, ty, rest) * scale);
  v.scale = float(scale);
  return v;
}

// A zero row stays zero when its logits are NaN; a NaN row is NaN all over.
HVD_DEVICE float gradient(const Verdict& v, float z) {
  return v.scaled == 0.0f ? 0.0f : v.scaled * exp_above(z, v.m);
}

// The sums a caller asked for. An ignored or mislabelled row has empty ones.
HVD_DEVICE void write_sums(const Job& job, int64_t row, const Part& part, float zy, bool empty) {
  double* to = job.sums + row;
  machine::store(to, empty ? double(-INFINITY) : double(part.m));
  machine::store(to + job.rows, empty ? 0.0 : double(part.t1));
  machine::store(to + 2 * job.rows, empty ? 0.0 : double(part.t2));
  machine::store(to + 3 * job.rows, empty ? double(-INFINITY) : double(zy));
}

// Adds a block of classes to the sums of the blocks before it; an ignored row has none.
HVD_DEVICE void merge_sums(const Job& job, int64_t row, const Part& part, float zy,
                           const Label& label) {
  if (label.ignored) return;
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
  if (label.column >= 0) machine::store(to + 3 * job.rows, double(zy));
}

}  // namespace cuda
}  // namespace hvdfilter
