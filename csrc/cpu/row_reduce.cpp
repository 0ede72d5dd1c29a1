// Cuts the samples into ranges, runs the kernel of the best instruction set on each, and adds the
// partial sums up in a fixed order: the bits never depend on the number of threads.
#include "row_reduce.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "kernels.h"
#include "parallel.h"

namespace hvdfilter {
namespace {

struct Kernel {
  void (*run)(const Products&, const Cut&, int64_t first, int64_t last, int64_t part,
              const Scratch&, double* squares, float* sum);
  int64_t lanes, tile_rows;
};

// Of the instruction set that the scoring kernels use.
Kernel chosen_kernel() {
#if defined(__x86_64__)
  if (std::strcmp(kernels().name, "avx512") == 0)
    return {avx512::products_of_range, avx512::lanes, avx512::tile_rows};
  if (std::strcmp(kernels().name, "avx2") == 0)
    return {avx2::products_of_range, avx2::lanes, avx2::tile_rows};
#endif
  return {baseline::products_of_range, baseline::lanes, baseline::tile_rows};
}

// A band's inputs and outputs should stay in half of a small second-level cache.
constexpr int64_t kBandFloats = 1 << 16;
// Partial sums together should stay within 4 MiB, but a few are always worth having.
constexpr int64_t kSumFloats = 1 << 20;
constexpr int64_t kFewestRanges = 4, kMostRanges = 16;
// Where there are few ranges, parts of the outputs make up for them; each lays out the image again.
constexpr int64_t kTasks = 8;

int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// Kept from call to call: fresh pages would cost as much as laying out the sample.
Scratch scratch_of_thread(const Cut& cut, bool bands) {
  static thread_local std::vector<float> memory;
  static thread_local std::vector<int64_t> places;
  const int64_t carry = bands ? cut.sum_size : 0;
  const size_t size = cut.image_size + cut.output_size + carry;
  if (memory.size() < size) memory.resize(size);
  if (places.size() < static_cast<size_t>(cut.positions)) places.resize(cut.positions);
  float* image = memory.data();
  float* outputs = image + cut.image_size;
  return {image, outputs, outputs + cut.output_size, places.data()};
}

}  // namespace

Cut::Cut(const Products& job, int64_t lanes, int64_t tile_rows) {
  group_channels = job.channels / job.groups;
  group_outputs = job.outputs / job.groups;
  padded_outputs = round_up(group_outputs, tile_rows);
  // Taps side by side make one run when the image holds nothing but this group's channels there.
  const bool adjacent = job.dilation[2] == 1 && job.groups == 1;
  run = adjacent ? job.kernel[2] * job.channels : group_channels;
  runs = job.kernel[0] * job.kernel[1] * (adjacent ? 1 : job.kernel[2]);
  padded_run = round_up(run, lanes);
  positions = job.out[0] * job.out[1] * job.out[2];
  for (int i = 0; i < 3; i++) padded_in[i] = job.in[i] + 2 * job.padding[i];
  sum_size = job.groups * runs * padded_outputs * padded_run;
  image_size = padded_in[0] * padded_in[1] * padded_in[2] * job.channels + 4 * lanes;
  output_size = job.groups * positions * padded_outputs;
  const int64_t row_floats =
      job.step[1] * padded_in[2] * job.channels + job.out[2] * padded_outputs * job.groups;
  band = std::max<int64_t>(1, kBandFloats / std::max<int64_t>(1, row_floats));
  band = std::max<int64_t>(band, std::min<int64_t>(job.out[1], 4));
  ranges = std::clamp(kSumFloats / std::max<int64_t>(1, sum_size), kFewestRanges, kMostRanges);
  ranges = std::min(ranges, job.samples);
  parts = std::clamp<int64_t>(kTasks / std::max<int64_t>(1, ranges), 1, padded_outputs / tile_rows);
}

int64_t Cut::run_offset(const Products& job, int64_t r) const {
  const bool adjacent = runs == job.kernel[0] * job.kernel[1] && job.dilation[2] == 1;
  const int64_t taps = adjacent && job.groups == 1 ? 1 : job.kernel[2];
  const int64_t w = r % taps, h = r / taps % job.kernel[1], d = r / taps / job.kernel[1];
  return ((d * job.dilation[0] * padded_in[1] + h * job.dilation[1]) * padded_in[2] +
          w * job.dilation[2]) *
         job.channels;
}

void sample_products(const Products& job) {
  static const Kernel kernel = chosen_kernel();
  const Cut cut(job, kernel.lanes, kernel.tile_rows);
  const std::unique_ptr<float[]> sums(new float[cut.ranges * cut.sum_size]);
  std::vector<double> squares(cut.parts * job.samples);
  parallel_for(cut.ranges * cut.parts, job.threads, [&](int64_t task) {
    const int64_t range = task / cut.parts, part = task % cut.parts;
    kernel.run(job, cut, job.samples * range / cut.ranges, job.samples * (range + 1) / cut.ranges,
               part, scratch_of_thread(cut, cut.band < job.out[1]),
               squares.data() + part * job.samples, sums.get() + range * cut.sum_size);
  });
  for (int64_t i = 0; i < job.samples; i++) {
    job.squares[i] = 0;
    for (int64_t part = 0; part < cut.parts; part++)
      job.squares[i] += squares[part * job.samples + i];
  }
  const int64_t taps = job.kernel[0] * job.kernel[1] * job.kernel[2];
  const int64_t width = taps / cut.runs;  // taps in one run
  parallel_for(job.outputs, job.threads, [&](int64_t output) {
    const int64_t group = output / cut.group_outputs, m = output % cut.group_outputs;
    float* row = job.gradient + output * cut.group_channels * taps;
    std::vector<float> total(cut.run);
    for (int64_t r = 0; r < cut.runs; r++) {
      const float* part =
          sums.get() + ((group * cut.runs + r) * cut.padded_outputs + m) * cut.padded_run;
      std::copy(part, part + cut.run, total.begin());
      for (int64_t range = 1; range < cut.ranges; range++)
        for (int64_t i = 0; i < cut.run; i++) total[i] += part[range * cut.sum_size + i];
      for (int64_t w = 0; w < width; w++)
        for (int64_t c = 0; c < cut.group_channels; c++)
          row[c * taps + r * width + w] = total[w * cut.group_channels + c];
    }
  });
}

}  // namespace hvdfilter
