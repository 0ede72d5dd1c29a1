// The kernels for float32 logits and one-hot targets: hard labels.
#include "rows.cuh"

template int hvdfilter::cuda::launch_rows_as<float, false>(
    const hvdfilter::cuda::Job&, int, void*);
