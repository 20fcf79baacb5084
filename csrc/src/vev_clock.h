/* Time, boot identity and random bytes: what the log takes from the kernel besides files. */
#ifndef VEV_CLOCK_H
#define VEV_CLOCK_H

#include <stddef.h>
#include <stdint.h>

#include "vevents/vevents.h"

/** Wall time: nanoseconds since 1970, UTC, as the system's clock stands. It may jump.
 *  @par Threads  Any.   @par Cost  No system call where the vDSO serves the clock. */
int64_t vev_clock_wall_ns(void);

/** Nanoseconds since boot, time in suspend included. Never goes back within one boot.
 *  On a kernel without CLOCK_BOOTTIME time in suspend does not count.
 *  @par Threads  Any.   @par Cost  No system call where the vDSO serves the clock. */
uint64_t vev_clock_boot_ns(void);

/** Nanoseconds of a clock for waits and intervals: vev_set_clock() does not stop it.
 *  @par Threads  Any. */
uint64_t vev_clock_ticks_ns(void);

/** Let whoever holds something go on, before turn `turn` (0, 1, ...) of trying to get it.
 *
 *  Yields at first and sleeps from 50 us to 1 ms then: yielding alone never lets a thread of lower
 *  real-time priority run.   @par Threads  Any. */
void vev_clock_pause(uint32_t turn);

/** A tag that is the same for every process of one boot and differs between boots. Never 0.
 *
 *  CRC-32C of the kernel's random boot id. Where /proc does not show that, it is derived from the
 *  time of boot; that may move when the wall clock is set, so it is only taken once a process.
 *
 *  @par Threads  Any.   @par Cost  Reads a file on the first call, then one atomic load. */
uint32_t vev_clock_boot_tag(void);

/** Fill `out` with `size` random bytes that nobody can guess.
 *
 *  @retval VEV_OK  filled.
 *  @retval >0      errno; the bytes in `out` must not be used.
 *
 *  @par Threads  Any.   @par Cost  A system call; waits only in the first moments of a boot. */
VEV_MUST_CHECK vev_status vev_random_bytes(void *out, size_t size);

#endif
