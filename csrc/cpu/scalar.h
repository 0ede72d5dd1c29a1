// The scoring kernels as plain loops over one row, in float64 throughout with the C library's own
// functions. They serve float64 logits, where exactness is wanted and not speed.
#pragma once

#include "../row_score.h"
#include "rows.h"

namespace hvdfilter {

// Each returns the row's BadRow reason and works on row i alone.
int scalar_row(const Rows& job, int64_t i, double per_row);
void scalar_backward_row(const Rows& job, int64_t i, double per_row);
void scalar_sums_row(const Rows& job, int64_t i);
int scalar_finish_row(const Rows& job, int64_t i);

}  // namespace hvdfilter
