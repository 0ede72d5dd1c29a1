// The kernels of one instruction set: compiled once for each, with HVD_ISA its name and
// HVD_VECTOR_BYTES its width. Only joins what narrow.h, wide.h and spread.h do; includes nothing
// whose inline functions another file could share and then run on a lesser processor.
#include "kernels.h"
#include "narrow.h"
#include "spread.h"
#include "wide.h"

namespace hvdfilter {
namespace HVD_ISA {
namespace {

template <class F>
HVD_FN auto with_element(int dtype, F f) {
  if (dtype == kFloat32) return f(Float32());
  if (dtype == kBFloat16) return f(BFloat16());
  return f(Float16());
}

HVD_FN void note(int64_t& first_bad, int64_t found) {
  if (found < first_bad) first_bad = found;
}

// Rows in groups of `step`; body(first, count).
template <class F>
HVD_FN void for_each_group(int64_t begin, int64_t end, int64_t step, F body) {
  for (int64_t i = begin; i < end; i += step) {
    body(i, static_cast<int>(end - i < step ? end - i : step));
  }
}

// What follows the sweep, whichever it was.
HVD_FN int64_t finish_sums(Group& g) {
  if (!finish_group(g)) find_bad_sums(g);
  return g.special ? mark_special(g) : kNoBadRow;
}

template <class E>
HVD_FN void fill_special(const Rows& job, const Group& g) {
  for (int r = 0; g.special && r < g.count; r++) {
    if (g.state[r] == kGoodRow) continue;
    fill_row<E>(job, g.first + r, special_gradient(g, r), 0, job.classes);
  }
}

template <class E, bool Gradient>
int64_t narrow_rows(const Rows& job, int64_t begin, int64_t end, double per_row) {
  alignas(64) VF columns[kNarrowClasses];
  int64_t bad = kNoBadRow;
  for_each_group(begin, end, W, [&](int64_t first, int count) {
    Group g;
    begin_group(job, first, count, job.classes, g);
    sum_narrow<E, Gradient>(job, g, columns);
    note(bad, finish_sums(g));
    if (job.sums != nullptr) write_sums(job, g);
    write_scores(job, g);
    if (!Gradient) return;
    gradient_narrow<E>(job, g, columns, per_row);
    fill_special<E>(job, g);
  });
  return bad;
}

template <class E, bool Gradient>
int64_t wide_rows(const Rows& job, int64_t begin, int64_t end, double per_row) {
  alignas(64) float scratch[kScratch];
  int64_t bad = kNoBadRow;
  const bool spread_out = job.spread();
  for_each_group(begin, end, rows_per_group(job), [&](int64_t first, int count) {
    Group g;
    begin_group(job, first, count, job.classes, g);
    find_soft_targets(job, g);
    sum_wide<E, Gradient>(job, g, scratch);
    note(bad, finish_sums(g));
    if (job.sums != nullptr) write_sums(job, g);
    for (int r = 0; spread_out && r < count; r++) {
      if (g.state[r] == kGoodRow) spread_row<E>(job, g, r);
    }
    write_scores(job, g);
    for (int r = 0; Gradient && r < count; r++) {
      const double scale = row_scale(job, first + r, per_row);
      if (g.state[r] != kGoodRow) continue;
      if (spread_out) {
        spread_gradient<E>(job, g, r, scale);
      } else if (fits_segment(job)) {
        const float* kept = scratch + r * padded(job.classes);
        gradient_row<E, true>(job, g, r, scale, kept, 0, job.classes);
      } else {
        gradient_row<E, false>(job, g, r, scale, nullptr, 0, job.classes);
      }
    }
    if (Gradient) fill_special<E>(job, g);
  });
  return bad;
}

int64_t rows(const Rows& job, int64_t begin, int64_t end, double per_row) {
  return with_element(job.dtype, [&](auto e) {
    using E = decltype(e);
    if (job.classes <= kNarrowClasses && !job.spread()) {
      return job.grad != nullptr ? narrow_rows<E, true>(job, begin, end, per_row)
                                 : narrow_rows<E, false>(job, begin, end, per_row);
    }
    return job.grad != nullptr ? wide_rows<E, true>(job, begin, end, per_row)
                               : wide_rows<E, false>(job, begin, end, per_row);
  });
}

int64_t finish_range(const Rows& job, int64_t begin, int64_t end) {
  int64_t bad = kNoBadRow;
  for_each_group(begin, end, W, [&](int64_t first, int count) {
    Group g;
    begin_group(job, first, count, job.classes, g);
    read_sums(job, g);
    note(bad, finish_sums(g));
    write_scores(job, g);
  });
  return bad;
}

template <class E>
void backward_rows(const Rows& job, int64_t begin, int64_t end, double per_row) {
  const int64_t classes = job.scale != nullptr ? INT32_MAX : job.classes;
  for_each_group(begin, end, W, [&](int64_t first, int count) {
    Group g;
    begin_group(job, first, count, classes, g);
    find_soft_targets(job, g);
    read_sums(job, g);
    finish_sums(g);
    for (int r = 0; r < count; r++) {
      const double scale = row_scale(job, first + r, per_row);
      if (g.state[r] != kGoodRow) continue;
      if (job.spread()) {
        spread_gradient<E>(job, g, r, scale);
      } else {
        gradient_row<E, false>(job, g, r, scale, nullptr, 0, job.classes);
      }
    }
    fill_special<E>(job, g);
  });
}

void backward(const Rows& job, int64_t begin, int64_t end, double per_row) {
  with_element(job.dtype, [&](auto e) { backward_rows<decltype(e)>(job, begin, end, per_row); });
}

template <class E>
void block_rows(const Rows& job, int64_t begin, int64_t end) {
  alignas(64) float scratch[kScratch];
  for_each_group(begin, end, W, [&](int64_t first, int count) {
    Group g;
    begin_group(job, first, count, INT32_MAX, g);
    read_sums(job, g);
    for (int r = 0; r < count; r++) {
      if (g.state[r] != kGoodRow) continue;
      if (g.y[r] >= 0) g.zy[r] = target_logit<E>(job, first + r, g.y[r]);
      sum_long_row<E>(job, g, r, {g.m[r], g.t1[r], g.t2[r]}, scratch);
    }
    write_sums(job, g);
  });
}

void block(const Rows& job, int64_t begin, int64_t end) {
  with_element(job.dtype, [&](auto e) { block_rows<decltype(e)>(job, begin, end); });
}

void segments(const Rows& job, int64_t row, int64_t begin, int64_t end, RowSums<float>* parts) {
  alignas(64) float scratch[kScratch];
  Group g;
  begin_group(job, row, 1, job.classes, g);
  with_element(job.dtype, [&](auto e) {
    for (int64_t s = begin; s < end; s++) parts[s] = sum_one_segment<decltype(e)>(job, g, 0, s, scratch);
  });
}

void join_parts(const Rows& job, int64_t row, int64_t count, const RowSums<float>* parts) {
  Group g;
  begin_group(job, row, 1, job.classes, g);
  RowSums<double> sums = RowSums<double>::empty();
  for (int64_t s = 0; s < count; s++) sums = join(sums, parts[s]);
  g.m[0] = sums.m;
  g.t1[0] = sums.t1;
  g.t2[0] = sums.t2;
  with_element(job.dtype, [&](auto e) { g.zy[0] = target_logit<decltype(e)>(job, row, g.y[0]); });
  write_sums(job, g);
}

void part(const Rows& job, int64_t row, int64_t begin, int64_t end, double per_row) {
  Group g;
  begin_group(job, row, 1, job.classes, g);
  read_sums(job, g);
  finish_sums(g);
  const double scale = row_scale(job, row, per_row);
  with_element(job.dtype, [&](auto e) {
    using E = decltype(e);
    if (g.special) return fill_row<E>(job, row, special_gradient(g, 0), begin, end);
    gradient_row<E, false>(job, g, 0, scale, nullptr, begin, end);
  });
}

}  // namespace

extern const Kernels table = {HVD_NAME, W,        kSegment, rows,       finish_range,
                              backward, block,    segments, join_parts, part};

}  // namespace HVD_ISA
}  // namespace hvdfilter
