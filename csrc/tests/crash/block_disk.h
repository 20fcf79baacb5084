/* A block device that remembers what it was told, and can be put back to any moment.
 *
 * The device is a loop device over a file that a process of the lab serves to the kernel through
 * /dev/fuse. So every write of the file system on it, and every flush, passes by here in order. A
 * disk keeps what it was sent before a flush that it answered; what came later it may have kept or
 * not, in any order and sector by sector.
 *
 * Everything is mounted in a mount namespace of this process, and loop devices let go of their file
 * when the last mount is gone: whatever way the process ends, the kernel clears up. */
#ifndef BLOCK_DISK_H
#define BLOCK_DISK_H

#include <stdatomic.h>
#include <stdio.h>
#include <sys/types.h>

#include "vev_base.h"

enum { BLOCK_SECTOR = 512, BLOCK_PAGE = 4096, BLOCK_ENTRIES = 1 << 18 };
#define BLOCK_DISK_SIZE (16u << 20)
#define BLOCK_DATA_SIZE (256u << 20) /* of writes that a recording can hold */

typedef enum { BLOCK_WRITE, BLOCK_ZERO, BLOCK_FLUSH } block_kind;

typedef struct block_entry {
    uint64_t offset; /* on the disk */
    uint64_t data;   /* of BLOCK_WRITE: where in recording.data */
    uint32_t size;
    uint32_t kind;
} block_entry;

/* Shared by the process that serves the device and those that use it. A moment is a number of
 * entries: what was in `entries` below it had reached the device. */
typedef struct recording {
    _Atomic uint64_t now; /* the present moment */
    _Atomic uint64_t data_used;
    _Atomic uint64_t flushes;
    block_entry entries[BLOCK_ENTRIES];
    uint8_t base[BLOCK_DISK_SIZE]; /* the device before the first entry */
    uint8_t disk[BLOCK_DISK_SIZE]; /* the device now */
    uint8_t data[BLOCK_DATA_SIZE];
} recording;

/* What is mounted where, in the namespace of this process. */
#define BLOCK_RECORDED "/mnt/recorded"
#define BLOCK_REPLAYED "/mnt/replayed"

/* Take a mount namespace and the places above. Returns NULL, or what the machine lacks. */
const char *block_prepare(void);

/* Reserve a recording; only what is used takes memory. */
recording *block_reserve(void);
/* True while there is room for the writes of some more work. */
bool block_has_room(const recording *r);

/* Serve r->base, mount it at BLOCK_RECORDED. Returns 0 or an errno. */
int block_start(recording *r, const char *file_system, const char *options);
/* Unmount and end the server. Returns 0 or an errno. */
int block_stop(void);

/* How a cut treats what had come since the last flush: each unit of `unit` bytes of a write
 * survives with a chance of `percent`; those that do are written in order. */
typedef struct block_cut {
    uint64_t moment;
    uint64_t seed;
    unsigned percent;
    size_t unit; /* BLOCK_SECTOR, BLOCK_PAGE, or SIZE_MAX for whole writes */
} block_cut;

/* What a recording is put back into. Cheapest when asked for moments in rising order. */
typedef struct block_replay {
    const recording *r;
    uint64_t flushed;                 /* entries that are in `durable` */
    uint8_t durable[BLOCK_DISK_SIZE]; /* all that came before the last flush */
    uint8_t image[BLOCK_DISK_SIZE];
} block_replay;

/* Start over; to be called whenever the recording is a new one. */
void block_replay_reset(block_replay *replay, const recording *r);
/* Put into `image` what a power cut leaves. Returns how many units had come since the flush. */
uint64_t block_replay_cut(block_replay *replay, const block_cut *cut);

/* A memory file with the bytes of `image`, for block_mount(). Negative errno on failure. */
int block_image(const uint8_t *image);
/* Mount what a file holds, over a loop device. Returns 0 or an errno. */
int block_mount(int fd, const char *place, const char *file_system, const char *options);

/* Store and load a recording. False when the file could not be written or read. */
bool block_save(const recording *r, FILE *file);
bool block_load(recording *r, FILE *file);

#endif
