// Rows that fit in registers: one warp to eight blocks of 512 threads share one, each reading 16
// bytes at a time. The logits are read once, whatever is asked for; the gradient is written from
// registers.
#pragma once

#include "conclude.cuh"

namespace hvdfilter {
namespace cuda {

// Running sums of exponentials. Neighbours go to different ones, so that no chain of additions is
// longer than a quarter of what a thread adds up: it would lose digits, and wait.
struct Sums4 {
  float t1[4] = {0.0f, 0.0f, 0.0f, 0.0f};
  float t2[4] = {0.0f, 0.0f, 0.0f, 0.0f};

  HVD_METHOD void begin(int i, float e) {
    t1[i] = e;
    t2[i] = e * e;
  }
  HVD_METHOD void add(int i, float e) {
    t1[i % 4] += e;
    t2[i % 4] = machine::fma(e, e, t2[i % 4]);
  }
  // Makes number `by` the first, for what comes in runs of fewer than four.
  HVD_METHOD void rotate(int by) {
    HVD_UNROLL
    for (int turn = 0; turn < by; ++turn) {
      const float first1 = t1[0], first2 = t2[0];
      HVD_UNROLL
      for (int i = 0; i < 3; ++i) t1[i] = t1[i + 1], t2[i] = t2[i + 1];
      t1[3] = first1, t2[3] = first2;
    }
  }
  HVD_METHOD void into(Part& part, const Exponential& e) const {
    part.t1 = (t1[0] + t1[1]) + (t1[2] + t1[3]);
    part.t2 = (t2[0] + t2[1]) + (t2[2] + t2[3]);
    fix(part, e);
  }
};

// kFirst: nothing has been added yet.
template <class T, bool kFirst>
HVD_DEVICE void add_vector(const Vector& v, const Exponential& e, Sums4& sums) {
  Pack<T> z;
  unpack(v, z);
  HVD_UNROLL
  for (int i = 0; i < Pack<T>::kElements; ++i) {
    if (kFirst && i < 4)
      sums.begin(i, raised(z.x[i], e));
    else
      sums.add(i, raised(z.x[i], e));
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

// What one thread holds of a run of columns that kThreads share, and kFull slots of which each of
// them fills. A column is counted from the begin of the run.
template <class T, int kThreads, int kSlots, int kFull>
struct ResidentView {
  static constexpr int kElements = Pack<T>::kElements;

  Vector slot[kSlots];
  float edge;
  Span span;
  int elements;
  int thread;
  int first;     // column of the row at which the run begins

  HVD_METHOD bool fills(int k) const {
    return k < kFull || slot_vector(k, thread, kThreads) < span.vectors;
  }
  // Slots that no thread fills are skipped: -inf would add 0, but not for free. The first that is
  // not full of itself nearly always holds something, and is not asked.
  HVD_METHOD bool used(int k) const { return k <= kFull || k * kThreads < span.vectors; }

  // One address and a distance known to the compiler, rather than an address held for each slot.
  template <class Element>
  HVD_METHOD Element* place(Element* run, int k) const {
    return run + static_cast<unsigned>(vector_element(span, thread, kElements)) +
           slot_vector(k, 0, kThreads) * kElements;
  }
  HVD_METHOD bool has_edge() const { return thread < edge_count(span); }
  HVD_METHOD int edge_column() const { return edge_element(span, elements, thread); }

  HVD_METHOD void read(const T* run) {
    HVD_UNROLL
    for (int k = 0; k < kSlots; ++k)
      slot[k] = fills(k) ? machine::load_vector(place(run, k)) : nothing<T>();
    edge = -INFINITY;
    // Once or never; as a loop, since a condition would be worked out for rows without edges, too.
    for (int at = thread; at < edge_count(span); at += kThreads)
      edge = to_float(machine::load(run + edge_element(span, elements, at)));
  }

  // The logit at a place of this thread's, which becomes -inf here.
  HVD_METHOD float take_target(const Place& place) {
    float zy = 0.0f;
    if (place.slot < 0) {
      zy = edge;
      edge = -INFINITY;
    }
    HVD_UNROLL
    for (int k = 0; k < kSlots; ++k)
      if (place.slot == k) zy = take<T>(slot[k], place.at);
    return zy;
  }

  HVD_METHOD float maximum() const { return fmaxf(largest_of<T>(slot), edge); }

  HVD_METHOD void add(Part& part) const {
    const Exponential e = exponential(part.m);
    Sums4 sums;
    add_vector<T, true>(slot[0], e, sums);
    HVD_UNROLL
    for (int k = 1; k < kSlots; ++k)
      if (used(k)) add_vector<T, false>(slot[k], e, sums);
    if (edge_count(span) > 0) sums.add(0, raised(edge, e));
    sums.into(part, e);
  }

  // f(column of the row, z) of each element this thread holds, the target's z being -inf.
  template <class F>
  HVD_METHOD void visit(F&& f) const {
    HVD_UNROLL
    for (int k = 0; k < kSlots; ++k) {
      if (!fills(k)) continue;
      const int at = first + vector_element(span, slot_vector(k, thread, kThreads), kElements);
      Pack<T> pack;
      unpack(slot[k], pack);
      HVD_UNROLL
      for (int i = 0; i < kElements; ++i) f(at + i, pack.x[i]);
    }
    if (has_edge()) f(first + edge_column(), edge);
  }

  // Writes the gradient f(column of the row, z) of each, which is free to lie over the logits, to a
  // row of it that is `aligned` where its 16-byte boundaries are the logits'.
  template <class F>
  HVD_METHOD void rewrite(T* row, bool aligned, F&& f) const {
    T* grad = row + first;
    HVD_UNROLL
    for (int k = 0; k < kSlots; ++k) {
      if (!fills(k)) continue;
      const int at = first + vector_element(span, slot_vector(k, thread, kThreads), kElements);
      Pack<T> pack;
      unpack(slot[k], pack);
      HVD_UNROLL
      for (int i = 0; i < kElements; ++i) pack.x[i] = f(at + i, pack.x[i]);
      write_pack(place(grad, k), pack, aligned);
    }
    if (has_edge())
      machine::store(grad + edge_column(), from_float<T>(f(first + edge_column(), edge)));
  }

  // By the thread that wrote a wrong number there just before, so in this order.
  HVD_METHOD void put(T* row, int column, float g) const {
    const int at = column - first;
    if (at >= 0 && at < elements &&
        thread == place_of(span, elements, at, kThreads, kElements).thread)
      machine::store(row + column, from_float<T>(g));
  }
};

template <class T, int kThreads, int kSlots, int kFull, int kBlockThreads, bool kCluster,
          bool kSpread>
HVD_KERNEL(kBlockThreads, blocks_wanted(kSlots, kBlockThreads, kSpread))
resident(const Job job, int log_blocks) {
  constexpr int kElements = Pack<T>::kElements;
  Team<kThreads, kBlockThreads, kCluster> team(machine::shared_memory(), 1 << log_blocks);
  const unsigned block =
      static_cast<unsigned>(machine::block_index()) >> (kCluster ? log_blocks : 0);
  // The last block may have rows to spare: their threads read the last row again and write nothing.
  const unsigned wanted = block * team.kRows + team.row_in_block(), rows = unsigned(job.rows);
  const bool live = team.kRows == 1 || wanted < rows;
  const unsigned row = live ? wanted : rows - 1;
  Label label{-1, 0};
  if (!(kSpread && soft(job))) label.value = label_of(job, row);

  ResidentView<T, kThreads, kSlots, kFull> view;
  view.elements = job.classes;
  const T* logits = static_cast<const T*>(job.logits) + row_begin(row, job.row_stride);
  view.span = cut(misalignment(logits), view.elements, sizeof(T));
  view.thread = team.local();
  view.first = 0;
  if (kCluster) {
    // A block has whole vectors of the row; the first has its head, too, and the last its tail.
    const Share share = share_of(view.span.vectors, team.rank(), log_blocks);
    const bool last = team.rank() == team.blocks() - 1;
    if (team.rank() > 0) view.first = view.span.head + share.first * kElements;
    view.span = Span{team.rank() > 0 ? 0 : view.span.head, share.vectors,
                     last ? view.span.tail : 0};
    view.elements = edge_count(view.span) + share.vectors * kElements;
  }
  const T* run = logits + view.first;
  view.read(run);

  if (kSpread && soft(job))
    label.column = -1;
  else
    label.column = column_of(job, label.value);
  team.ready();
  if (kSpread && soft(job)) label.column = find_soft_target(job, row, team);

  Part part = Part::empty();
  if (job.sums_use != Sums::given) {
    const int at = label.column - view.first;
    const bool here = !kCluster || (label.column >= 0 && at >= 0 && at < view.elements);
    const Place target = place_of(view.span, view.elements, here ? at : -1, kThreads, kElements);
    if (target.thread == view.thread) part.zy = view.take_target(target);
    part.m = team.warp_max(view.maximum());
    view.add(part);
    part = team.template combine<kSpread>(part, target.thread);
  } else {
    part = given_sums(job, row);
  }
  conclude<T, kSpread>(job, row, live, label, view, team, part);
}

}  // namespace cuda
}  // namespace hvdfilter
