// Which thread visits which column of which row: index arithmetic and one table of limits.
//
// Everything here is a constexpr function of integers, compiled for the device by nvcc and for the
// host by any C++17 compiler, so that tests can walk every width and alignment without a GPU.
// It never touches memory and never decides arithmetic.
#pragma once

#include <cstddef>
#include <cstdint>

#ifdef __CUDACC__
#define HVDFILTER_HD __host__ __device__ constexpr
#else
#define HVDFILTER_HD constexpr
#endif

namespace hvdfilter {
namespace cuda {

constexpr int kVectorBytes = 16;  // the widest load every supported device has

// A run of consecutive elements, cut where 16-byte loads may begin and must end. The elements
// before and behind the vectors are its "edges": at most 2 * (kVectorBytes / size - 1) of them,
// which is fewer than a warp has lanes.
struct Span {
  int head;     // elements before the first 16-byte boundary
  int vectors;  // whole 16-byte vectors behind the head
  int tail;     // elements behind the last whole vector
};

HVDFILTER_HD int elements_per_vector(int element_bytes) { return kVectorBytes / element_bytes; }

// `misaligned`: address modulo 16, a multiple of element_bytes.
HVDFILTER_HD Span cut(int misaligned, int elements, int element_bytes) {
  const unsigned per_vector = static_cast<unsigned>(elements_per_vector(element_bytes));
  const int wanted = (-misaligned & (kVectorBytes - 1)) / element_bytes;
  const int head = wanted < elements ? wanted : elements;
  const unsigned left = static_cast<unsigned>(elements - head);  // divides without regard to a sign
  return Span{head, static_cast<int>(left / per_vector), static_cast<int>(left % per_vector)};
}

HVDFILTER_HD int edge_count(Span span) { return span.head + span.tail; }

// Element index of edge number `edge` in [0, edge_count): the head, then the tail.
HVDFILTER_HD int edge_element(Span span, int elements, int edge) {
  return edge < span.head ? edge : elements - span.tail + (edge - span.head);
}

// Element index at which vector number `vector` in [0, span.vectors) begins.
HVDFILTER_HD int vector_element(Span span, int vector, int per_vector) {
  return span.head + vector * per_vector;
}

// Vector number held in slot `slot` of thread `thread`: neighbours read neighbouring vectors, so a
// warp's load is 512 consecutive bytes.
HVDFILTER_HD int slot_vector(int slot, int thread, int threads) { return slot * threads + thread; }

// Where an element is: the thread, of `threads` that share the run, that holds it, and there the
// slot and its place in the vector; an edge has slot -1. Element -1, which is nowhere, has thread
// -1.
struct Place {
  int thread;
  int slot;
  int at;
};
HVDFILTER_HD Place place_of(Span span, int elements, int element, int threads, int per_vector) {
  const unsigned behind_head = static_cast<unsigned>(element - span.head);  // huge if in the head
  const unsigned vector = behind_head / static_cast<unsigned>(per_vector);
  if (vector < static_cast<unsigned>(span.vectors))
    return Place{static_cast<int>(vector % static_cast<unsigned>(threads)),
                 static_cast<int>(vector / static_cast<unsigned>(threads)),
                 static_cast<int>(behind_head % static_cast<unsigned>(per_vector))};
  const int edge = element < span.head ? element : span.head + element - (elements - span.tail);
  return Place{edge, -1, 0};
}

// Elements before row `row`: more than 2^31 long before a device's memory ends.
HVDFILTER_HD int64_t row_begin(int64_t row, int64_t stride) { return row * stride; }

// Vectors of part `part` of a run that 2^log_parts share, whole and consecutive, as even as can be.
struct Share {
  int first;
  int vectors;
};
HVDFILTER_HD Share share_of(int vectors, int part, int log_parts) {
  const int each = (vectors + (1 << log_parts) - 1) >> log_parts;
  const int first = part * each < vectors ? part * each : vectors;
  return Share{first, vectors - first < each ? vectors - first : each};
}

// ---- rows that a single thread walks in shared memory ----

constexpr int kPackedBytes = 512;    // most bytes from one row to the next
constexpr int kPackedThreads = 256;  // most threads of a block

// Threads of a block, one a row of a tile of 32 KiB at most: 256 for short rows, 64 for long ones.
HVDFILTER_HD int packed_threads(int stride_bytes) {
  return stride_bytes <= 128 ? 256 : stride_bytes <= 256 ? 128 : 64;
}

// Rows of a block: of the shortest two a thread, so that four blocks of a multiprocessor ask for 32
// KiB at once, where there are rows enough for that many blocks.
HVDFILTER_HD int packed_rows(int stride_bytes, int64_t rows, int multiprocessors) {
  const int one = packed_threads(stride_bytes);
  const bool short_ones = stride_bytes <= 64 && rows >= int64_t(3) * 2 * one * multiprocessors;
  return short_ones ? 2 * one : one;
}

// Bytes a thread takes at a time: as many as every row of the tile is aligned by, at most 16.
HVDFILTER_HD int packed_piece(int misaligned, int stride_bytes) {
  const int both = misaligned | stride_bytes | kVectorBytes;
  return both & -both;
}

// Lanes that take pieces from rows an odd number of pieces apart meet in no bank, or in pairs where
// a piece is half a word. Only rows of whole vectors lie an even number apart; each such row gets
// one vector of padding. A tile that begins off a boundary has smaller pieces; of its rows those
// that are whole runs of all banks would meet in one, and are not packed.
HVDFILTER_HD bool packed_padding(int piece, int stride_bytes) {
  return piece == kVectorBytes && stride_bytes / kVectorBytes % 2 == 0;
}

// ---- the two functions and the table that choose a mapping ----

enum class Regime : int {
  packed,     // a thread a row; a block stages consecutive rows through shared memory
  resident,   // `threads` a row, the whole row in registers
  cluster,    // `blocks` blocks of `threads` a row, the whole row in their registers
  streaming,  // a block a row, running maximum, the row goes by in chunks
};

struct Resident {
  int threads;          // threads a row
  int slots;            // 16-byte vectors a thread holds
  int threads_a_block;  // threads_a_block / threads rows share a block where threads are few
};

// A row goes to the first line with threads * slots >= its vectors. Four slots leave room for 1024
// threads on a multiprocessor (64 KB under way), eight for 768 (96 KB), in registers of 64 and 80.
constexpr Resident kResident[] = {
  {32, 1, 256}, {32, 2, 256}, {32, 4, 256}, {32, 6, 256},  {32, 8, 256},  {64, 6, 256},
  {64, 8, 256}, {128, 6, 128}, {128, 8, 128}, {256, 6, 256}, {256, 8, 256}, {384, 8, 384},
};
constexpr int kResidentShapes = sizeof(kResident) / sizeof(kResident[0]);

constexpr int reach(int shape) { return kResident[shape].threads * kResident[shape].slots; }

// Slots that every row of this line fills for every thread, so that no test is needed: the line
// before could not hold the row, which has at most one vector less than its classes make when it is
// misaligned.
constexpr int full_slots(int shape) {
  return shape == 0 ? 0 : reach(shape - 1) / kResident[shape].threads;
}

// Wider ones: the same for each block of a cluster of the fewest threads that hold the row. The
// third line is for what the others cannot reach with the largest cluster that every device with
// clusters accepts; it runs one block at a time on a multiprocessor.
constexpr Resident kClustered[] = {{256, 8, 256}, {384, 8, 384}, {512, 8, 512}};
constexpr int kClusteredShapes = sizeof(kClustered) / sizeof(kClustered[0]);
constexpr int kClusteredFull = 5;  // slots that every thread of every block then fills
constexpr int kClusterBlocks = 8;

// Blocks that should fit on a multiprocessor together, so that some load while others compute.
// Spread targets need a third sweep, and registers for it.
HVDFILTER_HD int blocks_wanted(int slots, int threads_a_block, bool spread) {
  return ((slots > 4 ? 768 : 1024) - (spread ? 256 : 0)) / threads_a_block;
}

constexpr int kStreamingThreads = 512;
constexpr int kStreamingSlots = 4;

struct Plan {
  Regime regime;
  int shape;   // line of kResident or kClustered
  int blocks;  // blocks a row: 1 but for Regime::cluster
};

constexpr int resident_shape(int vectors) {
  for (int shape = 0; shape < kResidentShapes; ++shape)
    if (vectors <= reach(shape)) return shape;
  return -1;
}

// `stride`: elements from one row to the next, fewer than `classes` where rows are expanded.
// `misaligned`: the first row's address modulo 16.
// `clusters`: wide rows may go to a cluster. What is gained by holding such a row, a second read,
// only a gradient needs; without one a cluster is for rows too few to give every multiprocessor its
// blocks.
constexpr Plan plan(int classes, int64_t stride, int misaligned, int element_bytes, bool clusters) {
  const bool one_bank = misaligned != 0 && stride * element_bytes % 128 == 0;
  if (stride >= classes && stride * element_bytes <= kPackedBytes && !one_bank)
    return Plan{Regime::packed, 0, 1};
  const int vectors = classes / elements_per_vector(element_bytes);  // the most any alignment has
  const int shape = resident_shape(vectors);
  if (shape >= 0) return Plan{Regime::resident, shape, 1};
  for (int blocks = 2; clusters && blocks <= kClusterBlocks; blocks *= 2)
    for (int line = 0; line < kClusteredShapes; ++line) {
      const bool fills_one = line == 2;  // a multiprocessor
      const int held = kClustered[line].threads * kClustered[line].slots * blocks;
      if (vectors <= held && (!fills_one || blocks == kClusterBlocks))
        return Plan{Regime::cluster, line, blocks};
    }
  return Plan{Regime::streaming, 0, 1};
}

constexpr bool wants_clusters(bool gradient, int64_t rows, int multiprocessors) {
  return gradient || rows < 2 * int64_t(multiprocessors);
}

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace cuda
}  // namespace hvdfilter
