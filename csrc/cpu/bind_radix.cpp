// Python's integers to `Keys`; hvdfilter/agreement/radix.py is the only caller. Addresses of
// contiguous arrays: key float32[count], group int32[count] or 0, weight int64[count] or 0,
// child int32[nodes, width], histogram int64[nodes, width], threshold uint32[groups],
// rest int64[groups], keep uint8[count].
#include "../bindings.h"
#include "radix.h"

namespace hvdfilter {
namespace {

Keys keys_of(Address key, int64_t count, Address group, Address weight) {
  return {at<const float>(key), count, at<const int32_t>(group), at<const int64_t>(weight)};
}

void bind_count(Address key, int64_t count, Address group, Address weight, int level,
                Address child0, Address child1, int64_t live, Address histogram) {
  const int32_t* child[] = {at<const int32_t>(child0), at<const int32_t>(child1)};
  radix_count(keys_of(key, count, group, weight), level, child, live, at<int64_t>(histogram));
}

void bind_emit(Address key, int64_t count, Address group, Address weight, Address threshold,
               Address rest, Address keep) {
  radix_emit(keys_of(key, count, group, weight), at<const uint32_t>(threshold), at<int64_t>(rest),
             at<uint8_t>(keep));
}

int64_t bind_first_nan(Address key, int64_t count) { return first_nan(at<const float>(key), count); }

const Registrar registrar([](pybind11::module_& module) {
  module.def("radix_count", &bind_count, Unlocked());
  module.def("radix_emit", &bind_emit, Unlocked());
  module.def("first_nan", &bind_first_nan, Unlocked());
});

}  // namespace
}  // namespace hvdfilter
