// The best blocks of a token so far, while the importances of one tile of blocks after another
// arrive.
#pragma once
#include "common.cuh"

constexpr int LANE_CANDIDATES = CANDIDATES / WARP;
static_assert(CANDIDATES % WARP == 0, "lanes have the same number of candidates");

// In shared memory. Given as a macro: CANDIDATES.
struct Candidates {
    // Bits of the least importance that may still be among the best: importances are not negative,
    // so their bits order like their values.
    u32 threshold;
    int count;
    // Bits of the importance, block; in no order.
    uint2 list[CANDIDATES];
};

// Keeps the best `wanted` candidates, and raises the threshold to the least of them. One warp.
DEVICE void keep_best(Candidates& candidates, int wanted) {
    const int count = candidates.count, lane = threadIdx.x % WARP;
    if (count <= wanted) return;
    // The importance above the complement of the block: no two are equal, and of equal importances
    // the lower block is better.
    u64 rank[LANE_CANDIDATES];
    u32 most = 0, least = ~0u;
#pragma unroll
    for (int i = 0; i < LANE_CANDIDATES; ++i) {
        rank[i] = 0;
        if (i * WARP + lane >= count) continue;
        const uint2 candidate = candidates.list[i * WARP + lane];
        rank[i] = u64(candidate.x) << 32 | ~candidate.y;
        most = max(most, candidate.x), least = min(least, candidate.x);
    }
    // More than `wanted` are >= low, at_high <= wanted are >= high.
    u64 low = u64(__reduce_min_sync(ALL_LANES, least)) << 32;
    u64 high = (u64(__reduce_max_sync(ALL_LANES, most)) + 1) << 32;
    int at_high = 0;
    while (at_high != wanted) {
        const u64 middle = low + (high - low) / 2;
        int n = 0;
#pragma unroll
        for (int i = 0; i < LANE_CANDIDATES; ++i) n += rank[i] >= middle;
        n = __reduce_add_sync(ALL_LANES, n);
        if (n > wanted) low = middle;
        else high = middle, at_high = n;
    }
    int kept = 0;
    least = ~0u;
    __syncwarp();
#pragma unroll
    for (int i = 0; i < LANE_CANDIDATES; ++i) {
        const bool best = rank[i] >= high;
        const u32 lanes = __ballot_sync(ALL_LANES, best);
        if (best) {
            const u32 bits = rank[i] >> 32;
            candidates.list[kept + __popc(lanes & ((1u << lane) - 1))] =
                make_uint2(bits, ~u32(rank[i]));
            least = min(least, bits);
        }
        kept += __popc(lanes);
    }
    least = __reduce_min_sync(ALL_LANES, least);
    if (lane == 0) candidates.threshold = least, candidates.count = kept;
    __syncwarp();
}

// Writes the blocks of the first `count` candidates in ascending order. One warp.
DEVICE void write_ascending(int* out, const Candidates& candidates, int count) {
    for (int own = threadIdx.x % WARP; own < count; own += WARP) {
        const u32 block = candidates.list[own].y;
        int slot = 0;
        for (int other = 0; other < count; ++other) slot += candidates.list[other].y < block;
        out[slot] = block;
    }
}
