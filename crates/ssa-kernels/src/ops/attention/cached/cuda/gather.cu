// The keys and values of whole sequences, copied from their pages to consecutive rows
// [keys of all sequences, H, HEAD_DIM]. A thread copies eight elements of a key and of the value.
//
// Given as macros: HEAD_DIM, PAGE_SIZE. Grid: (vectors of the longest sequence, sequences).
#include "params.cuh"
#include "cached.cuh"

constexpr int VECTORS = HEAD_DIM / 8;

extern "C" __global__ void __launch_bounds__(THREADS) gather_pages(const GatherPages p) {
    start_next();
    wait_for_previous();
    const int sequence = blockIdx.y, first = p.key_starts[sequence];
    const i64 item = i64(blockIdx.x) * THREADS + threadIdx.x, row = item / VECTORS;
    const int head = int(row % p.kv_heads), at = int(item % VECTORS) * 8;
    const i64 key = row / p.kv_heads;
    if (key >= p.key_starts[sequence + 1] - first) return;
    const int page = p.tokens.page_tables[i64(sequence) * p.tokens.blocks + key / PAGE_SIZE];
    const bf16* from =
        p.pages + head_page(page, head, p.kv_heads) + key % PAGE_SIZE * HEAD_DIM + at;
    const i64 to = ((first + key) * p.kv_heads + head) * HEAD_DIM + at;
    *reinterpret_cast<uint4*>(p.k + to) = *reinterpret_cast<const uint4*>(from);
    *reinterpret_cast<uint4*>(p.v + to) = *reinterpret_cast<const uint4*>(from + HEAD_PAGE);
}
