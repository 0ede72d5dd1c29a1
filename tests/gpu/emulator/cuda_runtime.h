// The few names of the CUDA run-time that csrc/cuda uses to launch, on the machine of machine.h.
// Device 0 has clusters, device 1 has none, device 2 says that it has some and refuses them; there
// are no kernels for device 3, of compute capability 7, and device 4, of one yet to come; device 5
// has clusters, but was given code that has none, and refuses it as one.
#pragma once

#include "machine.h"

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorInsufficientDriver = 35,
  cudaErrorInvalidDeviceFunction = 98,
  cudaErrorInvalidDevice = 101,
  cudaErrorLaunchOutOfResources = 701,
  cudaErrorNotPermitted = 800,
  cudaErrorNotSupported = 801,
  cudaErrorInvalidClusterSize = 912,
  cudaErrorNoKernelImageForDevice = 209,
  cudaErrorUnsupportedPtxVersion = 222,
};
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount,
  cudaDevAttrClusterLaunch,
  cudaDevAttrComputeCapabilityMajor,
};
enum cudaLaunchAttributeID {
  cudaLaunchAttributeNone,
  cudaLaunchAttributeClusterDimension,
  cudaLaunchAttributeProgrammaticStreamSerialization,
};
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
    int programmaticStreamSerializationAllowed;
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
  if (device < 0 || device > 5) return cudaErrorInvalidDevice;
  emulated_device() = device;
  return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  constexpr int kMajor[] = {9, 8, 9, 7, 99, 9};
  *value = attribute == cudaDevAttrClusterLaunch             ? device != 1
           : attribute == cudaDevAttrComputeCapabilityMajor ? kMajor[device]
                                                             : 2;
  return cudaSuccess;
}
struct cudaFuncAttributes {
  int ptxVersion;
};
template <class Kernel>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, Kernel*) {
  attributes->ptxVersion = emulated_device() == 5 ? 80 : 90;
  return cudaSuccess;
}
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return "the emulated device refused"; }

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  const unsigned blocks = config->gridDim.x, threads = config->blockDim.x;
  unsigned cluster = 1;
  for (unsigned i = 0; i < config->numAttrs; ++i)
    if (config->attrs[i].id == cudaLaunchAttributeClusterDimension)
      cluster = config->attrs[i].val.clusterDim.x;
  if (emulated_device() == 3 || emulated_device() == 4) return cudaErrorNoKernelImageForDevice;
  if (cluster > 1 && emulated_device() == 2) return cudaErrorInvalidClusterSize;
  if (config->numAttrs > 0 && emulated_device() == 5) return cudaErrorInvalidValue;
  if (blocks % cluster != 0 || threads == 0 || threads > 1024 || threads % 32 != 0 ||
      config->dynamicSmemBytes > 48 * 1024)
    return cudaErrorInvalidConfiguration;
  emulator::state().body = [=] { kernel(arguments...); };
  for (unsigned block = 0; block < blocks; block += cluster)
    emulator::run_cluster(block, static_cast<int>(cluster), static_cast<int>(threads),
                          static_cast<int>(config->dynamicSmemBytes));
  return cudaSuccess;
}
