// The scoring functions of the `_cpu` module on plain structs, for bindings and native callers.
#pragma once

#include "rows.h"

namespace hvdfilter {

// Each returns row * 4 + BadRow reason of the first bad row, or -1.
int64_t score(const Rows& job);
int64_t cross_entropy(const Rows& job);
int64_t finish_rows(const Rows& job);
void cross_entropy_backward(const Rows& job);
void row_sums(const Rows& job);

}  // namespace hvdfilter
