#include "kernels.h"

#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

namespace hvdfilter {
namespace {

const Kernels& choose() {
  const char* wish = std::getenv("HVDFILTER_ISA");
  const auto wanted = [wish](const char* name) {
    return wish == nullptr || *wish == '\0' || std::strcmp(wish, name) == 0;
  };
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                        __builtin_cpu_supports("bmi2");
  const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") &&
                          __builtin_cpu_supports("avx512dq") &&
                          __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  if (has_avx512 && wanted("avx512")) return avx512::table;
  if (has_avx2 && wanted("avx2")) return avx2::table;
#endif
  if (wanted("baseline")) return baseline::table;
  throw std::invalid_argument("HVDFILTER_ISA=" + std::string(wish) +
                              " is none of baseline, avx2 and avx512, or not in this processor.");
}

}  // namespace

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

}  // namespace hvdfilter
