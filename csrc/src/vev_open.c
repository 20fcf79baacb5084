/* Creating, opening and closing a ring file.
 *
 * Whoever gets the attach lock exclusively rebuilds (vev_recover.c). Then the lock is made shared;
 * later openers find the live area ready and join. If the rebuilder dies, the next opener finds the
 * area not ready and starts over.
 */
#include "vev_open.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "vev_clock.h"
#include "vev_dictionary.h"
#include "vev_guard.h"
#include "vev_reclaim.h"
#include "vev_recover.h"
#include "vev_roll.h"

/* ---- creating ---- */

static vev_status build_file(const vev_io *io, int fd, const vev_file_header *header)
{
    uint8_t *region = calloc(1, VEV_HEADER_REGION);
    if (!region)
        return VEV_E_NOMEM;
    vev_file_header_write(region, header);
    vev_file_header_write(region + VEV_HEADER_BLOCK, header);
    vev_ledger ledger = {.floor_generation = 1, .floor_seq = 1};
    /* Both, for a single one is not believed everything. */
    for (; ledger.version < 2; ledger.version++)
        vev_ledger_write(region + VEV_AT_LEDGER + ledger.version * VEV_HEADER_BLOCK, header->uuid,
                         &ledger);
    vev_status status = io->allocate(io->ctx, fd, header->geometry.file_size);
    /* Page by page, for what the system takes at once it writes to the flash at once ever after:
     * all of it whenever somebody appends, who writes to the live area. */
    for (uint32_t at = 0; !status && at < VEV_HEADER_REGION; at += VEV_PIECE)
        status = io->write(io->ctx, fd, at, region + at, VEV_PIECE);
    if (!status)
        status = io->sync(io->ctx, fd);
    free(region);
    return status;
}

/* Make the file under another name and move it into place, so that no half-made ring is ever
 * seen. */
static vev_status create_file(const vev_io *io, const char *path, const vev_ring_options *options)
{
    vev_file_header header = {.stream = options->stream, .created_ns = vev_clock_wall_ns()};
    if (!vev_geometry_make(&header.geometry, options->size, options->segment_size,
                           options->dictionary_capacity, options->record_size_min))
        return VEV_E_INVALID;
    vev_status status = vev_random_bytes(header.uuid, sizeof header.uuid);
    size_t path_size = strlen(path);
    char *temporary = malloc(path_size + 5);
    char *dir = malloc(path_size + 1);
    int fd = -1;
    if (!temporary || !dir)
        status = VEV_E_NOMEM;
    if (!status) {
        memcpy(dir, path, path_size + 1);
        char *slash = strrchr(dir, '/');
        VEV_ASSERT(slash != NULL);
        *slash = '\0';
        snprintf(temporary, path_size + 5, "%s.new", path);
        status = io->remove(io->ctx, temporary); /* of a creation that was cut short */
    }
    if (!status)
        status =
            io->open(io->ctx, temporary, VEV_FILE_READ | VEV_FILE_WRITE | VEV_FILE_CREATE, &fd);
    if (!status) {
        status = build_file(io, fd, &header);
        io->close(io->ctx, fd);
        if (!status)
            status = io->rename(io->ctx, temporary, path);
        if (!status)
            status = io->sync_dir(io->ctx, dir);
        else
            (void)io->remove(io->ctx, temporary);
    }
    free(temporary);
    free(dir);
    return status;
}

/* ---- reading what is there ---- */

/* Derive the header from the first segment head that is found. */
static vev_status guess_file_header(const vev_io *io, int fd, vev_file_header *header_out)
{
    vev_file_facts facts;
    vev_status status = io->examine(io->ctx, fd, &facts);
    if (status)
        return status;
    /* One of the largest segments from the start on must have a head, if any has. */
    uint64_t end = VEV_MIN(facts.size, VEV_HEADER_REGION + 4ull * VEV_SEGMENT_SIZE_MAX);
    for (uint64_t at = VEV_HEADER_REGION; at + VEV_HEAD_BYTES <= end; at += VEV_SEGMENT_ALIGN) {
        uint8_t bytes[VEV_HEAD_BYTES];
        if (io->read(io->ctx, fd, at, bytes, sizeof bytes) == VEV_OK &&
            vev_head_identify(bytes, facts.size, header_out) &&
            (at - VEV_HEADER_REGION) % header_out->geometry.segment_size == 0)
            return VEV_OK;
    }
    return VEV_E_CORRUPT;
}

/* `repaired_out`: it came from the copy or from a segment, and should be written again. */
static vev_status read_file_header(const vev_io *io, int fd, vev_file_header *header_out,
                                   bool *repaired_out)
{
    uint8_t block[VEV_HEADER_BLOCK];
    vev_status status = VEV_E_CORRUPT;
    *repaired_out = false;
    for (uint64_t copy = 0; copy < 2; copy++) {
        vev_status here = io->read(io->ctx, fd, copy * VEV_HEADER_BLOCK, block, sizeof block);
        if (!here)
            here = vev_file_header_read(block, header_out);
        else
            here = VEV_E_CORRUPT; /* unreadable is as good as broken: the copy may do */
        if (!here)
            return VEV_OK;
        *repaired_out = true;
        if (here == VEV_E_VERSION)
            status = here;
    }
    return status == VEV_E_CORRUPT ? guess_file_header(io, fd, header_out) : status;
}

static vev_status write_file_header(vev_ring *ring)
{
    uint8_t block[VEV_HEADER_BLOCK];
    vev_file_header_write(block, &ring->file);
    vev_status status = VEV_OK;
    for (uint64_t copy = 0; !status && copy < 2; copy++)
        status =
            ring->io->write(ring->io->ctx, ring->fd, copy * VEV_HEADER_BLOCK, block, sizeof block);
    return status;
}

/* Take a slot; its number and epoch name us in reserved words. */
static vev_status take_slot(vev_ring *ring)
{
    for (uint32_t slot = 0; slot < VEV_SLOT_COUNT; slot++) {
        vev_status status =
            ring->io->lock(ring->io->ctx, ring->fd, VEV_LOCK_SLOT + slot, VEV_LOCK_EXCLUSIVE);
        if (status == EAGAIN)
            continue;
        if (status)
            return status;
        vev_slot *mine = &ring->live->slots[slot];
        uint32_t epoch = (atomic_fetch_add(&mine->epoch, 1) + 1) & 0xffffffu;
        for (int i = 0; i < VEV_CELL_COUNT; i++)
            atomic_store(&mine->cells[i].generation, 0); /* of the one who died here */
        ring->slot = slot;
        ring->owner = slot << 24 | epoch;
        return VEV_OK;
    }
    return VEV_E_BUSY;
}

/* Write where others do. A page that cannot be read, or says nothing sensible, costs this process
 * its appends and no more: others are writing to this file, so that it must not be mended or set
 * aside under their hands, and what is in it is there to be read and delivered. */
static vev_status join(vev_ring *ring, uint64_t active)
{
    volatile vev_status status = VEV_E_CORRUPT;
    vev_guard guard;
    vev_guard_enter(&guard);
    if (sigsetjmp(guard.jump, 0) == 0) {
        uint32_t segment = (uint32_t)active & 1023u;
        if (active != 0 && segment < ring->file.geometry.segment_count) /* else there is no place */
            status = vev_ring_adopt(ring, active >> 10, segment);
        vev_guard_leave(&guard);
    } else {
        status = EIO;
    }
    if (status == VEV_E_CORRUPT || status == EIO) {
        vev_ring_degrade(ring, EIO);
        status = VEV_OK;
    }
    return status;
}

static vev_status attach(vev_ring *ring)
{
    const vev_io *io = ring->io;
    uint64_t began_ns = vev_clock_ticks_ns();
    for (uint32_t turn = 0;; vev_clock_pause(turn++)) {
        if (vev_clock_ticks_ns() - began_ns > VEV_OPEN_WAIT_MS * 1000000ull)
            return VEV_E_BUSY;
        vev_status status = io->lock(io->ctx, ring->fd, VEV_LOCK_ATTACH, VEV_LOCK_EXCLUSIVE);
        bool alone = status == VEV_OK;
        if (status == EAGAIN)
            status = vev_io_lock(io, ring->fd, VEV_LOCK_ATTACH, VEV_LOCK_SHARED, VEV_OPEN_WAIT_MS);
        if (status)
            return status;
        if (alone) {
            status = vev_ring_rebuild(ring);
            if (!status)
                status = take_slot(ring);
            vev_status shared = io->lock(io->ctx, ring->fd, VEV_LOCK_ATTACH, VEV_LOCK_SHARED);
            return status ? status : shared;
        }
        if (ring->live->magic == VEV_LIVE_MAGIC) {
            status = take_slot(ring);
            if (status)
                return status;
            status = vev_io_lock(io, ring->fd, VEV_LOCK_ROLL, VEV_LOCK_EXCLUSIVE, VEV_OPEN_WAIT_MS);
            if (status)
                return status;
            status = join(ring, atomic_load(&ring->live->active));
            (void)io->lock(io->ctx, ring->fd, VEV_LOCK_ROLL, VEV_LOCK_NONE);
            return status;
        }
        /* The rebuilder died before it was done. */
        (void)io->lock(io->ctx, ring->fd, VEV_LOCK_ATTACH, VEV_LOCK_NONE);
    }
}

static vev_status attach_guarded(vev_ring *ring)
{
    vev_guard guard;
    vev_guard_enter(&guard);
    if (sigsetjmp(guard.jump, 0) != 0)
        return EIO;
    vev_status status = attach(ring);
    vev_guard_leave(&guard);
    return status;
}

/* A page of the header region that cannot be read is no loss: all in it is there twice, or is made
 * anew by whoever opens the file. */
static vev_status attach_or_heal(vev_ring *ring)
{
    vev_status status = attach_guarded(ring);
    if (status != EIO)
        return status;
    /* Not beside others: zeros would take from them what they hold in the live area. */
    if (ring->io->lock(ring->io->ctx, ring->fd, VEV_LOCK_ATTACH, VEV_LOCK_EXCLUSIVE))
        return EIO;
    status = vev_io_heal(ring->io, ring->fd, 0, VEV_HEADER_REGION);
    if (!status)
        status = write_file_header(ring);
    return status ? status : attach_guarded(ring);
}

/* ---- opening ---- */

static vev_status open_file(vev_ring *ring, const char *path, const vev_ring_options *options)
{
    const vev_io *io = ring->io;
    int mode = VEV_FILE_READ | (options->readonly ? 0 : VEV_FILE_WRITE);
    vev_file_facts facts;
    vev_status status = io->open(io->ctx, path, mode, &ring->fd);
    if (status == ENOENT && !options->readonly) {
        status = create_file(io, path, options);
        ring->created = !status;
        if (!status)
            status = io->open(io->ctx, path, mode, &ring->fd);
    }
    if (status) {
        ring->fd = -1;
    } else if (io->examine(io->ctx, ring->fd, &facts) == VEV_OK) {
        ring->identity = facts.identity;
        ring->named = !facts.deleted;
    }
    return status;
}

/* Move a file that is no ring out of the way: kept for whoever wants to look, not in ours. */
static vev_status set_aside(const vev_io *io, const char *path)
{
    size_t capacity = strlen(path) + 32;
    char *name = malloc(capacity);
    if (!name)
        return VEV_E_NOMEM;
    for (int n = 1; n <= VEV_ASIDE_MAX; n++) { /* the last name is used again */
        snprintf(name, capacity, "%s.damaged-%d", path, n);
        int fd;
        if (io->open(io->ctx, name, VEV_FILE_READ, &fd) != VEV_OK)
            break;
        io->close(io->ctx, fd);
    }
    vev_status status = io->rename(io->ctx, path, name);
    free(name);
    return status;
}

static vev_status prepare_ring(vev_ring *ring, const vev_ring_options *options)
{
    const vev_io *io = ring->io;
    const vev_geometry *geometry = &ring->file.geometry;
    ring->map = malloc((size_t)vev_map_words(geometry) * 8);
    if (!ring->map)
        return VEV_E_NOMEM;
    if (ring->readonly) {
        ring->region = malloc(VEV_HEADER_REGION);
        if (!ring->region)
            return VEV_E_NOMEM;
        ring->live = (vev_live *)(void *)(ring->region + VEV_AT_LIVE);
        uint64_t unreadable;
        return vev_io_read_around(io, ring->fd, 0, ring->region, VEV_HEADER_REGION, &unreadable);
    }
    vev_file_facts facts;
    vev_status status = io->examine(io->ctx, ring->fd, &facts);
    /* Cut short: the end is lost, the room is needed. */
    if (!status && facts.size < geometry->file_size)
        status = io->allocate(io->ctx, ring->fd, geometry->file_size);
    if (!status)
        status = io->map(io->ctx, ring->fd, 0, VEV_HEADER_REGION, true, &ring->region);
    if (status) {
        ring->region = NULL;
        return status;
    }
    vev_guard_remember(ring->region, VEV_HEADER_REGION);
    ring->live = (vev_live *)(void *)(ring->region + VEV_AT_LIVE);
    vev_ring *view = ring->reclaimer = calloc(1, sizeof *view);
    if (!view || !(view->map = malloc((size_t)vev_map_words(geometry) * 8)))
        return VEV_E_NOMEM;
    view->io = io;
    view->fd = ring->fd;
    view->file = ring->file;
    view->region = ring->region;
    view->live = ring->live;
    if (options->dictionary_size > 0 && geometry->dictionary_capacity >= options->dictionary_size) {
        status = vev_ring_hold_dictionary(
            ring, options->dictionary, (uint32_t)options->dictionary_size, &ring->own_dictionary);
        if (status) /* VEV_E_CORRUPT would be the file's fault */
            return status == VEV_E_CORRUPT ? VEV_E_INVALID : status;
    }
    return attach_or_heal(ring);
}

static void init_mutexes(vev_ring *ring)
{
    pthread_mutex_init(&ring->clear_mutex, NULL);
    pthread_mutex_init(&ring->roll_mutex, NULL);
    pthread_mutex_init(&ring->reclaim_mutex, NULL);
    pthread_mutex_init(&ring->sync_mutex, NULL);
    pthread_mutex_init(&ring->read_mutex, NULL);
}

vev_status vev_ring_open(const vev_io *io, const char *path, const vev_ring_options *options,
                         vev_pool *pool, vev_ring **ring_out)
{
    bool aside = false;
    for (;;) {
        vev_ring *ring = calloc(1, sizeof *ring);
        if (!ring)
            return VEV_E_NOMEM;
        ring->path = strdup(path);
        if (!ring->path) {
            free(ring);
            return VEV_E_NOMEM;
        }
        ring->io = io;
        ring->pool = pool;
        ring->fd = -1;
        ring->stream = options->stream;
        ring->readonly = options->readonly;
        ring->full_policy = options->full_policy;
        ring->level = options->level;
        atomic_store(&ring->laps_ahead, vev__laps_ahead);
        init_mutexes(ring);
        pthread_mutex_init(&ring->dictionary_mutex, NULL);
        vev_status status = open_file(ring, path, options);
        bool repaired = false;
        if (!status) /* most of it is looked at, and page by page that is a dozen reads */
            io->prefetch(io->ctx, ring->fd, 0, VEV_HEADER_REGION);
        if (!status)
            status = read_file_header(io, ring->fd, &ring->file, &repaired);
        if (!status && repaired && !ring->readonly)
            status = write_file_header(ring);
        if (!status && ring->file.stream != options->stream)
            status = VEV_E_CORRUPT;
        if (!status)
            status = prepare_ring(ring, options);
        if (!status) {
            ring->set_aside = aside;
            *ring_out = ring;
            return VEV_OK;
        }
        vev_ring_close(ring);
        if (status != VEV_E_CORRUPT || options->readonly || aside)
            return status;
        status = set_aside(io, path);
        if (status)
            return status;
        aside = true;
    }
}

static void detach(vev_ring *ring)
{
    if (ring->readonly) {
        free(ring->region);
    } else if (ring->region) {
        vev_guard_forget(ring->region);
        ring->io->unmap(ring->io->ctx, ring->region, VEV_HEADER_REGION);
    }
    ring->region = NULL;
}

void vev_ring_close(vev_ring *ring)
{
    if (!ring)
        return;
    const vev_io *io = ring->io;
    if (ring->mark_base) {
        vev_guard_forget(ring->mark_base);
        io->unmap(io->ctx, ring->mark_base, ring->file.geometry.data_offset);
    }
    /* No other thread is in here any more, so no span is in use; and nothing is looked up in the
     * live area, whose page may be gone. */
    for (int s = 0; s < VEV_SPAN_COUNT; s++) {
        if (ring->spans[s].base) {
            vev_guard_forget(ring->spans[s].base);
            io->unmap(io->ctx, ring->spans[s].base, ring->file.geometry.segment_size);
        }
    }
    detach(ring);
    if (ring->fd >= 0 && vev_ring_check_descriptor(ring) == VEV_OK)
        io->close(io->ctx, ring->fd); /* drops the locks */
    while (ring->dictionaries) {
        vev_dictionary *next = ring->dictionaries->next;
        vev_zdict_free(ring->dictionaries->digested);
        free(ring->dictionaries);
        ring->dictionaries = next;
    }
    pthread_mutex_destroy(&ring->dictionary_mutex);
    pthread_mutex_destroy(&ring->clear_mutex);
    pthread_mutex_destroy(&ring->roll_mutex);
    pthread_mutex_destroy(&ring->reclaim_mutex);
    pthread_mutex_destroy(&ring->sync_mutex);
    pthread_mutex_destroy(&ring->read_mutex);
    if (ring->reclaimer) {
        free(ring->reclaimer->window);
        free(ring->reclaimer->map);
        free(ring->reclaimer);
    }
    free(ring->window);
    free(ring->map);
    free(ring->path);
    free(ring);
}

vev_status vev_ring_reattach(vev_ring *ring)
{
    /* Whatever other threads of the parent held is held for ever in this copy, and they wait in
     * it. */
    init_mutexes(ring);
    atomic_store(&ring->waiting, 0);
    int fd;
    vev_status status = ring->io->open(ring->io->ctx, ring->path,
                                       VEV_FILE_READ | (ring->readonly ? 0 : VEV_FILE_WRITE), &fd);
    if (status)
        return status;
    ring->fd = fd;
    /* Nothing of what was read before holds: others may have rebuilt the file meanwhile. */
    ring->window_generation = ring->read_generation = ring->dictionary_generation = 0;
    memset(ring->cached, 0, sizeof ring->cached);
    if (ring->readonly)
        return VEV_OK;
    ring->reclaimer->fd = fd;
    ring->reclaimer->window_generation = 0;
    memset(ring->reclaimer->cached, 0, sizeof ring->reclaimer->cached);
    vev_file_header header;
    bool repaired;
    status = read_file_header(ring->io, fd, &header, &repaired);
    if (!status && memcmp(header.uuid, ring->file.uuid, sizeof header.uuid) != 0)
        status = VEV_E_CORRUPT; /* replaced since: the mappings are of another file */
    /* The inherited mappings are of the parent's spans; none is ours until attach maps one. */
    for (int s = 0; !status && s < VEV_SPAN_COUNT; s++) {
        vev_span *span = &ring->spans[s];
        if (!span->base)
            continue;
        vev_guard_forget(span->base);
        ring->io->unmap(ring->io->ctx, span->base, ring->file.geometry.segment_size);
        span->base = span->data = NULL;
        atomic_store(&span->generation, 0);
        vev_ring_drop_dictionary(ring, span->dictionary);
        span->dictionary = NULL;
    }
    if (!status) {
        ring->ready = NULL;
        atomic_store(&ring->ready_for, 0);
    }
    atomic_store(&ring->current, NULL);
    ring->walk_generation = 0;
    if (!status)
        status = attach_guarded(ring);
    if (status) { /* so that the next call tries again */
        ring->io->close(ring->io->ctx, fd);
        ring->fd = -1;
    }
    return status;
}
