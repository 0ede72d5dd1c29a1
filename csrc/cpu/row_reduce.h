// Per-sample weight gradients of convolutions and linear layers, reduced at once: the squared norm
// of each sample's gradient, and their sum, which is the ordinary weight gradient. A sample's
// gradient exists a tile at a time, in registers.
#pragma once

#include <cstdint>

namespace hvdfilter {

// Sizes of one call; the three spatial axes are depth, height, width, those a layer lacks being 1.
// A linear layer is a convolution with a kernel of one, its positions lying along the width.
struct Products {
  const float* x;  // [samples, channels, in...], by strides
  const float* g;  // [samples, outputs, out...], by strides
  int64_t x_stride[5], g_stride[5];
  int64_t samples, channels, outputs, groups;
  int64_t in[3], out[3], kernel[3], step[3], padding[3], dilation[3];
  double* squares;  // [samples]
  float* rows;      // [samples, outputs]: g summed over the positions
  float* gradient;  // [outputs, channels / groups, kernel...], contiguous
  int threads;
};

void sample_products(const Products& job);

// How the work of a call is cut, for a processor whose vectors hold `lanes` floats and whose tile
// is `tile_rows` output channels high. The weight's innermost axis is a run of inputs that lie
// side by side in a channels-last image: the channels under one tap, or, where taps are adjacent,
// under a whole row of taps.
struct Cut {
  Cut(const Products& job, int64_t lanes, int64_t tile_rows);

  int64_t group_channels, group_outputs;
  int64_t padded_outputs;  // of one group, a whole number of tiles
  int64_t runs, run, padded_run;
  int64_t padded_in[3];
  int64_t positions;
  int64_t sum_size;     // floats of one partial sum [groups, runs, padded_outputs, padded_run]
  int64_t image_size;   // floats of one padded channels-last image, with slack behind it
  int64_t output_size;  // floats of one sample's g, [groups, positions, padded_outputs]
  int64_t band;         // output rows (along the height) done at a time, so that they fit a cache
  // The work is cut into ranges of samples, with a partial sum each, and every range into parts of
  // the output channels. Neither depends on the number of threads.
  int64_t ranges, parts;
  // Where run r of a padded image starts, in floats.
  int64_t run_offset(const Products& job, int64_t r) const;
};

// One thread's own memory for one sample.
struct Scratch {
  float* image;    // [image_size]
  float* outputs;  // [output_size]
  float* carry;    // [sum_size], used only where there are several bands
  int64_t* place;  // [positions]
};

// Samples [first, last), one part of the output channels: their share of the squared norms into
// `squares` [samples], job.rows, and the sum of their gradients into `sum` [sum_size].
#define HVD_DECLARE_PRODUCTS(ISA)                                                               \
  namespace ISA {                                                                               \
  void products_of_range(const Products& job, const Cut& cut, int64_t first, int64_t last,      \
                         int64_t part, const Scratch& scratch, double* squares, float* sum);    \
  extern const int64_t lanes, tile_rows;                                                        \
  }
HVD_DECLARE_PRODUCTS(baseline)
#if defined(__x86_64__)
HVD_DECLARE_PRODUCTS(avx2)
HVD_DECLARE_PRODUCTS(avx512)
#endif
#undef HVD_DECLARE_PRODUCTS

}  // namespace hvdfilter
