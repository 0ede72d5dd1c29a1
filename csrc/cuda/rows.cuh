// Chooses the kernel for a width, by the table in mapping.h, and launches it. Included by one
// source per type of logits, so that they compile side by side.
#pragma once

#include <climits>

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
    constexpr int kFull = kSpread ? 0 : full_slots(kShape);  // spread targets skip lines
    const int64_t blocks = ceil_div(job.rows, RowTeam::kRows);
    const Grid grid{blocks, r.threads_a_block, RowTeam::kSharedBytes, 1, job.beside_previous};
    return enqueue(resident<T, r.threads, r.slots, kFull, r.threads_a_block, false, kSpread>, grid,
                   stream, job, 0);
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
  const Grid grid{job.rows * blocks, r.threads_a_block, RowTeam::kSharedBytes, blocks,
                  job.beside_previous};
  constexpr auto kernel =
      resident<T, r.threads, r.slots, kClusteredFull, r.threads_a_block, true, kSpread>;
  return enqueue(kernel, grid, stream, job, log_blocks);
}

template <class T, bool kSpread>
cudaError_t launch_streaming(const Job& job, void* stream) {
  using RowTeam = Team<kStreamingThreads, kStreamingThreads, false>;
  const Grid grid{job.rows, kStreamingThreads, RowTeam::kSharedBytes, 1, job.beside_previous};
  return enqueue(streaming<T, kSpread>, grid, stream, job);
}

template <class T, bool kSpread>
cudaError_t launch_packed(const Job& job, int device, void* stream) {
  const int stride = static_cast<int>(job.row_stride * sizeof(T));
  const int threads = packed_threads(stride);
  const int rows = packed_rows(stride, job.rows, multiprocessors(device));
  // A vector of padding a row, and one for what lies before the first boundary and behind the last.
  const int bytes = rows * (stride + (packed_padding(kVectorBytes, stride) ? kVectorBytes : 0));
  const Grid grid{ceil_div(job.rows, rows), threads, bytes + kVectorBytes, 1, job.beside_previous};
  return enqueue(packed<T, kSpread>, grid, stream, job, rows);
}

template <class T, bool kSpread>
int launch_rows_as(const Job& asked, int device, void* stream) {
  const DeviceGuard guard(device);
  if (guard.error() != cudaSuccess) return guard.error();
  Job job = asked;
  if (job.rows == 1) job.row_stride = job.classes;
  const bool clusters = Clusters::allowed(device);
  job.beside_previous = job.beside_previous && clusters;
  const int misaligned = static_cast<int>(reinterpret_cast<uintptr_t>(job.logits) % kVectorBytes);
  const Plan plan =
      cuda::plan(job.classes, job.row_stride, misaligned, sizeof(T),
                 clusters && wants_clusters(job.grad, job.rows, multiprocessors(device)));
  // A warp and more a row, whose number is then 32 bits wide.
  if (plan.regime != Regime::packed && job.rows > INT_MAX) return cudaErrorInvalidConfiguration;
  const auto stream_rows = [&] { return launch_streaming<T, kSpread>(job, stream); };
  switch (plan.regime) {
    case Regime::packed:
      return launch_packed<T, kSpread>(job, device, stream);
    case Regime::resident:
      return launch_resident<T, kSpread, kFirstShape<kSpread>>(job, plan.shape, stream);
    case Regime::cluster:
      return Clusters::launch(
          device,
          [&] {
            if (plan.shape == 0) return launch_cluster<T, kSpread, 0>(job, plan.blocks, stream);
            if (plan.shape == 1) return launch_cluster<T, kSpread, 1>(job, plan.blocks, stream);
            return launch_cluster<T, kSpread, 2>(job, plan.blocks, stream);
          },
          stream_rows);
    default:
      return stream_rows();
  }
}

}  // namespace cuda
}  // namespace hvdfilter
