// From the sums of a row to everything that is written about it: scores, sums, gradient. The same
// for every mapping; a kernel brings its Team and a View of the elements that its threads hold:
//   visit(f)                  calls f(column, z) for each element this thread holds, the target's z
//                             being -inf;
//   rewrite(row, aligned, f)  writes the gradient f(column, z) of each to the row;
//   put(row, column, g)       writes that of one, by the thread that holds it.
#pragma once

#include "team.cuh"

namespace hvdfilter {
namespace cuda {

// The most likely class of a soft label, which takes the place of the label; -1 where none is.
template <class Team>
HVD_DEVICE int find_soft_target(const Job& job, int64_t row, Team& team) {
  Largest mine{-1.0f, 0x7fffffff};
  for (int column = team.thread(); column < job.classes; column += team.threads())
    mine = larger(mine, Largest{soft_label(job, row, column), column});
  mine = team.largest(mine);
  return mine.column < job.classes ? mine.column : -1;
}

// The sum of t_i over all classes but y: known for hard labels, added up over the team for soft
// ones.
template <class Team>
HVD_DEVICE double rest_of(const Job& job, int64_t row, Team& team, const Label& label) {
  if (!soft(job)) return job.smoothing / job.classes * (job.classes - 1);
  float rest = 0.0f;
  for (int column = team.thread(); column < job.classes; column += team.threads())
    if (column != label.column) rest += checked(spread_target(job, row, column));
  return team.template sum<0>(Pair{double(rest), 0.0}).a;
}

// What the loss and the norm need beyond the sums when targets are spread, from this thread's
// elements.
template <class View>
HVD_DEVICE Pair spread_sums(const Job& job, int64_t row, int target, const View& view,
                            const Verdict& word) {
  float below = 0.0f, squares = 0.0f;
  view.visit([&](int column, float z) {
    if (column == target) return;
    const float t = spread_target(job, row, column);
    if (t > 0.0f) below += t * (word.m - z);
    const float difference = word.others * exp_above(z, word.m) - t;
    squares += difference * difference;
  });
  return Pair{double(below), double(squares)};
}

// Where a row of the gradient goes. Its address is made late: what only the gradient needs should
// not be held in registers while sums are made.
template <class T>
struct GradientRow {
  T* row;
  bool aligned;  // its 16-byte boundaries are the logits'

  HVD_METHOD GradientRow(const Job& job, int64_t at)
      : row(static_cast<T*>(job.grad) + row_begin(at, job.grad_row_stride)),
        aligned(misalignment(row) ==
                misalignment(static_cast<const T*>(job.logits) + row_begin(at, job.row_stride))) {}
};

// Targets that are spread over the classes, all in float64.
template <class T, class Team, class View>
HVD_DEVICE void conclude_spread(const Job& job, int64_t row, bool live, const Label& label,
                                const View& view, Team& team, const Part& part) {
  BadRow bad = check_label<true>(job, label);
  const bool skipped = ignored<true>(job, label);
  if (job.count) machine::wait_for_previous();
  const double rest = rest_of(job, row, team, label);
  const double ty = main_target(job, row, label.column);
  if (!(rest >= 0.0 && checked(float(ty)) >= 0.0f)) bad = kBadTarget;
  Finished<double> done = finish_row(totals_of(part), bad);

  Verdict word{};
  if (team.leads())
    word = verdict(job, row, done, double(part.m), ty, rest, skipped);
  word = team.spread_word(word);
  if (job.out) {
    const Pair both = team.template sum<1>(spread_sums(job, row, label.column, view, word));
    spread<LibMath>(done.row, SpreadSums<double>{rest, both.a, both.b}, ty);
  }
  if (job.grad && live) {
    const GradientRow<T> to(job, row);
    view.rewrite(to.row, to.aligned, [&](int column, float z) {
      const float g = word.scaled == 0.0f ? 0.0f : word.scaled * exp_above(z, word.m);
      return g - word.scale * spread_target(job, row, column);
    });
    if (label.column >= 0) view.put(to.row, label.column, word.at_target);
  }
  if (!live || !team.writes()) return;
  if (job.sums_use == Sums::write)
    write_sums(job, row, part, skipped || bad != kGoodRow);
  if (job.out) write_scores(job, row, done, skipped);
}

// A zero row stays zero when its logits are NaN; a NaN row is NaN all over.
template <class T, class View>
HVD_DEVICE void write_gradient(const GradientRow<T>& to, const View& view, const Verdict& word,
                               int target) {
  if (word.scaled == 0.0f) {
    view.rewrite(to.row, to.aligned, [](int, float) { return 0.0f; });
  } else {
    const Exponential e = exponential(word.m);
    const float scaled = word.scaled * e.fix;
    view.rewrite(to.row, to.aligned, [&](int, float z) { return scaled * raised(z, e); });
  }
  if (target >= 0) view.put(to.row, target, word.at_target);
}

// Finishes a row: writes what is kept of it, and says what its gradient is made of where one is
// wanted.
HVD_DEVICE Verdict finish_and_write(const Job& job, int64_t row, const Label& label,
                                    const Part& part, bool writes) {
  const BadRow bad = check_label<false>(job, label);
  const bool skipped = ignored<false>(job, label);
  const Finished<float> done = finish_row(part, bad);
  if (writes && job.sums_use == Sums::write)
    write_sums(job, row, part, skipped || bad != kGoodRow);
  if (writes && job.out) write_scores(job, row, done, skipped);
  if (!job.grad) return Verdict{};
  if (job.count) machine::wait_for_previous();
  return verdict(job, row, done, part.m, 1.0f, 0.0f, skipped);
}

template <class T, class Team, class View>
HVD_DEVICE void conclude_onehot(const Job& job, int64_t row, bool live, const Label& label,
                                const View& view, Team& team, const Part& part) {
  Verdict word{};
  if constexpr (Team::kRows > 1) {
    // The end of a row is 150 instructions: one warp for all rows of the block, a row a lane.
    const int lane = machine::thread_index();
    const int64_t its_row = row - team.row_in_block() + lane;
    const bool has_row = lane < Team::kRows && its_row < job.rows;
    team.collect(part);
    const auto finish = [&] {
      const Label label{-1, label_of(job, its_row)};
      return finish_and_write(job, its_row, label, team.collected(lane), true);
    };
    if (!job.grad) {
      if (has_row) finish();
      return;
    }
    if (has_row) word = finish();
    word = team.deal_out(word);
  } else {
    if (team.leads()) word = finish_and_write(job, row, label, part, team.writes());
    if (!job.grad) return;
    word = team.spread_word(word);
  }
  if (live) write_gradient(GradientRow<T>(job, row), view, word, label.column);
}

template <class T, bool kSpread, class Team, class View>
HVD_DEVICE void conclude(const Job& job, int64_t row, bool live, const Label& label,
                         const View& view, Team& team, const Part& part) {
  if (job.sums_use == Sums::merge) {
    if (live && team.writes()) merge_sums(job, row, part, label);
    return;
  }
  if constexpr (kSpread)
    conclude_spread<T>(job, row, live, label, view, team, part);
  else
    conclude_onehot<T>(job, row, live, label, view, team, part);
}

}  // namespace cuda
}  // namespace hvdfilter
