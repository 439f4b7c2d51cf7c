// The product over Z_2^64 on int8 tensor cores, everything in one launch: digits made on the way in, 36 products of
// digits, recombined in registers.
//
// An element x is sum d_i 256^i mod 2^64 with eight signed byte digits: the bytes of (x + 0x80..80) ^ 0x80..80. Of the
// 64 products of digits the 36 with i + j < 8 count. Those of one weight i + j add up in an int32: for weights 0 to 3
// exactly (at most 4 K 2^14 < 2^31 for K < 32768), above modulo 2^32, which is all that weight 4 and more needs.
//
// A block makes a tile of 64 x 64, in steps of 32 along k; eight warps of 32 x 16. Digits lie in shared memory in the
// order in which mma reads them: for 16 rows of A (or columns of B), 32 k and one digit 32 lanes of 16 bytes, so that a
// fragment is one load without bank conflicts. Weights come in that order already, prepared once; activations, and both
// sides of a batched product, are split on the way. The k axis is cut in pieces between blocks (blockIdx.z), which add
// to the output: addition mod 2^64 has one result in any order.
#include "mpc.cuh"

constexpr int TILE = 64, STEP = 32, THREADS = 256;
constexpr int GROUP = 512;                  // bytes of one digit of 16 rows by 32 k
constexpr int SIDE = TILE / 16 * 8 * GROUP;  // bytes of one operand of a step: 16384
constexpr u64 SIGNS = 0x8080808080808080ull;

// Four bytes of four words, transposed: out[j] holds byte j of a, b, c and d.
__device__ __forceinline__ void transpose4(u32 a, u32 b, u32 c, u32 d, u32* out) {
    u32 ab = __byte_perm(a, b, 0x5140), cd = __byte_perm(c, d, 0x5140);
    u32 ab_high = __byte_perm(a, b, 0x7362), cd_high = __byte_perm(c, d, 0x7362);
    out[0] = __byte_perm(ab, cd, 0x5410);
    out[1] = __byte_perm(ab, cd, 0x7632);
    out[2] = __byte_perm(ab_high, cd_high, 0x5410);
    out[3] = __byte_perm(ab_high, cd_high, 0x7632);
}

// The eight digits of four neighbours along k, a register each.
__device__ __forceinline__ void digits4(const u64 (&x)[4], u32 (&digit)[8]) {
    u64 v[4];
#pragma unroll
    for (int i = 0; i < 4; i++) v[i] = (x[i] + SIGNS) ^ SIGNS;
    transpose4((u32)v[0], (u32)v[1], (u32)v[2], (u32)v[3], digit);
    transpose4((u32)(v[0] >> 32), (u32)(v[1] >> 32), (u32)(v[2] >> 32), (u32)(v[3] >> 32), digit + 4);
}

// The 16 bytes of lane l in a group: bit 1 of their number turns with bit 3, so that stores meet all banks too.
__device__ __forceinline__ int chunk(int lane) { return (lane ^ (lane >> 2 & 2)) * 16; }

// Where four neighbours along k lie in their group of 16 rows by 32 k: see mma_s8. A's second register is eight rows
// down, B's second one 16 bytes on along k.
__device__ __forceinline__ int slot(int row, int quad, bool of_a) {
    int down = row >> 3 & 1, on = quad >> 2;
    return chunk((row & 7) * 4 + (quad & 3)) + (of_a ? down + 2 * on : on + 2 * down) * 4;
}

// A stretch of 64 rows by 32 k of an operand of int64, element (row, k) at row * row_step + k * k_step.
struct Operand {
    const u64* from;
    i64 row_step, k_step;
    int rows, depth;  // what there is; beyond it zeros
};

struct __align__(16) Pair {
    u64 x, y;
};

// Whether four neighbours along k are two aligned loads.
__device__ __forceinline__ bool in_pairs(const Operand& x) {
    return x.k_step == 1 && (((u64)x.from | (u64)x.row_step * 8) & 15) == 0;
}

// Which four neighbours along k a thread brings, in each of two halves of 64 rows by 32 k. Rows next to each other in
// memory: a warp takes 4 x 2 of them, whole sectors; k next to each other: 4 rows of 32 k. All 32 stores meet other banks.
__device__ __forceinline__ void place(int t, int half, bool rows_adjacent, int& row, int& quad) {
    int item = (t >> 5) + 8 * half, lane = t & 31;
    if (rows_adjacent) {
        row = (item >> 2) * 16 + (item >> 1 & 1) * 4 + (lane & 3) + (lane >> 2 & 1) * 8;
        quad = (item & 1) * 2 + (lane >> 3 & 1) + (lane >> 4) * 4;
    } else {
        row = (item >> 2) * 16 + (item & 3) * 2 + (lane >> 3 & 1) + (lane >> 4) * 8;
        quad = lane & 7;
    }
}

__device__ __forceinline__ void fetch(const Operand& x, bool pairs, int k0, int row, int quad, u64 (&value)[4]) {
    int k = k0 + 4 * quad;
    const u64* from = x.from + row * x.row_step + k * x.k_step;
    if (pairs && row < x.rows && k + 3 < x.depth) {
        Pair low = *(const Pair*)from, high = *(const Pair*)(from + 2);
        value[0] = low.x, value[1] = low.y, value[2] = high.x, value[3] = high.y;
    } else {
#pragma unroll
        for (int i = 0; i < 4; i++) value[i] = row < x.rows && k + i < x.depth ? from[i * x.k_step] : 0;
    }
}

template <bool OF_A>
__device__ __forceinline__ void store_digits(unsigned char* side, int row, int quad, const u64 (&value)[4]) {
    u32 digit[8];
    digits4(value, digit);
    unsigned char* to = side + (row >> 4) * 8 * GROUP + slot(row, quad, OF_A);
#pragma unroll
    for (int d = 0; d < 8; d++) *(u32*)(to + d * GROUP) = digit[d];
}

// acc[m][n][w][..]: sums of products of digits of weight w, for two tiles of 16 rows and two of 8 columns.
__device__ __forceinline__ void multiply_step(const unsigned char* a, const unsigned char* b, int warp, int lane,
                                              int (&acc)[2][2][8][4]) {
    const unsigned char* left = a + (warp >> 2) * 2 * 8 * GROUP + chunk(lane);
    const unsigned char* right = b + (warp & 3) * 8 * GROUP + chunk(lane);
    Quad column[8];
#pragma unroll
    for (int j = 0; j < 8; j++) column[j] = *(const Quad*)(right + j * GROUP);
#pragma unroll
    for (int i = 0; i < 8; i++)
#pragma unroll
        for (int m = 0; m < 2; m++) {
            Quad q = *(const Quad*)(left + (m * 8 + i) * GROUP);
            u32 row[4] = {q.x, q.y, q.z, q.w};
#pragma unroll
            for (int j = 0; j < 8 - i; j++) {
                mma_s8(acc[m][0][i + j], row, column[j].x, column[j].y);
                mma_s8(acc[m][1][i + j], row, column[j].z, column[j].w);
            }
        }
}

// The sums into the output: stored where a tile's k is in one piece, added otherwise.
__device__ __forceinline__ void write_tile(const int (&acc)[2][2][8][4], u64* out, int row0, int column0, int rows,
                                           int columns, int warp, int lane, bool add) {
#pragma unroll
    for (int m = 0; m < 2; m++)
#pragma unroll
        for (int n = 0; n < 2; n++)
#pragma unroll
            for (int o = 0; o < 4; o++) {
                u64 sum = 0;
#pragma unroll
                for (int w = 0; w < 8; w++) sum += (u64)(i64)acc[m][n][w][o] << 8 * w;
                int row = row0 + (warp >> 2) * 32 + m * 16 + (lane >> 2) + (o >> 1) * 8;
                int column = column0 + (warp & 3) * 16 + n * 8 + (lane & 3) * 2 + (o & 1);
                if (row < rows && column < columns) {
                    u64* to = out + (i64)row * columns + column;
                    if (add)
                        atomicAdd(to, sum);
                    else
                        *to = sum;
                }
            }
}

// Prepared weights: [column / 16][k / 32][digit][lane][16], zeros beyond K and N. One thread four neighbours along k.
extern "C" __global__ void ring_prepare(const u64* __restrict__ b, i64 k_step, i64 column_step, int inner, int columns,
                                        u8* __restrict__ out) {
    int deep = (inner + STEP - 1) / STEP, t = blockIdx.x * blockDim.x + threadIdx.x;
    int row = t & 15, quad = t >> 4 & 7, group = t >> 7;  // of 16 columns by 32 k
    if (group >= (columns + 15) / 16 * deep) return;
    Operand x{b + group / deep * 16 * column_step, column_step, k_step, columns - group / deep * 16, inner};
    u64 value[4];
    fetch(x, in_pairs(x), group % deep * STEP, row, quad, value);
    store_digits<false>(out + (i64)group * 8 * GROUP, row, quad, value);
}

// out = A B for A (rows, inner), k by k in memory, and prepared B. Grid: tiles of rows, tiles of columns, pieces of k of
// ``piece`` steps. With more than one piece the blocks add to what ``out`` holds.
extern "C" __global__ void __launch_bounds__(256, 1)
    ring_product(const u64* __restrict__ a, i64 row_step, int rows, int inner, const u8* __restrict__ prepared,
                 int columns, int piece, int add, u64* out) {
    SHARED_MEMORY(memory);  // two steps of A's digits, then two of B's
    unsigned char *left = memory, *right = memory + 2 * SIDE;
    int t = threadIdx.x, warp = t >> 5, lane = t & 31;
    int row0 = blockIdx.x * TILE, column0 = blockIdx.y * TILE, deep = (inner + STEP - 1) / STEP;
    int first = blockIdx.z * piece, last = min(first + piece, deep);
    int groups = min(TILE / 16, (columns - column0 + 15) / 16);
    Operand x{a + row0 * row_step, row_step, 1, rows - row0, inner};
    int acc[2][2][8][4] = {};
    u64 value[2][4];
    bool pairs = in_pairs(x);

    auto bring = [&](int step, int into) {  // B's digits: 4 KB a group of 16 columns, in order
        for (int at = t * 16; at < groups * 8 * GROUP; at += THREADS * 16) {
            int group = at / (8 * GROUP);
            copy_async16(right + into * SIDE + at,
                         prepared + ((i64)(column0 / 16 + group) * deep + step) * 8 * GROUP + at % (8 * GROUP));
        }
        copy_commit();
    };
    auto read = [&](int step) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int row, quad;
            place(t, half, false, row, quad);
            fetch(x, pairs, step * STEP, row, quad, value[half]);
        }
    };
    auto split = [&](int into) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int row, quad;
            place(t, half, false, row, quad);
            store_digits<true>(left + into * SIDE, row, quad, value[half]);
        }
    };
    // Columns beyond the last group are never copied: their sums are not written, but what they read must be there.
    for (int at = groups * 8 * GROUP + t * 16; at < SIDE; at += THREADS * 16)
        *(Quad*)(right + at) = *(Quad*)(right + SIDE + at) = Quad{0, 0, 0, 0};

    bring(first, 0);
    read(first);
    split(0);
    for (int step = first; step < last; step++) {
        int now = (step - first) & 1;
        bool more = step + 1 < last;
        copy_wait<0>();
        __syncthreads();  // this step's digits are there, and nobody reads the other half any more
        if (more) {
            bring(step + 1, now ^ 1);
            read(step + 1);
        }
        multiply_step(left + now * SIDE, right + now * SIDE, warp, lane, acc);
        if (more) split(now ^ 1);
    }
    write_tile(acc, out, row0, column0, rows, columns, warp, lane, add);
}

// out[z] = A[z] B[z] for operands of int64, A k by k in memory, B k by k or column by column. Grid: tiles of rows, of
// columns, products; ``offset`` holds each product's first element of A, of B and of the output.
template <bool COLUMNS_ADJACENT>
__device__ __forceinline__ void product_of_two(const u64* a, i64 row_step, int rows, int inner, const u64* b, i64 step_b,
                                               int columns, const i64* offset, u64* out, unsigned char* memory) {
    unsigned char *left = memory, *right = memory + 2 * SIDE;
    int t = threadIdx.x, warp = t >> 5, lane = t & 31;
    int row0 = blockIdx.x * TILE, column0 = blockIdx.y * TILE, deep = (inner + STEP - 1) / STEP;
    offset += 3 * (i64)blockIdx.z;
    Operand x{a + offset[0] + row0 * row_step, row_step, 1, rows - row0, inner};
    i64 column_step = COLUMNS_ADJACENT ? 1 : step_b, k_step = COLUMNS_ADJACENT ? step_b : 1;
    Operand y{b + offset[1] + column0 * column_step, column_step, k_step, columns - column0, inner};
    bool pairs_x = in_pairs(x), pairs_y = !COLUMNS_ADJACENT && in_pairs(y);
    int acc[2][2][8][4] = {};
    auto split = [&](int step, int into) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int row, quad;
            u64 value[4];
            place(t, half, false, row, quad);
            fetch(x, pairs_x, step * STEP, row, quad, value);
            store_digits<true>(left + into * SIDE, row, quad, value);
            place(t, half, COLUMNS_ADJACENT, row, quad);
            fetch(y, pairs_y, step * STEP, row, quad, value);
            store_digits<false>(right + into * SIDE, row, quad, value);
        }
    };
    // One loop, the first split in it: taken out of it, the code needs more registers than there are.
    for (int step = -1; step < deep; step++) {
        if (step + 1 < deep) split(step + 1, (step + 1) & 1);
        if (step >= 0) multiply_step(left + (step & 1) * SIDE, right + (step & 1) * SIDE, warp, lane, acc);
        __syncthreads();
    }
    write_tile(acc, out + offset[2], row0, column0, rows, columns, warp, lane, false);
}

extern "C" __global__ void __launch_bounds__(256, 1)
    ring_product_straight(const u64* __restrict__ a, i64 row_step, int rows, int inner, const u64* __restrict__ b,
                          i64 k_step, int columns, const i64* __restrict__ offset, u64* out) {
    SHARED_MEMORY(memory);
    product_of_two<true>(a, row_step, rows, inner, b, k_step, columns, offset, out, memory);
}

extern "C" __global__ void __launch_bounds__(256, 1)
    ring_product_turned(const u64* __restrict__ a, i64 row_step, int rows, int inner, const u64* __restrict__ b,
                        i64 column_step, int columns, const i64* __restrict__ offset, u64* out) {
    SHARED_MEMORY(memory);
    product_of_two<false>(a, row_step, rows, inner, b, column_step, columns, offset, out, memory);
}

// What all this is measured against: the plain product, 64-bit multiplications in registers. A tile of 64 x 64 a block,
// 4 x 4 a thread, k in steps of 16. A (rows, inner) and B (inner, columns) contiguous.
extern "C" __global__ void ring_product_plain(const u64* __restrict__ a, const u64* __restrict__ b, u64* out, int rows,
                                              int inner, int columns) {
    SHARED_MEMORY(memory);  // [16][64 + 1] of A, then [16][64] of B
    u64 *left = (u64*)memory, *right = left + 16 * 65;
    int t = threadIdx.x, row0 = blockIdx.x * 64, column0 = blockIdx.y * 64;
    u64 acc[4][4] = {};
    for (int k0 = 0; k0 < inner; k0 += 16) {
        __syncthreads();
        for (int i = t; i < 1024; i += 256) {
            int row = i >> 4, k = i & 15;
            left[k * 65 + row] = row0 + row < rows && k0 + k < inner ? a[(i64)(row0 + row) * inner + k0 + k] : 0;
            int column = i & 63, deep = i >> 6;
            right[deep * 64 + column] =
                column0 + column < columns && k0 + deep < inner ? b[(i64)(k0 + deep) * columns + column0 + column] : 0;
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < 16; k++) {
            u64 x[4], y[4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                x[i] = left[k * 65 + (t >> 4) + 16 * i];
                y[i] = right[k * 64 + (t & 15) + 16 * i];
            }
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) acc[i][j] += x[i] * y[j];
        }
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            int row = row0 + (t >> 4) + 16 * i, column = column0 + (t & 15) + 16 * j;
            if (row < rows && column < columns) out[(i64)row * columns + column] = acc[i][j];
        }
}
