// What is said of a whole batch: the number of rows that count, the weighted mean of their losses,
// and two small per-row or per-element jobs. Sums are float64 and added in one fixed order by one
// block, or one cluster of blocks where there are clusters; no atomic ever adds a float.
#pragma once

#include "conclude.cuh"

namespace hvdfilter {
namespace cuda {

constexpr int kTotalThreads = 512;

HVD_DEVICE bool counts(const Job& job, int64_t row) {
  return soft(job) || !read_label(job, row, true).ignored;
}

// kMean: to = sum_i w_i loss_i / *job.count; else to = number of rows that count, at least 1.
template <bool kCluster, bool kMean>
HVD_KERNEL(kTotalThreads, 1024 / kTotalThreads) total(const Job job, float* to, int blocks) {
  Team<kTotalThreads, kTotalThreads, kCluster> team(machine::shared_memory(), blocks);
  Pair mine{0.0, 0.0};
  HVD_UNROLL4
  for (int64_t row = team.thread(); row < job.rows; row += team.threads()) {
    if (!counts(job, row)) continue;
    double term = 1.0;
    if (kMean) {
      term = machine::load(job.out + row);
      if (job.weight) term *= machine::load(job.weight + row);
    }
    mine.a += term;
  }
  team.ready();
  mine = team.sum(mine);
  if (!team.writes()) return;
  if (kMean)
    machine::store(to, static_cast<float>(mine.a / machine::load(job.count)));
  else
    machine::store(to, mine.a > 1.0 ? static_cast<float>(mine.a) : 1.0f);
}

// Scores of rows whose logits came in blocks of classes; a thread a row.
HVD_KERNEL(kTotalThreads, 1024 / kTotalThreads) finish_rows(const Job job) {
  const int64_t row = machine::block_index() * kTotalThreads + machine::thread_index();
  if (row >= job.rows) return;
  const Label label = read_label(job, row, true);
  const RowTotals sums = row_totals(job, row, Part{}, 0.0f);
  write_scores(job, row, finish_row(sums, label.bad ? kBadLabel : kGoodRow), label.ignored);
}

// `blocks` blocks share the tensor; where the factor is 1 each reads one number and is done.
template <class T>
HVD_KERNEL(kTotalThreads, 1024 / kTotalThreads)
rescale(T* grad, int64_t elements, const float* upstream, int blocks) {
  constexpr int kElements = Pack<T>::kElements;
  const float factor = machine::load(upstream);
  if (factor == 1.0f) return;
  const int64_t thread = machine::block_index() * kTotalThreads + machine::thread_index();
  const int64_t threads = static_cast<int64_t>(blocks) * kTotalThreads;
  const int64_t wanted = (kVectorBytes - misalignment(grad)) % kVectorBytes / int(sizeof(T));
  const int64_t head = wanted < elements ? wanted : elements;
  const int64_t vectors = (elements - head) / kElements;
  for (int64_t i = thread; i < vectors; i += threads) {
    T* place = grad + head + i * kElements;
    Pack<T> pack;
    unpack(machine::load_vector(place), pack);
    HVD_UNROLL
    for (int k = 0; k < kElements; ++k) pack.x[k] *= factor;
    machine::store_vector(place, packed_vector(pack));
  }
  const int64_t edges = elements - vectors * kElements;
  if (thread < edges) {
    T* place = grad + (thread < head ? thread : vectors * kElements + thread);
    machine::store(place, from_float<T>(to_float(machine::load(place)) * factor));
  }
}

}  // namespace cuda
}  // namespace hvdfilter
