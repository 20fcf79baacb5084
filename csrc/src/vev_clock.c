/* Clocks, boot tag, random bytes.
 *
 * The two files read here live in /proc and /dev, not in a log, and therefore do not go through
 * vev_io, whose table of functions the tests replace to cut power under a log's files. */
#include "vev_clock.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/random.h>
#include <sys/timex.h>
#include <time.h>
#include <unistd.h>

#include "vev_base.h"
#include "vev_crc32c.h"

#define NS_PER_S 1000000000

/* Where vev_set_clock() stopped the clocks. A boot of 0: they run. */
static struct {
    _Atomic int64_t wall_ns;
    _Atomic uint64_t mono_ns;
    _Atomic uint32_t boot, synced;
} stopped;

static bool is_stopped(void)
{
    return VEV_UNLIKELY(atomic_load_explicit(&stopped.boot, memory_order_acquire) != 0);
}

void vev_set_clock(const vev_moment *moment)
{
    atomic_store(&stopped.boot, 0);
    if (!moment)
        return;
    atomic_store(&stopped.wall_ns, moment->wall_ns);
    atomic_store(&stopped.mono_ns, moment->mono_ns);
    atomic_store(&stopped.synced, moment->synced);
    atomic_store(&stopped.boot, VEV_MAX(moment->boot, 1u));
}

static bool is_synced(void)
{
    if (is_stopped())
        return atomic_load(&stopped.synced) != 0;
    struct timex state = {0};
    int rc = adjtimex(&state);
    return rc >= 0 && rc != TIME_ERROR && !(state.status & STA_UNSYNC);
}

void vev_now(vev_moment *now_out)
{
    now_out->wall_ns = vev_clock_wall_ns();
    now_out->mono_ns = vev_clock_boot_ns();
    now_out->boot = vev_clock_boot_tag();
    now_out->synced = is_synced();
}

int64_t vev_clock_wall_ns(void)
{
    if (is_stopped())
        return atomic_load_explicit(&stopped.wall_ns, memory_order_relaxed);
    struct timespec ts;
    if (clock_gettime(CLOCK_REALTIME, &ts) != 0)
        return 0; /* after 2038 with a 32-bit libc of before 2021: no better than without a clock */
    return (int64_t)ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

uint64_t vev_clock_boot_ns(void)
{
    if (is_stopped())
        return atomic_load_explicit(&stopped.mono_ns, memory_order_relaxed);
    struct timespec ts;
    if (clock_gettime(CLOCK_BOOTTIME, &ts) != 0) {
        int rc = clock_gettime(CLOCK_MONOTONIC, &ts);
        VEV_ASSERT(rc == 0);
    }
    return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

uint64_t vev_clock_ticks_ns(void)
{
    struct timespec ts;
    int rc = clock_gettime(CLOCK_MONOTONIC, &ts);
    VEV_ASSERT(rc == 0);
    return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

void vev_clock_pause(uint32_t turn)
{
    if (turn < 16) {
        sched_yield();
        return;
    }
    struct timespec ts = {.tv_nsec = turn < 64 ? 50000 : 1000000};
    nanosleep(&ts, NULL);
}

/* Open without being interrupted. Close-on-exec, because another thread may fork and exec. */
static int open_retry(const char *path)
{
    int fd;
    do {
        fd = open(path, O_RDONLY | O_CLOEXEC);
    } while (fd < 0 && errno == EINTR);
    return fd;
}

/* Read up to `size` bytes, however many reads that takes. Returns how many came, or -1. */
static ssize_t read_all(int fd, void *out, size_t size)
{
    size_t done = 0;
    while (done < size) {
        ssize_t n = read(fd, (char *)out + done, size - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        if (n == 0)
            break;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

static uint32_t tag_from_boot_id(void)
{
    char uuid[36];
    int fd = open_retry("/proc/sys/kernel/random/boot_id");
    if (fd < 0)
        return 0;
    ssize_t n = read_all(fd, uuid, sizeof uuid);
    close(fd);
    return n == (ssize_t)sizeof uuid ? vev_crc32c(0, uuid, sizeof uuid) : 0;
}

/* From the moment of boot, as the clock has it: to the second, which is what /proc/stat says. The
 * difference of two clocks that run side by side is the same whenever it is taken, but for the time
 * between the two looks. */
static uint32_t tag_from_clocks(void)
{
    enum { LOOKS = 4 };
    int64_t booted_ns = INT64_MAX;
    for (int i = 0; i < LOOKS; i++) {
        int64_t since_ns = (int64_t)vev_clock_boot_ns();
        booted_ns = VEV_MIN(booted_ns, vev_clock_wall_ns() - since_ns);
    }
    uint64_t booted_s = (uint64_t)VEV_MAX(booted_ns, 0) / NS_PER_S;
    return vev_crc32c(0, &booted_s, sizeof booted_s);
}

uint32_t vev_clock_boot_tag(void)
{
    uint32_t boot = atomic_load_explicit(&stopped.boot, memory_order_acquire);
    if (VEV_UNLIKELY(boot != 0))
        return boot;
    /* Threads that race here store the same value, or the first one to come wins: the exchange
     * keeps a tag that was derived from a moving clock the same for the whole process. Relaxed,
     * because the tag is all there is to see. */
    static _Atomic uint32_t cached;
    uint32_t tag = atomic_load_explicit(&cached, memory_order_relaxed);
    if (VEV_LIKELY(tag != 0))
        return tag;
    tag = tag_from_boot_id();
    if (tag == 0)
        tag = tag_from_clocks(); /* a chroot, a sandbox (ProcSubset=pid) */
    if (tag == 0)
        tag = 1;
    uint32_t expected = 0;
    if (!atomic_compare_exchange_strong_explicit(&cached, &expected, tag, memory_order_relaxed,
                                                 memory_order_relaxed))
        tag = expected;
    return tag;
}

static vev_status random_from_device(void *out, size_t size)
{
    int fd = open_retry("/dev/urandom");
    if (fd < 0)
        return errno;
    ssize_t n = read_all(fd, out, size);
    int error = n < 0 ? errno : EIO;
    close(fd);
    return n == (ssize_t)size ? VEV_OK : error;
}

vev_status vev_random_bytes(void *out, size_t size)
{
    size_t done = 0;
    while (done < size) {
        ssize_t n = getrandom((char *)out + done, size - done, 0);
        if (n >= 0)
            done += (size_t)n;
        else if (errno == ENOSYS || errno == EPERM) /* old kernel; a sandbox that forbids it */
            return random_from_device((char *)out + done, size - done);
        else if (errno != EINTR)
            return errno;
    }
    return VEV_OK;
}
