// Rows of any width: one block walks a row in chunks with a running maximum. `score` reads the
// logits once; a gradient needs a second read, which the L2 serves while the row still lies there.
#pragma once

#include "resident.cuh"

namespace hvdfilter {
namespace cuda {

// The row, read again from memory each time, a chunk of vectors at a time.
template <class T, int kThreads, int kSlots>
struct StreamingView {
  static constexpr int kElements = Pack<T>::kElements;
  static constexpr int kStep = kThreads * kSlots;
  using Chunk = Vector[kSlots];

  const T* logits;
  Span span;
  int elements;
  int thread;
  int target;  // its column, or -1; its logit is passed over

  HVD_METHOD void load_chunk(int first, Chunk& chunk) const {
    const int mine = first + thread;
    const T* place = logits + static_cast<unsigned>(vector_element(span, mine, kElements));
    if (first + kStep <= span.vectors) {
      HVD_UNROLL
      for (int k = 0; k < kSlots; ++k)
        chunk[k] = machine::load_vector(place + k * kThreads * kElements);
      return;
    }
    HVD_UNROLL
    for (int k = 0; k < kSlots; ++k)
      chunk[k] = mine + k * kThreads < span.vectors
                     ? machine::load_vector(place + k * kThreads * kElements)
                     : nothing<T>();
  }

  // Calls f(first vector, chunk) for each of this thread's chunks; the next one is on its way.
  template <class F>
  HVD_METHOD void each_chunk(F&& f) const {
    Chunk next;
    load_chunk(0, next);
    for (int first = 0; first < span.vectors; first += kStep) {
      Chunk chunk;
      HVD_UNROLL
      for (int k = 0; k < kSlots; ++k) chunk[k] = next[k];
      if (first + kStep < span.vectors) load_chunk(first + kStep, next);
      f(first, chunk);
    }
  }
  template <class F>
  HVD_METHOD void each_edge(F&& f) const {
    if (thread >= edge_count(span)) return;
    const int column = edge_element(span, elements, thread);
    f(column, to_float(machine::load(logits + column)));
  }

  // Running sums on this thread's own base; the target goes to zy.
  HVD_METHOD void add(Part& part) const {
    const unsigned behind_head = static_cast<unsigned>(target - span.head);  // huge if before it
    const int vector = static_cast<int>(behind_head / kElements);
    each_chunk([&](int first, Chunk& chunk) {
      const int slot = vector - first - thread;
      if (slot >= 0 && slot < kStep && slot % kThreads == 0 && vector < span.vectors) {
        HVD_UNROLL
        for (int k = 0; k < kSlots; ++k)
          if (slot == k * kThreads) part.zy = take<T>(chunk[k], behind_head % kElements);
      }
      rebase(part, fmaxf(part.m, largest_of<T>(chunk)));
      const Exponential e = exponential(part.m);
      // The chunk's own sums first: a chain of additions as long as the row would lose digits.
      Sums4 sums;
      add_vector<T, true>(chunk[0], e, sums);
      HVD_UNROLL
      for (int k = 1; k < kSlots; ++k)
        if (first + k * kThreads < span.vectors) add_vector<T, false>(chunk[k], e, sums);
      Part mine = part;
      sums.into(mine, e);
      part.t1 += mine.t1;
      part.t2 += mine.t2;
    });
    each_edge([&](int column, float z) {
      if (column == target) {
        part.zy = z;
        return;
      }
      rebase(part, fmaxf(part.m, z));
      const float e = exp_above(z, base(part.m));
      part.t1 += e;
      part.t2 += e * e;
    });
  }

  template <class F>
  HVD_METHOD void visit(F&& f) const {
    each_chunk([&](int first, const Chunk& chunk) {
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
    each_edge(f);
  }

  template <class F>
  HVD_METHOD void rewrite(T* grad, bool aligned, F&& f) const {
    each_chunk([&](int first, const Chunk& chunk) {
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
    each_edge([&](int column, float z) {
      machine::store(grad + column, from_float<T>(f(column, z)));
    });
  }

  HVD_METHOD void put(T* grad, int place, float g) const {
    if (thread == place_of(span, elements, place, kThreads, kElements).thread)
      machine::store(grad + place, from_float<T>(g));
  }
};

template <class T, bool kSpread>
HVD_KERNEL(kStreamingThreads, (kSpread ? 512 : 1024) / kStreamingThreads)
streaming(const Job job) {
  constexpr int kThreads = kStreamingThreads;
  constexpr int kElements = Pack<T>::kElements;
  Team<kThreads, kThreads, false> team(machine::shared_memory(), 1);
  const int64_t row = machine::block_index();
  const T* logits = static_cast<const T*>(job.logits) + row_begin(row, job.row_stride);
  Label label{-1, 0};
  if (kSpread && soft(job)) {
    label.column = find_soft_target(job, row, team);
  } else {
    label.value = label_of(job, row);
    label.column = column_of(job, label.value);
  }

  StreamingView<T, kThreads, kStreamingSlots> view;
  view.logits = logits;
  view.elements = job.classes;
  view.span = cut(misalignment(logits), job.classes, sizeof(T));
  view.thread = team.thread();
  view.target = label.column;

  Part part = Part::empty();
  if (job.sums_use != Sums::given) {
    view.add(part);
    rebase(part, team.warp_max(part.m));
    part = team.template combine<kSpread>(
        part, place_of(view.span, view.elements, label.column, kThreads, kElements).thread);
  } else {
    part = given_sums(job, row);
  }
  conclude<T, kSpread>(job, row, true, label, view, team, part);
}

}  // namespace cuda
}  // namespace hvdfilter
