/* BLAKE2b with a digest of 16 bytes: the name of a frame in media.ring. */
#ifndef VEV_BLAKE2B_H
#define VEV_BLAKE2B_H

#include <stddef.h>
#include <stdint.h>

/** BLAKE2b-128 (RFC 7693, no key) of `size` bytes; `data` may be NULL when size is 0.
 *  @par Threads  Any.   @par Cost  About 1 ns a byte. No allocation. */
void vev_blake2b_128(uint8_t digest[16], const void *data, size_t size);

#endif
