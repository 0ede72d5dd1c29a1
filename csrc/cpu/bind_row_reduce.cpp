// Python's integers to `Products`; hvdfilter/scoring/grad_norm/native_products.py is its caller.
#include <pybind11/stl.h>

#include <array>

#include "../bindings.h"
#include "row_reduce.h"

namespace hvdfilter {
namespace {

using Axes = std::array<int64_t, 3>;
using Strides = std::array<int64_t, 5>;

void bind_sample_products(Address x, const Strides& x_stride, Address g, const Strides& g_stride,
                          int64_t samples, int64_t channels, int64_t outputs, int64_t groups,
                          const Axes& in, const Axes& out, const Axes& kernel, const Axes& step,
                          const Axes& padding, const Axes& dilation, Address squares, Address rows,
                          Address gradient, int threads) {
  Products job;
  job.x = at<const float>(x);
  job.g = at<const float>(g);
  for (int i = 0; i < 5; i++) {
    job.x_stride[i] = x_stride[i];
    job.g_stride[i] = g_stride[i];
  }
  job.samples = samples;
  job.channels = channels;
  job.outputs = outputs;
  job.groups = groups;
  for (int i = 0; i < 3; i++) {
    job.in[i] = in[i];
    job.out[i] = out[i];
    job.kernel[i] = kernel[i];
    job.step[i] = step[i];
    job.padding[i] = padding[i];
    job.dilation[i] = dilation[i];
  }
  job.squares = at<double>(squares);
  job.rows = at<float>(rows);
  job.gradient = at<float>(gradient);
  job.threads = threads;
  sample_products(job);
}

const Registrar registrar([](pybind11::module_& module) {
  module.def("sample_products", &bind_sample_products, Unlocked());
});

}  // namespace
}  // namespace hvdfilter
