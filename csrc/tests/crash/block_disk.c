/* See block_disk.h. */
#include "block_disk.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <linux/loop.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define PLACE "/mnt" /* covered in our namespace alone */
#define DEVICE PLACE "/device"

enum { WRITE_MAX = 1 << 20 };

static pid_t server;
static int outer_namespace = -1;

const char *block_prepare(void)
{
    if (geteuid() != 0)
        return "root (it mounts file systems)";
    if (access("/dev/fuse", R_OK | W_OK) != 0)
        return "/dev/fuse";
    if (access("/dev/loop-control", R_OK | W_OK) != 0)
        return "/dev/loop-control";
    outer_namespace = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
    if (outer_namespace < 0 || unshare(CLONE_NEWNS) != 0 ||
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        return "the right to mount (CAP_SYS_ADMIN)";
    if (mount("block-lab", PLACE, "tmpfs", 0, "mode=0700") != 0)
        return "a folder " PLACE;
    int fd = open(DEVICE, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    if (fd < 0 || close(fd) != 0 || mkdir(BLOCK_RECORDED, 0700) != 0 ||
        mkdir(BLOCK_REPLAYED, 0700) != 0)
        return "room in memory";
    return NULL;
}

recording *block_reserve(void)
{
    recording *r = mmap(NULL, sizeof *r, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return r == MAP_FAILED ? NULL : r;
}

bool block_has_room(const recording *r)
{
    /* The rest is for what the page cache still holds. */
    return atomic_load(&r->data_used) < BLOCK_DATA_SIZE - 2 * BLOCK_DISK_SIZE &&
           atomic_load(&r->now) < BLOCK_ENTRIES - 2 * BLOCK_DISK_SIZE / BLOCK_PAGE;
}

/* ---- the device ---- */

static bool apply(uint8_t *disk, const block_entry *entry, const uint8_t *data)
{
    if (entry->offset > BLOCK_DISK_SIZE || entry->size > BLOCK_DISK_SIZE - entry->offset)
        return false;
    if (entry->kind == BLOCK_WRITE)
        memcpy(disk + entry->offset, data + entry->data, entry->size);
    else if (entry->kind == BLOCK_ZERO)
        memset(disk + entry->offset, 0, entry->size);
    return true;
}

/* Returns 0 or a negative errno for the kernel. */
static int record(recording *r, block_entry entry, const void *bytes)
{
    uint64_t now = atomic_load(&r->now), used = atomic_load(&r->data_used);
    if (now == BLOCK_ENTRIES || entry.size > BLOCK_DATA_SIZE - used)
        return -ENOSPC;
    if (entry.kind == BLOCK_WRITE) {
        entry.data = used;
        memcpy(r->data + used, bytes, entry.size);
        atomic_store(&r->data_used, used + entry.size);
    }
    if (!apply(r->disk, &entry, r->data))
        return -EINVAL;
    r->entries[now] = entry;
    /* Before the answer: who hears that a flush is done finds it in the recording. */
    atomic_store(&r->now, now + 1);
    if (entry.kind == BLOCK_FLUSH)
        atomic_fetch_add(&r->flushes, 1);
    return 0;
}

static bool answer(int fd, uint64_t unique, int error, const void *body, size_t size)
{
    struct fuse_out_header header = {.error = error, .unique = unique};
    struct iovec parts[2] = {{.iov_base = &header, .iov_len = sizeof header},
                             {.iov_base = (void *)(uintptr_t)body, .iov_len = error ? 0 : size}};
    header.len = (uint32_t)(parts[0].iov_len + parts[1].iov_len);
    /* ENOENT: whoever asked was interrupted. */
    return writev(fd, parts, 2) >= 0 || errno == ENOENT;
}

/* The file system is one file, its root. One thread, so that what is first here was first. */
static int serve(int fd, recording *r)
{
    static uint8_t buffer[WRITE_MAX + 65536] __attribute__((aligned(8)));
    const struct fuse_attr_out attributes = {.attr_valid = 3600,
                                             .attr = {.ino = FUSE_ROOT_ID,
                                                      .size = BLOCK_DISK_SIZE,
                                                      .blocks = BLOCK_DISK_SIZE / 512,
                                                      .mode = S_IFREG | 0600,
                                                      .nlink = 1,
                                                      .blksize = BLOCK_PAGE}};
    for (;;) {
        ssize_t got = read(fd, buffer, sizeof buffer);
        if (got < 0 && (errno == EINTR || errno == EAGAIN || errno == ENOENT))
            continue;
        if (got < (ssize_t)sizeof(struct fuse_in_header))
            return errno == ENODEV ? 0 : 1; /* ENODEV: unmounted */
        const struct fuse_in_header *in = (const void *)buffer;
        const void *body = in + 1;
        int error = 0;
        bool told = true;
        switch (in->opcode) {
        case FUSE_INIT: {
            const struct fuse_init_in *init = body;
            struct fuse_init_out out = {.major = FUSE_KERNEL_VERSION,
                                        .minor = FUSE_KERNEL_MINOR_VERSION,
                                        .max_readahead = init->max_readahead,
                                        .flags = FUSE_BIG_WRITES | FUSE_MAX_PAGES,
                                        .max_write = WRITE_MAX,
                                        .time_gran = 1,
                                        .max_pages = WRITE_MAX / BLOCK_PAGE};
            told = answer(fd, in->unique, 0, &out, sizeof out);
            break;
        }
        case FUSE_GETATTR:
        case FUSE_SETATTR: told = answer(fd, in->unique, 0, &attributes, sizeof attributes); break;
        case FUSE_OPEN: {
            /* No page cache of its own between the loop device and us. */
            const struct fuse_open_out out = {.open_flags = FOPEN_DIRECT_IO};
            told = answer(fd, in->unique, 0, &out, sizeof out);
            break;
        }
        case FUSE_READ: {
            const struct fuse_read_in *wanted = body;
            uint64_t from = VEV_MIN(wanted->offset, (uint64_t)BLOCK_DISK_SIZE);
            told = answer(fd, in->unique, 0, r->disk + from,
                          VEV_MIN((uint64_t)wanted->size, BLOCK_DISK_SIZE - from));
            break;
        }
        case FUSE_WRITE: {
            const struct fuse_write_in *given = body;
            error = record(
                r, (block_entry){.kind = BLOCK_WRITE, .offset = given->offset, .size = given->size},
                given + 1);
            const struct fuse_write_out out = {.size = given->size};
            told = answer(fd, in->unique, error, &out, sizeof out);
            break;
        }
        case FUSE_FALLOCATE: { /* a discard, or "write zeros" */
            const struct fuse_fallocate_in *range = body;
            error = record(r,
                           (block_entry){.kind = BLOCK_ZERO,
                                         .offset = range->offset,
                                         .size = (uint32_t)range->length},
                           NULL);
            told = answer(fd, in->unique, error, NULL, 0);
            break;
        }
        case FUSE_FSYNC:
            error = record(r, (block_entry){.kind = BLOCK_FLUSH}, NULL);
            told = answer(fd, in->unique, error, NULL, 0);
            break;
        case FUSE_FLUSH: /* of close(); says nothing about the disk */
        case FUSE_RELEASE:
        case FUSE_DESTROY: told = answer(fd, in->unique, 0, NULL, 0); break;
        case FUSE_FORGET:
        case FUSE_BATCH_FORGET:
        case FUSE_INTERRUPT: break;
        default: told = answer(fd, in->unique, -ENOSYS, NULL, 0);
        }
        if (!told)
            return errno == ENODEV ? 0 : 1;
    }
}

/* ---- mounting ---- */

int block_mount(int fd, const char *place, const char *file_system, const char *options)
{
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    if (control < 0)
        return errno;
    int error = EBUSY, loop = -1;
    char name[32];
    for (int tries = 0; error == EBUSY && tries < 50; tries++) {
        /* Somebody else may take the one that is free. */
        int number = ioctl(control, LOOP_CTL_GET_FREE);
        snprintf(name, sizeof name, "/dev/loop%d", number);
        loop = number < 0 ? -1 : open(name, O_RDWR | O_CLOEXEC);
        if (loop < 0) {
            error = errno;
            break;
        }
        const struct loop_config config = {.fd = (uint32_t)fd,
                                           .block_size = BLOCK_SECTOR,
                                           .info = {.lo_flags = LO_FLAGS_AUTOCLEAR}};
        error = ioctl(loop, LOOP_CONFIGURE, &config) == 0 ? 0 : errno;
        if (error)
            close(loop);
    }
    close(control);
    if (error)
        return error;
    if (mount(name, place, file_system, MS_NOATIME, options) != 0)
        error = errno;
    close(loop);
    return error;
}

int block_start(recording *r, const char *file_system, const char *options)
{
    memcpy(r->disk, r->base, sizeof r->disk);
    atomic_store(&r->now, 0);
    atomic_store(&r->data_used, 0);
    atomic_store(&r->flushes, 0);
    int fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (fuse < 0)
        return errno;
    char how[64];
    snprintf(how, sizeof how, "fd=%d,rootmode=100600,user_id=0,group_id=0", fuse);
    if (mount("block-lab", DEVICE, "fuse", MS_NOSUID | MS_NODEV, how) != 0) {
        int error = errno;
        close(fuse);
        return error;
    }
    server = fork();
    if (server == 0) {
        /* It must outlive the others, whatever ends them: the kernel then unmounts what is in their
         * namespace, which writes to the device, and waits for the answers. The end of the mount is
         * the end of the server. */
        setsid();
        if (unshare(CLONE_FS) != 0 || setns(outer_namespace, CLONE_NEWNS) != 0) {
            perror("block_lab: setns");
            _exit(1);
        }
        _exit(serve(fuse, r));
    }
    close(fuse);
    if (server < 0)
        return errno;
    int fd = open(DEVICE, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return errno;
    int error = block_mount(fd, BLOCK_RECORDED, file_system, options);
    close(fd);
    return error;
}

int block_stop(void)
{
    int error = umount(BLOCK_RECORDED) == 0 ? 0 : errno;
    /* The loop device closes the file a moment after the file system is gone. */
    for (int tries = 0; umount(DEVICE) != 0 && errno == EBUSY && tries < 2000; tries++)
        usleep(1000);
    int status;
    if (waitpid(server, &status, 0) != server || status != 0)
        return error ? error : EIO;
    return error;
}

/* ---- replaying ---- */

void block_replay_reset(block_replay *replay, const recording *r)
{
    replay->r = r;
    replay->flushed = 0;
    memcpy(replay->durable, r->base, BLOCK_DISK_SIZE);
}

uint64_t block_replay_cut(block_replay *replay, const block_cut *cut)
{
    const recording *r = replay->r;
    uint64_t flushed = cut->moment, units = 0, state = cut->seed;
    while (flushed > 0 && r->entries[flushed - 1].kind != BLOCK_FLUSH)
        flushed--;
    if (flushed < replay->flushed)
        block_replay_reset(replay, r);
    for (; replay->flushed < flushed; replay->flushed++)
        apply(replay->durable, &r->entries[replay->flushed], r->data);
    uint8_t *image = memcpy(replay->image, replay->durable, BLOCK_DISK_SIZE);
    for (uint64_t i = flushed; i < cut->moment; i++) {
        const block_entry *entry = &r->entries[i];
        for (uint64_t at = 0; at < entry->size; units++) {
            uint64_t size = VEV_MIN((uint64_t)entry->size - at, (uint64_t)cut->unit);
            block_entry part = {.kind = entry->kind,
                                .offset = entry->offset + at,
                                .data = entry->data + at,
                                .size = (uint32_t)size};
            state = state * 6364136223846793005ull + 1442695040888963407ull;
            if ((state >> 33) % 100 < cut->percent)
                apply(image, &part, r->data);
            at += size;
        }
    }
    return units;
}

int block_image(const uint8_t *image)
{
    char name[32]; /* shown as the file of the loop device */
    snprintf(name, sizeof name, "block-lab-%d", (int)getpid());
    int fd = memfd_create(name, MFD_CLOEXEC);
    if (fd < 0)
        return -errno;
    static const uint8_t zeros[65536];
    if (ftruncate(fd, BLOCK_DISK_SIZE) != 0)
        goto failed;
    for (uint64_t at = 0; at < BLOCK_DISK_SIZE; at += sizeof zeros)
        if (memcmp(image + at, zeros, sizeof zeros) != 0 &&
            pwrite(fd, image + at, sizeof zeros, (off_t)at) != (ssize_t)sizeof zeros)
            goto failed;
    return fd;
failed:
    close(fd);
    return -EIO;
}

bool block_save(const recording *r, FILE *file)
{
    uint64_t counts[2] = {atomic_load(&r->now), atomic_load(&r->data_used)};
    return fwrite(counts, sizeof counts, 1, file) == 1 &&
           fwrite(r->entries, sizeof r->entries[0], counts[0], file) == counts[0] &&
           fwrite(r->base, sizeof r->base, 1, file) == 1 &&
           fwrite(r->data, 1, counts[1], file) == counts[1];
}

bool block_load(recording *r, FILE *file)
{
    uint64_t counts[2];
    if (fread(counts, sizeof counts, 1, file) != 1 || counts[0] > BLOCK_ENTRIES ||
        counts[1] > BLOCK_DATA_SIZE ||
        fread(r->entries, sizeof r->entries[0], counts[0], file) != counts[0] ||
        fread(r->base, sizeof r->base, 1, file) != 1 ||
        fread(r->data, 1, counts[1], file) != counts[1])
        return false;
    atomic_store(&r->now, counts[0]);
    atomic_store(&r->data_used, counts[1]);
    return true;
}
