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
// before and behind the vectors are its "edges": at most 2 * (kVectorBytes / size - 1) of them.
struct Span {
  int head;     // elements before the first 16-byte boundary
  int vectors;  // whole 16-byte vectors behind the head
  int tail;     // elements behind the last whole vector
};

HVDFILTER_HD int elements_per_vector(int element_bytes) { return kVectorBytes / element_bytes; }

// `misaligned`: address modulo 16, a multiple of element_bytes.
HVDFILTER_HD Span cut(int misaligned, int elements, int element_bytes) {
  const int per_vector = elements_per_vector(element_bytes);
  const int wanted = misaligned == 0 ? 0 : (kVectorBytes - misaligned) / element_bytes;
  const int head = wanted < elements ? wanted : elements;
  const int vectors = (elements - head) / per_vector;
  return Span{head, vectors, elements - head - vectors * per_vector};
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

// Edges one thread may have to hold when `threads` share them: thread p takes p, p + threads, ...
HVDFILTER_HD int edges_per_thread(int threads, int element_bytes) {
  const int most = 2 * (elements_per_vector(element_bytes) - 1);
  return (most + threads - 1) / threads;
}

// Vector number held in slot `slot` of thread `thread`: neighbours read neighbouring vectors, so a
// warp's load is 512 consecutive bytes.
HVDFILTER_HD int slot_vector(int slot, int thread, int threads) { return slot * threads + thread; }

// The thread, of `threads` that share the run, that holds element `element`.
HVDFILTER_HD int owner(Span span, int elements, int element, int threads, int per_vector) {
  if (element < span.head) return element % threads;
  const int behind_head = element - span.head;
  if (behind_head < span.vectors * per_vector) return behind_head / per_vector % threads;
  return (span.head + element - (elements - span.tail)) % threads;
}

// Shared-memory word of element `element` of a staged tile: one word of padding every 32. A warp
// that stores 16-byte vectors word by word and a warp whose lanes walk rows of 4, 8, 16 or 32
// classes then both touch 32 different banks.
HVDFILTER_HD int padded(int element) { return element + (element >> 5); }

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
  {8, 4, 128}, {16, 4, 128}, {32, 4, 128}, {64, 4, 128},
  {128, 4, 128}, {256, 4, 256}, {256, 8, 256}, {384, 8, 384},
};
constexpr int kResidentShapes = sizeof(kResident) / sizeof(kResident[0]);

// Wider ones: the same for each block of a cluster. The second line is for what the first cannot
// reach with the largest cluster that every device with clusters accepts; it runs one block at a
// time on a multiprocessor.
constexpr Resident kClustered[] = {{384, 8, 384}, {512, 8, 512}};
constexpr int kClusterBlocks = 8;

// Blocks that should fit on a multiprocessor together, so that some load while others compute.
// Spread targets need a third sweep, and registers for it.
HVDFILTER_HD int blocks_wanted(int slots, int threads_a_block, bool spread) {
  return ((slots > 4 ? 768 : 1024) - (spread ? 256 : 0)) / threads_a_block;
}

constexpr int kPackedClasses = 32;  // widest row that a single thread walks
constexpr int kPackedRows = 256;    // rows, and threads, of a packed block
constexpr int kStreamingThreads = 512;
constexpr int kStreamingSlots = 4;

// Rows of 31 with a padding word every 32 begin in one and the same bank for all lanes of a warp;
// any other width meets at most twice.
constexpr bool packs(int classes) { return classes <= kPackedClasses && classes != 31; }

struct Plan {
  Regime regime;
  int shape;   // line of kResident or kClustered
  int blocks;  // blocks a row: 1 but for Regime::cluster
};

constexpr int resident_shape(int vectors) {
  for (int shape = 0; shape < kResidentShapes; ++shape)
    if (vectors <= kResident[shape].threads * kResident[shape].slots) return shape;
  return -1;
}

// `contiguous`: rows follow each other without a gap. `clusters`: the device launches clusters.
constexpr Plan plan(int classes, int element_bytes, bool contiguous, bool clusters) {
  if (contiguous && packs(classes)) return Plan{Regime::packed, 0, 1};
  const int vectors = classes / elements_per_vector(element_bytes);  // the most any alignment has
  const int shape = resident_shape(vectors);
  if (shape >= 0) return Plan{Regime::resident, shape, 1};
  for (int line = 0; clusters && line < 2; ++line) {
    const int reach = kClustered[line].threads * kClustered[line].slots;
    for (int blocks = 2; blocks <= kClusterBlocks; blocks *= 2)
      if (vectors <= reach * blocks) return Plan{Regime::cluster, line, blocks};
  }
  return Plan{Regime::streaming, 0, 1};
}

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace cuda
}  // namespace hvdfilter
