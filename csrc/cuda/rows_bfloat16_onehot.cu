// The kernels for bfloat16 logits and one-hot targets: hard labels.
#include "rows.cuh"

template int hvdfilter::cuda::launch_rows_as<hvdfilter::cuda::Brain, false>(
    const hvdfilter::cuda::Job&, int, void*);
