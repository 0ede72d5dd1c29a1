// Rows that fit in registers: 8 threads to eight blocks of 512 share one, each reading 16 bytes at
// a time. The logits are read once, whatever is asked for; the gradient is written from registers.
#pragma once

#include "conclude.cuh"

namespace hvdfilter {
namespace cuda {

// Adds the exponentials of a vector, four at a time as a tree: a long chain of additions would lose
// digits, a wider tree would need more registers.
template <class T>
HVD_DEVICE void add_vector(const Vector& v, float base, float& t1, float& t2) {
  Pack<T> z;
  unpack(v, z);
  HVD_UNROLL
  for (int i = 0; i < Pack<T>::kElements; i += 4) {
    const float a = exp_above(z.x[i], base), b = exp_above(z.x[i + 1], base);
    const float c = exp_above(z.x[i + 2], base), d = exp_above(z.x[i + 3], base);
    t1 += (a + b) + (c + d);
    t2 += (a * a + b * b) + (c * c + d * d);
  }
}

// As one store where the gradient's 16-byte boundaries are the logits', else element by element.
template <class T>
HVD_DEVICE void write_pack(T* to, const Pack<T>& pack, bool aligned) {
  if (aligned) {
    machine::store_vector(to, packed_vector(pack));
    return;
  }
  HVD_UNROLL
  for (int i = 0; i < Pack<T>::kElements; ++i) machine::store(to + i, from_float<T>(pack.x[i]));
}

// What one thread holds of a row.
template <class T, int kSlots, int kEdges>
struct ResidentView {
  static constexpr int kElements = Pack<T>::kElements;

  Vector slot[kSlots];
  float edge[kEdges];
  Span span;
  int elements;
  int thread;
  int threads;
  T* grad;       // this row's
  bool aligned;  // whether its 16-byte boundaries are the logits'

  // One address and a distance known to the compiler, rather than an address held for each slot.
  template <class Element>
  HVD_METHOD Element* place(Element* row, int k) const {
    return row + vector_element(span, thread, kElements) + slot_vector(k, 0, threads) * kElements;
  }

  HVD_METHOD void read(const T* logits) {
    HVD_UNROLL
    for (int k = 0; k < kSlots; ++k)
      slot[k] = slot_vector(k, thread, threads) < span.vectors
                    ? machine::load_vector(place(logits, k))
                    : nothing<T>();
    HVD_UNROLL
    for (int k = 0; k < kEdges; ++k) {
      const int at = slot_vector(k, thread, threads);
      edge[k] = at < edge_count(span)
                    ? to_float(machine::load(logits + edge_element(span, elements, at)))
                    : -INFINITY;
    }
  }

  // The logit of `column`, which becomes -inf here; for the thread that holds it.
  HVD_METHOD float take_target(int column) {
    float zy = 0.0f;
    HVD_UNROLL
    for (int k = 0; k < kSlots; ++k) {
      const int vector = slot_vector(k, thread, threads);
      const int at = column - vector_element(span, vector, kElements);
      if (vector < span.vectors && at >= 0 && at < kElements) zy = take<T>(slot[k], at);
    }
    HVD_UNROLL
    for (int k = 0; k < kEdges; ++k) {
      const int at = slot_vector(k, thread, threads);
      if (at < edge_count(span) && edge_element(span, elements, at) == column) {
        zy = edge[k];
        edge[k] = -INFINITY;
      }
    }
    return zy;
  }

  HVD_METHOD float maximum() const {
    float m = largest_of<T>(slot);
    HVD_UNROLL
    for (int k = 0; k < kEdges; ++k) m = fmaxf(m, edge[k]);
    return m;
  }

  // Slots that no thread of the row fills are skipped: -inf would add 0, but not for free.
  HVD_METHOD void add(Part& part) const {
    const float b = base(part.m);
    HVD_UNROLL
    for (int k = 0; k < kSlots; ++k)
      if (k * threads < span.vectors) add_vector<T>(slot[k], b, part.t1, part.t2);
    HVD_UNROLL
    for (int k = 0; k < kEdges; ++k) {
      const float e = exp_above(edge[k], b);
      part.t1 += e;
      part.t2 += e * e;
    }
  }

  template <class F>
  HVD_METHOD void visit(F&& f) const {
    HVD_UNROLL
    for (int k = 0; k < kSlots; ++k) {
      const int vector = slot_vector(k, thread, threads);
      if (vector >= span.vectors) continue;
      Pack<T> pack;
      unpack(slot[k], pack);
      HVD_UNROLL
      for (int i = 0; i < kElements; ++i)
        f(vector_element(span, vector, kElements) + i, pack.x[i]);
    }
    HVD_UNROLL
    for (int k = 0; k < kEdges; ++k) {
      const int at = slot_vector(k, thread, threads);
      if (at < edge_count(span)) f(edge_element(span, elements, at), edge[k]);
    }
  }

  template <class F>
  HVD_METHOD void rewrite(F&& f) const {
    HVD_UNROLL
    for (int k = 0; k < kSlots; ++k) {
      const int vector = slot_vector(k, thread, threads);
      if (vector >= span.vectors) continue;
      const int first = vector_element(span, vector, kElements);
      Pack<T> pack;
      unpack(slot[k], pack);
      HVD_UNROLL
      for (int i = 0; i < kElements; ++i) pack.x[i] = f(first + i, pack.x[i]);
      write_pack(place(grad, k), pack, aligned);
    }
    HVD_UNROLL
    for (int k = 0; k < kEdges; ++k) {
      const int at = slot_vector(k, thread, threads);
      if (at >= edge_count(span)) continue;
      const int column = edge_element(span, elements, at);
      machine::store(grad + column, from_float<T>(f(column, edge[k])));
    }
  }

  // By the thread that wrote a wrong number there just before, so in this order.
  HVD_METHOD void put(int column, float g) const {
    if (thread == owner(span, elements, column, threads, kElements))
      machine::store(grad + column, from_float<T>(g));
  }
};

template <class T, int kThreads, int kSlots, int kBlockThreads, bool kCluster, bool kSpread>
HVD_KERNEL(kBlockThreads, blocks_wanted(kSlots, kBlockThreads, kSpread))
resident(const Job job, int log_blocks) {
  constexpr int kElements = Pack<T>::kElements;
  Team<kThreads, kBlockThreads, kCluster> team(machine::shared_memory(), 1 << log_blocks);
  const int64_t first = kCluster ? machine::block_index() >> log_blocks : machine::block_index();
  const int64_t row = first * team.kRows + machine::thread_index() / kThreads;
  const bool live = team.kRows == 1 || row < job.rows;  // the last block may have rows to spare
  const T* logits = static_cast<const T*>(job.logits) + (live ? row * job.row_stride : 0);

  ResidentView<T, kSlots, edges_per_thread(kThreads, sizeof(T))> view;
  view.elements = live ? job.classes : 0;
  view.span = cut(misalignment(logits), view.elements, sizeof(T));
  view.thread = team.thread();
  view.threads = team.threads();
  view.read(logits);

  Label label = read_label(job, row, live);
  team.ready();
  if (kSpread && soft(job)) find_soft_target(job, row, live, team, label);
  const int holder = label.column < 0 ? -1
                                      : owner(view.span, view.elements, label.column,
                                              view.threads, kElements);
  float zy = 0.0f;
  if (holder == view.thread) zy = view.take_target(label.column);
  team.give(zy, holder);

  Part part{team.lanes_max(view.maximum()), 0.0f, 0.0f, 0.0f};
  view.add(part);
  if (kSpread && soft(job)) part.rest = share_of_rest(job, row, live, team, label);
  part = team.combine(part, kSpread);
  zy = team.taken(zy, holder);
  // Not before: what only the gradient needs should not be held in registers while sums are made.
  view.grad = static_cast<T*>(job.grad) + (live ? row * job.grad_row_stride : 0);
  view.aligned = misalignment(view.grad) == misalignment(logits);
  conclude<kSpread>(job, row, live, label, view, team, part, zy);
}

}  // namespace cuda
}  // namespace hvdfilter
