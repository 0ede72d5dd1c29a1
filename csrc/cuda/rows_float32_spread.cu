// The kernels for float32 logits and targets spread over the classes: soft labels, smoothing.
#include "rows.cuh"

template int hvdfilter::cuda::launch_rows_as<float, true>(
    const hvdfilter::cuda::Job&, int, void*);
