// The threads that share one row, and how they agree: a butterfly of shuffles inside a warp, one
// exchange through shared memory between warps, distributed shared memory between the blocks of a
// cluster. Every sum is added in an order fixed by the mapping, so its bits never change.
#pragma once

#include "finish.cuh"

namespace hvdfilter {
namespace cuda {

struct Pair {
  double a, b;
};

// kThreads, whole warps, of a block of kBlockThreads work on one row; with kCluster, every block of
// the cluster.
template <int kThreads, int kBlockThreads, bool kCluster>
class Team {
 public:
  static constexpr int kWarps = kThreads / 32;
  static constexpr int kRows = kBlockThreads / kThreads;
  static constexpr int kParts = kWarps * (kCluster ? kClusterBlocks : 1);
  static constexpr bool kAlone = kParts == 1;  // one warp has the row: no shared memory

  // What warps tell each other about one row. Each field is written once in a kernel, so that one
  // barrier separates its writing from its reading and none is needed behind.
  struct Board {
    Part part[kParts];
    Pair pair[2][kParts];
    Largest largest[kParts];
    Verdict verdict;
    Part whole;
  };
  static constexpr int kSharedBytes = kAlone && kRows == 1 ? 0 : int(sizeof(Board)) * kRows;

  // `blocks`: blocks in the cluster, a power of two; 1 without.
  HVD_METHOD Team(unsigned char* shared, int blocks)
      : boards_(reinterpret_cast<Board*>(shared)),
        board_(boards_ + row_in_block()),
        blocks_(kCluster ? blocks : 1),
        rank_(kCluster ? static_cast<int>(machine::block_index() & (blocks - 1)) : 0),
        local_(kRows == 1 ? machine::thread_index()
                          : machine::thread_index() % unsigned(kThreads)) {
    // No block may write to another's shared memory before that one has started.
    if (kCluster) machine::cluster_enter();
  }

  HVD_METHOD static int row_in_block() {
    return kRows == 1 ? 0 : static_cast<int>(machine::thread_index() / unsigned(kThreads));
  }
  HVD_METHOD int blocks() const { return blocks_; }
  HVD_METHOD int rank() const { return rank_; }
  HVD_METHOD int local() const { return local_; }  // among the row's threads of this block
  // Known to the compiler but for clusters.
  HVD_METHOD int threads() const { return kCluster ? kThreads * blocks_ : kThreads; }
  HVD_METHOD int thread() const { return kCluster ? rank_ * kThreads + local_ : local_; }
  // Whether this thread finishes the row: those of one warp in each block, all alike.
  HVD_METHOD bool leads() const { return kAlone || local_ < 32; }
  HVD_METHOD bool writes() const { return thread() == 0; }

  // Once, by every thread, between the loads and the first word to another.
  HVD_METHOD void ready() const {
    if (kCluster) machine::cluster_wait();
  }

  // The largest in this warp, in all its lanes.
  HVD_METHOD float warp_max(float x) const { return butterfly_max<32>(x); }

  // The sums of the row from those of its threads, in the warps that lead(); in the others, some of
  // them. m must be the same in all lanes of a warp; `holder`, of this block, has the target. A
  // warp that has the row alone gets t1 in its lower half only, unless kAllLanes.
  template <bool kAllLanes>
  HVD_METHOD Part combine(Part mine, int holder) {
    both_sums<kAllLanes>(mine.t1, mine.t2);
    mine.zy = machine::shuffle(mine.zy, holder & 31);
    if (kAlone) return mine;
    show_nan(mine);
    publish(board_->part, mine);
    if (!leads()) return mine;
    const int parts = kWarps * blocks_, first = lane() % kSpan;
    Part some = first < parts ? board_->part[first] : Part::empty();
    for (int i = first + kSpan; kParts > kSpan && i < parts; i += kSpan) {
      Part next = board_->part[i];
      const float m = fmaxf(some.m, next.m);
      rebase(some, m);
      rebase(next, m);
      some.t1 += next.t1;
      some.t2 += next.t2;
      some.zy = fmaxf(some.zy, next.zy);
    }
    rebase(some, butterfly_max<kSpan>(some.m));
    some.t1 = butterfly_sum<kSpan>(some.t1);
    some.t2 = butterfly_sum<kSpan>(some.t2);
    some.zy = butterfly_max<kSpan>(some.zy);
    return some;
  }

  // Over all threads of the row, in all of them. kUse: 0 the first time in a kernel, then 1.
  template <int kUse>
  HVD_METHOD Pair sum(Pair mine) {
    mine.a = butterfly_sum<32>(mine.a);
    mine.b = butterfly_sum<32>(mine.b);
    if (kAlone) return mine;
    publish(board_->pair[kUse], mine);
    Pair some{0.0, 0.0};
    for (int i = lane(); i < kWarps * blocks_; i += 32) {
      some.a += board_->pair[kUse][i].a;
      some.b += board_->pair[kUse][i].b;
    }
    return Pair{butterfly_sum<32>(some.a), butterfly_sum<32>(some.b)};
  }

  HVD_METHOD Largest largest(Largest mine) {
    HVD_UNROLL
    for (int mask = 16; mask > 0; mask /= 2)
      mine = larger(mine, Largest{machine::shuffle_xor(mine.value, mask),
                                  machine::shuffle_xor(mine.column, mask)});
    if (kAlone) return mine;
    publish(board_->largest, mine);
    for (int i = 0; i < kWarps * blocks_; ++i) mine = larger(mine, board_->largest[i]);
    return mine;
  }

  // The sums of the block's rows, from their threads 0, to whoever asks for one of them afterwards.
  HVD_METHOD void collect(const Part& whole) {
    if (local_ == 0) board_->whole = whole;
    machine::block_sync();
  }
  HVD_METHOD Part collected(int which) const { return boards_[which].whole; }

  // The way back: from the block's first threads to the threads of their rows.
  HVD_METHOD Verdict deal_out(const Verdict& verdict) {
    const int which = machine::thread_index();
    if (which < kRows) boards_[which].verdict = verdict;
    machine::block_sync();
    return board_->verdict;
  }

  // From the leading warp of each block to the block.
  HVD_METHOD Verdict spread_word(const Verdict& verdict) {
    if (kAlone) return verdict;
    if (local_ == 0) board_->verdict = verdict;
    machine::block_sync();
    return board_->verdict;
  }

 private:
  // Lanes among which the parts are dealt out: a power of two.
  static constexpr int span_of(int parts) {
    int span = 1;
    while (span < parts && span < 32) span *= 2;
    return span;
  }
  static constexpr int kSpan = span_of(kParts);

  HVD_METHOD int lane() const { return machine::thread_index() & 31; }

  template <int kLanes>
  HVD_METHOD static float butterfly_max(float x) {
    HVD_UNROLL
    for (int mask = kLanes / 2; mask > 0; mask /= 2) x = fmaxf(x, machine::shuffle_xor(x, mask));
    return x;
  }
  template <int kLanes, class V>
  HVD_METHOD static V butterfly_sum(V x) {
    HVD_UNROLL
    for (int mask = kLanes / 2; mask > 0; mask /= 2) x += machine::shuffle_xor(x, mask);
    return x;
  }

  // Two sums for less than the price of two: each half of the warp goes on with one of them. b is
  // for all lanes, a for the lower half.
  template <bool kAllLanes>
  HVD_METHOD static void both_sums(float& a, float& b) {
    const bool upper = machine::thread_index() & 16;
    float mine = (upper ? b : a) + machine::shuffle_xor(upper ? a : b, 16);
    HVD_UNROLL
    for (int mask = 8; mask > 0; mask /= 2) mine += machine::shuffle_xor(mine, mask);
    a = kAllLanes ? machine::shuffle(mine, 0) : mine;
    b = machine::shuffle(mine, 16);
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

  Board* boards_;
  Board* board_;
  int blocks_;
  int rank_;
  int local_;
};

}  // namespace cuda
}  // namespace hvdfilter
