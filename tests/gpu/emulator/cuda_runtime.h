// The few names of the CUDA run-time that csrc/cuda uses to launch, on the machine of machine.h.
// Device 0 has clusters, device 1 has none.
#pragma once

#include "machine.h"

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorInsufficientDriver = 35,
  cudaErrorInvalidDeviceFunction = 98,
  cudaErrorInvalidDevice = 101,
  cudaErrorNoKernelImageForDevice = 209,
  cudaErrorUnsupportedPtxVersion = 222,
};
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount, cudaDevAttrClusterLaunch };
enum cudaLaunchAttributeID { cudaLaunchAttributeNone, cudaLaunchAttributeClusterDimension };
using cudaStream_t = void*;

struct dim3 {
  unsigned x;
  dim3(unsigned count = 1) : x(count) {}
};
struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  struct {
    struct {
      unsigned x, y, z;
    } clusterDim;
  } val;
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;
  unsigned numAttrs;
};

inline int& emulated_device() {
  static int device = 0;
  return device;
}
inline cudaError_t cudaGetDevice(int* device) {
  *device = emulated_device();
  return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device > 1) return cudaErrorInvalidDevice;
  emulated_device() = device;
  return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  *value = attribute == cudaDevAttrClusterLaunch ? device == 0 : 2;
  return cudaSuccess;
}
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return "the emulated device refused"; }

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  const unsigned blocks = config->gridDim.x, threads = config->blockDim.x;
  const unsigned cluster = config->numAttrs ? config->attrs->val.clusterDim.x : 1;
  if (blocks % cluster != 0 || threads == 0 || threads > 1024 || threads % 32 != 0 ||
      config->dynamicSmemBytes > 48 * 1024)
    return cudaErrorInvalidConfiguration;
  emulator::state().body = [=] { kernel(arguments...); };
  for (unsigned block = 0; block < blocks; block += cluster)
    emulator::run_cluster(block, static_cast<int>(cluster), static_cast<int>(threads),
                          static_cast<int>(config->dynamicSmemBytes));
  return cudaSuccess;
}
