// Two blocks of AES-128 at a time by one thread, bit-sliced: no table, so no address and no time depends on a secret.
//
// Eight words hold the two blocks as bit planes: bit 8 r + 2 c + b of plane p is bit p of the byte in row r, column c of
// block b. A row is then a byte of every plane: ShiftRows turns bytes by 0, 2, 4 and 6 bits, MixColumns turns words by 8
// and 16. SubBytes is the circuit of 115 gates of Boyar and Peralta ("A depth-16 circuit for the AES S-box", 2011).
#pragma once

__device__ __forceinline__ void exchange(u32& a, u32& b, u32 mask, int by) {
    u32 t = (a >> by ^ b) & mask;
    b ^= t;
    a ^= t << by;
}

// Words (column c, block b at 2 c + b) to planes, and back: an 8 x 8 transpose of bits in every byte.
__device__ __forceinline__ void transpose_bits(u32 (&q)[8]) {
#pragma unroll
    for (int i = 0; i < 8; i += 2) exchange(q[i], q[i + 1], 0x55555555u, 1);
#pragma unroll
    for (int i = 0; i < 8; i += i & 1 ? 3 : 1) exchange(q[i], q[i + 2], 0x33333333u, 2);
#pragma unroll
    for (int i = 0; i < 4; i++) exchange(q[i], q[i + 4], 0x0f0f0f0fu, 4);
}

__device__ __forceinline__ void substitute(u32 (&q)[8]) {
    u32 x0 = q[7], x1 = q[6], x2 = q[5], x3 = q[4], x4 = q[3], x5 = q[2], x6 = q[1], x7 = q[0];
    // linear, on the way in
    u32 y14 = x3 ^ x5, y13 = x0 ^ x6, y9 = x0 ^ x3, y8 = x0 ^ x5, t0 = x1 ^ x2, y1 = t0 ^ x7, y4 = y1 ^ x3;
    u32 y12 = y13 ^ y14, y2 = y1 ^ x0, y5 = y1 ^ x6, y3 = y5 ^ y8, t1 = x4 ^ y12, y15 = t1 ^ x5, y20 = t1 ^ x1;
    u32 y6 = y15 ^ x7, y10 = y15 ^ t0, y11 = y20 ^ y9, y7 = x7 ^ y11, y17 = y10 ^ y11, y19 = y10 ^ y8;
    u32 y16 = t0 ^ y11, y21 = y13 ^ y16, y18 = x0 ^ y16;
    // the inverse in GF(2^8), by way of GF(2^4)
    u32 t2 = y12 & y15, t4 = (y3 & y6) ^ t2, t6 = (y4 & x7) ^ t2, t7 = y13 & y16, t9 = (y5 & y1) ^ t7;
    u32 t11 = (y2 & y7) ^ t7, t12 = y9 & y11, t14 = (y14 & y17) ^ t12, t16 = (y8 & y10) ^ t12;
    u32 t21 = t4 ^ t14 ^ y20, t22 = t6 ^ t16 ^ y19, t23 = t9 ^ t14 ^ y21, t24 = t11 ^ t16 ^ y18;
    u32 t25 = t21 ^ t22, t26 = t21 & t23, t27 = t24 ^ t26, t29 = (t25 & t27) ^ t22, t30 = t23 ^ t24;
    u32 t33 = ((t22 ^ t26) & t30) ^ t24, t34 = t23 ^ t33, t36 = t24 & (t27 ^ t33), t37 = t36 ^ t34;
    u32 t40 = t25 ^ (t29 & (t27 ^ t36)), t41 = t40 ^ t37, t42 = t29 ^ t33, t43 = t29 ^ t40, t44 = t33 ^ t37;
    u32 t45 = t42 ^ t41;
    u32 z0 = t44 & y15, z1 = t37 & y6, z2 = t33 & x7, z3 = t43 & y16, z4 = t40 & y1, z5 = t29 & y7, z6 = t42 & y11;
    u32 z7 = t45 & y17, z8 = t41 & y10, z9 = t44 & y12, z10 = t37 & y3, z11 = t33 & y4, z12 = t43 & y13, z13 = t40 & y5;
    u32 z14 = t29 & y2, z15 = t42 & y9, z16 = t45 & y14, z17 = t41 & y8;
    // linear, on the way out
    u32 t46 = z15 ^ z16, t48 = z5 ^ z13, t53 = z0 ^ z3, t57 = z2 ^ z12 ^ t53, t58 = z4 ^ t46, t59 = z3 ^ z6 ^ z7;
    u32 t62 = z7 ^ z8 ^ t58, t63 = z9 ^ z10 ^ t58, t64 = z4 ^ t59, t65 = z14 ^ t57 ^ t62, t66 = z1 ^ t63;
    u32 s3 = t53 ^ t66;
    q[7] = t59 ^ t63;
    q[6] = ~(t64 ^ s3);
    q[5] = ~(z16 ^ z17 ^ t64 ^ t65);
    q[4] = s3;
    q[3] = z2 ^ z5 ^ t66;
    q[2] = z10 ^ z11 ^ t65;
    q[1] = ~(z12 ^ t48 ^ t62);
    q[0] = ~(t48 ^ t46 ^ t57);
}

__device__ __forceinline__ void shift_rows(u32 (&q)[8]) {
#pragma unroll
    for (int p = 0; p < 8; p++) {
        u32 x = q[p];
        q[p] = (x & 0x000000ffu) | (x >> 2 & 0x00003f00u) | (x << 6 & 0x0000c000u) | (x >> 4 & 0x000f0000u) |
               (x << 4 & 0x00f00000u) | (x >> 6 & 0x03000000u) | (x << 2 & 0xfc000000u);
    }
}

__device__ __forceinline__ void mix_columns(u32 (&q)[8]) {
    u32 below[8], both[8];
#pragma unroll
    for (int p = 0; p < 8; p++) {
        below[p] = __funnelshift_r(q[p], q[p], 8);
        both[p] = q[p] ^ below[p];
    }
#pragma unroll
    for (int p = 0; p < 8; p++) {
        u32 twice = (p ? both[p - 1] : 0) ^ (p == 0 || p == 1 || p == 3 || p == 4 ? both[7] : 0);
        q[p] = twice ^ below[p] ^ __funnelshift_r(both[p], both[p], 16);
    }
}

// q: words of two blocks, encrypted in place. ``keys``: 11 round keys of 8 planes.
__device__ __forceinline__ void encrypt_two(u32 (&q)[8], const int* __restrict__ keys) {
    transpose_bits(q);
#pragma unroll
    for (int p = 0; p < 8; p++) q[p] ^= (u32)keys[p];
#pragma unroll 1
    for (int round = 1; round < 10; round++) {
        substitute(q);
        shift_rows(q);
        mix_columns(q);
#pragma unroll
        for (int p = 0; p < 8; p++) q[p] ^= (u32)keys[8 * round + p];
    }
    substitute(q);
    shift_rows(q);
#pragma unroll
    for (int p = 0; p < 8; p++) q[p] ^= (u32)keys[80 + p];
    transpose_bits(q);
}
