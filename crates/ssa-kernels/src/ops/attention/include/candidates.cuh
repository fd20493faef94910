// The best blocks of a token so far, while the importances of one tile of blocks after another
// arrive. Each warp keeps those among the blocks that it scores.
#pragma once
#include "common.cuh"

constexpr int LANE_CANDIDATES = CANDIDATES / WARP;
static_assert(CANDIDATES % WARP == 0, "lanes have the same number of candidates");

// In shared memory. Given as a constant: CANDIDATES.
struct Candidates {
    int count;
    // Bits of the importance, block; in no order. Importances are not negative, so their bits order
    // like their values.
    uint2 list[CANDIDATES];

    // The importance above the complement of the block: no two are equal, and of equal importances
    // the lower block is better. 0 where there is none.
    DEVICE_MEMBER u64 rank(int at) const {
        if (at >= count) return 0;
        const uint2 candidate = list[at];
        return u64(candidate.x) << 32 | ~candidate.y;
    }
};

// The rank that `wanted` of the warp's ranks reach, or all that are not 0 if there are fewer.
template <int N> DEVICE u64 best_from(const u64 (&rank)[N], int wanted) {
    u32 most = 0;
    int present = 0;
#pragma unroll
    for (int i = 0; i < N; ++i) {
        most = max(most, u32(rank[i] >> 32));
        present += rank[i] != 0;
    }
    if (__reduce_add_sync(ALL_LANES, present) <= wanted) return 1;
    // More than `wanted` are >= low, at_high <= wanted are >= high.
    u64 low = 1, high = (u64(__reduce_max_sync(ALL_LANES, most)) + 1) << 32;
    int at_high = 0;
    while (at_high != wanted) {
        const u64 middle = low + (high - low) / 2;
        int n = 0;
#pragma unroll
        for (int i = 0; i < N; ++i) n += rank[i] >= middle;
        n = __reduce_add_sync(ALL_LANES, n);
        if (n > wanted) low = middle;
        else high = middle, at_high = n;
    }
    return high;
}

// Makes the ranks from `least` on the candidates. Returns the bits of their least importance.
template <int N>
DEVICE u32 set_candidates(Candidates& candidates, const u64 (&rank)[N], u64 least) {
    const u32 lanes_before = (1u << threadIdx.x % WARP) - 1;
    u32 bits = ~0u;
    int count = 0;
    __syncwarp();
#pragma unroll
    for (int i = 0; i < N; ++i) {
        const bool kept = rank[i] >= least;
        const u32 lanes = __ballot_sync(ALL_LANES, kept);
        if (kept) {
            const u32 importance = rank[i] >> 32;
            candidates.list[count + __popc(lanes & lanes_before)] =
                make_uint2(importance, ~u32(rank[i]));
            bits = min(bits, importance);
        }
        count += __popc(lanes);
    }
    if (threadIdx.x % WARP == 0) candidates.count = count;
    __syncwarp();
    return __reduce_min_sync(ALL_LANES, bits);
}

// Keeps the best `wanted` candidates and raises `threshold`, bits of an importance that the best
// `wanted` blocks of all warps reach, to the least of them.
DEVICE void keep_best(Candidates& candidates, int wanted, u32& threshold) {
    __syncwarp();
    if (candidates.count <= wanted) return;
    u64 rank[LANE_CANDIDATES];
#pragma unroll
    for (int i = 0; i < LANE_CANDIDATES; ++i)
        rank[i] = candidates.rank(i * WARP + threadIdx.x % WARP);
    const u32 bits = set_candidates(candidates, rank, best_from(rank, wanted));
    if (threadIdx.x % WARP == 0) atomicMax(&threshold, bits);
}

// Writes the `wanted` best blocks of all warps' lists in ascending order. `wanted` and the lengths
// of the lists are at most WARP; the first list is overwritten. One warp.
template <int LISTS, int STRIDE>
DEVICE void write_best(int* out, Candidates* lists, int wanted) {
    const int lane = threadIdx.x % WARP;
    u64 rank[LISTS];
#pragma unroll
    for (int i = 0; i < LISTS; ++i) rank[i] = lists[i * STRIDE].rank(lane);
    set_candidates(lists[0], rank, best_from(rank, wanted));
    if (lane >= wanted) return;
    const u32 block = lists[0].list[lane].y;
    int slot = 0;
    for (int other = 0; other < wanted; ++other) slot += lists[0].list[other].y < block;
    out[slot] = block;
}
