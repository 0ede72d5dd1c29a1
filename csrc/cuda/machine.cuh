// What the kernels ask of the machine: indices, barriers, shuffles, clusters, loads and stores.
// Nothing else in this folder names a CUDA built-in, so the same kernels can be compiled against
// another machine: tests compile them for the host, one coroutine a thread, and run them there.
#pragma once

#ifdef HVDFILTER_MACHINE
#include HVDFILTER_MACHINE
#else

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#define HVD_DEVICE static __device__ __forceinline__
#define HVD_METHOD __device__ __forceinline__
#define HVD_UNROLL _Pragma("unroll")
#define HVD_UNROLL4 _Pragma("unroll 4")
// `blocks`: how many should fit on a multiprocessor, which bounds the registers of a thread.
#define HVD_KERNEL(threads, blocks) static __global__ void __launch_bounds__(threads, blocks)
// A kernel that is launched as a cluster uses instructions that sm_80 lacks; there they are left
// out, and the host never launches it (Clusters in launch.cuh).
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#define HVD_HAS_CLUSTERS 1
#else
#define HVD_HAS_CLUSTERS 0
#endif

namespace hvdfilter {
namespace cuda {

struct alignas(16) Vector {
  uint32_t word[4];
};

namespace machine {

HVD_DEVICE int thread_index() { return static_cast<int>(threadIdx.x); }
HVD_DEVICE int block_threads() { return static_cast<int>(blockDim.x); }
HVD_DEVICE int64_t block_index() { return blockIdx.x; }

// The block's dynamic shared memory.
HVD_DEVICE unsigned char* shared_memory() {
  extern __shared__ __align__(16) unsigned char memory[];
  return memory;
}

HVD_DEVICE void block_sync() { __syncthreads(); }

// All 32 lanes of the warp take part in every shuffle.
template <class V>
HVD_DEVICE V shuffle_xor(V value, int mask) {
  return __shfl_xor_sync(0xffffffffu, value, mask);
}
template <class V>
HVD_DEVICE V shuffle(V value, int lane) {
  return __shfl_sync(0xffffffffu, value, lane);
}

// A thread arrives once, works on, and waits once: after the wait every thread of the cluster has
// arrived, and what each wrote before arriving is seen. Not the .aligned forms, which would demand
// that a warp has come together again after every branch before.
HVD_DEVICE void cluster_arrive() {
#if HVD_HAS_CLUSTERS && defined(__CUDA_ARCH__)
  asm volatile("barrier.cluster.arrive.release;" ::: "memory");
#endif
}
// The same by threads that have written nothing yet: without the memory barrier that a release is.
HVD_DEVICE void cluster_enter() {
#if HVD_HAS_CLUSTERS && defined(__CUDA_ARCH__)
  asm volatile("barrier.cluster.arrive.relaxed;" ::: "memory");
#endif
}
HVD_DEVICE void cluster_wait() {
#if HVD_HAS_CLUSTERS && defined(__CUDA_ARCH__)
  asm volatile("barrier.cluster.wait.acquire;" ::: "memory");
#endif
}
// The same place in the shared memory of block `rank` of the cluster.
template <class V>
HVD_DEVICE V* in_block(V* local, int rank) {
#if HVD_HAS_CLUSTERS && defined(__CUDA_ARCH__)
  uint64_t remote;
  asm("mapa.u64 %0, %1, %2;" : "=l"(remote) : "l"(reinterpret_cast<uint64_t>(local)), "r"(rank));
  return reinterpret_cast<V*>(remote);
#else
  return local;
#endif
}

// Plain loads, not the read-only path: a gradient may be written over the logits.
template <class V>
HVD_DEVICE V load(const V* from) {
  return *from;
}
template <class V>
HVD_DEVICE void store(V* to, V value) {
  *to = value;
}
HVD_DEVICE Vector load_vector(const void* from) {
  const uint4 v = *static_cast<const uint4*>(from);
  return Vector{{v.x, v.y, v.z, v.w}};
}
HVD_DEVICE void store_vector(void* to, const Vector& v) {
  *static_cast<uint4*>(to) = make_uint4(v.word[0], v.word[1], v.word[2], v.word[3]);
}

// 1, 2 or 4 words of shared memory at once, aligned by as many.
template <int kWords>
struct alignas(4 * kWords) Words {
  uint32_t word[kWords];
};
template <int kWords>
HVD_DEVICE void take_words(const void* from, uint32_t* word) {
  const auto words = *static_cast<const Words<kWords>*>(from);
  HVD_UNROLL
  for (int i = 0; i < kWords; ++i) word[i] = words.word[i];
}
template <int kWords>
HVD_DEVICE void put_words(void* to, const uint32_t* word) {
  Words<kWords> words;
  HVD_UNROLL
  for (int i = 0; i < kWords; ++i) words.word[i] = word[i];
  *static_cast<Words<kWords>*>(to) = words;
}

// 16 bytes from global to shared memory, past the registers; there for this thread when its copies
// are done, and for others behind the next barrier.
HVD_DEVICE void copy_vector(void* shared, const void* from) {
  const uint32_t to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}
HVD_DEVICE void copies_done() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// The kernel before this one on the stream, where this one was allowed to start before its end: it
// says that the next may start, and the next waits until all it wrote is seen.
HVD_DEVICE void let_next_start() {
#if HVD_HAS_CLUSTERS && defined(__CUDA_ARCH__)
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
HVD_DEVICE void wait_for_previous() {
#if HVD_HAS_CLUSTERS && defined(__CUDA_ARCH__)
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

HVD_DEVICE float fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }
// Relative errors of at most 2^-23 for numbers between 2^-126 and 2^126.
HVD_DEVICE float reciprocal(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
HVD_DEVICE float root(float x) {
  float y;
  asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// 2^x with a relative error of at most 2^-22; results below 2^-126 are 0.
HVD_DEVICE float exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// The larger of each of two pairs of 16-bit numbers; a NaN loses against a number.
HVD_DEVICE uint32_t half_max(uint32_t a, uint32_t b) {
  uint32_t m;
  asm("max.f16x2 %0, %1, %2;" : "=r"(m) : "r"(a), "r"(b));
  return m;
}
HVD_DEVICE uint32_t brain_max(uint32_t a, uint32_t b) {
  uint32_t m;
  asm("max.bf16x2 %0, %1, %2;" : "=r"(m) : "r"(a), "r"(b));
  return m;
}

HVD_DEVICE float half_to_float(uint16_t bits) { return __half2float(__ushort_as_half(bits)); }
HVD_DEVICE uint16_t float_to_half(float x) { return __half_as_ushort(__float2half_rn(x)); }
HVD_DEVICE uint16_t float_to_brain(float x) {
  return __bfloat16_as_ushort(__float2bfloat16_rn(x));
}
HVD_DEVICE float bits_to_float(uint32_t bits) { return __uint_as_float(bits); }
HVD_DEVICE uint32_t float_to_bits(float x) { return __float_as_uint(x); }

}  // namespace machine
}  // namespace cuda
}  // namespace hvdfilter

#endif  // HVDFILTER_MACHINE
