/* CRC-32C: by the CPU's instruction where there is one, else by slicing-by-8.
 *
 * The instruction (x86 SSE4.2, ARMv8 CRC) takes 8 bytes at a time and can start one a cycle, but
 * each waits three cycles for the one before. From three lanes on, therefore, the input is cut
 * into three lanes that run side by side:
 *
 *     |---- lane A ----|---- lane B ----|---- lane C ----| ...
 *       crc continues     starts at 0      starts at 0
 *
 *     crc(A B C) = shift(shift(a) ^ b) ^ c      shift(v): v moved past LANE zero bytes
 *
 * A CRC register is linear over GF(2): the effect of a byte, or of a shift, is the XOR of the
 * effects of its bits. So every table here is spelled as the images of single bits, and the
 * compiler works out the 256 combinations of eight. The unit test recomputes them bit by bit.
 */
#include "vev_crc32c.h"

#include <stdatomic.h>

#include "vev_base.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <nmmintrin.h>
#define CRC_BY_CPU 1
#elif (defined(__aarch64__) || defined(__arm__)) && defined(__linux__)
#include <sys/auxv.h>
#define CRC_BY_CPU 1
#else
#define CRC_BY_CPU 0
#endif

/* ROW(images of bits 0 .. 7): the 256 images of all bytes. */
#define E(i, a, b, c, d, e, f, g, h)                                                               \
    (((i) & 1 ? a : 0u) ^ ((i) & 2 ? b : 0u) ^ ((i) & 4 ? c : 0u) ^ ((i) & 8 ? d : 0u) ^           \
     ((i) & 16 ? e : 0u) ^ ((i) & 32 ? f : 0u) ^ ((i) & 64 ? g : 0u) ^ ((i) & 128 ? h : 0u))
#define E4(i, ...)                                                                                 \
    E(i, __VA_ARGS__), E((i) + 1, __VA_ARGS__), E((i) + 2, __VA_ARGS__), E((i) + 3, __VA_ARGS__)
#define E16(i, ...)                                                                                \
    E4(i, __VA_ARGS__), E4((i) + 4, __VA_ARGS__), E4((i) + 8, __VA_ARGS__),                        \
        E4((i) + 12, __VA_ARGS__)
#define E64(i, ...)                                                                                \
    E16(i, __VA_ARGS__), E16((i) + 16, __VA_ARGS__), E16((i) + 32, __VA_ARGS__),                   \
        E16((i) + 48, __VA_ARGS__)
#define ROW(...)                                                                                   \
    {E64(0, __VA_ARGS__), E64(64, __VA_ARGS__), E64(128, __VA_ARGS__), E64(192, __VA_ARGS__)}

/* slice[k][b]: byte b moved past k further zero bytes. */
static const uint32_t slice[8][256] = {
    ROW(0xf26b8303, 0xe13b70f7, 0xc79a971f, 0x8ad958cf, 0x105ec76f, 0x20bd8ede, 0x417b1dbc,
        0x82f63b78),
    ROW(0x13a29877, 0x274530ee, 0x4e8a61dc, 0x9d14c3b8, 0x3fc5f181, 0x7f8be302, 0xff17c604,
        0xfbc3faf9),
    ROW(0xa541927e, 0x4f6f520d, 0x9edea41a, 0x38513ec5, 0x70a27d8a, 0xe144fb14, 0xc76580d9,
        0x8b277743),
    ROW(0xdd45aab8, 0xbf672381, 0x7b2231f3, 0xf64463e6, 0xe964b13d, 0xd725148b, 0xaba65fe7,
        0x52a0c93f),
    ROW(0x38116fac, 0x7022df58, 0xe045beb0, 0xc5670b91, 0x8f2261d3, 0x1ba8b557, 0x37516aae,
        0x6ea2d55c),
    ROW(0xef306b19, 0xdb8ca0c3, 0xb2f53777, 0x6006181f, 0xc00c303e, 0x85f4168d, 0x0e045beb,
        0x1c08b7d6),
    ROW(0x68032cc8, 0xd0065990, 0xa5e0c5d1, 0x4e2dfd53, 0x9c5bfaa6, 0x3d5b83bd, 0x7ab7077a,
        0xf56e0ef4),
    ROW(0x493c7d27, 0x9278fa4e, 0x211d826d, 0x423b04da, 0x847609b4, 0x0d006599, 0x1a00cb32,
        0x34019664),
};

static uint32_t crc_software(uint32_t crc, const unsigned char *p, size_t size)
{
    for (; size >= 8; p += 8, size -= 8) {
        uint64_t v = vev_load64(p) ^ crc;
        crc = slice[7][v & 255] ^ slice[6][v >> 8 & 255] ^ slice[5][v >> 16 & 255] ^
              slice[4][v >> 24 & 255] ^ slice[3][v >> 32 & 255] ^ slice[2][v >> 40 & 255] ^
              slice[1][v >> 48 & 255] ^ slice[0][v >> 56];
    }
    for (; size != 0; p++, size--)
        crc = crc >> 8 ^ slice[0][(crc ^ *p) & 255];
    return crc;
}

#if CRC_BY_CPU

/* Three lanes of 512 bytes: long enough that joining them does not show, short enough that a
 * record of 1.5 KiB gains. */
#define LANE 512

/* lane_shift[k][b]: byte k of a register, with value b, moved past LANE zero bytes. */
static const uint32_t lane_shift[4][256] = {
    ROW(0xbd6f81f8, 0x7f337501, 0xfe66ea02, 0xf921a2f5, 0xf7af331b, 0xeab210c7, 0xd088577f,
        0xa4fcd80f),
    ROW(0x4c15c6ef, 0x982b8dde, 0x35bb6d4d, 0x6b76da9a, 0xd6edb534, 0xa8371c99, 0x55824fc3,
        0xab049f86),
    ROW(0x53e549fd, 0xa7ca93fa, 0x4a795105, 0x94f2a20a, 0x2c0932e5, 0x581265ca, 0xb024cb94,
        0x65a5e1d9),
    ROW(0xcb4bc3b2, 0x937bf195, 0x231b95db, 0x46372bb6, 0x8c6e576c, 0x1d30d829, 0x3a61b052,
        0x74c360a4),
};

static uint32_t shift_lane(uint32_t crc)
{
    return lane_shift[0][crc & 255] ^ lane_shift[1][crc >> 8 & 255] ^
           lane_shift[2][crc >> 16 & 255] ^ lane_shift[3][crc >> 24];
}

/* step8, step1: the instruction on 8 bytes and on one. The build need not allow it everywhere,
 * so on x86 the functions that use it carry the target, and on ARM it is spelled in assembly
 * (intrinsics for it need flags that differ between compilers). */
#if defined(__x86_64__)

#ifdef __clang__ /* tells the two apart */
#define CRC_TARGET __attribute__((target("sse4.2,crc32")))
#else
#define CRC_TARGET __attribute__((target("sse4.2")))
#endif

CRC_TARGET static inline uint32_t step8(uint32_t crc, uint64_t v)
{
    return (uint32_t)_mm_crc32_u64(crc, v);
}

CRC_TARGET static inline uint32_t step1(uint32_t crc, unsigned char v)
{
    return _mm_crc32_u8(crc, v);
}

static bool cpu_has_crc(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_SSE4_2) != 0;
}

#elif defined(__aarch64__)

#define CRC_TARGET

static inline uint32_t step8(uint32_t crc, uint64_t v)
{
    __asm__(".arch_extension crc\n\tcrc32cx %w0, %w0, %x1" : "+r"(crc) : "r"(v));
    return crc;
}

static inline uint32_t step1(uint32_t crc, unsigned char v)
{
    __asm__(".arch_extension crc\n\tcrc32cb %w0, %w0, %w1" : "+r"(crc) : "r"(v));
    return crc;
}

static bool cpu_has_crc(void) { return (getauxval(AT_HWCAP) & 1ul << 7) != 0; /* HWCAP_CRC32 */ }

#else /* __arm__ : a 32-bit program, perhaps on a 64-bit core */

#define CRC_TARGET

static inline uint32_t step8(uint32_t crc, uint64_t v)
{
    __asm__(".arch armv8-a\n\t.arch_extension crc\n\tcrc32cw %0, %0, %1\n\tcrc32cw %0, %0, %2"
            : "+&r"(crc)
            : "r"((uint32_t)v), "r"((uint32_t)(v >> 32)));
    return crc;
}

static inline uint32_t step1(uint32_t crc, unsigned char v)
{
    __asm__(".arch armv8-a\n\t.arch_extension crc\n\tcrc32cb %0, %0, %1"
            : "+r"(crc)
            : "r"((uint32_t)v));
    return crc;
}

static bool cpu_has_crc(void) { return (getauxval(AT_HWCAP2) & 1ul << 4) != 0; /* HWCAP2_CRC32 */ }

#endif

CRC_TARGET static uint32_t crc_by_cpu(uint32_t crc, const unsigned char *p, size_t size)
{
    for (; size >= 3 * LANE; p += 3 * LANE, size -= 3 * LANE) {
        uint32_t b = 0, c = 0;
        for (size_t i = 0; i < LANE; i += 8) {
            crc = step8(crc, vev_load64(p + i));
            b = step8(b, vev_load64(p + LANE + i));
            c = step8(c, vev_load64(p + 2 * LANE + i));
        }
        crc = shift_lane(shift_lane(crc) ^ b) ^ c;
    }
    for (; size >= 8; p += 8, size -= 8)
        crc = step8(crc, vev_load64(p));
    for (; size != 0; p++, size--)
        crc = step1(crc, *p);
    return crc;
}

#else

static uint32_t crc_by_cpu(uint32_t crc, const unsigned char *p, size_t size)
{
    return crc_software(crc, p, size);
}

static bool cpu_has_crc(void) { return false; }

#endif

/* Which way to take. Threads that race at the first call find out the same. Relaxed, because
 * nothing but the value itself is read through it. */
enum { WAY_UNKNOWN, WAY_SOFTWARE, WAY_CPU };
static _Atomic int way = WAY_UNKNOWN;

static int find_way(void)
{
    int found = cpu_has_crc() ? WAY_CPU : WAY_SOFTWARE;
    atomic_store_explicit(&way, found, memory_order_relaxed);
    return found;
}

uint32_t vev_crc32c(uint32_t crc, const void *data, size_t size)
{
    int w = atomic_load_explicit(&way, memory_order_relaxed);
    if (VEV_UNLIKELY(w == WAY_UNKNOWN))
        w = find_way();
    return ~(w == WAY_CPU ? crc_by_cpu(~crc, data, size) : crc_software(~crc, data, size));
}

int vev_crc32c_force_software(int force)
{
    if (force)
        atomic_store_explicit(&way, WAY_SOFTWARE, memory_order_relaxed);
    else
        (void)find_way();
    return atomic_load_explicit(&way, memory_order_relaxed) == WAY_CPU;
}
