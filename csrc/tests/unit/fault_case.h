/* What tests of faults share: a log of one's own making, a disk with a bad sector, a ring alone,
 * and writers that stop halfway. */
#ifndef FAULT_CASE_H
#define FAULT_CASE_H

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "log_case.h"
#include "vev_ahead.h"
#include "vev_append.h"
#include "vev_checkpoint.h"
#include "vev_clear.h"
#include "vev_cursor.h"
#include "vev_log.h"
#include "vev_open.h"
#include "vev_reclaim.h"
#include "vev_ring.h"
#include "vev_states.h"
#include "vev_stats.h"
#include "vev_step.h"
#include "vev_sync.h"

static inline vev_options quiet(void)
{
    vev_options options = small();
    options.flags = VEV_OPEN_NO_THREAD;
    return options;
}

/* Open a file, and keep what it got in `events_fd` if it is events.ring. */
static inline vev_status open_noting(const char *path, int mode, int *fd_out, int *events_fd)
{
    vev_status status = vev_io_posix.open(NULL, path, mode, fd_out);
    if (!status && strcmp(path + strlen(path) - 11, "events.ring") == 0)
        *events_fd = *fd_out;
    return status;
}

/* A closed log with `count` events and what its geometry is. */
static inline vev_stats make_log(const char *dir, uint64_t count)
{
    vev_options options = quiet();
    vev_log *log = open_log(dir, &options);
    append_numbers(log, VEV_EVENTS, 0, count);
    vev_stats stats = stats_of(log, VEV_EVENTS);
    vev_log_close(log);
    return stats;
}

#ifndef __SANITIZE_THREAD__ /* the jump out of the handler would leave TSan's own locks taken */

/* A page of events.ring that cannot be read, until somebody writes it. */
static struct {
    bool bad;
    uint64_t at;
    uint8_t *mapped; /* where it was last mapped, or NULL */
    int fd;          /* of events.ring */
    int write_error; /* errno of every write to it; 0: none */
} disk;

static inline size_t page_size(void) { return (size_t)sysconf(_SC_PAGESIZE); }

/* Where pages are larger than the bad piece, all of its page is gone from a mapping. */
static inline uint64_t bad_page(void) { return disk.at / page_size() * page_size(); }

static inline void make_bad(uint64_t at)
{
    memset(&disk, 0, sizeof disk);
    disk.bad = true;
    disk.at = at / VEV_PIECE * VEV_PIECE;
}

static inline bool is_bad(int fd, uint64_t offset, uint64_t size)
{
    return disk.bad && fd == disk.fd && disk.at < offset + size && offset < disk.at + VEV_PIECE;
}

static inline vev_status bad_open(void *ctx, const char *path, int mode, int *fd_out)
{
    (void)ctx;
    return open_noting(path, mode, fd_out, &disk.fd);
}

static inline vev_status bad_read(void *ctx, int fd, uint64_t offset, void *buffer, size_t size)
{
    return is_bad(fd, offset, size) ? EIO : vev_io_posix.read(ctx, fd, offset, buffer, size);
}

static inline void forget_bad(int fd, uint64_t offset, uint64_t size)
{
    if (!is_bad(fd, offset, size))
        return;
    disk.bad = false;
    if (disk.mapped)
        CHECK(mmap(disk.mapped, page_size(), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
                   (off_t)bad_page()) != MAP_FAILED);
}

static inline vev_status bad_write(void *ctx, int fd, uint64_t offset, const void *data,
                                   size_t size)
{
    if (disk.write_error && fd == disk.fd)
        return disk.write_error;
    forget_bad(fd, offset, size);
    return vev_io_posix.write(ctx, fd, offset, data, size);
}

static inline vev_status bad_sync_map(void *ctx, uint8_t *start, size_t size)
{
    return disk.write_error ? disk.write_error : vev_io_posix.sync_map(ctx, start, size);
}

/* Let a page of a mapping be SIGBUS, as behind the end of a file. The file is cut only when it is
 * mapped: qemu, with pages larger than the machine's, maps nothing that lies behind an end. */
static inline void break_page(uint8_t *page)
{
    int empty = memfd_create("bad", 0);
    CHECK(empty >= 0);
    CHECK(ftruncate(empty, (off_t)page_size()) == 0);
    CHECK(mmap(page, page_size(), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, empty, 0) !=
          MAP_FAILED);
    CHECK(ftruncate(empty, 0) == 0);
    close(empty);
}

/* Looking at a bad page through a mapping is SIGBUS. */
static inline vev_status bad_map(void *ctx, int fd, uint64_t offset, size_t size, bool writable,
                                 uint8_t **base_out)
{
    vev_status status = vev_io_posix.map(ctx, fd, offset, size, writable, base_out);
    if (!status && is_bad(fd, offset, size)) {
        disk.mapped = *base_out + (bad_page() - offset);
        break_page(disk.mapped);
    }
    return status;
}

static inline void bad_unmap(void *ctx, uint8_t *base, size_t size)
{
    if (disk.mapped >= base && disk.mapped < base + size)
        disk.mapped = NULL;
    vev_io_posix.unmap(ctx, base, size);
}

static inline vev_io bad_io(void)
{
    vev_io io = vev_io_posix;
    io.open = bad_open;
    io.read = bad_read;
    io.write = bad_write;
    io.sync_map = bad_sync_map;
    io.map = bad_map;
    io.unmap = bad_unmap;
    return io;
}

static inline vev_log *open_on_bad_disk(const char *dir, const vev_options *options)
{
    static vev_io io;
    io = bad_io();
    vev_log *log;
    OK(vev__log_open(&io, dir, options, &log));
    return log;
}

#endif

static inline void overwrite(const char *dir, uint64_t offset, const void *bytes, size_t size)
{
    char path[160];
    snprintf(path, sizeof path, "%s/events.ring", dir);
    int fd = open(path, O_RDWR);
    CHECK(fd >= 0 && pwrite(fd, bytes, size, (off_t)offset) == (ssize_t)size);
    close(fd);
}

static inline void read_ring(const char *dir, uint64_t offset, void *out, size_t size)
{
    char path[160];
    snprintf(path, sizeof path, "%s/events.ring", dir);
    int fd = open(path, O_RDONLY);
    CHECK(fd >= 0 && pread(fd, out, size, (off_t)offset) == (ssize_t)size);
    close(fd);
}

static inline vev_file_header header_of(const char *dir)
{
    uint8_t block[VEV_HEADER_BLOCK];
    vev_file_header file;
    read_ring(dir, 0, block, sizeof block);
    OK(vev_file_header_read(block, &file));
    return file;
}

/* What is in the live area of a closed log is of another boot. */
static inline void boot_again(const char *dir)
{
    static const uint8_t none[sizeof(uint32_t)];
    overwrite(dir, VEV_AT_LIVE + offsetof(vev_live, boot), none, sizeof none);
}

static inline vev_ring *open_ring_on(const vev_io *io, const char *dir)
{
    static vev_pool pool;
    vev_ring_options options = {
        .size = 1 << 20, .segment_size = 65536, .record_size_min = 64, .level = VEV_LEVEL_RAW};
    char path[176];
    snprintf(path, sizeof path, "%s/events.ring", dir);
    vev_ring *ring;
    OK(vev_ring_open(io, path, &options, &pool, &ring));
    return ring;
}

static inline vev_ring *open_ring(const char *dir) { return open_ring_on(&vev_io_posix, dir); }

/* Reserve 104 bytes as an append does, and stop there. */
static inline _Atomic uint64_t *reserve_only(vev_ring *ring, uint32_t *offset_out,
                                             uint32_t *index_out)
{
    vev_span *span = atomic_load(&ring->current);
    uint32_t offset = 0, index = 0;
    for (;;) {
        _Atomic uint64_t *word = (_Atomic uint64_t *)(void *)(span->data + offset);
        if (atomic_load(word) == 0) {
            atomic_store(word, vev_word_sized(VEV_WORD_RESERVED, 104, ring->owner));
            *offset_out = offset;
            *index_out = index;
            return word;
        }
        offset += vev_word_size(atomic_load(word));
        index++;
    }
}

static inline void wait_for(pid_t child)
{
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

#define RUN(test)                                                                                  \
    do {                                                                                           \
        printf("%s\n", #test);                                                                     \
        fflush(stdout);                                                                            \
        test();                                                                                    \
    } while (0)

#endif
