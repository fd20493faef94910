// Copies whole pages of a cache to others. Given as a macro: PAGE_LENGTH, elements of a page, a
// multiple of 8.
#include "common.cuh"
#include "params.cuh"

// A block of threads copies a page.
template <typename T> DEVICE void copy(const CopyPages<T>& p) {
    constexpr int VECTORS = PAGE_LENGTH * sizeof(T) / 16;
    const uint4* from =
        reinterpret_cast<const uint4*>(p.pages + i64(p.sources[blockIdx.x]) * PAGE_LENGTH);
    uint4* to = reinterpret_cast<uint4*>(p.pages + i64(p.targets[blockIdx.x]) * PAGE_LENGTH);
    for (int i = threadIdx.x; i < VECTORS; i += blockDim.x) to[i] = from[i];
}

extern "C" __global__ void copy_pages_bf16(const CopyPages<bf16> p) { copy(p); }
extern "C" __global__ void copy_pages_f32(const CopyPages<float> p) { copy(p); }
