#include "scalar.h"

#include <cmath>
#include <limits>

namespace hvdfilter {
namespace {

struct Target {
  int64_t y;  // -1: not among these classes
  bool ignored;
  BadRow bad;
};

// `classes`: how many there are in all, of which the job may hold a block.
Target hard_target(const Rows& job, int64_t i, int64_t classes) {
  const int64_t label = job.label(i);
  if (label == job.ignore_index) return {-1, true, kGoodRow};
  if (label < 0 || label >= classes) return {-1, false, kBadLabel};
  const int64_t y = label - job.first_class;
  return {y >= 0 && y < job.classes ? y : -1, false, kGoodRow};
}

double soft_label(const Rows& job, int64_t i, int64_t c) {
  return load(job.label_row(i), row_dtype(job.dtype), c);
}

Target soft_target(const Rows& job, int64_t i) {
  int64_t y = 0;
  double largest = -1;
  for (int64_t c = 0; c < job.classes; c++) {
    const double t = soft_label(job, i, c);
    if (!(t >= 0) || std::isinf(t)) return {-1, false, kBadTarget};
    if (t > largest) {
      largest = t;
      y = c;
    }
  }
  return {y, false, kGoodRow};
}

Target find_target(const Rows& job, int64_t i) {
  return job.soft() ? soft_target(job, i) : hard_target(job, i, job.classes);
}

// The share of the target distribution that falls on class c.
double target_share(const Rows& job, int64_t i, int64_t c, int64_t y) {
  const double share = job.soft() ? soft_label(job, i, c) : c == y ? 1.0 : 0.0;
  return share * (1 - job.smoothing) + job.smoothing / static_cast<double>(job.classes);
}

double exp_below(double z, double m) { return z == -INFINITY ? 0.0 : std::exp(z - m); }

struct FullSums : RowSums<double> {
  double zy;
};

FullSums sum_row(const Rows& job, int64_t i, int64_t y) {
  const char* row = job.row(i);
  FullSums sums;
  static_cast<RowSums<double>&>(sums) = RowSums<double>::empty();
  sums.zy = y < 0 ? -INFINITY : load(row, job.dtype, y);
  for (int64_t c = 0; c < job.classes; c++) {
    const double z = load(row, job.dtype, c);
    if (c != y && !(z <= sums.m)) sums.m = z;  // a NaN stays
  }
  for (int64_t c = 0; c < job.classes; c++) {
    if (c != y) sums.add(exp_below(load(row, job.dtype, c), sums.m));
  }
  return sums;
}

SpreadSums<double> sum_spread(const Rows& job, int64_t i, int64_t y, double m, double others) {
  const char* row = job.row(i);
  SpreadSums<double> sums = {0, 0, 0};
  for (int64_t c = 0; c < job.classes; c++) {
    if (c != y) sums.rest += target_share(job, i, c, y);
  }
  const double whole = sums.rest + target_share(job, i, y, y);
  for (int64_t c = 0; c < job.classes; c++) {
    if (c == y) continue;
    const double z = load(row, job.dtype, c);
    const double share = target_share(job, i, c, y);
    if (share > 0) sums.below += share * (m - z);
    const double difference = whole * others * exp_below(z, m) - share;
    sums.squares += difference * difference;
  }
  return sums;
}

void write_scores(const Rows& job, int64_t i, double loss, double norm, double confidence,
                  double margin) {
  const int dtype = row_dtype(job.dtype);
  store(job.out, dtype, i, loss);
  store(job.out, dtype, job.rows + i, norm);
  store(job.out, dtype, 2 * job.rows + i, confidence);
  store(job.out, dtype, 3 * job.rows + i, margin);
}

int write_bad(const Rows& job, int64_t i, BadRow reason) {
  write_scores(job, i, NAN, NAN, -reason, NAN);
  return reason;
}

void write_sums(const Rows& job, int64_t i, const FullSums& sums) {
  job.sums[i] = sums.m;
  job.sums[job.rows + i] = sums.t1;
  job.sums[2 * job.rows + i] = sums.t2;
  job.sums[3 * job.rows + i] = sums.zy;
}

FullSums read_sums(const Rows& job, int64_t i) {
  FullSums sums;
  sums.m = job.sums[i];
  sums.t1 = job.sums[job.rows + i];
  sums.t2 = job.sums[2 * job.rows + i];
  sums.zy = job.sums[3 * job.rows + i];
  return sums;
}

void fill_gradient(const Rows& job, int64_t i, double value) {
  for (int64_t c = 0; c < job.classes; c++) store(job.grad_row(i), job.dtype, c, value);
}

// scale * (w p - t), with each part on the base m, where it neither cancels nor underflows.
void write_gradient(const Rows& job, int64_t i, int64_t y, double m, const RowScore<double>& row,
                    double scale) {
  double rest = 0;
  if (job.spread()) rest = sum_spread(job, i, y, m, row.others).rest;
  const double at_y = job.spread() ? target_share(job, i, y, y) : 1.0;
  for (int64_t c = 0; c < job.classes; c++) {
    double g;
    if (c == y) {
      g = spread_target_gradient(row.miss, at_y, rest);
    } else {
      g = (rest + at_y) * row.others * exp_below(load(job.row(i), job.dtype, c), m);
      if (job.spread()) g -= target_share(job, i, c, y);
    }
    store(job.grad_row(i), job.dtype, c, scale * g);
  }
}

double row_weight(const Rows& job, int64_t i) {
  return job.weight == nullptr ? 1.0 : load(job.weight, row_dtype(job.dtype), i);
}

}  // namespace

int scalar_row(const Rows& job, int64_t i, double per_row) {
  const Target target = find_target(job, i);
  FullSums sums;
  static_cast<RowSums<double>&>(sums) = RowSums<double>::empty();
  sums.zy = -INFINITY;
  BadRow bad = target.bad;
  const bool scored = !target.ignored && bad == kGoodRow;
  if (scored) {
    sums = sum_row(job, i, target.y);
    bad = check_sums(sums.m, sums.t1, sums.zy);
  }
  if (job.sums != nullptr) write_sums(job, i, sums);
  if (!scored || bad != kGoodRow) {
    if (job.grad != nullptr) fill_gradient(job, i, target.ignored ? 0.0 : NAN);
    if (bad != kGoodRow) return write_bad(job, i, bad);
    write_scores(job, i, 0, 0, 0, 0);
    return kGoodRow;
  }
  const RowScore<double> plain = finish_sums<LibMath>(sums.m, sums.t1, sums.t2, sums.zy);
  RowScore<double> row = plain;
  if (job.spread()) {
    const SpreadSums<double> spread_sums = sum_spread(job, i, target.y, sums.m, row.others);
    spread<LibMath>(row, spread_sums, target_share(job, i, target.y, target.y));
  }
  write_scores(job, i, row.loss, row.grad_norm, row.confidence, row.margin);
  if (job.grad != nullptr) {
    write_gradient(job, i, target.y, sums.m, plain, row_weight(job, i) * per_row);
  }
  return kGoodRow;
}

void scalar_backward_row(const Rows& job, int64_t i, double per_row) {
  const int dtype = row_dtype(job.dtype);
  const Target target = job.scale != nullptr ? hard_target(job, i, INT64_MAX) : find_target(job, i);
  if (target.ignored) return fill_gradient(job, i, 0.0);
  const FullSums sums = read_sums(job, i);
  if (target.bad != kGoodRow || check_sums(sums.m, sums.t1, sums.zy) != kGoodRow) {
    return fill_gradient(job, i, NAN);
  }
  const double scale =
      job.scale != nullptr ? load(job.scale, dtype, i) : row_weight(job, i) * per_row;
  const RowScore<double> row = finish_sums<LibMath>(sums.m, sums.t1, sums.t2, sums.zy);
  write_gradient(job, i, target.y, sums.m, row, scale);
}

void scalar_sums_row(const Rows& job, int64_t i) {
  const Target target = hard_target(job, i, INT64_MAX);
  if (target.ignored) return;
  const FullSums block = sum_row(job, i, target.y);
  FullSums sums = read_sums(job, i);
  static_cast<RowSums<double>&>(sums) = merge<double>(sums, block, [](double x) { return exp(x); });
  if (target.y >= 0) sums.zy = block.zy;
  write_sums(job, i, sums);
}

int scalar_finish_row(const Rows& job, int64_t i) {
  const Target target = hard_target(job, i, job.classes);
  if (target.ignored) {
    write_scores(job, i, 0, 0, 0, 0);
    return kGoodRow;
  }
  if (target.bad != kGoodRow) return write_bad(job, i, target.bad);
  const FullSums sums = read_sums(job, i);
  const BadRow bad = check_sums(sums.m, sums.t1, sums.zy);
  if (bad != kGoodRow) return write_bad(job, i, bad);
  const RowScore<double> row = finish_sums<LibMath>(sums.m, sums.t1, sums.t2, sums.zy);
  write_scores(job, i, row.loss, row.grad_norm, row.confidence, row.margin);
  return kGoodRow;
}

}  // namespace hvdfilter
