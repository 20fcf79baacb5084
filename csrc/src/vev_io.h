/* The only way to files. Every access goes through one table, so that tests can put a disk under
 * the ring that cuts, tears, reorders or fails. All functions return 0 or a positive errno. */
#ifndef VEV_IO_H
#define VEV_IO_H

#include "vev_base.h"

enum { VEV_LOCK_NONE = 0, VEV_LOCK_SHARED = 1, VEV_LOCK_EXCLUSIVE = 2 };
enum { VEV_FILE_READ = 1, VEV_FILE_WRITE = 2, VEV_FILE_CREATE = 4 /* must not exist */ };

typedef struct vev_file_facts {
    uint64_t size;
    /* What tells a file from its copies as long as the system runs. 0 where nothing does. */
    uint64_t identity;
    bool deleted; /* it has no name any more: it goes when it is closed */
} vev_file_facts;

typedef struct vev_io {
    void *ctx; /* handed to every function */

    vev_status (*open)(void *ctx, const char *path, int mode, int *fd_out);
    void (*close)(void *ctx, int fd);
    vev_status (*examine)(void *ctx, int fd, vev_file_facts *facts_out);
    /* Give the file `size` bytes that read as zero and whose room is reserved on disk. */
    vev_status (*allocate)(void *ctx, int fd, uint64_t size);
    /* All `size` bytes or an error; bytes past the end of the file are EIO. */
    vev_status (*read)(void *ctx, int fd, uint64_t offset, void *buffer, size_t size);
    vev_status (*write)(void *ctx, int fd, uint64_t offset, const void *data, size_t size);
    /* How much of a range, from its start, may be anything but zeros: behind it nothing was ever
     * written. `size` where that is not known. */
    uint64_t (*content)(void *ctx, int fd, uint64_t offset, uint64_t size);
    /* A range is read next. Best effort. */
    void (*prefetch)(void *ctx, int fd, uint64_t offset, uint64_t size);
    /* A range is overwritten next: what the system has of it in memory is not needed. What is not
     * on the disk yet is written, which may take its time. Best effort. */
    void (*forget)(void *ctx, int fd, uint64_t offset, uint64_t size);
    vev_status (*sync)(void *ctx, int fd);

    /* Shared mapping; `offset` is a multiple of 64 KiB, so any page size does. */
    vev_status (*map)(void *ctx, int fd, uint64_t offset, size_t size, bool writable,
                      uint8_t **base_out);
    void (*unmap)(void *ctx, uint8_t *base, size_t size);
    /* Write a part of a mapping to stable storage. Any address inside it. */
    vev_status (*sync_map)(void *ctx, uint8_t *start, size_t size);
    /* Take the page faults of a coming write now, changing nothing. Best effort. */
    void (*touch)(void *ctx, uint8_t *start, size_t size);
    /* Let go of the memory of a part of a mapping, whose pages stay in the system's cache: what
     * looks at them next takes the page faults again. Best effort. */
    void (*rest)(void *ctx, uint8_t *start, size_t size);

    /* Byte-range lock of this open file; the system drops it when the holder dies.
     * EAGAIN when another open file holds it. */
    vev_status (*lock)(void *ctx, int fd, uint64_t offset, int kind);
    /* Whether another open file holds a lock there. */
    bool (*is_locked)(void *ctx, int fd, uint64_t offset);

    vev_status (*make_dir)(void *ctx, const char *path);              /* 0 also if it exists */
    vev_status (*lock_dir)(void *ctx, const char *path, int *fd_out); /* until closed; EAGAIN */
    vev_status (*sync_dir)(void *ctx, const char *path);
    vev_status (*rename)(void *ctx, const char *from, const char *to);
    vev_status (*remove)(void *ctx, const char *path); /* 0 also if absent */
} vev_io;

/* Lock, waiting for whoever holds it. The wait is bounded: a holder that dies lets go, but one that
 * is stopped (SIGSTOP, a frozen container) does not. VEV_E_BUSY when it took too long. */
enum { VEV_ROLL_WAIT_MS = 10000, VEV_OPEN_WAIT_MS = 60000 };
vev_status vev_io_lock(const vev_io *io, int fd, uint64_t offset, int kind, uint32_t timeout_ms);
vev_status vev_io_lock_dir(const vev_io *io, const char *path, uint32_t timeout_ms, int *fd_out);

/* Read like `read`, but let a sector that cannot be read cost that sector only: pieces of 4 KiB
 * that fail with EIO become 0xff bytes, which are no record, no end and no free space. Counts
 * them. */
enum { VEV_PIECE = 4096 };
vev_status vev_io_read_around(const vev_io *io, int fd, uint64_t offset, void *buffer, size_t size,
                              uint64_t *unreadable_out);
/* Overwrite the pieces of a range that cannot be read with zeros: a disk gives a sector that is
 * written a new place. */
vev_status vev_io_heal(const vev_io *io, int fd, uint64_t offset, uint64_t size);

/* Write zeros. By writing, and not through a mapping, which would have to read what is
 * overwritten. */
vev_status vev_io_wipe(const vev_io *io, int fd, uint64_t offset, uint64_t size);
/* What a file is cleared by: a page of the system, and at least 4 KiB. */
uint32_t vev_io_granule(void);

/* The real thing. */
extern const vev_io vev_io_posix;

#endif
