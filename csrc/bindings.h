// What the files of functions that make up the `_cpu` module have in common. Each
// csrc/cpu/bind_*.cpp defines one static Registrar; bindings.cpp runs them when Python imports the
// module, and knows none of them by name.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>

namespace hvdfilter {

using Address = std::uintptr_t;

// A tensor's address, as Python's integer brings it.
template <class T>
T* at(Address address) {
  return reinterpret_cast<T*>(address);
}

// Every native function runs without the interpreter's lock: it touches no Python object.
using Unlocked = pybind11::call_guard<pybind11::gil_scoped_release>;

class Registrar {
 public:
  using Define = void (*)(pybind11::module_&);
  explicit Registrar(Define define) : define_(define), next_(first()) { first() = this; }

  static void run_all(pybind11::module_& module) {
    for (Registrar* r = first(); r != nullptr; r = r->next_) r->define_(module);
  }

 private:
  static Registrar*& first() {
    static Registrar* head = nullptr;
    return head;
  }
  Define define_;
  Registrar* next_;
};

}  // namespace hvdfilter
