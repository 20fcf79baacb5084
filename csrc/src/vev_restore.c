/* What a boot, or a restart, makes of the copy: the rings that are missing in memory. They are made
 * under other names and put in their places together; persist.state comes last, so that a restore
 * that was cut off is repeated. */
#include "vev_restore.h"

#include <errno.h>
#include <stdlib.h>

#include "vev_clock.h"

/* Take one ring from its copy. What cannot be read there costs what was in it. */
static vev_status copy_back(const vev_io *io, int from, int to, uint64_t size, bool *whole_out)
{
    uint8_t *piece = malloc(VEV_COPY_PIECE);
    if (!piece)
        return VEV_E_NOMEM;
    static const uint8_t zeros[VEV_COPY_PAGE];
    *whole_out = true;
    vev_status status = io->allocate(io->ctx, to, size);
    for (uint64_t at = 0; !status && at < size; at += VEV_COPY_PIECE) {
        size_t piece_size = (size_t)VEV_MIN((uint64_t)VEV_COPY_PIECE, size - at);
        uint64_t unreadable;
        status = vev_io_read_around(io, from, at, piece, piece_size, &unreadable);
        *whole_out &= unreadable == 0;
        if (at == 0) /* the live area is nobody's */
            memset(piece + VEV_AT_LIVE, 0, VEV_HEADER_REGION - VEV_AT_LIVE);
        for (size_t page = 0; !status && page < piece_size; page += VEV_COPY_PAGE)
            if (memcmp(piece + page, zeros, VEV_MIN((size_t)VEV_COPY_PAGE, piece_size - page)) != 0)
                status = io->write(io->ctx, to, at + page, piece + page,
                                   VEV_MIN((size_t)VEV_COPY_PAGE, piece_size - page));
    }
    free(piece);
    return status;
}

/* What a restored ring and its copy have in common (INV-12): all sealed laps but the newest, which
 * whoever opens the ring may mend. */
static vev_status note_whole(const vev_io *io, int fd, const vev_file_header *header,
                             uint64_t *whole)
{
    const vev_geometry *geometry = &header->geometry;
    uint64_t newest = 0;
    uint32_t newest_segment = 0;
    for (uint32_t s = 0; s < geometry->segment_count; s++) {
        uint8_t bytes[VEV_HEAD_BYTES];
        vev_head head;
        vev_status status =
            io->read(io->ctx, fd, vev_segment_offset(geometry, s), bytes, sizeof bytes);
        if (status)
            return status;
        if (!vev_head_read(bytes, header->uuid, geometry, &head))
            continue;
        if (head.sealed)
            whole[s] = head.salt;
        if (head.generation > newest) {
            newest = head.generation;
            newest_segment = s;
        }
    }
    whole[newest_segment] = 0;
    return VEV_OK;
}

static vev_status header_of(const vev_io *io, int fd, vev_file_header *header)
{
    vev_status status = VEV_E_CORRUPT;
    for (uint64_t copy = 0; status == VEV_E_CORRUPT && copy < 2; copy++) {
        uint8_t block[VEV_HEADER_BLOCK];
        if (io->read(io->ctx, fd, copy * VEV_HEADER_BLOCK, block, sizeof block) == VEV_OK)
            status = vev_file_header_read(block, header);
    }
    return status;
}

/* Let the copy be of this session from now on. A flash that takes no writes just now is claimed by
 * the first pass that finds it otherwise. */
static void claim(const vev_io *io, int fd, const vev_copy_state *s)
{
    uint8_t page[VEV_COPY_PAGE] = {0};
    vev_store64(page, s->session);
    if (io->write(io->ctx, fd, VEV_COPY_AT_SESSION, page, sizeof page) == VEV_OK)
        (void)io->sync(io->ctx, fd);
}

/* The ring that is there must be the copy's. */
static vev_status compare_rings(const vev_io *io, int copy, int ring)
{
    vev_file_header a, b;
    bool foreign = header_of(io, copy, &a) == VEV_OK && header_of(io, ring, &b) == VEV_OK &&
                   memcmp(a.uuid, b.uuid, sizeof a.uuid) != 0;
    return foreign ? VEV_E_FOREIGN : VEV_OK;
}

/* Make of a copy the ring `to`, which is new. */
static vev_status take_ring(const vev_io *io, int copy, int to, uint64_t size, uint64_t *whole)
{
    vev_file_header header;
    bool readable;
    vev_status status = copy_back(io, copy, to, size, &readable);
    if (!status && readable && header_of(io, to, &header) == VEV_OK &&
        size >= header.geometry.file_size)
        status = note_whole(io, to, &header, whole);
    return status;
}

/* One stream: a ring that is missing is made of its copy, under `<ring>.new`. Sets *taken_out when
 * so. */
static vev_status restore_ring(const vev_io *io, const char *dir, const char *copy_dir,
                               uint32_t stream, vev_copy_state *s, bool *taken_out)
{
    char *ring = vev_ring_path(dir, stream, ".ring");
    char *fresh = vev_ring_path(dir, stream, ".ring.new");
    char *path = vev_ring_path(copy_dir, stream, ".copy");
    int copy = -1, file = -1;
    vev_file_facts facts;
    vev_status status = ring && fresh && path ? VEV_OK : VEV_E_NOMEM;
    if (!status)
        status = io->open(io->ctx, path, VEV_FILE_READ | VEV_FILE_WRITE, &copy);
    if (status == EROFS || status == EACCES)
        status = io->open(io->ctx, path, VEV_FILE_READ, &copy);
    if (!status)
        status = io->examine(io->ctx, copy, &facts);
    /* Without a header it is nothing: the log begins anew, and the copy is written again. */
    if (!status && facts.size >= VEV_HEADER_REGION) {
        s->previous[stream] = vev_copy_session(io, copy);
        status = io->open(io->ctx, ring, VEV_FILE_READ, &file);
        if (!status) {
            status = compare_rings(io, copy, file);
        } else if (status == ENOENT) {
            status = io->remove(io->ctx, fresh);
            if (!status)
                status = io->open(io->ctx, fresh, VEV_FILE_READ | VEV_FILE_WRITE | VEV_FILE_CREATE,
                                  &file);
            if (!status) {
                status = take_ring(io, copy, file, facts.size, s->whole[stream]);
                *taken_out = !status;
                if (status)
                    (void)io->remove(io->ctx, fresh);
            }
        }
        if (!status)
            claim(io, copy, s);
    } else if (status == ENOENT) {
        status = VEV_OK; /* nothing to restore */
    }
    io->close(io->ctx, copy);
    io->close(io->ctx, file);
    free(ring);
    free(fresh);
    free(path);
    return status;
}

static vev_status put_in_place(const vev_io *io, const char *dir, uint32_t stream)
{
    char *fresh = vev_ring_path(dir, stream, ".ring.new");
    char *ring = vev_ring_path(dir, stream, ".ring");
    vev_status status = fresh && ring ? io->rename(io->ctx, fresh, ring) : VEV_E_NOMEM;
    free(fresh);
    free(ring);
    return status;
}

/* A log that is RAM-first already: only the interval may be another one now. */
static vev_status adjust(const vev_io *io, int fd, const char *copy_dir, uint32_t interval_ms,
                         vev_copy_state *s)
{
    vev_status status = vev_copy_state_read(io, fd, s);
    if (status)
        return status;
    if (strcmp(s->copy_dir, copy_dir) != 0)
        return VEV_E_FOREIGN;
    if (s->interval_ms == interval_ms)
        return VEV_OK;
    int lock;
    status = vev_io_lock_dir(io, copy_dir, VEV_OPEN_WAIT_MS, &lock);
    if (!status) {
        status = io->write(io->ctx, fd, offsetof(vev_copy_state, interval_ms), &interval_ms,
                           sizeof interval_ms);
        io->close(io->ctx, lock);
    }
    return status;
}

static vev_status make_ram_first(const vev_io *io, const char *dir, const char *copy_dir,
                                 uint32_t interval_ms, vev_copy_state *s, bool *restored_out)
{
    vev_copy_state_init(s);
    s->interval_ms = interval_ms;
    memcpy(s->copy_dir, copy_dir, strlen(copy_dir));
    bool taken[VEV_STREAM_COUNT] = {false};
    vev_status status = vev_random_bytes(&s->session, sizeof s->session);
    s->session |= 1; /* 0 is none */
    for (uint32_t stream = 0; !status && stream < VEV_STREAM_COUNT; stream++)
        status = restore_ring(io, dir, copy_dir, stream, s, &taken[stream]);
    for (uint32_t i = 0; i < VEV_STREAM_COUNT; i++) {
        if (!status && taken[vev_ring_order[i]]) {
            status = put_in_place(io, dir, vev_ring_order[i]);
            *restored_out = true;
        }
    }
    return status ? status : vev_copy_state_create(io, dir, s);
}

static vev_status restore_locked(const vev_io *io, const char *dir, const char *copy_dir,
                                 uint32_t interval_ms, vev_copy_state *s, bool *restored_out)
{
    int fd;
    vev_status status = vev_copy_state_open(io, dir, VEV_FILE_READ | VEV_FILE_WRITE, &fd);
    if (!status) {
        status = adjust(io, fd, copy_dir, interval_ms, s);
        io->close(io->ctx, fd);
    }
    if (status != ENOENT && status != VEV_E_CORRUPT)
        return status;
    int lock;
    status = io->make_dir(io->ctx, copy_dir);
    if (!status)
        status = vev_io_lock_dir(io, copy_dir, VEV_OPEN_WAIT_MS, &lock);
    if (!status) {
        status = make_ram_first(io, dir, copy_dir, interval_ms, s, restored_out);
        io->close(io->ctx, lock);
    }
    return status;
}

vev_status vev_restore(const vev_io *io, const char *dir, const char *copy_dir,
                       uint32_t interval_ms, bool *restored_out)
{
    *restored_out = false;
    /* In one directory each would wait for the other's lock. */
    if (copy_dir[0] != '/' || strlen(copy_dir) >= VEV_COPY_DIR_SIZE || strcmp(dir, copy_dir) == 0)
        return VEV_E_INVALID;
    vev_copy_state *s = malloc(sizeof *s);
    int lock;
    vev_status status = s ? io->make_dir(io->ctx, dir) : VEV_E_NOMEM;
    /* Nobody opens the log before it is there. */
    if (!status)
        status = vev_io_lock_dir(io, dir, VEV_OPEN_WAIT_MS, &lock);
    if (!status) {
        status = restore_locked(io, dir, copy_dir, interval_ms, s, restored_out);
        io->close(io->ctx, lock);
    }
    free(s);
    return status;
}
