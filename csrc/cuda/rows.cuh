// Chooses the kernel for a width, by the table in mapping.h, and launches it. Included by one
// source per type of logits, so that they compile side by side.
#pragma once

#include "launch.cuh"
#include "packed.cuh"
#include "resident.cuh"
#include "streaming.cuh"

namespace hvdfilter {
namespace cuda {

// Spread targets are rarer and their kernels slower to compile: every second line of the table.
template <bool kSpread>
constexpr int kFirstShape = kSpread ? 1 : 0;
template <bool kSpread>
constexpr int kShapeStep = kSpread ? 2 : 1;

template <class T, bool kSpread, int kShape>
cudaError_t launch_resident(const Job& job, int shape, void* stream) {
  if constexpr (kShape < kResidentShapes) {
    if (shape > kShape)
      return launch_resident<T, kSpread, kShape + kShapeStep<kSpread>>(job, shape, stream);
    constexpr Resident r = kResident[kShape];
    using RowTeam = Team<r.threads, r.threads_a_block, false>;
    const int64_t blocks = ceil_div(job.rows, RowTeam::kRows);
    const Grid grid{blocks, r.threads_a_block, RowTeam::kSharedBytes, 1};
    return enqueue(resident<T, r.threads, r.slots, r.threads_a_block, false, kSpread>, grid, stream,
                   job, 0);
  } else {
    return cudaErrorInvalidValue;
  }
}

template <class T, bool kSpread, int kLine>
cudaError_t launch_cluster(const Job& job, int blocks, void* stream) {
  constexpr Resident r = kClustered[kLine];
  using RowTeam = Team<r.threads, r.threads_a_block, true>;
  int log_blocks = 0;
  while (1 << log_blocks < blocks) ++log_blocks;
  const Grid grid{job.rows * blocks, r.threads_a_block, RowTeam::kSharedBytes, blocks};
  return enqueue(resident<T, r.threads, r.slots, r.threads_a_block, true, kSpread>, grid, stream,
                 job, log_blocks);
}

template <class T, bool kSpread>
cudaError_t launch_streaming(const Job& job, void* stream) {
  using RowTeam = Team<kStreamingThreads, kStreamingThreads, false>;
  const Grid grid{job.rows, kStreamingThreads, RowTeam::kSharedBytes, 1};
  return enqueue(streaming<T, kSpread>, grid, stream, job);
}

template <class T, bool kSpread>
cudaError_t launch_packed(const Job& job, void* stream) {
  const int floats = padded(kPackedRows * job.classes);
  const Grid grid{ceil_div(job.rows, kPackedRows), kPackedRows, floats * 4, 1};
  return enqueue(packed<T, kSpread>, grid, stream, job);
}

template <class T, bool kSpread>
int launch_rows_as(const Job& job, int device, void* stream) {
  const DeviceGuard guard(device);
  if (guard.error() != cudaSuccess) return guard.error();
  // The sums of a whole row do not follow from a block of its classes: no kernel that makes them.
  if (job.sums_use == Sums::given) return launch_streaming<T, kSpread>(job, stream);
  const bool contiguous = job.row_stride == job.classes || job.rows == 1;
  const Plan plan = cuda::plan(job.classes, sizeof(T), contiguous, has_clusters(device));
  switch (plan.regime) {
    case Regime::packed:
      return launch_packed<T, kSpread>(job, stream);
    case Regime::resident:
      return launch_resident<T, kSpread, kFirstShape<kSpread>>(job, plan.shape, stream);
    case Regime::cluster:
      return plan.shape == 0 ? launch_cluster<T, kSpread, 0>(job, plan.blocks, stream)
                             : launch_cluster<T, kSpread, 1>(job, plan.blocks, stream);
    default:
      return launch_streaming<T, kSpread>(job, stream);
  }
}

}  // namespace cuda
}  // namespace hvdfilter
