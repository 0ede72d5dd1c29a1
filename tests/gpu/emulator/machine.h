// A machine for csrc/cuda's kernels made of coroutines: one for each CUDA thread, run in turn on
// the host until each waits at a barrier, a shuffle or a cluster barrier. It checks what hardware does
// not: that every global access lies in a tensor that was announced and is aligned, that every
// thread reaches every barrier, and it counts the bytes read. It says nothing about speed, memory
// ordering or races.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#define HVD_DEVICE static inline
#define HVD_METHOD inline
#define HVD_UNROLL
#define HVD_UNROLL4
#define HVD_KERNEL(threads, blocks) static void

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

namespace hvdfilter {
namespace cuda {

struct alignas(16) Vector {
  uint32_t word[4];
};

namespace machine {

HVD_DEVICE int thread_index() { return emulator::state().current->index; }
HVD_DEVICE int64_t block_index() { return emulator::state().current->block_index; }
HVD_DEVICE unsigned char* shared_memory() {
  unsigned char* memory = emulator::state().current->block->shared.data();
  return memory + (16 - reinterpret_cast<uintptr_t>(memory) % 16) % 16;
}
HVD_DEVICE void block_sync() {
  emulator::Barrier& barrier = emulator::state().current->block->barrier;
  emulator::wait(barrier, emulator::arrive(barrier));
}

template <class V>
HVD_DEVICE V shuffle_xor(V value, int mask) {
  return emulator::exchange(value, (thread_index() % 32) ^ mask);
}
template <class V>
HVD_DEVICE V shuffle(V value, int lane) {
  return emulator::exchange(value, lane);
}

HVD_DEVICE void cluster_arrive() {
  emulator::state().current->awaited = emulator::arrive(emulator::state().cluster_barrier);
}
HVD_DEVICE void cluster_wait() {
  emulator::wait(emulator::state().cluster_barrier, emulator::state().current->awaited);
}
template <class V>
HVD_DEVICE V* in_block(V* local, int rank) {
  auto& cluster = *emulator::state().cluster;
  unsigned char* here = emulator::state().current->block->shared.data();
  const size_t offset = reinterpret_cast<unsigned char*>(local) - here;
  // Blocks' buffers may differ in alignment; offsets count from the aligned start.
  const auto skew = [](unsigned char* p) {
    return (16 - reinterpret_cast<uintptr_t>(p) % 16) % 16;
  };
  unsigned char* there = cluster.at(rank).shared.data();
  return reinterpret_cast<V*>(there + offset - skew(here) + skew(there));
}

template <class V>
HVD_DEVICE V load(const V* from) {
  return emulator::inside(from, sizeof(V), alignof(V), true) ? *from : V{};
}
template <class V>
HVD_DEVICE void store(V* to, V value) {
  if (emulator::inside(to, sizeof(V), alignof(V))) *to = value;
}
HVD_DEVICE Vector load_vector(const void* from) {
  Vector v{};
  if (emulator::inside(from, 16, 16, true)) std::memcpy(&v, from, 16);
  return v;
}
HVD_DEVICE void store_vector(void* to, const Vector& v) {
  if (emulator::inside(to, 16, 16)) std::memcpy(to, &v, 16);
}

// As far off as the hardware's: the lowest two bits are lost.
HVD_DEVICE uint32_t float_to_bits(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}
HVD_DEVICE float bits_to_float(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
HVD_DEVICE float exp2(float x) {
  const float y = std::exp2(x);
  if (y < 1.17549435e-38f) return 0.0f;
  const uint32_t bits = float_to_bits(y);
  return y == y && x != 0.0f && x != -INFINITY ? bits_to_float(bits & ~3u) : y;
}

HVD_DEVICE float half_to_float(uint16_t bits) {
  _Float16 h;
  std::memcpy(&h, &bits, 2);
  return static_cast<float>(h);
}
HVD_DEVICE uint16_t float_to_half(float x) {
  const _Float16 h = static_cast<_Float16>(x);
  uint16_t bits;
  std::memcpy(&bits, &h, 2);
  return bits;
}
HVD_DEVICE uint16_t float_to_brain(float x) {
  if (x != x) return 0x7fff;
  const uint32_t bits = float_to_bits(x);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

template <class Widen>
HVD_DEVICE uint32_t pair_max(uint32_t a, uint32_t b, Widen widen) {
  uint32_t m = 0;
  for (int shift = 0; shift < 32; shift += 16) {
    const uint16_t x = static_cast<uint16_t>(a >> shift), y = static_cast<uint16_t>(b >> shift);
    const float u = widen(x), v = widen(y);
    m |= static_cast<uint32_t>(u > v || v != v ? x : y) << shift;
  }
  return m;
}
HVD_DEVICE uint32_t half_max(uint32_t a, uint32_t b) { return pair_max(a, b, half_to_float); }
HVD_DEVICE uint32_t brain_max(uint32_t a, uint32_t b) {
  return pair_max(a, b, [](uint16_t x) { return bits_to_float(uint32_t(x) << 16); });
}

}  // namespace machine
}  // namespace cuda
}  // namespace hvdfilter
