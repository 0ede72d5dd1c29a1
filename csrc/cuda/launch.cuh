// How a kernel is put on a stream: its device, its cluster, its shared memory. Never waits.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <atomic>

#include "job.h"
#include "machine.cuh"
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

// What is asked of a device once, since a question costs a microsecond.
constexpr int kDevices = 64;
template <class Ask>
int asked_once(std::atomic<int> (&answers)[kDevices], int device, Ask&& ask) {
  if (device < 0 || device >= kDevices) return 0;
  int answer = answers[device].load(std::memory_order_relaxed);  // one more than it; 0: not asked
  if (answer == 0) {
    answer = 1 + ask();
    answers[device].store(answer, std::memory_order_relaxed);
  }
  return answer - 1;
}

inline int multiprocessors(int device) {
  static std::atomic<int> answers[kDevices];
  return asked_once(answers, device, [&] {
    return device_attribute(cudaDevAttrMultiProcessorCount, device);
  });
}

// Whether what was compiled for this device has the instructions of clusters: a device that has
// them may have been given the code of one that has not.
HVD_KERNEL(32, 1) probe() {}
inline bool compiled_with_clusters() {
  cudaFuncAttributes code = {};
  if (cudaFuncGetAttributes(&code, probe) == cudaSuccess) return code.ptxVersion >= 90;
  cudaGetLastError();
  return false;
}

// Whether kernels may be launched as clusters and beside each other on the current device: no
// longer believed once it has refused a cluster, as a slice of a shared device may.
class Clusters {
 public:
  static bool allowed(int device) {
    return asked_once(answers(), device, [&] {
             return device_attribute(cudaDevAttrClusterLaunch, device) != 0 &&
                            compiled_with_clusters()
                        ? 1
                        : 0;
           }) != 0;
  }

  // What `clustered` launches, or `plain` where clusters are not to be had.
  template <class Clustered, class Plain>
  static cudaError_t launch(int device, Clustered&& clustered, Plain&& plain) {
    if (allowed(device)) {
      const cudaError_t launched = clustered();
      if (launched != cudaErrorInvalidClusterSize && launched != cudaErrorLaunchOutOfResources &&
          launched != cudaErrorNotSupported && launched != cudaErrorNotPermitted)
        return launched;
      answers()[device].store(1, std::memory_order_relaxed);
    }
    return plain();
  }

 private:
  static std::atomic<int> (&answers())[kDevices] {
    static std::atomic<int> all[kDevices];
    return all;
  }
};

struct Grid {
  int64_t blocks;
  int threads;
  int shared_bytes;
  int cluster;  // blocks a cluster, 1 for none; divides `blocks`
  // May start before the kernel that precedes it on the stream has ended; it then waits itself,
  // with machine::wait_for_previous(), before it reads what that one wrote.
  bool beside_previous;
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
  cudaLaunchAttribute attributes[2] = {};
  config.attrs = attributes;
  if (grid.cluster > 1) {
    cudaLaunchAttribute& cluster = attributes[config.numAttrs++];
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim.x = static_cast<unsigned>(grid.cluster);
    cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
  }
  if (grid.beside_previous) {
    cudaLaunchAttribute& beside = attributes[config.numAttrs++];
    beside.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    beside.val.programmaticStreamSerializationAllowed = 1;
  }
  const cudaError_t launched = cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...);
  if (launched != cudaSuccess) cudaGetLastError();  // or the next to ask would take it for its own
  return launched;
}

}  // namespace cuda
}  // namespace hvdfilter
