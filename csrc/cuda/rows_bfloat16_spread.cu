// The kernels for bfloat16 logits and targets spread over the classes: soft labels, smoothing.
#include "rows.cuh"

template int hvdfilter::cuda::launch_rows_as<hvdfilter::cuda::Brain, true>(
    const hvdfilter::cuda::Job&, int, void*);
