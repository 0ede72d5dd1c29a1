// Rows that lie within 512 bytes of each other: a block copies consecutive ones to shared memory as
// one run of 16-byte vectors, whatever their width, and each thread walks a row there. Every byte
// fetched is used, no lane idles for want of classes, no shuffle is needed, and the end of a row
// costs a warp once for 32 of them.
#pragma once

#include "resident.cuh"

namespace hvdfilter {
namespace cuda {

// One thread is the whole team.
class Single {
 public:
  static constexpr int kRows = 1;
  HVD_METHOD int thread() const { return 0; }
  HVD_METHOD int threads() const { return 1; }
  HVD_METHOD bool leads() const { return true; }
  HVD_METHOD bool writes() const { return true; }
  HVD_METHOD Largest largest(Largest mine) const { return mine; }
  template <int kUse>
  HVD_METHOD Pair sum(Pair mine) const {
    return mine;
  }
  HVD_METHOD Verdict spread_word(const Verdict& verdict) const { return verdict; }
};

// The rows of a block, in memory and as they lie in shared memory: the same bytes, but for a vector
// of padding behind each row where rows would otherwise meet in the same banks.
template <class T>
struct Tile {
  static constexpr int kElements = Pack<T>::kElements;

  unsigned char* shared;
  int misaligned;  // bytes from a 16-byte boundary to the first row
  int stride;      // bytes from row to row, in memory ...
  int pitch;       // ... and in shared memory
  int rows;
  int elements;    // from the begin of the first row to the end of the last
  int piece;       // bytes to take at a time

  HVD_METHOD Tile(unsigned char* memory, const T* first, int64_t row_stride, int count, int classes)
      : misaligned(misalignment(first)),
        stride(static_cast<int>(row_stride * sizeof(T))),
        rows(count) {
    shared = memory + misaligned;
    elements = (rows - 1) * static_cast<int>(row_stride) + classes;
    piece = packed_piece(misaligned, stride);
    pitch = stride + (packed_padding(piece, stride) ? kVectorBytes : 0);
  }

  HVD_METHOD T* row(int r) const { return reinterpret_cast<T*>(shared + r * pitch); }

  // f(elements from the first row's begin, place in shared memory) of each vector and each edge, by
  // the threads of the block.
  template <class OnVector, class OnEdge>
  HVD_METHOD void each(OnVector&& on_vector, OnEdge&& on_edge) const {
    const Span span = cut(misaligned, elements, sizeof(T));
    const bool padded = pitch != stride;
    const float rows_a_vector = machine::reciprocal(static_cast<float>(stride / kVectorBytes));
    const int threads = machine::block_threads();
    for (int v = machine::thread_index(); v < span.vectors; v += threads) {
      const int at = vector_element(span, v, kElements);
      // Half a vector from every boundary between rows, so that the rounding never counts.
      const int before = padded ? static_cast<int>((v + 0.5f) * rows_a_vector) : 0;
      on_vector(at, shared + at * int(sizeof(T)) + before * kVectorBytes);
    }
    const int edge = machine::thread_index();  // there are fewer edges than threads
    if (edge >= edge_count(span)) return;
    const int at = edge_element(span, elements, edge);
    // A padded tile begins at a boundary: its edges are the end of its last row.
    on_edge(at, shared + at * int(sizeof(T)) + (padded ? (rows - 1) * kVectorBytes : 0));
  }
};

// A run of elements that a thread takes from shared memory at once.
template <class T, int kBytes>
struct Piece {
  static constexpr int kElements = kBytes / sizeof(T);
  static constexpr int kWords = kBytes < 4 ? 1 : kBytes / 4;
  uint32_t word[kWords];

  HVD_METHOD static Piece take(const T* from) {
    Piece piece;
    if constexpr (kBytes == 2) {
      const uint32_t bits = *reinterpret_cast<const uint16_t*>(from);
      piece.word[0] = bits | (nothing_word<T>() & 0xffff0000u);
    } else {
      machine::take_words<kWords>(from, piece.word);
    }
    return piece;
  }
  HVD_METHOD void put(T* to) const {
    if constexpr (kBytes == 2)
      *reinterpret_cast<uint16_t*>(to) = static_cast<uint16_t>(word[0]);
    else
      machine::put_words<kWords>(to, word);
  }
  HVD_METHOD float at(int i) const {
    if constexpr (sizeof(T) == 4)
      return machine::bits_to_float(word[i]);
    else
      return to_float(T{static_cast<uint16_t>(word[i / 2] >> (i % 2 * 16))});
  }
};

// A row in the staged tile.
template <class T>
struct PackedView {
  T* row;
  int classes;
  int piece;

  // f(piece) of each whole piece of the row, and of what is left of rows that lie apart.
  template <int kBytes, class F>
  HVD_METHOD void walk_by(F&& f) const {
    constexpr int kElements = Piece<T, kBytes>::kElements;
    const int whole = classes / kElements * kElements;
    HVD_UNROLL4
    for (int c = 0; c < whole; c += kElements) f(Piece<T, kBytes>::take(row + c), row + c);
    for (int c = whole; c < classes; ++c) f(Piece<T, sizeof(T)>::take(row + c), row + c);
  }
  template <class F>
  HVD_METHOD void walk(F&& f) const {
    // Bits, of which one is set: equalities would become a jump through a table.
    if (piece & 16) return walk_by<16>(f);
    if (piece & 8) return walk_by<8>(f);
    if (piece & 4 || sizeof(T) == 4) return walk_by<4>(f);
    if constexpr (sizeof(T) == 2) walk_by<2>(f);
  }

  HVD_METHOD float take_target(int column) const {
    if (column < 0) return -INFINITY;
    const float zy = to_float(row[column]);
    row[column] = from_float<T>(-INFINITY);
    return zy;
  }
  HVD_METHOD Part sums(float zy) const {
    Part part{-INFINITY, 0.0f, 0.0f, zy};
    uint32_t top = nothing_word<T>();
    walk([&](const auto& piece, T*) {
      HVD_UNROLL
      for (uint32_t word : piece.word) top = word_max<T>(top, word);
    });
    part.m = largest_in<T>(top);
    const Exponential e = exponential(part.m);
    Sums4 sums;
    walk([&](const auto& piece, T*) {
      HVD_UNROLL
      for (int i = 0; i < piece.kElements; ++i) sums.add(i, raised(piece.at(i), e));
      if (piece.kElements < 4) sums.rotate(piece.kElements);
    });
    sums.into(part, e);
    show_nan(part);
    return part;
  }
  template <class F>
  HVD_METHOD void visit(F&& f) const {
    for (int c = 0; c < classes; ++c) f(c, to_float(row[c]));
  }
  template <class F>
  HVD_METHOD void rewrite(T*, bool, F&& f) const {  // in the tile
    walk([&](const auto& piece, T* place) {
      auto g = piece;
      Pack<T> pack;
      const int column = static_cast<int>(place - row);
      HVD_UNROLL
      for (int i = 0; i < piece.kElements; ++i) pack.x[i] = f(column + i, piece.at(i));
      pack_words<T, piece.kElements>(pack, g.word);
      g.put(place);
    });
  }
  HVD_METHOD void put(T*, int column, float g) const { row[column] = from_float<T>(g); }

  // The row as it lies in the tile to one that lies otherwise: by vectors if both begin at one.
  HVD_METHOD void write(T* to) const {
    constexpr int kElements = Pack<T>::kElements;
    const bool vectors = piece == kVectorBytes && misalignment(to) == 0;
    const int whole = vectors ? classes / kElements * kElements : 0;
    for (int c = 0; c < whole; c += kElements)
      machine::store_vector(to + c, *reinterpret_cast<const Vector*>(row + c));
    for (int c = whole; c < classes; ++c) machine::store(to + c, row[c]);
  }
};

template <class T, bool kSpread>
HVD_KERNEL(kPackedThreads, (kSpread ? 512 : 1024) / kPackedThreads)
packed(const Job job, int rows_a_block) {
  const int threads = machine::block_threads(), thread = machine::thread_index();
  const int64_t first = machine::block_index() * rows_a_block;
  const int64_t left = job.rows - first;
  const int rows = left < rows_a_block ? static_cast<int>(left) : rows_a_block;
  const bool hard = !(kSpread && soft(job));
  // Asked for before the rows are, so as not to be waited for behind them.
  const int64_t early_label = hard && thread < rows ? label_of(job, first + thread) : 0;

  const T* logits = static_cast<const T*>(job.logits) + row_begin(first, job.row_stride);
  const Tile<T> tile(machine::shared_memory(), logits, job.row_stride, rows, job.classes);
  tile.each([&](int at, unsigned char* to) { machine::copy_vector(to, logits + at); },
            [&](int at, unsigned char* to) {
              *reinterpret_cast<T*>(to) = machine::load(logits + at);
            });
  machine::copies_done();
  machine::block_sync();

  T* grad = static_cast<T*>(job.grad) + row_begin(first, job.grad_row_stride);
  const bool apart = job.grad && (job.row_stride != job.classes ||
                                  job.grad_row_stride != job.classes ||
                                  misalignment(grad) != tile.misaligned);
  for (int r = thread; r < rows; r += threads) {
    const int64_t row = first + r;
    Single team;
    const PackedView<T> view{tile.row(r), job.classes, tile.piece};
    Label label{-1, early_label};
    if (hard && r != thread) label.value = label_of(job, row);
    label.column = hard ? column_of(job, label.value) : find_soft_target(job, row, team);
    Part part = Part::empty();
    if (job.sums_use == Sums::given)
      part = given_sums(job, row);
    else
      part = view.sums(view.take_target(label.column));
    conclude<T, kSpread>(job, row, true, label, view, team, part);
    if (apart) view.write(grad + row_begin(r, job.grad_row_stride));
  }
  if (!job.grad || apart) return;
  machine::block_sync();
  tile.each(
      [&](int at, unsigned char* from) {
        machine::store_vector(grad + at, *reinterpret_cast<const Vector*>(from));
      },
      [&](int at, unsigned char* from) {
        machine::store(grad + at, *reinterpret_cast<const T*>(from));
      });
}

}  // namespace cuda
}  // namespace hvdfilter
