// Rows of any width: one block walks a row in chunks with a running maximum. `score` reads the
// logits once; a gradient needs a second read, which the L2 serves while the row still lies there.
// Also the rows whose sums are known beforehand, of which only the gradient is asked for.
#pragma once

#include "resident.cuh"

namespace hvdfilter {
namespace cuda {

// The row, read again from memory each time. A chunk goes through registers as a ResidentView.
template <class T, int kThreads, int kSlots>
struct StreamingView {
  static constexpr int kElements = Pack<T>::kElements;

  const T* logits;
  Span span;
  int elements;
  int thread;
  int column;  // of the target, whose logit is passed over
  T* grad;
  bool aligned;

  // Calls f(first element, vector) for each of this thread's vectors, kSlots loads in flight.
  template <class F>
  HVD_METHOD void each_chunk(F&& f) const {
    for (int first = 0; first < span.vectors; first += kThreads * kSlots) {
      Vector chunk[kSlots];
      HVD_UNROLL
      for (int k = 0; k < kSlots; ++k) {
        const int vector = first + slot_vector(k, thread, kThreads);
        chunk[k] = vector < span.vectors
                       ? machine::load_vector(logits + vector_element(span, vector, kElements))
                       : nothing<T>();
      }
      f(first, chunk);
    }
  }

  // Running sums on this thread's own base; the target goes to zy.
  HVD_METHOD void add(Part& part, float& zy) const {
    each_chunk([&](int first, Vector (&chunk)[kSlots]) {
      HVD_UNROLL
      for (int k = 0; k < kSlots; ++k) {
        const int vector = first + slot_vector(k, thread, kThreads);
        const int at = column - vector_element(span, vector, kElements);
        if (vector < span.vectors && at >= 0 && at < kElements) zy = take<T>(chunk[k], at);
      }
      const float m = fmaxf(part.m, largest_of<T>(chunk));
      rebase(part, m);
      // The chunk's own sums first: a chain of additions as long as the row would lose digits.
      float t1 = 0.0f, t2 = 0.0f;
      HVD_UNROLL
      for (int k = 0; k < kSlots; ++k) add_vector<T>(chunk[k], base(m), t1, t2);
      part.t1 += t1;
      part.t2 += t2;
    });
    for (int at = thread; at < edge_count(span); at += kThreads) {
      const int place = edge_element(span, elements, at);
      const float z = to_float(machine::load(logits + place));
      if (place == column) {
        zy = z;
        continue;
      }
      rebase(part, fmaxf(part.m, z));
      const float e = exp_above(z, base(part.m));
      part.t1 += e;
      part.t2 += e * e;
    }
  }

  template <class F>
  HVD_METHOD void visit(F&& f) const {
    each_chunk([&](int first, const Vector (&chunk)[kSlots]) {
      HVD_UNROLL
      for (int k = 0; k < kSlots; ++k) {
        const int vector = first + slot_vector(k, thread, kThreads);
        if (vector >= span.vectors) continue;
        Pack<T> pack;
        unpack(chunk[k], pack);
        HVD_UNROLL
        for (int i = 0; i < kElements; ++i)
          f(vector_element(span, vector, kElements) + i, pack.x[i]);
      }
    });
    for (int at = thread; at < edge_count(span); at += kThreads) {
      const int place = edge_element(span, elements, at);
      f(place, to_float(machine::load(logits + place)));
    }
  }

  template <class F>
  HVD_METHOD void rewrite(F&& f) const {
    each_chunk([&](int first, const Vector (&chunk)[kSlots]) {
      HVD_UNROLL
      for (int k = 0; k < kSlots; ++k) {
        const int vector = first + slot_vector(k, thread, kThreads);
        if (vector >= span.vectors) continue;
        const int place = vector_element(span, vector, kElements);
        Pack<T> pack;
        unpack(chunk[k], pack);
        HVD_UNROLL
        for (int i = 0; i < kElements; ++i) pack.x[i] = f(place + i, pack.x[i]);
        write_pack(grad + place, pack, aligned);
      }
    });
    for (int at = thread; at < edge_count(span); at += kThreads) {
      const int place = edge_element(span, elements, at);
      const float z = to_float(machine::load(logits + place));
      machine::store(grad + place, from_float<T>(f(place, z)));
    }
  }

  HVD_METHOD void put(int place, float g) const {
    if (thread == owner(span, elements, place, kThreads, kElements))
      machine::store(grad + place, from_float<T>(g));
  }
};

template <class T, bool kSpread>
HVD_KERNEL(kStreamingThreads, 1024 / kStreamingThreads) streaming(const Job job) {
  constexpr int kThreads = kStreamingThreads;
  constexpr int kElements = Pack<T>::kElements;
  using RowTeam = Team<kThreads, kThreads, false>;
  RowTeam team(machine::shared_memory(), 1);
  const int64_t row = machine::block_index();
  const T* logits = static_cast<const T*>(job.logits) + row * job.row_stride;
  Label label = read_label(job, row, true);
  if (kSpread && soft(job)) find_soft_target(job, row, true, team, label);

  StreamingView<T, kThreads, kStreamingSlots> view;
  view.logits = logits;
  view.elements = job.classes;
  view.span = cut(misalignment(logits), job.classes, sizeof(T));
  view.thread = team.thread();
  view.column = label.column;
  view.grad = static_cast<T*>(job.grad) + row * job.grad_row_stride;
  view.aligned = misalignment(view.grad) == misalignment(logits);

  Part part{-INFINITY, 0.0f, 0.0f, 0.0f};
  float zy = -INFINITY;
  if (job.sums_use != Sums::given) {
    const int holder = label.column < 0 ? -1
                                        : owner(view.span, view.elements, label.column, kThreads,
                                                kElements);
    view.add(part, zy);
    team.give(zy, holder);
    rebase(part, team.lanes_max(part.m));
    if (kSpread && soft(job)) part.rest = share_of_rest(job, row, true, team, label);
    part = team.combine(part, kSpread);
    zy = team.taken(zy, holder);
  }
  conclude<kSpread>(job, row, true, label, view, team, part, zy);
}

}  // namespace cuda
}  // namespace hvdfilter
