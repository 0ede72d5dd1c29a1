// Lets a module built on a new system load on an old one: manylinux_2_28, which is glibc 2.28 and
// the libstdc++ of GCC 8. The headers of newer systems refer to a few functions that those do not
// have. Each is defined here, for this module alone, by means of what they do have; a compiler whose
// headers refer to none of them leaves these uncalled. tests/test_portable.py holds every version
// that the module asks for against manylinux_2_28's.
#include <exception>
#include <new>

// Declares and begins a function that goes by another's symbol and is seen by this module only.
#define HVD_STAND_IN(result, name, arguments, symbol)                                          \
  extern "C" __attribute__((visibility("hidden"))) result name arguments __asm__(symbol);      \
  result name arguments

#if defined(__GLIBC__) && defined(__x86_64__)
#define HVD_OLDEST_GLIBC "GLIBC_2.2.5"
#elif defined(__GLIBC__) && defined(__aarch64__)
#define HVD_OLDEST_GLIBC "GLIBC_2.17"
#endif

#ifdef HVD_OLDEST_GLIBC
// The exp of 2.29 is the same but for errno, which the old one sets.
extern "C" double any_exp(double);
__asm__(".symver any_exp, exp@" HVD_OLDEST_GLIBC);
HVD_STAND_IN(double, own_exp, (double x), "exp") { return any_exp(x); }

// Tells libstdc++'s headers that they may count without atomics; never, here.
extern "C" __attribute__((visibility("hidden"))) char own_flag __asm__("__libc_single_threaded");
char own_flag = 0;
#endif

#if defined(__GLIBCXX__) && defined(__ELF__)
extern "C" [[noreturn]] void __cxa_throw_bad_array_new_length();
HVD_STAND_IN(void, bad_length, (), "_ZSt28__throw_bad_array_new_lengthv") {
  __cxa_throw_bad_array_new_length();
}

// Since GCC 11 the copy constructor and the destructor of std::exception_ptr, one counted pointer,
// are in the header, over the next two. The library still has both, but a copy of the header's that
// the compiler did not inline goes by the same name, so what is in the library alone stands in.
extern "C" [[noreturn]] void rethrow(const std::exception_ptr*) __asm__(
    "_ZSt17rethrow_exceptionNSt15__exception_ptr13exception_ptrE");  // takes its argument by address
HVD_STAND_IN(void, add_reference, (const std::exception_ptr* self),
             "_ZNSt15__exception_ptr13exception_ptr9_M_addrefEv") {
  alignas(std::exception_ptr) unsigned char kept[sizeof(std::exception_ptr)];
  try {
    rethrow(self);
  } catch (...) {
    new (kept) std::exception_ptr(std::current_exception());  // not destroyed: it is counted
  }
}

struct Nested {  // as std::nested_exception
  void* table;
  void* exception;
};
static_assert(sizeof(Nested) == sizeof(std::nested_exception), "one pointer beside the table's");
extern "C" void destroy(Nested*) __asm__("_ZNSt16nested_exceptionD1Ev");
HVD_STAND_IN(void, release, (void** self), "_ZNSt15__exception_ptr13exception_ptr10_M_releaseEv") {
  Nested last{nullptr, *self};
  destroy(&last);
  *self = nullptr;
}
#endif
