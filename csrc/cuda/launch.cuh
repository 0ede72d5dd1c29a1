// How a kernel is put on a stream: its device, its cluster, its shared memory. Never waits.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <atomic>

#include "job.h"
#include "mapping.h"

namespace hvdfilter {
namespace cuda {

// Makes `device` current, and the caller's device again when the call is over.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device) {
    error_ = cudaGetDevice(&before_);
    if (error_ == cudaSuccess && before_ != device) {
      error_ = cudaSetDevice(device);
      moved_ = error_ == cudaSuccess;
    }
  }
  ~DeviceGuard() {
    if (moved_) cudaSetDevice(before_);
  }
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;
  cudaError_t error() const { return error_; }

 private:
  cudaError_t error_ = cudaSuccess;
  int before_ = 0;
  bool moved_ = false;
};

// What a device can do, or 0 if the driver does not say.
inline int device_attribute(cudaDeviceAttr attribute, int device) {
  int value = 0;
  if (cudaDeviceGetAttribute(&value, attribute, device) != cudaSuccess) {
    cudaGetLastError();
    return 0;
  }
  return value;
}

// Asked once a device, since a question costs a microsecond.
inline bool has_clusters(int device) {
  constexpr int kDevices = 64;
  static std::atomic<signed char> known[kDevices];  // 0: not asked, 1: no, 2: yes
  if (device < 0 || device >= kDevices) return false;
  signed char answer = known[device].load(std::memory_order_relaxed);
  if (answer == 0) {
    answer = device_attribute(cudaDevAttrClusterLaunch, device) != 0 ? 2 : 1;
    known[device].store(answer, std::memory_order_relaxed);
  }
  return answer == 2;
}

struct Grid {
  int64_t blocks;
  int threads;
  int shared_bytes;
  int cluster;  // blocks a cluster, 1 for none; divides `blocks`
};

template <class... Parameters, class... Arguments>
cudaError_t enqueue(void (*kernel)(Parameters...), const Grid& grid, void* stream,
                    const Arguments&... arguments) {
  if (grid.blocks == 0) return cudaSuccess;
  if (grid.blocks > 0x7fffffff) return cudaErrorInvalidConfiguration;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(grid.blocks));
  config.blockDim = dim3(static_cast<unsigned>(grid.threads));
  config.dynamicSmemBytes = static_cast<size_t>(grid.shared_bytes);
  config.stream = static_cast<cudaStream_t>(stream);
  cudaLaunchAttribute cluster = {};
  if (grid.cluster > 1) {
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim = {static_cast<unsigned>(grid.cluster), 1, 1};
    config.attrs = &cluster;
    config.numAttrs = 1;
  }
  const cudaError_t launched = cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...);
  const cudaError_t pending = cudaGetLastError();
  return launched != cudaSuccess ? launched : pending;
}

}  // namespace cuda
}  // namespace hvdfilter
