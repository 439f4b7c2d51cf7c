// The distributed point function: keys, and a row's whole tree in one block. The bodies of dpf.py, which says what it is.
#include "mpc.cuh"
#include "aes.cuh"

constexpr int LEAF_LOG = 7, PLANES = 88;  // bits of a leaf; words of one key's schedule
constexpr int LEFT = 0, RIGHT = 1, LEAF = 2;

struct __align__(16) Node {
    u64 low, high;
};

__device__ __forceinline__ Node operator^(const Node& x, const Node& y) { return Node{x.low ^ y.low, x.high ^ y.high}; }
__device__ __forceinline__ Node where(u64 control, const Node& x) {
    u64 mask = 0 - (control & 1);
    return Node{x.low & mask, x.high & mask};
}

// AES of both under one of the three keys (not yet xored with what went in).
__device__ __forceinline__ void permute(const Node& x, const Node& y, const int* schedules, int which, Node& u, Node& v) {
    u32 q[8] = {(u32)x.low, (u32)y.low, (u32)(x.low >> 32), (u32)(y.low >> 32),
                (u32)x.high, (u32)y.high, (u32)(x.high >> 32), (u32)(y.high >> 32)};
    encrypt_two(q, schedules + which * PLANES);
    u = Node{q[0] | (u64)q[2] << 32, q[4] | (u64)q[6] << 32};
    v = Node{q[1] | (u64)q[3] << 32, q[5] | (u64)q[7] << 32};
}

__device__ __forceinline__ Node load_node(const u8* from) {
    u64 word[2] = {0, 0};
    for (int i = 0; i < 16; i++) word[i >> 3] |= (u64)from[i] << 8 * (i & 7);
    return Node{word[0], word[1]};
}

__device__ __forceinline__ void store_node(u8* to, const Node& x) {
    for (int i = 0; i < 16; i++) to[i] = (u8)((i < 8 ? x.low : x.high) >> 8 * (i & 7));
}

// One block a row and subtree of ``deep`` levels: seeds uint8[rows][16], keys uint8[rows][key_bytes] -> out
// uint8[rows][2^n / 8]. blockIdx.y numbers the subtrees, of which the first n - 7 - deep levels lead to.
extern "C" __global__ void __launch_bounds__(256)
    dpf_expand(const u8* __restrict__ seeds, int party, const u8* __restrict__ keys, int key_bytes, int n, int deep,
               const int* __restrict__ schedules, u8* __restrict__ out) {
    SHARED_MEMORY(memory);
    int levels = n - LEAF_LOG, t = threadIdx.x, threads = blockDim.x;
    Node *cuts = (Node*)memory, *above = cuts + 2 * levels + 1, *below = above + (1 << deep);
    const u8* key = keys + (i64)blockIdx.x * key_bytes;
    for (int i = t; i <= 2 * levels; i += threads) {  // cut of side i & 1 of level i / 2; the leaf's is the last
        Node cut = load_node(key + 16 * (i >> 1));
        if (i < 2 * levels) cut.low = (cut.low & ~1ull) | (key[16 * levels + 16 + (i >> 3)] >> (i & 7) & 1);
        cuts[i] = cut;
    }
    __syncthreads();
    if (t == 0) {
        Node x = load_node(seeds + (i64)blockIdx.x * 16);
        x.low = (x.low & ~1ull) | (u64)party;
        for (int level = 0; level < levels - deep; level++) {
            int side = blockIdx.y >> (levels - deep - 1 - level) & 1;
            Node u, v;
            permute(x, x, schedules, side, u, v);
            x = u ^ x ^ where(x.low, cuts[2 * level + side]);
        }
        above[0] = x;
    }
    for (int level = 0; level < deep; level++) {
        __syncthreads();
        int count = 1 << level, pairs = (count + 1) / 2;
        const Node* cut = cuts + 2 * (levels - deep + level);
        for (int i = t; i < 2 * pairs; i += threads) {
            int side = i & 1, first = i & ~1, second = min(first + 1, count - 1);
            Node x = above[first], y = above[second], u, v;
            permute(x, y, schedules, side, u, v);
            below[2 * first + side] = u ^ x ^ where(x.low, cut[side]);
            if (second > first) below[2 * second + side] = v ^ y ^ where(y.low, cut[side]);
        }
        Node* swap = above;
        above = below;
        below = swap;
    }
    __syncthreads();
    int leaves = 1 << deep;
    Node* to = (Node*)(out + ((i64)blockIdx.x << (n - 3))) + (i64)blockIdx.y * leaves;
    for (int first = 2 * t; first < leaves; first += 2 * threads) {
        int second = min(first + 1, leaves - 1);
        Node x = above[first], y = above[second], u, v, cut = cuts[2 * levels];
        permute(x, y, schedules, LEAF, u, v);
        to[first] = u ^ x ^ where(x.low, cut);
        if (second > first) to[second] = v ^ y ^ where(y.low, cut);
    }
}

// Dealer's part, one thread a row: both parties' nodes on the path side by side. keys uint8[rows][key_bytes].
extern "C" __global__ void __launch_bounds__(128)
    dpf_generate(const u8* __restrict__ seeds0, const u8* __restrict__ seeds1, const i64* __restrict__ position, i64 rows,
                 int n, int key_bytes, const int* __restrict__ schedules, u8* __restrict__ keys, i64* __restrict__ sign) {
    i64 row = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= rows) return;
    int levels = n - LEAF_LOG;
    u64 at = (u64)position[row] & ((1ull << n) - 1), controls = 0;
    u8* key = keys + row * key_bytes;
    Node x = load_node(seeds0 + row * 16), y = load_node(seeds1 + row * 16);
    x.low &= ~1ull;
    y.low |= 1;
    for (int level = 0; level < levels; level++) {
        u64 turn = at >> (n - 1 - level) & 1;
        Node u[2], v[2];
        permute(x, y, schedules, LEFT, u[0], v[0]);
        permute(x, y, schedules, RIGHT, u[1], v[1]);
        u64 both = x.low ^ y.low;
        u64 left = (u[0].low ^ v[0].low ^ both ^ 1 ^ turn) & 1, right = (u[1].low ^ v[1].low ^ both ^ turn) & 1;
        Node keep0 = turn ? u[1] : u[0], keep1 = turn ? v[1] : v[0], lose0 = turn ? u[0] : u[1], lose1 = turn ? v[0] : v[1];
        Node cut = lose0 ^ lose1 ^ x ^ y;
        cut.low &= ~1ull;
        store_node(key + 16 * level, cut);
        cut.low |= turn ? right : left;
        u64 first = x.low, second = y.low;
        x = x ^ keep0 ^ where(first, cut);
        y = y ^ keep1 ^ where(second, cut);
        controls |= (left | right << 1) << 2 * level;
    }
    Node u, v;
    permute(x, y, schedules, LEAF, u, v);
    int place = at & 127;
    Node hot = place < 64 ? Node{1ull << place, 0} : Node{0, 1ull << (place - 64)};
    Node mine = u ^ x, cut = mine ^ v ^ y ^ hot, share = mine ^ where(x.low, cut);
    store_node(key + 16 * levels, cut);
    for (int i = 0; i < (2 * levels + 7) / 8; i++) key[16 * levels + 16 + i] = (u8)(controls >> 8 * i);
    sign[row] = (share.low & hot.low) | (share.high & hot.high) ? 1 : -1;
}
