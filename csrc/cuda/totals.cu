// Launches what is said of a whole batch, and sends a call to the kernels of its type of logits.
#include "totals.cuh"

#include "launch.cuh"

namespace hvdfilter {
namespace cuda {
namespace {

template <bool kMean>
cudaError_t launch_total(const Job& job, float* count, float* loss, int device, void* stream) {
  const DeviceGuard guard(device);
  if (guard.error() != cudaSuccess) return guard.error();
  const bool beside = job.beside_previous && Clusters::allowed(device);
  const auto alone = [&] {
    using Batch = Team<kTotalThreads, kTotalThreads, false>;
    const Grid grid{1, kTotalThreads, Batch::kSharedBytes, 1, beside};
    return enqueue(total<false, kMean>, grid, stream, job, count, loss, 1);
  };
  // A short batch is one block's work, and a launch of one block is the cheaper one.
  if (job.rows <= 4 * kTotalThreads) return alone();
  const auto clustered = [&] {
    using Batch = Team<kTotalThreads, kTotalThreads, true>;
    const Grid grid{kClusterBlocks, kTotalThreads, Batch::kSharedBytes, kClusterBlocks, beside};
    return enqueue(total<true, kMean>, grid, stream, job, count, loss, kClusterBlocks);
  };
  return Clusters::launch(device, clustered, alone);
}

template <class T>
cudaError_t launch_rescale_as(void* grad, int64_t elements, const float* upstream, int device,
                              void* stream) {
  // Four blocks of 512 fill a multiprocessor; more would only be more blocks that return at once.
  const int64_t fill = 4 * int64_t(multiprocessors(device));
  const int64_t needed = ceil_div(elements, kTotalThreads * Pack<T>::kElements);
  const int blocks = static_cast<int>(std::min(std::max<int64_t>(fill, 1), needed));
  const Grid grid{blocks, kTotalThreads, 0, 1, false};
  return enqueue(rescale<T>, grid, stream, static_cast<T*>(grad), elements, upstream, blocks);
}

}  // namespace

int launch_rows(const Job& job, int dtype, int device, void* stream) {
  const bool spread = job.label_code == kSoftLabels || job.smoothing > 0.0;
  switch (dtype) {
    case kFloat32:
      return spread ? launch_rows_as<float, true>(job, device, stream)
                    : launch_rows_as<float, false>(job, device, stream);
    case kBfloat16:
      return spread ? launch_rows_as<Brain, true>(job, device, stream)
                    : launch_rows_as<Brain, false>(job, device, stream);
    case kFloat16:
      return spread ? launch_rows_as<Half, true>(job, device, stream)
                    : launch_rows_as<Half, false>(job, device, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

int launch_count(const Job& job, float* count, int device, void* stream) {
  return launch_total<false>(job, count, nullptr, device, stream);
}

int launch_mean(const Job& job, float* loss, float* count, int device, void* stream) {
  return launch_total<true>(job, count, loss, device, stream);
}

int launch_finish(const Job& job, int device, void* stream) {
  const DeviceGuard guard(device);
  if (guard.error() != cudaSuccess) return guard.error();
  const Grid grid{ceil_div(job.rows, kTotalThreads), kTotalThreads, 0, 1, false};
  return enqueue(finish_rows, grid, stream, job);
}

int launch_rescale(void* grad, int dtype, int64_t elements, const float* upstream, int device,
                   void* stream) {
  const DeviceGuard guard(device);
  if (guard.error() != cudaSuccess) return guard.error();
  switch (dtype) {
    case kFloat32:
      return launch_rescale_as<float>(grad, elements, upstream, device, stream);
    case kBfloat16:
      return launch_rescale_as<Brain>(grad, elements, upstream, device, stream);
    case kFloat16:
      return launch_rescale_as<Half>(grad, elements, upstream, device, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace cuda
}  // namespace hvdfilter
