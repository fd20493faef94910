// The most important blocks of a token. importance [tokens, H, blocks] f32, of the blocks before
// the token's own; indices [N, H, slots], ascending, -1 where unused.
//
// A block of threads owns a token and key/value head. A key is the bits of an importance (they
// order like the value, which is not negative) above the complement of the block's number: keys are
// unique, and of equal importances the lower block has the larger key. So the best `wanted` are a
// set without ties, whatever order the threads work in.
//
// Thread i looks at blocks i, i + TOP_THREADS, ... The bound that `wanted` of the threads' largest
// keys reach is found by bisection, one barrier a step; no key below it is among the best. It
// leaves few more than `wanted` candidates, since neighbors, which tend to be important together,
// belong to different threads. These go to shared memory and are ranked by counting. Where more
// pass than fit, the bound is raised by counting all keys.
//
// With `mass` > 0 the token keeps only as many of them, in order of importance, as it takes for
// their importances and that of its own block, if complete, to sum to mass * GROUP; at least
// `least` blocks, its own among them. kept_mass [.., N, H], from `first_row` on: the sum of the
// kept importances by GROUP, and the number of blocks.
//
// Given as macros: REFERENCE_RULE, PAGE_SIZE, GROUP, HEAD_DIM, CANDIDATES. Grid: (H, tokens).
// Dynamic shared memory: CANDIDATES keys, then `slots` and, by the reference rule, PAGE_SIZE.
#include "params.cuh"
#include "cached.cuh"

constexpr int WARPS = TOP_THREADS / WARP;

struct Ranked {
    const float* importance;

    // The key of a block.
    DEVICE_MEMBER u64 key(int block) const {
        return u64(__float_as_uint(importance[block])) << 32 | u32(~block);
    }
    DEVICE_MEMBER static int block(u64 key) { return int(~u32(key)); }
    DEVICE_MEMBER static float value(u64 key) { return __uint_as_float(u32(key >> 32)); }
};

// Sum over the block of threads, and over the threads before this one.
DEVICE int block_scan(int x, int& before) {
    __shared__ int totals[WARPS];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    int inclusive = x;
#pragma unroll
    for (int offset = 1; offset < WARP; offset *= 2) {
        const int other = __shfl_up_sync(ALL_LANES, inclusive, offset);
        if (lane >= offset) inclusive += other;
    }
    __syncthreads();
    if (lane == WARP - 1) totals[warp] = inclusive;
    __syncthreads();
    int all = 0;
    before = inclusive - x;
#pragma unroll
    for (int w = 0; w < WARPS; ++w) {
        if (w == warp) before += all;
        all += totals[w];
    }
    return all;
}

// Number of keys of blocks begin .. end that are at least `bound`, and how many of them belong to
// threads before this one.
DEVICE int count_from(const Ranked& ranked, int begin, int end, u64 bound, int& before) {
    int count = 0;
    for (int block = begin + threadIdx.x; block < end; block += TOP_THREADS)
        count += ranked.key(block) >= bound;
    return block_scan(count, before);
}

// Appends the best `wanted` of blocks begin .. end to `list`, best first. Returns their number.
DEVICE int append_best(const Ranked& ranked, int begin, int end, int wanted, u64* candidates,
                       u64* list) {
    wanted = min(wanted, end - begin);
    if (wanted <= 0) return 0;
    u64 most = 0;
    for (int block = begin + threadIdx.x; block < end; block += TOP_THREADS)
        most = max(most, ranked.key(block));
    // At least `wanted` keys are >= low. Keys are not 0.
    u64 low = 1;
    if (__syncthreads_count(most != 0) >= wanted) {
        u64 high = 1ull << 63;
        while (high - low > 1) {
            const u64 middle = low + (high - low) / 2;
            const int count = __syncthreads_count(most >= middle);
            if (count >= wanted) low = middle;
            else high = middle;
            if (count == wanted) break;
        }
    }
    int before;
    int count = count_from(ranked, begin, end, low, before);
    for (u64 high = 1ull << 63; count > CANDIDATES;) {
        const u64 middle = low + (high - low) / 2;
        int before_middle;
        const int from_middle = count_from(ranked, begin, end, middle, before_middle);
        if (from_middle >= wanted) low = middle, count = from_middle, before = before_middle;
        else high = middle;
    }
    for (int block = begin + threadIdx.x; block < end; block += TOP_THREADS) {
        if (ranked.key(block) >= low) candidates[before++] = ranked.key(block);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < count; i += TOP_THREADS) {
        int rank = 0;
        for (int j = 0; j < count; ++j) rank += candidates[j] > candidates[i];
        if (rank < wanted) list[rank] = candidates[i];
    }
    __syncthreads();
    return wanted;
}

// Sorts the `count` keys of `list` and returns how many of them are kept, `wanted` at most.
DEVICE int sort(u64* list, int count, int wanted, u64* sorted) {
    for (int i = threadIdx.x; i < count; i += TOP_THREADS) {
        int rank = 0;
        for (int j = 0; j < count; ++j) rank += list[j] > list[i];
        sorted[rank] = list[i];
    }
    __syncthreads();
    return min(count, wanted);
}

// How many of the `count` keys of `best` are kept for a mass, and the sum of their importances and
// of `own`. Every thread does the same.
DEVICE int keep_mass(const u64* best, int count, float own, const SelectPages& p, float& kept) {
    kept = own;
    int keys = 0;
    while (keys < count && (!(p.mass > 0.0f) || keys + 1 < p.least || kept < p.mass * GROUP)) {
        kept += Ranked::value(best[keys++]);
    }
    return keys;
}

extern "C" __global__ void __launch_bounds__(TOP_THREADS) select_pages(const SelectPages p) {
    extern __shared__ u64 shared[];
    u64* candidates = shared;
    u64* best = shared + CANDIDATES;
    start_next();
    wait_for_previous();
    const int token = p.tokens.first + blockIdx.y, kv_head = blockIdx.x, kv_heads = gridDim.x;
    const i64 row = i64(token) * kv_heads + kv_head;
    const int position = p.tokens.positions[token];
    const int complete = (position + 1) / PAGE_SIZE, current = position / PAGE_SIZE;
    const int others = min(p.slots - 1, current);
    int* indices = p.indices + row * p.slots;
    if (selects_all(p.tokens, token, p.all_within)) {
        for (int slot = threadIdx.x; slot < p.slots; slot += TOP_THREADS)
            indices[slot] = slot <= current ? slot : -1;
        if (threadIdx.x == 0 && p.kept_mass)
            p.kept_mass[p.first_row + row] = make_float2(1.0f, float(current + 1));
        return;
    }
    const Ranked ranked{p.importance + (i64(blockIdx.y) * kv_heads + kv_head) * p.tokens.blocks};
    int count = 0;
    if (REFERENCE_RULE && current >= PAGE_SIZE && current > others) {
        // The best halves of the last chunk of PAGE_SIZE blocks and of all blocks before it.
        const int last_chunk = current / PAGE_SIZE * PAGE_SIZE;
        u64* halves = best + p.slots;
        const int first = append_best(ranked, 0, last_chunk, PAGE_SIZE / 2, candidates, halves);
        const int second =
            append_best(ranked, last_chunk, current, PAGE_SIZE / 2 - 1, candidates, halves + first);
        count = sort(halves, first + second, others, best);
    } else {
        count = append_best(ranked, 0, current, others, candidates, best);
    }
    const float own = complete > current ? ranked.importance[current] : 0.0f;
    if (p.kept_mass || p.mass > 0.0f) {
        float kept;
        count = keep_mass(best, count, own, p, kept);
        if (threadIdx.x == 0 && p.kept_mass) {
            const float share = complete > 0 ? fminf(kept / GROUP, 1.0f) : 1.0f;
            p.kept_mass[p.first_row + row] = make_float2(share, float(count + 1));
        }
    }
    // Ascending.
    for (int i = threadIdx.x; i < count; i += TOP_THREADS) {
        const int block = Ranked::block(best[i]);
        int slot = 0;
        for (int j = 0; j < count; ++j) slot += Ranked::block(best[j]) < block;
        indices[slot] = block;
    }
    for (int slot = count + threadIdx.x; slot < p.slots; slot += TOP_THREADS)
        indices[slot] = slot == count ? current : -1;
}
