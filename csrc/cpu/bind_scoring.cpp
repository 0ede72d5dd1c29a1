// Python's integers to `Rows` and back; csrc/README.md lists the signatures.
#include "../bindings.h"
#include "kernels.h"
#include "scoring.h"

namespace hvdfilter {
namespace {

Rows rows_of(Address logits, int dtype, int64_t rows, int64_t classes, int64_t row_stride,
             Address labels, int label_code, int64_t label_stride, int64_t ignore_index,
             int threads) {
  Rows job{at<const void>(logits), dtype,      rows,         classes,     row_stride,
           at<const void>(labels), label_code, label_stride, ignore_index};
  job.threads = threads;
  return job;
}

int64_t bind_score(Address logits, int dtype, int64_t rows, int64_t classes, int64_t row_stride,
                   Address labels, int label_code, int64_t ignore_index, Address out, int threads) {
  Rows job = rows_of(logits, dtype, rows, classes, row_stride, labels, label_code, 0, ignore_index,
                     threads);
  job.out = at<void>(out);
  return score(job);
}

int64_t bind_cross_entropy(Address logits, int dtype, int64_t rows, int64_t classes,
                           int64_t row_stride, Address labels, int label_code, int64_t label_stride,
                           int64_t ignore_index, Address weight, double smoothing, Address out,
                           Address sums, Address loss, Address count, Address grad,
                           int64_t grad_row_stride, int threads) {
  Rows job = rows_of(logits, dtype, rows, classes, row_stride, labels, label_code, label_stride,
                     ignore_index, threads);
  job.weight = at<const void>(weight);
  job.smoothing = smoothing;
  job.out = at<void>(out);
  job.sums = at<double>(sums);
  job.loss = at<void>(loss);
  job.count = at<void>(count);
  job.grad = at<void>(grad);
  job.grad_row_stride = grad_row_stride;
  return cross_entropy(job);
}

void bind_cross_entropy_backward(Address logits, int dtype, int64_t rows, int64_t classes,
                                 int64_t row_stride, Address labels, int label_code,
                                 int64_t label_stride, int64_t ignore_index, Address weight,
                                 double smoothing, Address sums, Address count, Address upstream,
                                 Address grad, int64_t grad_row_stride, int threads) {
  Rows job = rows_of(logits, dtype, rows, classes, row_stride, labels, label_code, label_stride,
                     ignore_index, threads);
  job.weight = at<const void>(weight);
  job.smoothing = smoothing;
  job.sums = at<double>(sums);
  job.count = at<void>(count);
  job.upstream = at<const void>(upstream);
  job.grad = at<void>(grad);
  job.grad_row_stride = grad_row_stride;
  cross_entropy_backward(job);
}

void bind_row_sums(Address logits, int dtype, int64_t rows, int64_t classes, int64_t row_stride,
                   Address labels, int label_code, int64_t ignore_index, int64_t first_class,
                   Address sums, int threads) {
  Rows job = rows_of(logits, dtype, rows, classes, row_stride, labels, label_code, 0, ignore_index,
                     threads);
  job.first_class = first_class;
  job.sums = at<double>(sums);
  row_sums(job);
}

int64_t bind_finish_rows(Address sums, int dtype, int64_t rows, int64_t total_classes,
                         Address labels, int label_code, int64_t ignore_index, Address out,
                         int threads) {
  Rows job = rows_of(0, dtype, rows, total_classes, 0, labels, label_code, 0, ignore_index,
                     threads);
  job.sums = at<double>(sums);
  job.out = at<void>(out);
  return finish_rows(job);
}

// finish_rows has named a label outside the set before any gradient is asked for.
void bind_row_gradient(Address logits, int dtype, int64_t rows, int64_t classes, int64_t row_stride,
                       Address labels, int label_code, int64_t ignore_index, int64_t first_class,
                       int64_t /*total_classes*/, Address sums, Address scale, Address grad,
                       int64_t grad_row_stride, int threads) {
  Rows job = rows_of(logits, dtype, rows, classes, row_stride, labels, label_code, 0, ignore_index,
                     threads);
  job.first_class = first_class;
  job.sums = at<double>(sums);
  job.scale = at<const void>(scale);
  job.grad = at<void>(grad);
  job.grad_row_stride = grad_row_stride;
  cross_entropy_backward(job);
}

const Registrar registrar([](pybind11::module_& module) {
  module.def("instruction_set", [] { return kernels().name; });
  module.def("score", &bind_score, Unlocked());
  module.def("cross_entropy", &bind_cross_entropy, Unlocked());
  module.def("cross_entropy_backward", &bind_cross_entropy_backward, Unlocked());
  module.def("row_sums", &bind_row_sums, Unlocked());
  module.def("finish_rows", &bind_finish_rows, Unlocked());
  module.def("row_gradient", &bind_row_gradient, Unlocked());
});

}  // namespace
}  // namespace hvdfilter
