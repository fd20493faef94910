// The tokens of a call and the pages that their sequences have in a KV cache. To be included after
// `params.cuh`, which declares CachedTokens.
//
// A page holds PAGE_SIZE consecutive tokens of one sequence: pages [P, H, 2, PAGE_SIZE, HEAD_DIM]
// bf16, the keys of a head followed by its values. Block c of a sequence is page
// page_tables[sequence, c]. Its means are row c % MEANS_PER_PAGE of the page of means
// mean_tables[sequence, c / MEANS_PER_PAGE]: [M, H, MEANS_PER_PAGE, HEAD_DIM] f32, written when the
// block is complete.
//
// Given as macros: HEAD_DIM, PAGE_SIZE. MEANS_PER_PAGE is a constant.
#pragma once
#include "dependent_launch.cuh"

constexpr int HEAD_PAGE = PAGE_SIZE * HEAD_DIM;

// The rows of the tables of a token's sequence.
DEVICE const int* page_table(const CachedTokens& tokens, int token) {
    return tokens.page_tables + i64(tokens.sequences[token]) * tokens.blocks;
}
DEVICE const int* mean_table(const CachedTokens& tokens, int token) {
    return tokens.mean_tables +
           i64(tokens.sequences[token]) * ceil_div(tokens.blocks, MEANS_PER_PAGE);
}

// Whether all blocks of a token are selected, since they are within a budget: dense attention, for
// which no block needs a score.
DEVICE bool selects_all(const CachedTokens& tokens, int token, int all_within) {
    return tokens.positions[token] / PAGE_SIZE < all_within;
}

// The keys of a page and head; the values follow HEAD_PAGE elements further.
DEVICE i64 head_page(int page, int kv_head, int kv_heads) {
    return (i64(page) * kv_heads + kv_head) * (2 * HEAD_PAGE);
}

// The mean of a block and head, given the page of means of the block.
DEVICE i64 mean_row(int mean_page, int block, int kv_head, int kv_heads) {
    return ((i64(mean_page) * kv_heads + kv_head) * MEANS_PER_PAGE + block % MEANS_PER_PAGE) *
           HEAD_DIM;
}
