// The counting passes of the exact selection over all ranks: each reads the keys once, in order,
// and allocates nothing of their size. They only count; what the counts mean is Python's business
// (hvdfilter/agreement/select.py), and reference.py beside it has every pass in plain NumPy.
#pragma once

#include <cstdint>

namespace hvdfilter {

// A rank's keys. groups (in [0, nodes)) and weights may be null: one group, and ones.
struct Keys {
  const float* key;
  int64_t count;
  const int32_t* group;
  const int64_t* weight;
};

constexpr int kLevels = 3;
constexpr int kShift[kLevels] = {21, 10, 0};
constexpr int kWidth[kLevels] = {2048, 2048, 1024};

// Adds to histogram[node * width + digit] for the digit at `level` of every key that is at a live
// node there. A key starts at the node of its group; child[l][node * width + digit] is the next
// node, -1 for none. live is the number of nodes at `level`.
void radix_count(const Keys& keys, int level, const int32_t* const* child, int64_t live,
                 int64_t* histogram);

// keep[i] = key above its group's threshold, or equal to it while the summed weight of such keys
// of the group stays within rest[group], which is used up on the way.
void radix_emit(const Keys& keys, const uint32_t* threshold, int64_t* rest, uint8_t* keep);

// The first NaN, or -1.
int64_t first_nan(const float* key, int64_t count);

}  // namespace hvdfilter
