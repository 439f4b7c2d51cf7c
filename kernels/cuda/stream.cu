// ChaCha20 key streams (RFC 8439) straight into what uses them: the bodies of stream.py. One thread a block of 64 bytes.
#include "mpc.cuh"

struct Name {
    u32 key[8], nonce[3];
};

__device__ __forceinline__ Name name_of(u64 k0, u64 k1, u64 k2, u64 k3, u32 n0, u32 n1, u32 n2) {
    return Name{{(u32)k0, (u32)(k0 >> 32), (u32)k1, (u32)(k1 >> 32), (u32)k2, (u32)(k2 >> 32), (u32)k3, (u32)(k3 >> 32)},
                {n0, n1, n2}};
}

__device__ __forceinline__ void quarter(u32& a, u32& b, u32& c, u32& d) {
    a += b, d ^= a, d = __funnelshift_l(d, d, 16);
    c += d, b ^= c, b = __funnelshift_l(b, b, 12);
    a += b, d ^= a, d = __funnelshift_l(d, d, 8);
    c += d, b ^= c, b = __funnelshift_l(b, b, 7);
}

// Block ``counter`` as eight little-endian words of 64 bits.
__device__ __forceinline__ void block_of(const Name& name, u32 counter, u64 (&out)[8]) {
    u32 start[16] = {0x61707865u, 0x3320646eu, 0x79622d32u, 0x6b206574u, name.key[0], name.key[1], name.key[2],
                     name.key[3], name.key[4], name.key[5], name.key[6], name.key[7], counter, name.nonce[0],
                     name.nonce[1], name.nonce[2]};
    u32 x[16];
#pragma unroll
    for (int i = 0; i < 16; i++) x[i] = start[i];
#pragma unroll
    for (int round = 0; round < 10; round++) {
#pragma unroll
        for (int i = 0; i < 4; i++) quarter(x[i], x[4 + i], x[8 + i], x[12 + i]);
#pragma unroll
        for (int i = 0; i < 4; i++) quarter(x[i], x[4 + (i + 1) % 4], x[8 + (i + 2) % 4], x[12 + (i + 3) % 4]);
    }
#pragma unroll
    for (int i = 0; i < 8; i++) out[i] = (u64)(x[2 * i] + start[2 * i]) | (u64)(x[2 * i + 1] + start[2 * i + 1]) << 32;
}

__device__ __forceinline__ i64 element() { return (i64)blockIdx.x * blockDim.x + threadIdx.x; }

// The stream itself, n bytes from block ``counter`` on; ``out`` is aligned to 8 bytes.
extern "C" __global__ void stream_bytes(u64 k0, u64 k1, u64 k2, u64 k3, u32 n0, u32 n1, u32 n2, u32 counter,
                                        u8* __restrict__ out, i64 n) {
    i64 t = element();
    if (t * 64 >= n) return;
    u64 word[8];
    block_of(name_of(k0, k1, k2, k3, n0, n1, n2), counter + (u32)t, word);
#pragma unroll
    for (int i = 0; i < 8; i++) {
        i64 at = t * 64 + i * 8;
        if (at + 8 <= n)
            *(u64*)(out + at) = word[i];
        else
            for (int b = 0; b < 8 && at + b < n; b++) out[at + b] = (u8)(word[i] >> 8 * b);
    }
}

// out = z + F + constant, or with ``minus`` z - F + constant, F the stream as elements of Z_2^64; out may be z.
extern "C" __global__ void stream_add(const u64* z, u64 k0, u64 k1, u64 k2, u64 k3, u32 n0, u32 n1, u32 n2, int minus,
                                      u64 constant, u64* out, i64 n) {
    i64 t = element();
    if (t * 8 >= n) return;
    u64 word[8];
    block_of(name_of(k0, k1, k2, k3, n0, n1, n2), (u32)t, word);
#pragma unroll
    for (int i = 0; i < 8; i++)
        if (t * 8 + i < n) out[t * 8 + i] = z[t * 8 + i] + (minus ? 0 - word[i] : word[i]) + constant;
}

// out = z + F - F': a zero share from two streams of one nonce.
extern "C" __global__ void stream_zero_share(const u64* z, u64 k0, u64 k1, u64 k2, u64 k3, u64 l0, u64 l1, u64 l2, u64 l3,
                                             u32 n0, u32 n1, u32 n2, u64* out, i64 n) {
    i64 t = element();
    if (t * 8 >= n) return;
    u64 plus[8], minus[8];
    block_of(name_of(k0, k1, k2, k3, n0, n1, n2), (u32)t, plus);
    block_of(name_of(l0, l1, l2, l3, n0, n1, n2), (u32)t, minus);
#pragma unroll
    for (int i = 0; i < 8; i++)
        if (t * 8 + i < n) out[t * 8 + i] = z[t * 8 + i] + plus[i] - minus[i];
}
