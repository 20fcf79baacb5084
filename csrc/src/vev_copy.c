/* The copy on flash, as far as it is no matter of bytes on their way: where it is, how it is, and
 * who may write it. */
#include "vev_copy.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "vev_clock.h"

enum { STATE_MAGIC = 0x50434556, STATE_VERSION = 1 };

VEV_STATIC_ASSERT(sizeof((vev_copy_info){0}.dir) == VEV_COPY_DIR_SIZE, "cffi knows no names");

/* ---- the state ---- */

static char *state_path(const char *dir, const char *suffix)
{
    static const char name[] = "/persist.state";
    size_t size = strlen(dir) + sizeof name + strlen(suffix);
    char *path = malloc(size);
    if (path)
        snprintf(path, size, "%s%s%s", dir, name, suffix);
    return path;
}

void vev_copy_state_init(vev_copy_state *s)
{
    memset(s, 0, sizeof *s);
    s->magic = STATE_MAGIC;
    s->version = STATE_VERSION;
    s->boot = vev_clock_boot_tag();
    s->restored_ns = vev_clock_ticks_ns();
}

vev_status vev_copy_state_read(const vev_io *io, int fd, vev_copy_state *s)
{
    vev_status status = io->read(io->ctx, fd, 0, s, sizeof *s);
    if (status == EIO || (!status && (s->magic != STATE_MAGIC || s->copy_dir[0] != '/' ||
                                      !memchr(s->copy_dir, '\0', sizeof s->copy_dir))))
        return VEV_E_CORRUPT;
    if (status)
        return status;
    if (s->version != STATE_VERSION)
        return VEV_E_VERSION;
    if (s->boot != vev_clock_boot_tag()) {
        /* No tmpfs outlives its boot: the log is on a disk, and was written to before a cut. */
        s->boot = vev_clock_boot_tag();
        s->unsure = 1;
        s->error = 0;
        s->restored_ns = vev_clock_ticks_ns();
        s->persisted_ns = 0;
        memset(s->durable_seq, 0, sizeof s->durable_seq);
        memset(s->whole, 0, sizeof s->whole);
    }
    return VEV_OK;
}

vev_status vev_copy_state_write(const vev_io *io, int fd, const vev_copy_state *s)
{
    return io->write(io->ctx, fd, 0, s, sizeof *s);
}

vev_status vev_copy_state_open(const vev_io *io, const char *dir, int mode, int *fd_out)
{
    char *path = state_path(dir, "");
    if (!path)
        return VEV_E_NOMEM;
    vev_status status = io->open(io->ctx, path, mode, fd_out);
    free(path);
    return status;
}

vev_status vev_copy_state_create(const vev_io *io, const char *dir, const vev_copy_state *s)
{
    char *fresh = state_path(dir, ".new");
    char *path = state_path(dir, "");
    vev_status status = fresh && path ? io->remove(io->ctx, fresh) : VEV_E_NOMEM;
    int fd;
    if (!status)
        status = io->open(io->ctx, fresh, VEV_FILE_READ | VEV_FILE_WRITE | VEV_FILE_CREATE, &fd);
    if (!status) {
        status = vev_copy_state_write(io, fd, s);
        io->close(io->ctx, fd);
        if (!status)
            status = io->rename(io->ctx, fresh, path);
    }
    free(fresh);
    free(path);
    return status;
}

uint64_t vev_copy_session(const vev_io *io, int fd)
{
    uint8_t bytes[8];
    return io->read(io->ctx, fd, VEV_COPY_AT_SESSION, bytes, sizeof bytes) ? 0 : vev_load64(bytes);
}

/* ---- an open log's ---- */

vev_status vev_copy_attach(const vev_io *io, const char *dir, bool readonly, vev_copy **copy_out)
{
    *copy_out = NULL;
    int fd;
    vev_status status =
        vev_copy_state_open(io, dir, VEV_FILE_READ | (readonly ? 0 : VEV_FILE_WRITE), &fd);
    if (status)
        return status == ENOENT ? VEV_OK : status;
    vev_copy *copy = calloc(1, sizeof *copy);
    vev_copy_state *s = malloc(sizeof *s);
    status = copy && s ? vev_copy_state_read(io, fd, s) : VEV_E_NOMEM;
    if (!status) {
        copy->io = io;
        copy->fd = fd;
        copy->lock = -1;
        pthread_mutex_init(&copy->lock_mutex, NULL);
        copy->interval_ms = s->interval_ms;
        memcpy(copy->copy_dir, s->copy_dir, sizeof copy->copy_dir);
        *copy_out = copy;
    } else {
        io->close(io->ctx, fd);
        free(copy);
    }
    free(s);
    /* Only a power cut can have broken it, so the log is on a disk, and needs no copy. */
    return status == VEV_E_CORRUPT ? VEV_OK : status;
}

void vev_copy_detach(vev_copy *copy)
{
    if (!copy)
        return;
    copy->io->close(copy->io->ctx, copy->fd);
    pthread_mutex_destroy(&copy->lock_mutex);
    free(copy);
}

/* Like vev_io_lock_dir(), but fork() knows of the lock as soon as it is held. */
vev_status vev_copy_lock(vev_copy *copy)
{
    uint64_t began_ns = vev_clock_ticks_ns();
    for (uint32_t turn = 0;; vev_clock_pause(turn++)) {
        pthread_mutex_lock(&copy->lock_mutex);
        vev_status status = copy->io->lock_dir(copy->io->ctx, copy->copy_dir, &copy->lock);
        pthread_mutex_unlock(&copy->lock_mutex);
        if (status != EAGAIN)
            return status;
        if (vev_clock_ticks_ns() - began_ns >= VEV_OPEN_WAIT_MS * 1000000ull)
            return VEV_E_BUSY;
    }
}

void vev_copy_unlock(vev_copy *copy)
{
    pthread_mutex_lock(&copy->lock_mutex);
    copy->io->close(copy->io->ctx, copy->lock);
    copy->lock = -1;
    pthread_mutex_unlock(&copy->lock_mutex);
}

void vev_copy_before_fork(vev_copy *copy)
{
    if (copy)
        pthread_mutex_lock(&copy->lock_mutex);
}

void vev_copy_after_fork_in_parent(vev_copy *copy)
{
    if (copy)
        pthread_mutex_unlock(&copy->lock_mutex);
}

void vev_copy_after_fork_in_child(vev_copy *copy)
{
    if (!copy)
        return;
    copy->io->close(copy->io->ctx, copy->lock);
    copy->lock = -1;
    pthread_mutex_unlock(&copy->lock_mutex);
}

/* A member of the state as it stands, or zeros: it is on tmpfs, and these are looked at often. */
static void peek(const vev_copy *copy, size_t offset, void *out, size_t size)
{
    uint32_t boot;
    if (copy->io->read(copy->io->ctx, copy->fd, offsetof(vev_copy_state, boot), &boot,
                       sizeof boot) ||
        boot != vev_clock_boot_tag() || copy->io->read(copy->io->ctx, copy->fd, offset, out, size))
        memset(out, 0, size);
}

uint64_t vev_copy_durable_seq(const vev_copy *copy, uint32_t stream)
{
    uint64_t seq;
    peek(copy, offsetof(vev_copy_state, durable_seq) + stream * sizeof seq, &seq, sizeof seq);
    return seq;
}

uint64_t vev_copy_persisted_ns(const vev_copy *copy)
{
    uint64_t ns;
    peek(copy, offsetof(vev_copy_state, persisted_ns), &ns, sizeof ns);
    return ns;
}

uint32_t vev_copy_interval_ms(const vev_copy *copy) { return copy->interval_ms; }

void vev_copy_look(const vev_copy *copy, vev_copy_info *info)
{
    memset(info, 0, sizeof *info);
    uint64_t persisted_ns = vev_copy_persisted_ns(copy), now_ns = vev_clock_ticks_ns(), restored_ns;
    peek(copy, offsetof(vev_copy_state, restored_ns), &restored_ns, sizeof restored_ns);
    info->since_ms = restored_ns == 0 ? 0 : (int64_t)((now_ns - restored_ns) / 1000000);
    peek(copy, offsetof(vev_copy_state, pass_count), &info->pass_count, sizeof info->pass_count);
    peek(copy, offsetof(vev_copy_state, bytes_written), &info->bytes_written,
         sizeof info->bytes_written);
    peek(copy, offsetof(vev_copy_state, error), &info->error, sizeof info->error);
    info->age_ms = persisted_ns == 0 ? -1 : (int64_t)((now_ns - persisted_ns) / 1000000);
    info->interval_ms = copy->interval_ms;
    memcpy(info->dir, copy->copy_dir, sizeof info->dir);
}
