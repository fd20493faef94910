// An entry of the inverse of a selection: a token and the list of a block and key/value head, block
// * H + head, that it is in.
#pragma once
#include "common.cuh"

struct Pair {
    u32 list, token;
};
