/* The file-access table on Linux. Nothing here knows what a ring is. */
#include "vev_io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "vev_clock.h"

/* FS_IOC_GETVERSION of <linux/fs.h>, which not every libc comes with. */
#define FILE_GENERATION _IOR('v', 1, long)

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

/* Open, and not as a standard stream: where a program has closed those, what it prints would be
 * written over our first bytes. */
static int open_beyond_streams(const char *path, int flags)
{
    int fd;
    do {
        fd = open(path, flags | O_CLOEXEC, 0600);
    } while (fd < 0 && errno == EINTR);
    if (fd < 0 || fd > STDERR_FILENO)
        return fd;
    int beyond = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1), error = errno;
    close(fd);
    errno = error;
    return beyond;
}

/* What root makes belongs to whom the directory belongs to: an administrator who looks after a
 * device must not shut out the service that comes after him. Sticks know no owners. */
static void give_to_owner(int fd, const char *path)
{
    const char *slash = strrchr(path, '/');
    char dir[4096];
    int length = snprintf(dir, sizeof dir, "%.*s.", slash ? (int)(slash - path) + 1 : 0, path);
    struct stat st;
    if (geteuid() != 0 || length >= (int)sizeof dir || stat(dir, &st) != 0)
        return;
    if (fchown(fd, st.st_uid, st.st_gid) != 0)
        return;
}

static vev_status posix_open(void *ctx, const char *path, int mode, int *fd_out)
{
    (void)ctx;
    int flags = (mode & VEV_FILE_WRITE) ? O_RDWR : O_RDONLY;
    if (mode & VEV_FILE_CREATE)
        flags |= O_CREAT | O_EXCL;
    int fd = open_beyond_streams(path, flags);
    if (fd < 0)
        return errno;
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return EINVAL; /* a fifo or a device in our place would block or lie */
    }
    if (mode & VEV_FILE_CREATE)
        give_to_owner(fd, path);
    /* Nobody asks when a ring was read last, and to note it is a write to the flash. Refused where
     * the file is another user's; who reads it then does as anybody does. */
    (void)fcntl(fd, F_SETFL, O_NOATIME);
    /* What is read here and there, heads and state maps, is not to bring along what stands behind
     * it. */
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
    *fd_out = fd;
    return 0;
}

static void posix_close_fd(void *ctx, int fd)
{
    (void)ctx;
    if (fd >= 0)
        close(fd);
}

static vev_status posix_examine(void *ctx, int fd, vev_file_facts *facts_out)
{
    (void)ctx;
    struct stat st;
    if (fstat(fd, &st) != 0)
        return errno;
    /* A file that is gone leaves its number to the next one, but not, where the file system has
     * such a thing, its generation. The system fills four bytes of the long that it asks for. */
    unsigned long generation = 0;
    if (ioctl(fd, FILE_GENERATION, &generation) != 0)
        generation = 0; /* FUSE hands on what came with the error */
    uint64_t words[] = {st.st_dev, st.st_ino, generation}, identity = 0;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        identity = (identity ^ words[i]) * 0x9e3779b97f4a7c15u;
        identity ^= identity >> 32;
    }
    *facts_out = (vev_file_facts){
        .size = (uint64_t)st.st_size, .identity = identity, .deleted = st.st_nlink == 0};
    return 0;
}

/* Whether RLIMIT_FSIZE forbids to write up to there. To try would be a signal, and the end of the
 * program that we are in. */
static bool is_beyond_limit(uint64_t end)
{
    struct rlimit limit;
    return getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY &&
           end > limit.rlim_cur;
}

static vev_status posix_write(void *ctx, int fd, uint64_t offset, const void *data, size_t size)
{
    (void)ctx;
    if (is_beyond_limit(offset + size))
        return EFBIG;
    const uint8_t *p = data;
    while (size > 0) {
        ssize_t n = pwrite(fd, p, size, (off_t)offset);
        if (n < 0) {
            if (errno == EINTR)
                continue;
            return errno;
        }
        p += n;
        offset += (uint64_t)n;
        size -= (size_t)n;
    }
    return 0;
}

static vev_status write_zeros(int fd, uint64_t offset, uint64_t size)
{
    return vev_io_wipe(&vev_io_posix, fd, offset, size);
}

static vev_status posix_allocate(void *ctx, int fd, uint64_t size)
{
    (void)ctx;
    if (is_beyond_limit(size))
        return EFBIG;
    int rc;
    do {
        rc = fallocate(fd, 0, 0, (off_t)size);
    } while (rc != 0 && errno == EINTR);
    if (rc == 0)
        return 0;
    if (errno != EOPNOTSUPP && errno != ENOSYS && errno != EPERM)
        return errno;
    /* No fallocate (vfat; a sandbox that forbids it): writing is the only way to have the room for
     * sure. What is there stays. */
    struct stat st;
    if (fstat(fd, &st) != 0)
        return errno;
    uint64_t present = VEV_MIN((uint64_t)st.st_size, size);
    return write_zeros(fd, present, size - present);
}

static vev_status posix_read(void *ctx, int fd, uint64_t offset, void *buffer, size_t size)
{
    (void)ctx;
    uint8_t *p = buffer;
    while (size > 0) {
        ssize_t n = pread(fd, p, size, (off_t)offset);
        if (n < 0) {
            if (errno == EINTR)
                continue;
            return errno;
        }
        if (n == 0)
            return EIO;
        p += n;
        offset += (uint64_t)n;
        size -= (size_t)n;
    }
    return 0;
}

/* Whether the file system knows for sure what was never written: an answer that leaves out what is
 * in memory and not on the disk yet would cost records. */
static bool knows_content(int fd)
{
    struct statfs fs;
    if (fstatfs(fd, &fs) != 0)
        return false;
    switch ((uint32_t)fs.f_type) {
    case 0xef53:     /* ext4 */
    case 0xf2f52010: /* f2fs */
    case 0x58465342: /* xfs */
    case 0x9123683e: /* btrfs */
    case 0x01021994: /* tmpfs */ return true;
    default: return false;
    }
}

static uint64_t posix_content(void *ctx, int fd, uint64_t offset, uint64_t size)
{
    (void)ctx;
    enum { PARTS_MAX = 64 };
    if (!knows_content(fd))
        return size;
    uint64_t end = offset + size, last = offset;
    for (int part = 0; part < PARTS_MAX; part++) {
        off_t data = lseek(fd, (off_t)last, SEEK_DATA);
        if (data < 0 && errno == ENXIO) /* none up to the end of the file */
            return last - offset;
        if (data < 0)
            return size;
        if ((uint64_t)data >= end)
            return last - offset;
        off_t hole = lseek(fd, data, SEEK_HOLE);
        if (hole <= data)
            return size;
        last = (uint64_t)hole;
        if (last >= end)
            return size;
    }
    return size;
}

static void posix_prefetch(void *ctx, int fd, uint64_t offset, uint64_t size)
{
    (void)ctx;
    (void)posix_fadvise(fd, (off_t)offset, (off_t)size, POSIX_FADV_WILLNEED);
}

static void posix_forget(void *ctx, int fd, uint64_t offset, uint64_t size)
{
    (void)ctx;
    (void)posix_fadvise(fd, (off_t)offset, (off_t)size, POSIX_FADV_DONTNEED);
}

static vev_status posix_sync(void *ctx, int fd)
{
    (void)ctx;
    return fdatasync(fd) == 0 ? 0 : errno;
}

static vev_status posix_map(void *ctx, int fd, uint64_t offset, size_t size, bool writable,
                            uint8_t **base_out)
{
    (void)ctx;
    void *p = mmap(NULL, size, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd,
                   (off_t)offset);
    if (p == MAP_FAILED)
        return errno;
    /* What is written was cleared before, so that it is in memory; what stands around it is not
     * needed. */
    if (writable)
        (void)madvise(p, size, MADV_RANDOM);
    *base_out = p;
    return 0;
}

static void posix_unmap(void *ctx, uint8_t *base, size_t size)
{
    (void)ctx;
    munmap(base, size);
}

/* Widen a range to whole pages. */
static void to_pages(uint8_t **start, size_t *size)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t low = (uintptr_t)*start & ~(page - 1);
    uintptr_t high = ((uintptr_t)*start + *size + page - 1) & ~(page - 1);
    *start = (uint8_t *)low;
    *size = high - low;
}

static vev_status posix_sync_map(void *ctx, uint8_t *start, size_t size)
{
    (void)ctx;
    to_pages(&start, &size);
    return msync(start, size, MS_SYNC) == 0 ? 0 : errno;
}

static void posix_touch(void *ctx, uint8_t *start, size_t size)
{
    (void)ctx;
    to_pages(&start, &size);
    /* Where the kernel does not know the advice (before 5.14), appends take their own faults. */
    (void)madvise(start, size, MADV_POPULATE_WRITE);
}

static void posix_rest(void *ctx, uint8_t *start, size_t size)
{
    (void)ctx;
    to_pages(&start, &size);
    /* The mapping is shared: what was changed is the cache's, and is written from there. */
    (void)madvise(start, size, MADV_DONTNEED);
}

static vev_status posix_lock(void *ctx, int fd, uint64_t offset, int kind)
{
    (void)ctx;
    struct flock lock;
    memset(&lock, 0, sizeof lock);
    lock.l_type = (short)(kind == VEV_LOCK_NONE     ? F_UNLCK
                          : kind == VEV_LOCK_SHARED ? F_RDLCK
                                                    : F_WRLCK);
    lock.l_whence = SEEK_SET;
    lock.l_start = (off_t)offset;
    lock.l_len = 1;
    int rc;
    do {
        rc = fcntl(fd, F_OFD_SETLK, &lock);
    } while (rc != 0 && errno == EINTR);
    if (rc == 0)
        return 0;
    return errno == EACCES ? EAGAIN : errno;
}

static bool posix_is_locked(void *ctx, int fd, uint64_t offset)
{
    (void)ctx;
    struct flock lock;
    memset(&lock, 0, sizeof lock);
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    lock.l_start = (off_t)offset;
    lock.l_len = 1;
    return fcntl(fd, F_OFD_GETLK, &lock) != 0 || lock.l_type != F_UNLCK;
}

static vev_status posix_sync_dir(void *ctx, const char *path)
{
    (void)ctx;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return errno;
    int error = fsync(fd) == 0 ? 0 : errno;
    close(fd);
    return error == EINVAL ? 0 : error; /* some file systems cannot, and need not */
}

static vev_status posix_make_dir(void *ctx, const char *path)
{
    if (mkdir(path, 0700) == 0) {
        /* The name is as durable as the directory that it stands in. Best effort: that one need
         * not be readable to us. */
        char parent[4096];
        int length = snprintf(parent, sizeof parent, "%s/..", path);
        if (length < (int)sizeof parent)
            (void)posix_sync_dir(ctx, parent);
        return 0;
    }
    int error = errno;
    struct stat st;
    if (error != EEXIST)
        return error;
    if (stat(path, &st) != 0) /* a link, to a card that is not mounted for example */
        return errno;
    return S_ISDIR(st.st_mode) ? 0 : ENOTDIR;
}

static vev_status posix_lock_dir(void *ctx, const char *path, int *fd_out)
{
    (void)ctx;
    int fd = open_beyond_streams(path, O_RDONLY | O_DIRECTORY);
    if (fd < 0)
        return errno;
    int rc;
    do {
        rc = flock(fd, LOCK_EX | LOCK_NB);
    } while (rc != 0 && errno == EINTR);
    if (rc != 0) {
        int error = errno;
        close(fd);
        return error;
    }
    *fd_out = fd;
    return 0;
}

static vev_status posix_rename(void *ctx, const char *from, const char *to)
{
    (void)ctx;
    return rename(from, to) == 0 ? 0 : errno;
}

static vev_status posix_remove(void *ctx, const char *path)
{
    (void)ctx;
    return unlink(path) == 0 || errno == ENOENT ? 0 : errno;
}

/* Locks are polled for: a wait in the kernel cannot be bounded without a signal. False when the
 * time is up. */
static bool wait_a_turn(uint64_t began_ns, uint32_t timeout_ms, uint32_t turn)
{
    if (vev_clock_ticks_ns() - began_ns >= timeout_ms * 1000000ull)
        return false;
    vev_clock_pause(turn);
    return true;
}

vev_status vev_io_lock(const vev_io *io, int fd, uint64_t offset, int kind, uint32_t timeout_ms)
{
    uint64_t began_ns = vev_clock_ticks_ns();
    uint32_t turn = 0;
    vev_status status;
    while ((status = io->lock(io->ctx, fd, offset, kind)) == EAGAIN) {
        if (!wait_a_turn(began_ns, timeout_ms, turn++))
            return VEV_E_BUSY;
    }
    return status;
}

vev_status vev_io_lock_dir(const vev_io *io, const char *path, uint32_t timeout_ms, int *fd_out)
{
    uint64_t began_ns = vev_clock_ticks_ns();
    uint32_t turn = 0;
    vev_status status;
    while ((status = io->lock_dir(io->ctx, path, fd_out)) == EAGAIN) {
        if (!wait_a_turn(began_ns, timeout_ms, turn++))
            return VEV_E_BUSY;
    }
    return status;
}

vev_status vev_io_read_around(const vev_io *io, int fd, uint64_t offset, void *buffer, size_t size,
                              uint64_t *unreadable_out)
{
    *unreadable_out = 0;
    vev_status status = io->read(io->ctx, fd, offset, buffer, size);
    if (status != EIO)
        return status;
    uint8_t *at = buffer;
    while (size > 0) {
        size_t piece = (size_t)VEV_MIN((uint64_t)size, VEV_PIECE - offset % VEV_PIECE);
        status = io->read(io->ctx, fd, offset, at, piece);
        if (status == EIO) {
            memset(at, 0xff, piece);
            *unreadable_out += piece;
        } else if (status) {
            return status;
        }
        at += piece;
        offset += piece;
        size -= piece;
    }
    return VEV_OK;
}

vev_status vev_io_heal(const vev_io *io, int fd, uint64_t offset, uint64_t size)
{
    static const uint8_t zeros[VEV_PIECE];
    uint8_t piece[VEV_PIECE];
    vev_status status = VEV_OK;
    for (uint64_t end = offset + size; !status && offset < end; offset += VEV_PIECE) {
        status = io->read(io->ctx, fd, offset, piece, VEV_PIECE);
        if (status == EIO)
            status = io->write(io->ctx, fd, offset, zeros, VEV_PIECE);
    }
    return status;
}

vev_status vev_io_wipe(const vev_io *io, int fd, uint64_t offset, uint64_t size)
{
    /* The system keeps what is written at once as one page, and one byte that changes in it makes
     * all of it be written to the flash again. So pieces are small; where much is cleared, all of
     * it will be written soon, and fewer calls count for more. */
    enum { SMALL = 4096, MUCH = 128 * 1024, LARGE = 65536 };
    static const uint8_t zeros[LARGE];
    uint32_t wanted = size >= MUCH ? LARGE : SMALL;
    uint64_t piece = VEV_MAX(wanted, vev_io_granule());
    vev_status status = VEV_OK;
    for (uint64_t end = offset + size; !status && offset < end;) {
        uint64_t here = VEV_MIN(piece - offset % piece, end - offset);
        status = io->write(io->ctx, fd, offset, zeros, (size_t)here);
        offset += here;
    }
    return status;
}

uint32_t vev_io_granule(void)
{
    enum { LEAST = 4096, MOST = 65536 };
    long page = sysconf(_SC_PAGESIZE);
    return page <= LEAST ? LEAST : page >= MOST ? MOST : (uint32_t)page;
}

const vev_io vev_io_posix = {
    .ctx = NULL,
    .open = posix_open,
    .close = posix_close_fd, /* musl has a posix_close() of its own */
    .examine = posix_examine,
    .allocate = posix_allocate,
    .read = posix_read,
    .write = posix_write,
    .content = posix_content,
    .prefetch = posix_prefetch,
    .forget = posix_forget,
    .sync = posix_sync,
    .map = posix_map,
    .unmap = posix_unmap,
    .sync_map = posix_sync_map,
    .touch = posix_touch,
    .rest = posix_rest,
    .lock = posix_lock,
    .is_locked = posix_is_locked,
    .make_dir = posix_make_dir,
    .lock_dir = posix_lock_dir,
    .sync_dir = posix_sync_dir,
    .rename = posix_rename,
    .remove = posix_remove,
};
