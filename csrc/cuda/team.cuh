// The threads that share one row, and how they agree: a butterfly of shuffles inside a warp, one
// exchange through shared memory between warps, distributed shared memory between the blocks of a
// cluster. Every sum is added in an order fixed by the mapping, so its bits never change.
#pragma once

#include "row.cuh"

namespace hvdfilter {
namespace cuda {

struct Pair {
  double a, b;
};

// kThreads of a block of kBlockThreads work on one row; with kCluster, every block of the cluster.
template <int kThreads, int kBlockThreads, bool kCluster>
class Team {
 public:
  static constexpr int kLanes = kThreads < 32 ? kThreads : 32;
  static constexpr int kWarps = kThreads / kLanes;
  static constexpr int kRows = kBlockThreads / kThreads;
  static constexpr int kParts = kWarps * (kCluster ? kClusterBlocks : 1);
  static constexpr bool kAlone = kParts == 1;  // one warp, or less, has the row: no shared memory

  // What warps tell each other about one row. Each field is written once in a kernel, so that one
  // barrier separates its writing from its reading and none is needed behind.
  struct Board {
    Part part[kParts];
    Pair pair[kParts];
    Largest largest[kParts];
    float target;
    Verdict verdict;
  };
  static constexpr int kSharedBytes = kAlone ? 0 : int(sizeof(Board)) * kRows;

  // `blocks`: blocks in the cluster, a power of two; 1 without.
  HVD_METHOD Team(unsigned char* shared, int blocks)
      : board_(reinterpret_cast<Board*>(shared) + machine::thread_index() / kThreads),
        blocks_(kCluster ? blocks : 1),
        rank_(kCluster ? static_cast<int>(machine::block_index() & (blocks - 1)) : 0),
        local_(machine::thread_index() % kThreads) {
    // No block may write to another's shared memory before that one has started.
    if (kCluster) machine::cluster_arrive();
  }

  // Known to the compiler but for clusters.
  HVD_METHOD int threads() const { return kCluster ? kThreads * blocks_ : kThreads; }
  HVD_METHOD int thread() const { return kCluster ? rank_ * kThreads + local_ : local_; }
  // Whether this thread may finish the row: those of one warp in each block, all alike.
  HVD_METHOD bool leads() const { return kAlone || local_ < kLanes; }
  HVD_METHOD bool writes() const { return thread() == 0; }

  // Once, by every thread, between the loads and the first word to another.
  HVD_METHOD void ready() const {
    if (kCluster) machine::cluster_wait();
  }

  // Largest value among the lanes that share the row, in all of them.
  HVD_METHOD float lanes_max(float x) const {
    HVD_UNROLL
    for (int mask = kLanes / 2; mask > 0; mask /= 2) x = fmaxf(x, machine::shuffle_xor(x, mask));
    return x;
  }
  template <class V>
  HVD_METHOD V lanes_sum(V x) const {
    HVD_UNROLL
    for (int mask = kLanes / 2; mask > 0; mask /= 2) x += machine::shuffle_xor(x, mask);
    return x;
  }

  // The logit of the target, from the thread that holds it to all. `holder`: its number.
  // Between give() and taken() lies combine().
  HVD_METHOD void give(float zy, int holder) {
    if constexpr (!kAlone)
      for (int block = 0; holder == thread() && block < blocks_; ++block)
        *peer(&board_->target, block) = zy;
  }
  HVD_METHOD float taken(float zy, int holder) const {
    if (holder < 0 && !kAlone) return -INFINITY;
    if (!kAlone) return board_->target;
    const int lane = machine::thread_index() % 32;
    const float held = machine::shuffle(zy, lane - lane % kLanes + (holder < 0 ? 0 : holder));
    return holder < 0 ? -INFINITY : held;
  }

  // The sums of the row from those of its threads. t1, t2 stand on the base of m, which is the same
  // in all lanes of a warp.
  HVD_METHOD Part combine(Part mine, bool with_rest) {
    mine.t1 = lanes_sum(mine.t1);
    mine.t2 = lanes_sum(mine.t2);
    if (with_rest) mine.rest = lanes_sum(mine.rest);
    if (kAlone) return mine;
    publish(board_->part, mine);
    Part some{-INFINITY, 0.0f, 0.0f, 0.0f};
    for (int i = lane(); i < kWarps * blocks_; i += 32) {
      const Part next = board_->part[i];
      const float m = fmaxf(some.m, next.m);
      rebase(some, m);
      const float shrink = exp_above(next.m, base(m));
      some.t1 += next.t1 * shrink;
      some.t2 += next.t2 * (shrink * shrink);
      some.rest += next.rest;
    }
    rebase(some, warp_max(some.m));
    some.t1 = warp_sum(some.t1);
    some.t2 = warp_sum(some.t2);
    if (with_rest) some.rest = warp_sum(some.rest);
    return some;
  }

  HVD_METHOD Pair sum(Pair mine) {
    mine.a = lanes_sum(mine.a);
    mine.b = lanes_sum(mine.b);
    if (kAlone) return mine;
    publish(board_->pair, mine);
    Pair some{0.0, 0.0};
    for (int i = lane(); i < kWarps * blocks_; i += 32) {
      some.a += board_->pair[i].a;
      some.b += board_->pair[i].b;
    }
    return Pair{warp_sum(some.a), warp_sum(some.b)};
  }

  HVD_METHOD Largest largest(Largest mine) {
    HVD_UNROLL
    for (int mask = kLanes / 2; mask > 0; mask /= 2)
      mine = larger(mine, Largest{machine::shuffle_xor(mine.value, mask),
                                  machine::shuffle_xor(mine.column, mask)});
    if (kAlone) return mine;
    publish(board_->largest, mine);
    for (int i = 0; i < kWarps * blocks_; ++i) mine = larger(mine, board_->largest[i]);
    return mine;
  }

  // From the leading warp of each block to the block.
  HVD_METHOD Verdict spread_word(const Verdict& verdict) {
    if (kAlone) return verdict;
    if (local_ == 0) board_->verdict = verdict;
    machine::block_sync();
    return board_->verdict;
  }

 private:
  HVD_METHOD int lane() const { return machine::thread_index() % 32; }

  HVD_METHOD static float warp_max(float x) {
    HVD_UNROLL
    for (int mask = 16; mask > 0; mask /= 2) x = fmaxf(x, machine::shuffle_xor(x, mask));
    return x;
  }
  template <class V>
  HVD_METHOD static V warp_sum(V x) {
    HVD_UNROLL
    for (int mask = 16; mask > 0; mask /= 2) x += machine::shuffle_xor(x, mask);
    return x;
  }

  template <class V>
  HVD_METHOD V* peer(V* place, int block) const {
    return kCluster ? machine::in_block(place, block) : place;
  }

  // Puts this warp's word on the board of every block of the row, and waits for all warps' words.
  template <class V>
  HVD_METHOD void publish(V* board, const V& word) {
    const int place = rank_ * kWarps + local_ / 32;
    if (lane() < blocks_) *peer(board + place, lane()) = word;
    if (kCluster) {
      machine::cluster_arrive();
      machine::cluster_wait();
    } else {
      machine::block_sync();
    }
  }

  Board* board_;
  int blocks_;
  int rank_;
  int local_;
};

}  // namespace cuda
}  // namespace hvdfilter
