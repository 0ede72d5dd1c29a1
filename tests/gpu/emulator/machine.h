// The machine that csrc/cuda's kernels ask things of (machine.cuh), made of the coroutines beside.
#pragma once

#include <cmath>

#include "coroutines.h"

#define HVD_DEVICE static inline
#define HVD_METHOD inline
#define HVD_UNROLL
#define HVD_UNROLL4
#define HVD_KERNEL(threads, blocks) static void

namespace hvdfilter {
namespace cuda {

struct alignas(16) Vector {
  uint32_t word[4];
};

namespace machine {

HVD_DEVICE int thread_index() { return emulator::state().current->index; }
HVD_DEVICE int block_threads() { return emulator::state().current->block->barrier.size; }
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
HVD_DEVICE void cluster_enter() { cluster_arrive(); }
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
  emulator::state().vector_bytes_written += 16;
}

template <int kWords>
HVD_DEVICE void take_words(const void* from, uint32_t* word) {
  if (reinterpret_cast<uintptr_t>(from) % (4 * kWords) != 0) emulator::blame("misaligned words");
  std::memcpy(word, from, 4 * kWords);
}
template <int kWords>
HVD_DEVICE void put_words(void* to, const uint32_t* word) {
  if (reinterpret_cast<uintptr_t>(to) % (4 * kWords) != 0) emulator::blame("misaligned words");
  std::memcpy(to, word, 4 * kWords);
}
HVD_DEVICE void copy_vector(void* shared, const void* from) {
  if (reinterpret_cast<uintptr_t>(shared) % 16 != 0) emulator::blame("a copy is misaligned");
  const Vector v = load_vector(from);
  std::memcpy(shared, &v, 16);
}
HVD_DEVICE void copies_done() {}
HVD_DEVICE void let_next_start() {}
HVD_DEVICE void wait_for_previous() {}

HVD_DEVICE float fma(float a, float b, float c) { return std::fmaf(a, b, c); }

// As far off as the hardware's: the lowest bits are lost.
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

HVD_DEVICE float rough(float y) {
  if (std::isnormal(y)) return bits_to_float(float_to_bits(y) & ~1u);
  return std::isfinite(y) ? 0.0f : y;
}
HVD_DEVICE float reciprocal(float x) { return rough(1.0f / x); }
HVD_DEVICE float root(float x) { return rough(std::sqrt(x)); }

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
