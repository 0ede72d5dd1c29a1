// Cuts a call into tasks, runs them on threads and joins what they found. float64 logits go to the
// plain loops of scalar.h, everything else to the vector kernels.
#include "scoring.h"

#include <algorithm>
#include <atomic>
#include <climits>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "kernels.h"
#include "parallel.h"
#include "scalar.h"

namespace hvdfilter {
namespace {

// Rows are handed to threads in runs of about this many logits: enough to hide the hand-over.
constexpr int64_t kLogitsPerTask = 32768;

// Blocks of this size are fresh from the operating system each time they are allocated, and most
// of the time that it takes to write one goes into its page faults: 28 of 32 ms for 64 MiB, 3 of 7
// with large pages. Only a hint, and only for pages wholly inside.
void prefer_large_pages(void* data, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr int64_t kAlwaysFresh = 32 << 20, kPage = 4096;
  if (data == nullptr || bytes < kAlwaysFresh) return;
  const auto begin = (reinterpret_cast<uintptr_t>(data) + kPage - 1) / kPage * kPage;
  const auto end = (reinterpret_cast<uintptr_t>(data) + bytes) / kPage * kPage;
  (void)madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#else
  (void)data, (void)bytes;
#endif
}

void prepare_gradient(const Rows& job) {
  prefer_large_pages(job.grad, job.rows * job.grad_row_stride * dtype_size(job.dtype));
}

// Keeps the smallest row * 4 + reason that any thread has seen.
class FirstBad {
 public:
  void note(int64_t word) {
    for (int64_t seen = first_; word < seen && !first_.compare_exchange_weak(seen, word);) {
    }
  }
  void note(int64_t row, int reason) {
    if (reason != 0) note(row * 4 + reason);
  }
  int64_t result() const { return first_ == INT64_MAX ? -1 : first_.load(); }

 private:
  std::atomic<int64_t> first_{INT64_MAX};
};

// body(begin, end) over all rows, cut at multiples of `group`.
template <class F>
void for_each_range(const Rows& job, int64_t group, F&& body) {
  int64_t step = kLogitsPerTask / std::max<int64_t>(1, job.classes);
  step = std::max<int64_t>(1, step / group) * (step >= group ? group : 1);
  parallel_for((job.rows + step - 1) / step, job.threads, [&](int64_t task) {
    body(task * step, std::min(job.rows, (task + 1) * step));
  });
}

template <class F>
void for_each_row(const Rows& job, F&& body) {
  for_each_range(job, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) body(i);
  });
}

// Too few rows to give every thread some, and each long enough to be cut.
bool few_long_rows(const Rows& job) {
  return job.threads > 1 && job.rows < 4 * job.threads && !job.spread() &&
         job.classes >= 4 * kernels().segment;
}

// Each row's segments over all threads, then the rows' scores, then their gradients by segments.
int64_t score_long_rows(Rows job, double per_row) {
  const Kernels& kernel = kernels();
  const int64_t cuts = (job.classes + kernel.segment - 1) / kernel.segment;
  std::vector<double> own_sums(job.sums == nullptr ? 4 * job.rows : 0);
  if (job.sums == nullptr) job.sums = own_sums.data();
  std::vector<RowSums<float>> parts(job.rows * cuts);
  parallel_for(job.rows * cuts, job.threads, [&](int64_t task) {
    const int64_t row = task / cuts, cut = task % cuts;
    kernel.segments(job, row, cut, cut + 1, parts.data() + row * cuts);
  });
  for (int64_t i = 0; i < job.rows; i++) kernel.join(job, i, cuts, parts.data() + i * cuts);
  const int64_t bad = kernel.finish(job, 0, job.rows);
  if (job.grad == nullptr) return bad;
  parallel_for(job.rows * cuts, job.threads, [&](int64_t task) {
    const int64_t row = task / cuts, begin = task % cuts * kernel.segment;
    kernel.part(job, row, begin, std::min(job.classes, begin + kernel.segment), per_row);
  });
  return bad;
}

int64_t score_rows(const Rows& job, double per_row) {
  FirstBad bad;
  if (job.dtype == kFloat64) {
    for_each_row(job, [&](int64_t i) { bad.note(i, scalar_row(job, i, per_row)); });
  } else if (few_long_rows(job)) {
    bad.note(score_long_rows(job, per_row));
  } else {
    for_each_range(job, kernels().group, [&](int64_t begin, int64_t end) {
      bad.note(kernels().rows(job, begin, end, per_row));
    });
  }
  return bad.result();
}

bool is_ignored(const Rows& job, int64_t i) {
  return !job.soft() && job.label(i) == job.ignore_index;
}

int64_t count_rows(const Rows& job) {
  int64_t count = 0;
  for (int64_t i = 0; i < job.rows; i++) count += !is_ignored(job, i);
  return count;
}

// Ignored rows have loss 0, but a weight of theirs may be infinite. One order of summation
// whatever the threads did, and four sums so that additions need not wait for each other.
template <class T>
double weighted_sum(const Rows& job) {
  const T* losses = static_cast<const T*>(job.out);
  const T* weights = static_cast<const T*>(job.weight);
  double sums[4] = {};
  for (int64_t i = 0; i < job.rows; i++) {
    const double factor = weights == nullptr ? 1.0 : is_ignored(job, i) ? 0.0 : weights[i];
    sums[i % 4] += factor * losses[i];
  }
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

}  // namespace

int64_t score(const Rows& job) { return score_rows(job, 1.0); }

int64_t cross_entropy(const Rows& job) {
  const double counted = static_cast<double>(std::max<int64_t>(1, count_rows(job)));
  prepare_gradient(job);
  const int64_t bad = score_rows(job, 1.0 / counted);
  const double sum =
      job.dtype == kFloat64 ? weighted_sum<double>(job) : weighted_sum<float>(job);
  store(job.loss, row_dtype(job.dtype), 0, sum / counted);
  if (job.count != nullptr) store(job.count, row_dtype(job.dtype), 0, counted);
  return bad;
}

void cross_entropy_backward(const Rows& job) {
  if (job.rows == 0) return;  // an empty tensor has no address, the rows' scale included
  const int dtype = row_dtype(job.dtype);
  prepare_gradient(job);
  double per_row = 1;
  if (job.scale == nullptr) per_row = load(job.upstream, dtype, 0) / load(job.count, dtype, 0);
  if (job.dtype == kFloat64) {
    for_each_row(job, [&](int64_t i) { scalar_backward_row(job, i, per_row); });
    return;
  }
  for_each_range(job, kernels().group, [&](int64_t begin, int64_t end) {
    kernels().backward(job, begin, end, per_row);
  });
}

void row_sums(const Rows& job) {
  if (job.dtype == kFloat64) {
    for_each_row(job, [&](int64_t i) { scalar_sums_row(job, i); });
    return;
  }
  for_each_range(job, kernels().group, [&](int64_t begin, int64_t end) {
    kernels().block(job, begin, end);
  });
}

int64_t finish_rows(const Rows& job) {
  FirstBad bad;
  if (job.dtype == kFloat64) {
    for_each_row(job, [&](int64_t i) { bad.note(i, scalar_finish_row(job, i)); });
  } else {
    for_each_range(job, kernels().group, [&](int64_t begin, int64_t end) {
      bad.note(kernels().finish(job, begin, end));
    });
  }
  return bad.result();
}

}  // namespace hvdfilter
