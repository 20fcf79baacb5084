/* Words that every room uses: status codes, checked arithmetic, little-endian access, asserts.
 *
 * VEV_ASSERT states what only this library can get wrong; it stays on in release builds, because a
 * wrong write to disk costs more than a stopped test. Bytes from disk and arguments from callers
 * are checked and returned as a status, never asserted. */
#ifndef VEV_BASE_H
#define VEV_BASE_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "vevents/vevents.h"

#define VEV_STATIC_ASSERT(cond, text) _Static_assert(cond, text)

#if defined(__GNUC__)
#define VEV_LIKELY(x) __builtin_expect(!!(x), 1)
#define VEV_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define VEV_PREFETCH(p) __builtin_prefetch(p)
#else
#define VEV_LIKELY(x) (x)
#define VEV_UNLIKELY(x) (x)
#define VEV_PREFETCH(p) ((void)(p))
#endif

_Noreturn void vev__assert_fail(const char *expr, const char *file, int line);
#define VEV_ASSERT(expr) ((expr) ? (void)0 : vev__assert_fail(#expr, __FILE__, __LINE__))

#define VEV_MIN(a, b) ((a) < (b) ? (a) : (b))
#define VEV_MAX(a, b) ((a) > (b) ? (a) : (b))

/* Round up to a power of two. The caller knows that it cannot overflow. */
static inline uint64_t vev_align_up(uint64_t value, uint64_t alignment)
{
    return (value + alignment - 1) & ~(alignment - 1);
}

/* The place of the highest bit that is set; `value` is not 0. */
static inline uint32_t vev_high_bit(uint32_t value) { return 31u - (uint32_t)__builtin_clz(value); }

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#error "vevents: the log is little-endian and this build would write it the other way round"
#endif

static inline uint16_t vev_load16(const void *p)
{
    uint16_t v;
    memcpy(&v, p, 2);
    return v;
}
static inline uint32_t vev_load32(const void *p)
{
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}
static inline uint64_t vev_load64(const void *p)
{
    uint64_t v;
    memcpy(&v, p, 8);
    return v;
}
static inline void vev_store16(void *p, uint16_t v) { memcpy(p, &v, 2); }
static inline void vev_store32(void *p, uint32_t v) { memcpy(p, &v, 4); }
static inline void vev_store64(void *p, uint64_t v) { memcpy(p, &v, 8); }

#endif
