// What is said of a whole batch: the number of rows that count, the weighted mean of their losses,
// and two small per-row or per-element jobs. Sums are float64 and added in one fixed order by one
// block, or one cluster of blocks where there are clusters; no atomic ever adds a float.
#pragma once

#include "conclude.cuh"

namespace hvdfilter {
namespace cuda {

constexpr int kTotalThreads = 512;

HVD_DEVICE bool counts(const Job& job, int64_t row) {
  return soft(job) || label_of(job, row) != job.ignore_index;
}

// count = number of rows that count, at least 1; kMean: and loss = sum_i w_i loss_i / count.
template <bool kCluster, bool kMean>
HVD_KERNEL(kTotalThreads, 1024 / kTotalThreads)
total(const Job job, float* count, float* loss, int blocks) {
  Team<kTotalThreads, kTotalThreads, kCluster> team(machine::shared_memory(), blocks);
  if (kMean)
    machine::wait_for_previous();
  else
    machine::let_next_start();
  Pair mine{0.0, 0.0};
  // Rows that are ignored are loaded, too: a loop that skips them waits for each label by itself.
  constexpr int kAtOnce = 4;
  const int64_t step = team.threads();
  for (int64_t first = team.thread(); first < job.rows; first += kAtOnce * step) {
    bool counted[kAtOnce];
    float term[kAtOnce];
    HVD_UNROLL
    for (int i = 0; i < kAtOnce; ++i) {
      const bool there = first + i * step < job.rows;
      const int64_t row = there ? first + i * step : first;
      counted[i] = there & counts(job, row);
      if (kMean) term[i] = machine::load(job.out + row);
      if (kMean && job.weight) term[i] *= machine::load(job.weight + row);
    }
    HVD_UNROLL
    for (int i = 0; i < kAtOnce; ++i) {
      mine.a += counted[i] ? 1.0 : 0.0;
      if (kMean) mine.b += counted[i] ? double(term[i]) : 0.0;
    }
  }
  team.ready();
  mine = team.template sum<0>(mine);
  if (!team.writes()) return;
  const float rows = mine.a > 1.0 ? static_cast<float>(mine.a) : 1.0f;
  machine::store(count, rows);
  if (kMean) machine::store(loss, static_cast<float>(mine.b / rows));
}

// Scores of rows whose logits came in blocks of classes; a thread a row.
HVD_KERNEL(kTotalThreads, 1024 / kTotalThreads) finish_rows(const Job job) {
  const int64_t row = machine::block_index() * kTotalThreads + machine::thread_index();
  if (row >= job.rows) return;
  const Label label{-1, label_of(job, row)};
  const double* from = job.sums + row;
  const RowTotals sums{machine::load(from), machine::load(from + job.rows),
                       machine::load(from + 2 * job.rows), machine::load(from + 3 * job.rows)};
  write_scores(job, row, finish_row(sums, check_label<false>(job, label)),
               ignored<false>(job, label));
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
