// The vector kernels of one instruction set as a table of functions, and the choice among them.
#pragma once

#include "rows.h"

namespace hvdfilter {

// All work on rows [begin, end) of a job whose logits are not float64.
struct Kernels {
  const char* name;
  int64_t group;    // rows that are finished together: tasks are best cut at its multiples
  int64_t segment;  // classes a long row is cut into

  // Scores, and sums and gradients if the job has room for them; per_row is 1 / n. Returns the
  // first bad row * 4 + reason, or INT64_MAX.
  int64_t (*rows)(const Rows& job, int64_t begin, int64_t end, double per_row);
  // The same from the sums of whole rows, without gradients.
  int64_t (*finish)(const Rows& job, int64_t begin, int64_t end);
  // Gradients from the sums; per_row is the upstream gradient / n.
  void (*backward)(const Rows& job, int64_t begin, int64_t end, double per_row);
  // Adds a block of classes to the sums.
  void (*block)(const Rows& job, int64_t begin, int64_t end);

  // One row cut up: the sums of segments [begin, end) into parts, then all of them joined, then
  // the gradient of classes [begin, end).
  void (*segments)(const Rows& job, int64_t row, int64_t begin, int64_t end, RowSums<float>* parts);
  void (*join)(const Rows& job, int64_t row, int64_t count, const RowSums<float>* parts);
  void (*part)(const Rows& job, int64_t row, int64_t begin, int64_t end, double per_row);
};

// The best this processor can run, or HVDFILTER_ISA=baseline|avx2|avx512 if it can.
const Kernels& kernels();

namespace baseline {
extern const Kernels table;
}
#if defined(__x86_64__)
namespace avx2 {
extern const Kernels table;
}
namespace avx512 {
extern const Kernels table;
}
#endif

}  // namespace hvdfilter
