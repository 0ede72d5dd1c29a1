// CUDA's threads as coroutines on the host, run in turn until each waits at a barrier, a shuffle or
// a cluster barrier. It checks what hardware does not: that every global access lies in a tensor
// that was announced and is aligned, that every thread reaches every barrier, and it counts the
// bytes. It says nothing about speed, memory ordering or races.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace emulator {

// Threads that wait for each other; `passed` counts how often all have arrived.
struct Barrier {
  int size = 0;
  int arrived = 0;
  long passed = 0;
};

struct Warp {
  Barrier barrier;
  alignas(16) unsigned char words[2][32][16];  // by turns, so that a fast lane overwrites nothing
};

struct Block {
  std::vector<unsigned char> shared;
  Barrier barrier;
  std::vector<Warp> warps;
};

struct Thread {
  ucontext_t context;  // where it starts; from then on it is left and resumed by jumps
  jmp_buf place;
  bool started = false;
  Block* block = nullptr;
  Warp* warp = nullptr;
  int index = 0;
  int64_t block_index = 0;
  long awaited = 0;  // the cluster barrier's `passed` at this thread's arrival
  bool done = false;
};

struct Region {
  uintptr_t begin, end;
  bool watched;
};

struct State {
  Thread* current = nullptr;
  jmp_buf scheduler;
  std::vector<std::unique_ptr<char[]>> stacks;  // kept from launch to launch
  std::vector<Block>* cluster = nullptr;
  Barrier cluster_barrier;
  bool progress = false;
  std::function<void()> body;
  std::vector<Region> regions;
  std::string fault;  // the first one
  int64_t bytes_read = 0;         // from the tensors that are watched ...
  int64_t vector_bytes_read = 0;  // ... and of these, by 16-byte loads
  int64_t vector_bytes_written = 0;
};

inline State& state() {
  static State s;
  return s;
}

inline void blame(const std::string& what) {
  if (state().fault.empty()) state().fault = what;
}

// _setjmp and _longjmp leave the signal mask alone, which swapcontext would ask the kernel for.
inline void yield() {
  if (_setjmp(state().current->place) == 0) _longjmp(state().scheduler, 1);
}

// Until it yields.
__attribute__((noinline)) inline void resume(Thread& thread) {
  state().current = &thread;
  if (_setjmp(state().scheduler) != 0) return;
  if (thread.started) _longjmp(thread.place, 1);
  thread.started = true;
  setcontext(&thread.context);
}

inline long arrive(Barrier& barrier) {
  const long before = barrier.passed;
  if (++barrier.arrived == barrier.size) {
    barrier.arrived = 0;
    ++barrier.passed;
  }
  state().progress = true;
  return before;
}

inline void wait(const Barrier& barrier, long before) {
  while (barrier.passed == before) yield();
  state().progress = true;
}

inline void run_thread() {
  state().body();
  state().current->done = true;
  state().progress = true;
  yield();
}

constexpr size_t kStack = 64 * 1024;

__attribute__((noinline)) inline void prepare(Thread& thread, char* stack) {
  getcontext(&thread.context);
  thread.context.uc_stack.ss_sp = stack;
  thread.context.uc_stack.ss_size = kStack;
  makecontext(&thread.context, run_thread, 0);
}

// One cluster, or one block, from start to end.
inline void run_cluster(int64_t first_block, int blocks, int threads, int shared_bytes) {
  State& s = state();
  while (s.stacks.size() < static_cast<size_t>(blocks) * threads)
    s.stacks.emplace_back(new char[kStack]);
  std::vector<Block> cluster(blocks);
  s.cluster = &cluster;
  s.cluster_barrier = Barrier{blocks * threads};
  std::vector<Thread> all(static_cast<size_t>(blocks) * threads);
  for (int b = 0; b < blocks; ++b) {
    cluster[b].shared.assign(shared_bytes + 16, 0xff);  // NaN to whoever reads before writing
    cluster[b].barrier.size = threads;
    cluster[b].warps.resize((threads + 31) / 32);
    for (int t = 0; t < threads; ++t) {
      Thread& thread = all[static_cast<size_t>(b) * threads + t];
      thread.block = &cluster[b];
      thread.warp = &cluster[b].warps[t / 32];
      thread.warp->barrier.size++;
      thread.index = t;
      thread.block_index = first_block + b;
      prepare(thread, s.stacks[static_cast<size_t>(b) * threads + t].get());
    }
  }
  size_t left = all.size();
  while (left > 0) {
    s.progress = false;
    for (Thread& thread : all) {
      if (thread.done) continue;
      resume(thread);
      left -= thread.done;
    }
    if (!s.progress) {
      blame("deadlock: some threads of block " + std::to_string(first_block) +
            " wait where others never come");
      return;
    }
  }
}

inline bool inside(const void* address, size_t bytes, size_t alignment, bool reads = false) {
  const uintptr_t begin = reinterpret_cast<uintptr_t>(address);
  if (begin % alignment != 0) blame("an access of " + std::to_string(bytes) + " is misaligned");
  for (const Region& region : state().regions)
    if (begin >= region.begin && begin + bytes <= region.end) {
      if (reads && region.watched) {
        state().bytes_read += bytes;
        if (alignment == 16) state().vector_bytes_read += bytes;
      }
      return true;
    }
  blame("an access of " + std::to_string(bytes) + " bytes lies outside every tensor");
  return false;
}

template <class V>
V exchange(const V& value, int lane) {
  static_assert(sizeof(V) <= 16, "a lane's word");
  Thread* self = state().current;
  Warp& warp = *self->warp;
  auto& words = warp.words[warp.barrier.passed % 2];
  std::memcpy(words[self->index % 32], &value, sizeof(V));
  wait(warp.barrier, arrive(warp.barrier));
  V result;
  std::memcpy(&result, words[lane % 32], sizeof(V));
  return result;
}

}  // namespace emulator
