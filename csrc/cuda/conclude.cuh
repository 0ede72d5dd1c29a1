// From the sums of a row to everything that is written about it: scores, sums, gradient. The same
// for every mapping; a kernel brings its Team and a View of the elements that its threads hold:
//   visit(f)    calls f(column, z) for each element this thread holds, the target's z being -inf;
//   rewrite(f)  writes the gradient f(column, z) of each, which is free to lie over the logits.
#pragma once

#include "team.cuh"

namespace hvdfilter {
namespace cuda {

// The most likely class of a soft label takes the place of the label.
template <class Team>
HVD_DEVICE void find_soft_target(const Job& job, int64_t row, bool live, Team& team, Label& label) {
  Largest mine{-1.0f, 0x7fffffff};
  for (int column = team.thread(); live && column < job.classes; column += team.threads())
    mine = larger(mine, Largest{soft_label(job, row, column), column});
  mine = team.largest(mine);
  label.column = mine.column < job.classes ? mine.column : -1;
}

// This thread's share of the sum of t_i over all classes but y: known for hard labels, added up
// over the team for soft ones.
template <class Team>
HVD_DEVICE float share_of_rest(const Job& job, int64_t row, bool live, const Team& team,
                               const Label& label) {
  float rest = 0.0f;
  for (int column = team.thread(); live && column < job.classes; column += team.threads())
    if (column != label.column) rest += checked(spread_target(job, row, column));
  return rest;
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

// The finished row is asked for twice, for the gradient and at the end for the scores: only the
// latter needs logarithm and root, and by then the registers that held the row are free.
template <bool kSpread, class Team, class View>
HVD_DEVICE void conclude(const Job& job, int64_t row, bool live, const Label& label,
                         const View& view, Team& team, const Part& part, float zy) {
  const bool writes = live && team.writes();
  if (job.sums_use == Sums::merge) {
    if (writes) merge_sums(job, row, part, zy, label);
    return;
  }
  double ty = 1.0, rest = 0.0;
  BadRow bad = label.bad ? kBadLabel : kGoodRow;
  if (kSpread && live) {
    ty = main_target(job, row, label.column);
    rest = soft(job) ? double(part.rest) : job.smoothing / job.classes * (job.classes - 1);
    if (!(rest >= 0.0 && checked(float(ty)) >= 0.0f)) bad = kBadTarget;
  }

  double below = 0.0, squares = 0.0;
  if (kSpread || job.grad) {
    Verdict word{};
    if (team.leads() && live) {
      const RowTotals totals = row_totals(job, row, part, zy);
      word = verdict(job, row, finish_row(totals, bad), totals.m, ty, rest, label.ignored);
    }
    word = team.spread_word(word);
    if (kSpread && job.out) {
      const Pair both = team.sum(spread_sums(job, row, label.column, view, word));
      below = both.a;
      squares = both.b;
    }
    if (job.grad && live) {
      view.rewrite([&](int column, float z) {
        const float g = gradient(word, z);
        return kSpread ? g - word.scale * spread_target(job, row, column) : g;
      });
      if (label.column >= 0) view.put(label.column, word.at_target);
    }
  }

  if (!writes) return;
  if (job.sums_use == Sums::write)
    write_sums(job, row, part, zy, label.ignored || bad != kGoodRow);
  if (!job.out) return;
  Finished done = finish_row(row_totals(job, row, part, zy), bad);
  if (kSpread) spread<LibMath>(done.row, SpreadSums<double>{rest, below, squares}, ty);
  write_scores(job, row, done, label.ignored);
}

}  // namespace cuda
}  // namespace hvdfilter
