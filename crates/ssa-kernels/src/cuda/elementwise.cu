// Element by element on whole tensors.
#include "common.cuh"

// x += y. Eight elements a thread: two loads of 16 bytes, one store. The last n % 8 elements go to the last thread.
extern "C" __global__ void add_assign_bf16(bf16* x, const bf16* y, i64 n) {
    const i64 first = (i64(blockIdx.x) * blockDim.x + threadIdx.x) * 8;
    if (first + 8 <= n) {
        float a[8], b[8];
        load8(a, x + first);
        load8(b, y + first);
#pragma unroll
        for (int i = 0; i < 8; ++i) a[i] += b[i];
        store8(x + first, a);
    } else {
        for (i64 i = first; i < n; ++i) x[i] = to_bf16(to_float(x[i]) + to_float(y[i]));
    }
}

extern "C" __global__ void add_assign_f32(float* x, const float* y, i64 n) {
    const i64 first = (i64(blockIdx.x) * blockDim.x + threadIdx.x) * 8;
    if (first + 8 <= n) {
        float a[8], b[8];
        load8(a, x + first);
        load8(b, y + first);
#pragma unroll
        for (int i = 0; i < 8; ++i) a[i] += b[i];
        store8(x + first, a);
    } else {
        for (i64 i = first; i < n; ++i) x[i] += y[i];
    }
}
