// What tests tell the emulated machine, and ask it: which memory is a tensor, what went wrong, how
// much was read. Linked with csrc/cuda into one module.
#include <pybind11/pybind11.h>

#include "machine.h"

PYBIND11_MODULE(watch, module) {
  module.def("allow", [](uintptr_t begin, size_t bytes, bool watched) {
    emulator::state().regions.push_back({begin, begin + bytes, watched});
  });
  module.def("reset", [] {
    emulator::State& s = emulator::state();
    s.regions.clear();
    s.fault.clear();
    s.bytes_read = s.vector_bytes_read = s.vector_bytes_written = 0;
  });
  module.def("fault", [] { return emulator::state().fault; });
  module.def("bytes_read", [] { return emulator::state().bytes_read; });
  module.def("vector_bytes_written", [] { return emulator::state().vector_bytes_written; });
  module.def("vector_bytes_read", [] { return emulator::state().vector_bytes_read; });
}
