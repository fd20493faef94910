// Which blocks the tokens of a warp selected, as bits: one word list per token and key/value head, `[N, H, words]`, bit c of the
// list for block c of the document. BLOCK_SIZE is a multiple of 16.
#pragma once
#include "common.cuh"

static_assert(BLOCK_SIZE % 16 == 0, "a block is whole fragments");

// Consecutive tokens; those behind the end of the document select nothing.
template <int TOKENS> struct SelectedTokens {
    const u32* first;
    i64 stride;
    int tokens;

    __device__ __forceinline__ SelectedTokens(
        const u32* selection, int words, int token, int tokens_left, int kv_head, int kv_heads
    ) : first(selection + (i64(token) * kv_heads + kv_head) * words), stride(i64(kv_heads) * words), tokens(tokens_left) {}

    // The words that hold the block of a key, which is counted from the start of the document.
    __device__ __forceinline__ void load(u32 (&words)[TOKENS], int key) const {
#pragma unroll
        for (int m = 0; m < TOKENS; ++m) words[m] = m < tokens ? __ldg(first + m * stride + key / BLOCK_SIZE / 32) : 0;
    }
};

DEVICE u32 block_is_selected(u32 word, int key) { return (word >> (key / BLOCK_SIZE % 32)) & 1; }

// The same for a warpgroup of 64 packed rows, GROUP 16: four tokens, lane l looks after token l % 4.
struct SelectedQuad {
    const u32* words;
    bool inside;

    __device__ __forceinline__ SelectedQuad(
        const u32* selection, int words_per_row, i64 token, int tokens_left, int kv_head, int kv_heads, int lane
    ) : words(selection + ((token + lane % 4) * kv_heads + kv_head) * words_per_row), inside(lane % 4 < tokens_left) {}

    // The bits of this lane's token for `keys` keys from `key` on, counted from the start of the document: bit 0 is key's block.
    __device__ __forceinline__ u32 load(int key, int keys) const {
        const int block = key / BLOCK_SIZE, blocks = keys < BLOCK_SIZE ? 1 : keys / BLOCK_SIZE;
        return inside ? __ldg(words + block / 32) >> (block % 32) & ((1u << blocks) - 1) : 0;
    }
};
