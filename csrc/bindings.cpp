// The `_cpu` module: raw addresses in, nothing of libtorch. The functions themselves are defined
// in csrc/cpu/bind_*.cpp; csrc/README.md lists their signatures.
#include "bindings.h"

PYBIND11_MODULE(_cpu, module) {
  module.doc() = "Scoring and selection kernels for the CPU.";
  hvdfilter::Registrar::run_all(module);
}
