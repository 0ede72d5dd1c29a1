// Rows of at most 32 classes that lie one behind the other: a block loads kPackedRows of them as
// one run of 16-byte vectors, whatever their width, and each thread walks one row in shared memory.
// Every byte fetched is used, no lane idles for want of classes, and no shuffle is needed.
#pragma once

#include "resident.cuh"

namespace hvdfilter {
namespace cuda {

// One thread is the whole team.
class Single {
 public:
  HVD_METHOD int thread() const { return 0; }
  HVD_METHOD int threads() const { return 1; }
  HVD_METHOD bool leads() const { return true; }
  HVD_METHOD bool writes() const { return true; }
  HVD_METHOD Largest largest(Largest mine) const { return mine; }
  HVD_METHOD Pair sum(Pair mine) const { return mine; }
  HVD_METHOD Verdict spread_word(const Verdict& verdict) const { return verdict; }
};

// A row in the staged tile, its first element at `first`.
struct PackedView {
  float* tile;
  int first;
  int classes;

  HVD_METHOD float& at(int column) const { return tile[padded(first + column)]; }

  HVD_METHOD float take_target(int column) const {
    if (column < 0) return -INFINITY;
    const float zy = at(column);
    at(column) = -INFINITY;
    return zy;
  }
  HVD_METHOD Part sums() const {
    Part part{-INFINITY, 0.0f, 0.0f, 0.0f};
    for (int c = 0; c < classes; ++c) part.m = fmaxf(part.m, at(c));
    const float b = base(part.m);
    for (int c = 0; c < classes; ++c) {
      const float e = exp_above(at(c), b);
      part.t1 += e;
      part.t2 += e * e;
    }
    return part;
  }
  template <class F>
  HVD_METHOD void visit(F&& f) const {
    for (int c = 0; c < classes; ++c) f(c, at(c));
  }
  template <class F>
  HVD_METHOD void rewrite(F&& f) const {
    for (int c = 0; c < classes; ++c) at(c) = f(c, at(c));
  }
  HVD_METHOD void put(int column, float g) const { at(column) = g; }
};

template <class T>
HVD_DEVICE void stage(const T* from, int elements, float* tile) {
  constexpr int kElements = Pack<T>::kElements;
  const Span span = cut(misalignment(from), elements, sizeof(T));
  for (int vector = machine::thread_index(); vector < span.vectors; vector += kPackedRows) {
    const int first = vector_element(span, vector, kElements);
    Pack<T> pack;
    unpack(machine::load_vector(from + first), pack);
    HVD_UNROLL
    for (int i = 0; i < kElements; ++i) tile[padded(first + i)] = pack.x[i];
  }
  const int edge = machine::thread_index();  // there are fewer edges than threads
  if (edge < edge_count(span)) {
    const int at = edge_element(span, elements, edge);
    tile[padded(at)] = to_float(machine::load(from + at));
  }
}

template <class T>
HVD_DEVICE void unstage(const float* tile, int elements, T* to) {
  constexpr int kElements = Pack<T>::kElements;
  const Span span = cut(misalignment(to), elements, sizeof(T));
  for (int vector = machine::thread_index(); vector < span.vectors; vector += kPackedRows) {
    const int first = vector_element(span, vector, kElements);
    Pack<T> pack;
    HVD_UNROLL
    for (int i = 0; i < kElements; ++i) pack.x[i] = tile[padded(first + i)];
    machine::store_vector(to + first, packed_vector(pack));
  }
  const int edge = machine::thread_index();
  if (edge < edge_count(span)) {
    const int at = edge_element(span, elements, edge);
    machine::store(to + at, from_float<T>(tile[padded(at)]));
  }
}

// Gradient rows that lie apart, or not at all like the logits: each thread writes its own.
template <class T>
HVD_DEVICE void write_row(const PackedView& view, T* to) {
  for (int c = 0; c < view.classes; ++c) machine::store(to + c, from_float<T>(view.at(c)));
}

template <class T, bool kSpread>
HVD_KERNEL(kPackedRows, 1024 / kPackedRows) packed(const Job job) {
  float* tile = reinterpret_cast<float*>(machine::shared_memory());
  const int64_t first = machine::block_index() * kPackedRows;
  const int64_t left = job.rows - first;
  const int rows = left < kPackedRows ? static_cast<int>(left) : kPackedRows;
  const int64_t row = first + machine::thread_index();
  const bool live = machine::thread_index() < rows;
  stage(static_cast<const T*>(job.logits) + first * job.classes, rows * job.classes, tile);
  Label label = read_label(job, row, live);
  machine::block_sync();

  if (live) {
    Single team;
    const PackedView view{tile, machine::thread_index() * job.classes, job.classes};
    if (kSpread && soft(job)) find_soft_target(job, row, live, team, label);
    const float zy = view.take_target(label.column);
    Part part = view.sums();
    if (kSpread && soft(job)) part.rest = share_of_rest(job, row, live, team, label);
    conclude<kSpread>(job, row, live, label, view, team, part, zy);
    if (job.grad && job.grad_row_stride != job.classes)
      write_row(view, static_cast<T*>(job.grad) + row * job.grad_row_stride);
  }
  if (!job.grad || job.grad_row_stride != job.classes) return;
  machine::block_sync();
  unstage(tile, rows * job.classes, static_cast<T*>(job.grad) + first * job.classes);
}

}  // namespace cuda
}  // namespace hvdfilter
