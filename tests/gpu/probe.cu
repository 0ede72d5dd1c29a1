// What kernels may use beside what csrc/cuda uses today, one kernel a mechanism: the interpreter of
// machine code is held against what each must compute. Nothing of the package is compiled from it.
#include <cstdint>

__device__ uint32_t shared_address(const void* place) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(place));
}

// The last block to come sums what all blocks have left, in one order.
__global__ void last_block(float* parts, unsigned* counter, float* total, double* exact) {
  __shared__ bool last;
  if (threadIdx.x == 0) {
    parts[blockIdx.x] = 1.0f / (1 + blockIdx.x);
    __threadfence();
    last = atomicInc(counter, gridDim.x - 1) == gridDim.x - 1;
    atomicAdd(exact, 0.25);
    atomicMax(reinterpret_cast<int*>(counter) + 1, static_cast<int>(blockIdx.x) - 3);
    atomicCAS(counter + 2, 5u, 6u);
  }
  __syncthreads();
  if (!last || threadIdx.x != 0) return;
  __threadfence();
  float sum = 0;
  for (unsigned i = 0; i < gridDim.x; ++i) sum += __ldcg(parts + i);
  *total = sum;
}

__device__ void wait(uint32_t barrier, uint32_t parity) {
  uint32_t over = 0;
  while (!over)
    asm volatile(
        "{.reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;"
        " selp.u32 %0, 1, 0, p;}"
        : "=r"(over) : "r"(barrier), "r"(parity) : "memory");
}
__device__ void init(uint32_t barrier, int count, int bytes) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(count) : "memory");
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}

// Two stages of bulk copies, and threads that arrive at a barrier of their own in between.
__global__ void bulk(const float* in, float* out) {
  extern __shared__ __align__(128) float memory[];
  __shared__ uint64_t full[2], empty;
  const int n = 256;
  if (threadIdx.x == 0) {
    for (int k = 0; k < 2; ++k) init(shared_address(full + k), 1, n * 4);
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(&empty)), "r"(64));
    asm volatile("fence.mbarrier_init.release.cluster;");
    for (int k = 0; k < 2; ++k)
      asm volatile(
          "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
          ::"r"(shared_address(memory + k * n)), "l"(in + k * n), "r"(n * 4),
          "r"(shared_address(full + k)) : "memory");
  }
  __syncthreads();
  for (int k = 0; k < 2; ++k) {
    wait(shared_address(full + k), 0);
    for (int i = threadIdx.x; i < n; i += 64) out[k * n + i] = 2 * memory[k * n + i];
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(&empty)));
    wait(shared_address(&empty), k & 1);
  }
}

// Each block of a cluster of two gets a vector from the other.
__global__ void remote(float4* out) {
  __shared__ uint64_t barrier;
  __shared__ float4 box;
  if (threadIdx.x == 0) init(shared_address(&barrier), 1, 16);
  asm volatile("barrier.cluster.arrive;" ::: "memory");
  asm volatile("barrier.cluster.wait;" ::: "memory");
  if (threadIdx.x == 0) {
    uint32_t place, told;
    const int other = blockIdx.x & 1 ^ 1;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(place) : "r"(shared_address(&box)), "r"(other));
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(told)
        : "r"(shared_address(&barrier)), "r"(other));
    const float x = blockIdx.x;
    asm volatile(
        "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1,%2,%1,%2}, [%3];"
        ::"r"(place), "f"(x), "f"(x + 10), "r"(told) : "memory");
  }
  wait(shared_address(&barrier), 0);
  if (threadIdx.x < 32) out[blockIdx.x * 32 + threadIdx.x] = box;
}

__global__ void copies(const float4* in, float4* out) {
  __shared__ float4 room[256];
  for (int k = 0; k < 2; ++k) {
    const int i = threadIdx.x + 128 * k;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(room + i)),
                 "l"(in + i) : "memory");
    asm volatile("cp.async.commit_group;");
  }
  asm volatile("cp.async.wait_all;" ::: "memory");
  __syncthreads();
  for (int k = 0; k < 2; ++k) out[threadIdx.x + 128 * k] = room[(threadIdx.x ^ 5) + 128 * k];
}

__global__ void functions(const float* in, float* out) {
  const int i = threadIdx.x, n = blockDim.x;
  const float x = in[i], y = in[n + i];
  out[i] = log1pf(x);
  out[n + i] = expf(-x);
  out[2 * n + i] = sqrtf(x);
  out[3 * n + i] = x / y;
  out[4 * n + i] = logf(y);
  out[5 * n + i] = expm1f(-x);
  out[6 * n + i] = __fadd_rz(x, -y);
  out[7 * n + i] = rintf(x * 8);
}

__global__ void together(const unsigned* in, unsigned* out) {
  const int i = threadIdx.x;
  const unsigned x = in[i], all = 0xffffffffu;
  const unsigned votes = __ballot_sync(all, x & 1);
  out[i] = __reduce_add_sync(all, x);
  out[32 + i] = __reduce_max_sync(all, x);
  out[64 + i] = votes;
  out[96 + i] = __popc(x) + 100 * __clz(x) + 10000 * __ffs(x);
  out[128 + i] = __match_any_sync(all, x % 5);
  out[160 + i] = __any_sync(all, x == in[3]) + 2 * __all_sync(all, x > 7);
}
