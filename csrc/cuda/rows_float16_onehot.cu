// The kernels for float16 logits and one-hot targets: hard labels.
#include "rows.cuh"

template int hvdfilter::cuda::launch_rows_as<hvdfilter::cuda::Half, false>(
    const hvdfilter::cuda::Job&, int, void*);
