// Large products over Z_2^64 by whole int8 matrix products (cuBLAS), in two ways: what goes in, and what comes out.
//
// Digits: as in ring.cu, eight planes an operand; 8 products, one a weight, over the planes laid side by side.
// Residues: x mod 18 coprime moduli up to 256, 18 products, put together by the Chinese remainder theorem (the Ozaki
// scheme II: arXiv 2504.08009): the integer sum is less than half the moduli's product M, so z = sum y_i M / m_i - q M
// with q the nearest integer to sum y_i / m_i, and only z mod 2^64 is computed.
#include "mpc.cuh"

constexpr int RUN = 16;  // elements of a thread: 16-byte stores
constexpr int RESIDUES = 18;
constexpr u64 SIGNS = 0x8080808080808080ull;

// x (rows, inner) at any strides -> out[row][plane][deep], deep a multiple of 16, zeros beyond inner. Plane p holds digit
// p, or 7 - p where ``turned``. One thread 16 neighbours along k; threads of a warp are neighbours along rows.
extern "C" __global__ void split_digits(const u64* __restrict__ x, i64 row_step, i64 k_step, i64 rows, i64 inner,
                                        i64 deep, int turned, s8* __restrict__ out) {
    i64 t = (i64)blockIdx.x * blockDim.x + threadIdx.x, row = t % rows, k = t / rows * RUN;
    if (k >= deep) return;
    u32 plane[8][4] = {};
#pragma unroll
    for (int i = 0; i < RUN; i++) {
        u64 v = k + i < inner ? (x[row * row_step + (k + i) * k_step] + SIGNS) ^ SIGNS : 0;
#pragma unroll
        for (int d = 0; d < 8; d++) plane[d][i >> 2] |= (u32)(v >> 8 * d & 255) << 8 * (i & 3);
    }
#pragma unroll
    for (int d = 0; d < 8; d++)
        *(Quad*)(out + (row * 8 + (turned ? 7 - d : d)) * deep + k) = Quad{plane[d][0], plane[d][1], plane[d][2], plane[d][3]};
}

// out = sum over weights w of sums[w] 256^w, and with ``add`` what it held.
extern "C" __global__ void join_digits(const int* __restrict__ sums, i64 n, int add, u64* __restrict__ out) {
    i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    u64 sum = add ? out[i] : 0;
#pragma unroll
    for (int w = 0; w < 8; w++) sum += (u64)(i64)sums[w * n + i] << 8 * w;
    out[i] = sum;
}

// What is less than 2^32 modulo m, from -1 to m - 1: the quotient may be one too large.
__device__ __forceinline__ int reduced(u32 value, u32 modulus, u32 inverse) {
    return (int)(value - (u32)((u64)value * inverse >> 32) * modulus);
}

// ``table`` for each modulus m: m, 2^32 / m rounded up, 2^16, 2^32 and 2^48 mod m, -2^63 mod m.
// x (rows, inner) at any strides -> out[modulus][row][deep]: residues from -128 to 127.
extern "C" __global__ void split_residues(const u64* __restrict__ x, i64 row_step, i64 k_step, i64 rows, i64 inner,
                                          i64 deep, const int* __restrict__ table, s8* __restrict__ out) {
    i64 t = (i64)blockIdx.x * blockDim.x + threadIdx.x, row = t % rows, k = t / rows * RUN;
    if (k >= deep) return;
    u64 v[RUN];  // as unsigned: x + 2^63
#pragma unroll
    for (int i = 0; i < RUN; i++) v[i] = k + i < inner ? x[row * row_step + (k + i) * k_step] ^ 1ull << 63 : 1ull << 63;
    for (int r = 0; r < RESIDUES; r++) {
        const int* m = table + 6 * r;
        u32 line[4] = {};
#pragma unroll
        for (int i = 0; i < RUN; i++) {
            u32 sum = (u32)(v[i] & 0xffff) + (u32)(v[i] >> 16 & 0xffff) * m[2] + (u32)(v[i] >> 32 & 0xffff) * m[3] +
                      (u32)(v[i] >> 48) * m[4] + m[5];  // less than 2^26
            int residue = reduced(sum, m[0], m[1]);
            residue -= residue > 127 ? m[0] : 0;
            line[i >> 2] |= ((u32)residue & 255) << 8 * (i & 3);
        }
        *(Quad*)(out + (r * rows + row) * deep + k) = Quad{line[0], line[1], line[2], line[3]};
    }
}

// ``weight``: M / m_i mod 2^64 for each modulus, then M mod 2^64; ``inverse``: the inverse of M / m_i mod m_i.
// sums[modulus][n], each less than 181 2^20 in size -> out = z mod 2^64, and with ``add`` what it held.
extern "C" __global__ void join_residues(const int* __restrict__ sums, i64 n, const int* __restrict__ table,
                                         const int* __restrict__ inverse, const u64* __restrict__ weight, int add,
                                         u64* __restrict__ out) {
    i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    u64 sum = add ? out[i] : 0;
    double part = 0;
#pragma unroll
    for (int r = 0; r < RESIDUES; r++) {
        u32 m = table[6 * r], by = table[6 * r + 1];
        int s = reduced((u32)sums[r * n + i] + (m << 20), m, by) + m;  // + 2^20 m: positive, and 0 mod m
        int y = reduced((u32)(s * inverse[r]), m, by);
        sum += (u64)(i64)y * weight[r];
        part += (double)y / (double)m;
    }
    out[i] = sum - (u64)(i64)rint(part) * weight[RESIDUES];
}
