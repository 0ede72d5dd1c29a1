// One call of a scoring function, as plain numbers and addresses, and what launches it. Shared by
// the bindings, which any C++ compiler builds, and by the kernels.
#pragma once

#include <cstdint>

namespace hvdfilter {
namespace cuda {

enum DtypeCode : int { kFloat32 = 0, kFloat64 = 1, kBfloat16 = 2, kFloat16 = 3 };
enum LabelCode : int { kLabels32 = 0, kLabels64 = 1, kSoftLabels = 16 };

// What `sums` is to a kernel.
enum class Sums : int {
  none,
  write,  // filled with the m, t1, t2, z_y of each row
  merge,  // a block of classes is added to what is there
  given,  // the row's sums are known, only its gradient is asked for
};

struct Job {
  const void* logits;
  int64_t rows;
  int64_t row_stride;      // elements, as grad_row_stride and label_stride
  int classes;

  const void* labels;
  int label_code;
  unsigned label_bytes;    // of a hard label
  int64_t label_stride;   // of soft labels
  int64_t ignore_index;
  uint32_t first_class;   // the logits are classes [first_class, first_class + classes) ...
  int64_t total_classes;  // ... of so many

  const float* weight;    // a row's weight, or null for 1
  const float* count;     // one number that divides every gradient: rows not ignored; or null
  const float* upstream;  // one number that multiplies every gradient, or null
  double smoothing;

  float* out;             // [4, rows] loss, grad_norm, confidence, margin; or null
  double* sums;           // [4, rows] m, t1, t2, z_y
  Sums sums_use;
  void* grad;             // or null
  int64_t grad_row_stride;

  bool beside_previous;   // start beside the kernel before it on the stream, one of the same call
};

// Each enqueues its kernels on the stream and returns a cudaError_t; none waits or allocates.

// The kernel that fits the width.
int launch_rows(const Job& job, int dtype, int device, void* stream);
// The same for one type of logits, with targets one-hot or spread over the classes.
template <class T, bool kSpread>
int launch_rows_as(const Job& job, int device, void* stream);

// count = number of rows whose label is not ignored (all of them, for soft labels), at least 1.
int launch_count(const Job& job, float* count, int device, void* stream);
// loss = sum_i w_i loss_i / count, always added in the same order; count as launch_count's.
int launch_mean(const Job& job, float* loss, float* count, int device, void* stream);
// out from the sums of whole rows.
int launch_finish(const Job& job, int device, void* stream);
// grad *= *upstream, unless that is 1.
int launch_rescale(void* grad, int dtype, int64_t elements, const float* upstream, int device,
                   void* stream);

}  // namespace cuda
}  // namespace hvdfilter
