// A CUDA run-time for csrc/cuda as nvcc compiled it, without a device: every launch is handed to
// Python with the kernel's name, its configuration and the addresses of its parameters. Linked with
// the kernels into one module in place of libcudart; what the kernels newly call is added here.
#include <cuda_runtime_api.h>
#include <pybind11/pybind11.h>

#include <map>
#include <stdexcept>
#include <string>

namespace py = pybind11;

namespace {

std::map<const void*, std::string>& kernels() {
  static std::map<const void*, std::string> names;
  return names;
}
// What Python gave: launch and occupancy. It outlives the interpreter, which frees nothing then.
py::object& listener() {
  static py::object* found = new py::object;
  return *found;
}
int& current() {
  static int device = 0;
  return device;
}

cudaError_t tell(const void* kernel, dim3 grid, dim3 block, size_t shared, void** parameters,
                 const cudaLaunchAttribute* attributes, unsigned count) {
  const auto name = kernels().find(kernel);
  if (name == kernels().end()) return cudaErrorInvalidDeviceFunction;
  py::gil_scoped_acquire held;
  py::list extra;
  for (unsigned i = 0; i < count; ++i)
    extra.append(py::make_tuple(static_cast<int>(attributes[i].id),
                                py::bytes(reinterpret_cast<const char*>(&attributes[i].val),
                                          sizeof(attributes[i].val))));
  listener().attr("launch")(name->second, py::make_tuple(grid.x, grid.y, grid.z),
             py::make_tuple(block.x, block.y, block.z), shared,
             reinterpret_cast<uintptr_t>(parameters), extra);
  return cudaSuccess;
}

}  // namespace

// An error of the listener, which is Python's, passes through these to the caller in Python.
extern "C" {

void** __cudaRegisterFatBinary(void* code) { return reinterpret_cast<void**>(code); }
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
void __cudaRegisterFunction(void**, const char* stub, char*, const char* name, int, uint3*, uint3*,
                            dim3*, dim3*, int*) {
  kernels()[stub] = name;
}
void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}

cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* stub) {
  *kernel = reinterpret_cast<cudaKernel_t>(const_cast<void*>(stub));
  return cudaSuccess;
}
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** parameters,
                               size_t shared, cudaStream_t) {
  return tell(kernel, grid, block, shared, parameters, nullptr, 0);
}
unsigned __cudaPushCallConfiguration(dim3, dim3, size_t, void*) { return 1; }
cudaError_t __cudaPopCallConfiguration(dim3*, dim3*, size_t*, void*) {
  return cudaErrorInvalidConfiguration;
}

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* kernel,
                                void** parameters) {
  return tell(kernel, config->gridDim, config->blockDim, config->dynamicSmemBytes, parameters,
              config->attrs, config->numAttrs);
}

cudaError_t cudaGetDevice(int* device) {
  *device = current();
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device > 1) return cudaErrorInvalidDevice;
  current() = device;
  return cudaSuccess;
}
// An H100's. Device 0 launches clusters, device 1 does not, as in tests/gpu/emulator.
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  static const std::map<int, int> known = {
    {cudaDevAttrMultiProcessorCount, 132},
    {cudaDevAttrWarpSize, 32},
    {cudaDevAttrMaxThreadsPerMultiProcessor, 2048},
    {cudaDevAttrMaxBlocksPerMultiprocessor, 32},
    {cudaDevAttrMaxSharedMemoryPerBlock, 48 << 10},
    {cudaDevAttrMaxSharedMemoryPerBlockOptin, 227 << 10},
    {cudaDevAttrMaxSharedMemoryPerMultiprocessor, 228 << 10},
    {cudaDevAttrL2CacheSize, 50 << 20},
    {cudaDevAttrComputeCapabilityMajor, 9},
    {cudaDevAttrComputeCapabilityMinor, 0},
  };
  if (attribute == cudaDevAttrClusterLaunch) {
    *value = device == 0;
    return cudaSuccess;
  }
  const auto found = known.find(attribute);
  if (found == known.end())
    throw std::runtime_error("cudaDeviceGetAttribute: attribute " + std::to_string(attribute) +
                             " is not known to benchmarks/sass/runtime.cpp; add it there.");
  *value = found->second;
  return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, const void* kernel,
                                                                   int threads, size_t shared,
                                                                   unsigned) {
  const auto name = kernels().find(kernel);
  if (name == kernels().end()) return cudaErrorInvalidDeviceFunction;
  py::gil_scoped_acquire held;
  *blocks = listener().attr("occupancy")(name->second, threads, shared).cast<int>();
  return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* kernel,
                                                          int threads, size_t shared) {
  return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, kernel, threads, shared, 0);
}
cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int) { return cudaSuccess; }
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
  *attributes = {};
  attributes->ptxVersion = attributes->binaryVersion = 90;
  return cudaSuccess;
}
cudaError_t cudaGetLastError() { return cudaSuccess; }
cudaError_t cudaPeekAtLastError() { return cudaSuccess; }
const char* cudaGetErrorName(cudaError_t) { return "refused"; }
const char* cudaGetErrorString(cudaError_t) { return "the interpreter refused the launch"; }
}

PYBIND11_MODULE(runtime, module) {
  module.def("listen", [](py::object to) { listener() = std::move(to); });
}
