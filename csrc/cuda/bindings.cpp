// The `_cuda` module: raw addresses, a device and a stream in, nothing of libtorch. Everything is
// enqueued and nothing waited for; csrc/README.md lists the signatures.
#include "../bindings.h"

#include <cuda_runtime_api.h>

#include <climits>
#include <stdexcept>
#include <string>

#include "job.h"

namespace hvdfilter {
namespace {

using cuda::Job;
using cuda::Sums;

// One sentence for a call that CUDA refused, naming what to do where that is known.
void check(int error, const char* function, int device) {
  if (error == cudaSuccess) return;
  const std::string reason = cudaGetErrorString(static_cast<cudaError_t>(error));
  std::string remedy;
  if (error == cudaErrorNoKernelImageForDevice || error == cudaErrorUnsupportedPtxVersion ||
      error == cudaErrorInvalidDeviceFunction) {
    // bfloat16 arithmetic came with 8.0, and no build has kernels for less.
    int major = 0;
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    remedy = major >= 8 ? "; rebuild hvdfilter with HVDFILTER_CUDA_ARCHS naming this GPU's compute "
                          "capability"
                        : "; hvdfilter's kernels need compute capability 8.0 (A100) or newer: use "
                          "the CPU's on this machine";
  } else if (error == cudaErrorInsufficientDriver) {
    remedy = "; update the NVIDIA driver or rebuild hvdfilter with the CUDA version it supports";
  } else if (error == cudaErrorInvalidConfiguration) {
    remedy = "; use fewer rows a call";
  }
  throw std::runtime_error(std::string(function) + ": CUDA could not start the kernel on device " +
                           std::to_string(device) + ": " + reason + remedy + ".");
}

void check_dtype(int dtype) {
  if (dtype == cuda::kFloat64) {
    throw std::invalid_argument(
        "logits: float64 has no GPU kernels; use float32, bfloat16 or float16, or the CPU.");
  }
}

Job rows_of(Address logits, int dtype, int64_t rows, int64_t classes, int64_t row_stride,
            Address labels, int label_code, int64_t label_stride, int64_t ignore_index) {
  check_dtype(dtype);
  if (classes > INT_MAX / 2) throw std::invalid_argument("logits: too many classes for a GPU row.");
  Job job = {};
  job.logits = at<const void>(logits);
  job.rows = rows;
  job.row_stride = row_stride;
  job.classes = static_cast<int>(classes);
  job.labels = at<const void>(labels);
  job.label_code = label_code;
  job.label_bytes = label_code == cuda::kLabels64 ? 8 : 4;
  job.label_stride = label_stride;
  job.ignore_index = ignore_index;
  job.total_classes = classes;
  return job;
}

uint32_t block_begin(int64_t first_class, int64_t classes) {
  if (first_class < 0 || first_class + classes > INT_MAX)
    throw std::invalid_argument("logits: too many classes for a GPU: more than 2^31.");
  return static_cast<uint32_t>(first_class);
}

int64_t bind_score(Address logits, int dtype, int64_t rows, int64_t classes, int64_t row_stride,
                   Address labels, int label_code, int64_t ignore_index, Address out, int device,
                   Address stream) {
  Job job = rows_of(logits, dtype, rows, classes, row_stride, labels, label_code, 0, ignore_index);
  job.out = at<float>(out);
  check(launch_rows(job, dtype, device, at<void>(stream)), "score", device);
  return -1;
}

int64_t bind_cross_entropy(Address logits, int dtype, int64_t rows, int64_t classes,
                           int64_t row_stride, Address labels, int label_code, int64_t label_stride,
                           int64_t ignore_index, Address weight, double smoothing, Address out,
                           Address sums, Address loss, Address count, Address grad,
                           int64_t grad_row_stride, int device, Address stream) {
  Job job = rows_of(logits, dtype, rows, classes, row_stride, labels, label_code, label_stride,
                    ignore_index);
  job.weight = at<const float>(weight);
  job.smoothing = smoothing;
  job.out = at<float>(out);
  job.sums = at<double>(sums);
  job.sums_use = sums != 0 ? Sums::write : Sums::none;
  job.grad = at<void>(grad);
  job.grad_row_stride = grad_row_stride;
  const char* name = "cross_entropy";
  void* queue = at<void>(stream);
  // Only a gradient must know beforehand how many rows count. Each kernel then starts beside the
  // one before it, whose launch and first loads it hides.
  if (job.grad) {
    job.count = at<const float>(count);
    check(launch_count(job, at<float>(count), device, queue), name, device);
    job.beside_previous = true;
  }
  check(launch_rows(job, dtype, device, queue), name, device);
  job.beside_previous = rows > 0;
  check(launch_mean(job, at<float>(loss), at<float>(count), device, queue), name, device);
  return -1;
}

// The row is read anyway, so it is summed again from registers and `sums` is not looked at.
void bind_cross_entropy_backward(Address logits, int dtype, int64_t rows, int64_t classes,
                                 int64_t row_stride, Address labels, int label_code,
                                 int64_t label_stride, int64_t ignore_index, Address weight,
                                 double smoothing, Address /*sums*/, Address count,
                                 Address upstream, Address grad, int64_t grad_row_stride,
                                 int device, Address stream) {
  Job job = rows_of(logits, dtype, rows, classes, row_stride, labels, label_code, label_stride,
                    ignore_index);
  job.weight = at<const float>(weight);
  job.smoothing = smoothing;
  job.count = at<const float>(count);
  job.upstream = at<const float>(upstream);
  job.grad = at<void>(grad);
  job.grad_row_stride = grad_row_stride;
  check(launch_rows(job, dtype, device, at<void>(stream)), "cross_entropy_backward", device);
}

void bind_row_sums(Address logits, int dtype, int64_t rows, int64_t classes, int64_t row_stride,
                   Address labels, int label_code, int64_t ignore_index, int64_t first_class,
                   Address sums, int device, Address stream) {
  Job job = rows_of(logits, dtype, rows, classes, row_stride, labels, label_code, 0, ignore_index);
  job.first_class = block_begin(first_class, classes);
  job.total_classes = INT64_MAX;
  job.sums = at<double>(sums);
  job.sums_use = Sums::merge;
  check(launch_rows(job, dtype, device, at<void>(stream)), "row_sums", device);
}

int64_t bind_finish_rows(Address sums, int dtype, int64_t rows, int64_t total_classes,
                         Address labels, int label_code, int64_t ignore_index, Address out,
                         int device, Address stream) {
  check_dtype(dtype);
  Job job = rows_of(0, dtype, rows, total_classes, 0, labels, label_code, 0, ignore_index);
  job.sums = at<double>(sums);
  job.sums_use = Sums::given;
  job.out = at<float>(out);
  check(launch_finish(job, device, at<void>(stream)), "finish_rows", device);
  return -1;
}

void bind_row_gradient(Address logits, int dtype, int64_t rows, int64_t classes, int64_t row_stride,
                       Address labels, int label_code, int64_t ignore_index, int64_t first_class,
                       int64_t total_classes, Address sums, Address scale, Address grad,
                       int64_t grad_row_stride, int device, Address stream) {
  Job job = rows_of(logits, dtype, rows, classes, row_stride, labels, label_code, 0, ignore_index);
  job.first_class = block_begin(first_class, classes);
  job.total_classes = total_classes;
  job.sums = at<double>(sums);
  job.sums_use = Sums::given;
  job.weight = at<const float>(scale);
  job.grad = at<void>(grad);
  job.grad_row_stride = grad_row_stride;
  check(launch_rows(job, dtype, device, at<void>(stream)), "row_gradient", device);
}

void bind_rescale(Address grad, int dtype, int64_t elements, Address upstream, int device,
                  Address stream) {
  check_dtype(dtype);
  check(cuda::launch_rescale(at<void>(grad), dtype, elements, at<const float>(upstream), device,
                             at<void>(stream)),
        "rescale", device);
}

}  // namespace
}  // namespace hvdfilter

PYBIND11_MODULE(_cuda, module) {
  using namespace hvdfilter;
  module.doc() = "Scoring kernels for CUDA devices.";
  module.def("score", &bind_score, Unlocked());
  module.def("cross_entropy", &bind_cross_entropy, Unlocked());
  module.def("cross_entropy_backward", &bind_cross_entropy_backward, Unlocked());
  module.def("row_sums", &bind_row_sums, Unlocked());
  module.def("finish_rows", &bind_finish_rows, Unlocked());
  module.def("row_gradient", &bind_row_gradient, Unlocked());
  module.def("rescale", &bind_rescale, Unlocked());
}
