// The tile kernel of row_reduce.h, compiled once for each instruction set.
//
// Each sample's image is laid out channels last with its padding, its output gradient likewise, so
// that a tile of the weight gradient (tile_rows output channels x up to 3 vectors of a run) needs,
// for each position, 3 vector loads and tile_rows broadcasts for 3 tile_rows multiply-adds: no
// unfolded copy of the input exists. When the last position is done the tile is squared and added
// to the partial sum from registers.
//
// No templates of the standard library in here: the linker could keep this file's copy of one, with
// instructions that the processor lacks, for the whole module.
#include <cstring>
#include <utility>

#include "row_reduce.h"

namespace hvdfilter {
namespace HVD_ISA {

// 24 accumulators leave room for the operands in 32 registers, 12 in 16.
constexpr int kLanes = HVD_VECTOR_BYTES / 4;
constexpr int kRows = HVD_VECTOR_BYTES == 64 ? 8 : 4;
constexpr int kVectors = 3;
extern const int64_t lanes = kLanes, tile_rows = kRows;

namespace {

typedef float Vec __attribute__((vector_size(HVD_VECTOR_BYTES)));
typedef int32_t Bits __attribute__((vector_size(HVD_VECTOR_BYTES)));

inline Vec load(const float* p) {
  Vec v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline void store(float* p, Vec v) { std::memcpy(p, &v, sizeof v); }

// One sample's operands, and how to walk them.
struct Walk {
  const int64_t* place;  // [positions]: where in the image each one's inputs start
  int64_t g_step;        // floats between positions of g
  int64_t planes, plane, row;  // planes, and positions in a plane and in a row
  float scale;
};

// Adds the positions of output rows [first, last) of all planes to one tile. `carry` holds the
// tile between bands; the last band ends it.
template <int N>
inline void tile(const Walk& walk, int64_t first, int64_t last, const float* x,
                 const float* g, bool begin, bool end, float* carry, float* sum, bool fresh,
                 int64_t sum_row, const Bits* mask, Vec& squares) {
  Vec acc[kRows][N];
#pragma GCC unroll 8
  for (int m = 0; m < kRows; m++)
#pragma GCC unroll 3
    for (int v = 0; v < N; v++)
      acc[m][v] = begin ? Vec{} : load(carry + m * sum_row + v * kLanes);
  for (int64_t d = 0; d < walk.planes; d++) {
    // One loop over all rows: short rows would end a loop of their own too often.
    const int64_t end_of_band = d * walk.plane + last * walk.row;
    int64_t t = d * walk.plane + first * walk.row;
    const float* pg = g + t * walk.g_step;
    for (; t < end_of_band; t++, pg += walk.g_step) {
      const float* px = x + walk.place[t];
      Vec in[N];
#pragma GCC unroll 3
      for (int v = 0; v < N; v++) in[v] = load(px + v * kLanes);
#pragma GCC unroll 8
      for (int m = 0; m < kRows; m++)
#pragma GCC unroll 3
        for (int v = 0; v < N; v++) acc[m][v] += in[v] * pg[m];
    }
  }
  if (!end) {
#pragma GCC unroll 8
    for (int m = 0; m < kRows; m++)
#pragma GCC unroll 3
      for (int v = 0; v < N; v++) store(carry + m * sum_row + v * kLanes, acc[m][v]);
    return;
  }
#pragma GCC unroll 8
  for (int m = 0; m < kRows; m++)
#pragma GCC unroll 3
    for (int v = 0; v < N; v++) {
      // Lanes behind the end of a run hold its neighbour's numbers: nobody reads their sums.
      const Vec scaled = (Vec)((Bits)acc[m][v] & mask[v]) * walk.scale;
      squares += scaled * scaled;
      float* to = sum + m * sum_row + v * kLanes;
      store(to, fresh ? acc[m][v] : load(to) + acc[m][v]);
    }
}

// a[0] b[0] a[1] b[1] ..., of the lower or the upper halves.
template <int... I>
inline Vec zip(Vec a, Vec b, bool upper, std::integer_sequence<int, I...>) {
  constexpr int kHalf = kLanes / 2;
  return upper ? __builtin_shufflevector(a, b, (kHalf + I / 2 + (I % 2) * kLanes)...)
               : __builtin_shufflevector(a, b, (I / 2 + (I % 2) * kLanes)...);
}

// Transposes a square of vectors: zipping row i with row i + n/2 is a perfect shuffle of all its
// numbers, and log2 n of those make the transpose.
inline void transpose(Vec (&square)[kLanes]) {
  const std::make_integer_sequence<int, kLanes> lanes_of{};
#pragma GCC unroll 4
  for (int stage = 1; stage < kLanes; stage *= 2) {
    Vec next[kLanes];
#pragma GCC unroll 8
    for (int i = 0; i < kLanes / 2; i++) {
      next[2 * i] = zip(square[i], square[i + kLanes / 2], false, lanes_of);
      next[2 * i + 1] = zip(square[i], square[i + kLanes / 2], true, lanes_of);
    }
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; i++) square[i] = next[i];
  }
}

// The places of one sample's positions in channels-last memory, in their order.
struct Places {
  float* to;
  int64_t width, height, step, row_gap, plane_gap;  // gaps: floats skipped after a row, a plane
  int64_t w = 0, h = 0;
  float* next() {
    float* here = to;
    to += step;
    if (++w == width) {
      w = 0;
      to += row_gap;
      if (++h == height) {
        h = 0;
        to += plane_gap;
      }
    }
    return here;
  }
};

// Channels [0, channels) of all positions to their places. stride: channel, depth, height, width.
void lay_out(const float* from, const int64_t* stride, int64_t channels, const int64_t* size,
             const Places& start) {
  const int64_t positions = size[0] * size[1] * size[2];
  const bool planar = stride[3] == 1 && (size[1] == 1 || stride[2] == size[2]) &&
                      (size[0] == 1 || stride[1] == size[1] * size[2]);
  if (!planar || positions < kLanes) {
    Places places = start;
    for (int64_t d = 0; d < size[0]; d++)
      for (int64_t h = 0; h < size[1]; h++)
        for (int64_t w = 0; w < size[2]; w++) {
          const float* source = from + d * stride[1] + h * stride[2] + w * stride[3];
          float* to = places.next();
          if (stride[0] == 1)
            std::memcpy(to, source, channels * sizeof(float));
          else
            for (int64_t c = 0; c < channels; c++) to[c] = source[c * stride[0]];
        }
    return;
  }
  // Planes lie whole: squares of kLanes channels by kLanes positions, transposed in registers. A
  // gather would touch one number of each of many cache lines, all in the same few sets.
  constexpr int64_t kAhead = 64;
  Places places = start;
  for (int64_t p = 0; p < positions; p += kLanes) {
    const int64_t count = positions - p < kLanes ? positions - p : kLanes;
    float* to[kLanes];
    for (int64_t i = 0; i < count; i++) to[i] = places.next();
    for (int64_t c = 0; c < channels; c += kLanes) {
      const int64_t wide = channels - c < kLanes ? channels - c : kLanes;
      Vec square[kLanes];
      for (int64_t i = 0; i < kLanes; i++) {
        const float* source = from + (c + i) * stride[0] + p;
        square[i] = Vec{};
        // Too many streams for the processor to see them coming.
        if (i < wide) __builtin_prefetch(source + kAhead, 0, 2);
        if (i < wide && count == kLanes)
          square[i] = load(source);
        else if (i < wide)
          std::memcpy(&square[i], source, count * sizeof(float));
      }
      transpose(square);
      for (int64_t i = 0; i < count; i++) {
        if (wide == kLanes)
          store(to[i] + c, square[i]);
        else
          for (int64_t j = 0; j < wide; j++) to[i][c + j] = square[i][j];
      }
    }
  }
}

// x of one sample, channels last and padded with zeros, into `image` (whose padding is zero).
void lay_out_image(const Products& job, const Cut& cut, int64_t sample, float* image) {
  const int64_t gap = 2 * job.padding[2] * job.channels;
  const int64_t row = cut.padded_in[2] * job.channels;
  const int64_t corner =
      (job.padding[0] * cut.padded_in[1] + job.padding[1]) * row + job.padding[2] * job.channels;
  const Places places{image + corner, job.in[2], job.in[1],
                      job.channels,   gap,       2 * job.padding[1] * row};
  lay_out(job.x + sample * job.x_stride[0], job.x_stride + 1, job.channels, job.in, places);
}

// A part of the output channels of each group, in whole tiles.
struct Part {
  int64_t first, last;
};

// g of one sample into [groups, positions, padded_outputs] (whose padding is zero).
void lay_out_outputs(const Products& job, const Cut& cut, int64_t sample, const Part& part,
                     float* outputs) {
  const float* from = job.g + sample * job.g_stride[0];
  for (int64_t group = 0; group < job.groups; group++) {
    const Places places{outputs + group * cut.positions * cut.padded_outputs + part.first,
                        job.out[2], job.out[1], cut.padded_outputs, 0, 0};
    const int64_t last = part.last < cut.group_outputs ? part.last : cut.group_outputs;
    lay_out(from + (group * cut.group_outputs + part.first) * job.g_stride[1], job.g_stride + 1,
            last - part.first, job.out, places);
  }
}

// The sums over positions, and the power of two that brings the largest magnitude close to one, so
// that float32 squares of an easy sample's gradient do not underflow.
float reduce_outputs(const Products& job, const Cut& cut, int64_t sample, const Part& part,
                     const float* outputs) {
  typedef float Narrow __attribute__((vector_size(kRows * 4)));
  typedef int32_t NarrowBits __attribute__((vector_size(kRows * 4)));
  constexpr int kChains = 4;  // sums in flight, to hide the latency of an addition
  float largest = 0;
  for (int64_t group = 0; group < job.groups; group++)
    for (int64_t m = part.first; m < part.last; m += kRows) {
      Narrow total[kChains] = {}, top[kChains] = {};
      const float* from = outputs + group * cut.positions * cut.padded_outputs + m;
      const auto take = [&](int64_t t, int chain) {
        Narrow g;
        std::memcpy(&g, from + t * cut.padded_outputs, sizeof g);
        total[chain] += g;
        const Narrow size = (Narrow)((NarrowBits)g & 0x7fffffff);
        top[chain] = size > top[chain] ? size : top[chain];
      };
      int64_t t = 0;
      for (; t + kChains <= cut.positions; t += kChains)
#pragma GCC unroll 4
        for (int chain = 0; chain < kChains; chain++) take(t + chain, chain);
      for (; t < cut.positions; t++) take(t, 0);
      for (int chain = 1; chain < kChains; chain++) {
        total[0] += total[chain];
        top[0] = top[chain] > top[0] ? top[chain] : top[0];
      }
      for (int i = 0; i < kRows; i++) {
        largest = top[0][i] > largest ? top[0][i] : largest;
        if (m + i < cut.group_outputs)
          job.rows[sample * job.outputs + group * cut.group_outputs + m + i] = total[0][i];
      }
    }
  if (!(largest > 0) || __builtin_isinf(largest)) return 1.0f;
  return __builtin_ldexpf(1.0f, -__builtin_ilogbf(largest));
}

}  // namespace

void products_of_range(const Products& job, const Cut& cut, int64_t first, int64_t last,
                       int64_t index, const Scratch& scratch, double* squares_out, float* sum) {
  const int64_t tiles = cut.padded_outputs / kRows;
  const Part part{tiles * index / cut.parts * kRows, tiles * (index + 1) / cut.parts * kRows};
  float *image = scratch.image, *outputs = scratch.outputs;
  std::memset(image, 0, cut.image_size * sizeof(float));
  std::memset(outputs, 0, cut.output_size * sizeof(float));

  Bits whole, tail;
  const int64_t rest = cut.run - (cut.padded_run - kLanes);
  for (int i = 0; i < kLanes; i++) {
    whole[i] = -1;
    tail[i] = i < rest ? -1 : 0;
  }
  Walk walk;
  walk.place = scratch.place;
  walk.g_step = cut.padded_outputs;
  walk.planes = job.out[0];
  walk.plane = job.out[1] * job.out[2];
  walk.row = job.out[2];
  int64_t t = 0;
  for (int64_t d = 0; d < job.out[0]; d++)
    for (int64_t h = 0; h < job.out[1]; h++)
      for (int64_t w = 0; w < job.out[2]; w++)
        scratch.place[t++] = ((d * job.step[0] * cut.padded_in[1] + h * job.step[1]) *
                                  cut.padded_in[2] + w * job.step[2]) * job.channels;
  const int64_t vectors = cut.padded_run / kLanes;

  for (int64_t sample = first; sample < last; sample++) {
    lay_out_image(job, cut, sample, image);
    lay_out_outputs(job, cut, sample, part, outputs);
    walk.scale = reduce_outputs(job, cut, sample, part, outputs);
    const bool fresh = sample == first;
    Vec squares{};
    for (int64_t top = 0; top < job.out[1]; top += cut.band) {
      const int64_t bottom = top + cut.band < job.out[1] ? top + cut.band : job.out[1];
      const bool begin = top == 0, end = bottom == job.out[1];
      for (int64_t group = 0; group < job.groups; group++) {
        const float* g = outputs + group * cut.positions * cut.padded_outputs;
        for (int64_t m = part.first; m < part.last; m += kRows)
          for (int64_t r = 0; r < cut.runs; r++) {
            const float* x = image + group * cut.group_channels + cut.run_offset(job, r);
            const int64_t start =
                ((group * cut.runs + r) * cut.padded_outputs + m) * cut.padded_run;
            for (int64_t v = 0; v < vectors; v += kVectors) {
              const int64_t n = vectors - v < kVectors ? vectors - v : kVectors;
              Bits mask[kVectors] = {whole, whole, whole};
              if (v + n == vectors) mask[n - 1] = tail;
              const int64_t place = start + v * kLanes;
              const auto run = n == 3 ? &tile<3> : n == 2 ? &tile<2> : &tile<1>;
              run(walk, top, bottom, x + v * kLanes, g + m, begin, end,
                  scratch.carry + place, sum + place, fresh, cut.padded_run, mask,
                  squares);
            }
          }
      }
    }
    double total = 0;
    for (int i = 0; i < kLanes; i++) total += squares[i];
    const double scale = walk.scale;
    squares_out[sample] = total / (scale * scale);
  }
}

}  // namespace HVD_ISA
}  // namespace hvdfilter
