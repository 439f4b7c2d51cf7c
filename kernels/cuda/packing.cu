// Bytes and bits packed tight for the wire: the bodies of packing.py. One thread 8 bytes of the packed side, or an element.
#include "mpc.cuh"

__device__ __forceinline__ i64 element() { return (i64)blockIdx.x * blockDim.x + threadIdx.x; }

// Up to 8 bytes from any address on, little endian, none at or beyond the end.
__device__ __forceinline__ u64 load_bytes(const u8* from, i64 at, i64 size) {
    u64 word = 0;
    for (int i = 0; i < 8 && at + i < size; i++) word |= (u64)from[at + i] << 8 * i;
    return word;
}

// 8 bytes at ``at``, a multiple of 8; fewer where the memory ends. ``to`` is aligned.
__device__ __forceinline__ void store_bytes(u8* to, i64 at, i64 size, u64 word) {
    if (at + 8 <= size)
        *(u64*)(to + at) = word;
    else
        for (int i = 0; at + i < size; i++) to[at + i] = (u8)(word >> 8 * i);
}

extern "C" __global__ void pack_low_bytes(const u64* __restrict__ x, int width, u8* __restrict__ out, i64 size) {
    i64 at = element() * 8;
    if (at >= size) return;
    i64 i = at / width;
    int skip = (int)(at - i * width), filled = -skip;  // bytes of x[i] that went before
    u64 mask = width == 8 ? ~0ull : (1ull << 8 * width) - 1, word = 0;
    for (; filled < 8 && i * width < size; i++, filled += width) {
        u64 value = x[i] & mask;
        word |= filled < 0 ? value >> 8 * -filled : value << 8 * filled;
    }
    store_bytes(out, at, size, word);
}

extern "C" __global__ void unpack_low_bytes(const u8* __restrict__ data, int width, u64* __restrict__ out, i64 n) {
    i64 i = element();
    if (i >= n) return;
    u64 value = 0;
    for (int b = 0; b < width; b++) value |= (u64)data[i * width + b] << 8 * b;
    out[i] = value;
}

template <class T>
__device__ __forceinline__ void pack_bits(const T* x, i64 n, int bits, u8* out, i64 size) {
    i64 at = element() * 8;
    if (at >= size) return;
    i64 first = at * 8, i = first / bits;
    int filled = (int)(i * bits - first);
    u64 mask = (1ull << bits) - 1, word = 0;
    for (; filled < 64 && i < n; i++, filled += bits) {
        u64 value = (u64)x[i] & mask;
        word |= filled < 0 ? value >> -filled : value << filled;
    }
    store_bytes(out, at, size, word);
}

extern "C" __global__ void pack_bits_int64(const u64* __restrict__ x, i64 n, int bits, u8* __restrict__ out, i64 size) {
    pack_bits(x, n, bits, out, size);
}
extern "C" __global__ void pack_bits_uint16(const u16* __restrict__ x, i64 n, int bits, u8* __restrict__ out, i64 size) {
    pack_bits(x, n, bits, out, size);
}
extern "C" __global__ void pack_bits_uint8(const u8* __restrict__ x, i64 n, int bits, u8* __restrict__ out, i64 size) {
    pack_bits(x, n, bits, out, size);
}

extern "C" __global__ void unpack_bits(const u8* __restrict__ data, i64 size, int bits, u64* __restrict__ out, i64 n) {
    i64 i = element();
    if (i >= n) return;
    i64 first = i * bits;
    out[i] = load_bytes(data, first >> 3, size) >> (first & 7) & ((1ull << bits) - 1);
}
