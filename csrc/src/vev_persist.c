/* Bringing the copy of a RAM-first log up to date: a pass.
 *
 * A ring tolerates that a power cut leaves any subset of its unsynced pages. So the copy of a ring
 * is kept by doing what a page cache does: write, in any order, the pages that differ, and sync.
 * Pages that did not change are not written, and what lies behind a segment's last record is not
 * even compared: an opened ring takes nothing from there (INV-1 is restored by whoever opens it).
 * While a pass runs, writers go on; every piece is copied before it is written, torn or not.
 *
 * Three orders must hold, at every moment, for whatever a power cut leaves of the copy:
 *
 * INV-16  Before a piece of a segment is written, the ledger that was in memory after the piece was
 *         copied is on the flash. Whatever the piece shows of a later lap, that ledger counts the
 *         earlier one out (INV-5). The two copies of the ledger are written with a sync between.
 * INV-11  The head and the state map of a segment are on the flash before records of that segment
 *         are. A map that an opened ring has cleared must not say of a new record what it said of a
 *         torn one that had its number.
 * INV-12  What is taken for written without a look (`whole`) has been synced, in this file, and
 *         cannot change: the records of a sealed lap in which nobody writes any more.
 *
 * A pass that was killed or failed leaves `unsure` behind: the flash may lack what the page cache
 * has, so the next pass writes everything. The first pass writes to a file of another name, so that
 * the copy of a ring is whole or not there. */
#include "vev_persist.h"

#include <errno.h>
#include <stdlib.h>

#include "vev_clock.h"
#include "vev_stats.h"
#include "vev_sync.h"

/* One ring on its way into its copy. */
typedef struct pass {
    const vev_io *io;
    vev_ring *ring;
    int fd;
    bool force; /* write what does not differ, too */
    uint64_t *whole;
    vev_persist_report *report;
    uint8_t ledgers[2 * VEV_HEADER_BLOCK]; /* as they stand in the copy, synced */
    uint64_t floor_generation;             /* by the ledger in memory, when last looked at */
    bool front_unsynced;                   /* INV-11 */
    uint8_t *piece, *there;                /* VEV_COPY_PIECE bytes each */
} pass;

/* ---- writing ---- */

static vev_status sync_copy(pass *p)
{
    p->report->sync_count++;
    p->front_unsynced = false;
    return p->io->sync(p->io->ctx, p->fd);
}

static vev_status write_copy(pass *p, uint64_t offset, const uint8_t *bytes, size_t size)
{
    p->report->bytes_written += size;
    p->report->write_count++;
    return p->io->write(p->io->ctx, p->fd, offset, bytes, size);
}

/* Copy what memory has of a range into `piece`. */
static vev_status take(pass *p, uint64_t offset, size_t size)
{
    return p->io->read(p->io->ctx, p->ring->fd, offset, p->piece, size);
}

static bool differs(const pass *p, size_t at, bool there_known)
{
    return p->force || !there_known || memcmp(p->piece + at, p->there + at, VEV_COPY_PAGE) != 0;
}

static uint64_t ledger_version(const uint8_t *block, const uint8_t uuid[16])
{
    vev_ledger ledger;
    return vev_ledger_read(block, uuid, &ledger) ? ledger.version : 0;
}

/* Bring the copy's ledger up to what memory has now (INV-16), and note the floor. */
static vev_status follow_ledger(pass *p)
{
    uint8_t now[2 * VEV_HEADER_BLOCK];
    const uint8_t *uuid = p->ring->file.uuid;
    vev_status status = p->io->read(p->io->ctx, p->ring->fd, VEV_AT_LEDGER, now, sizeof now);
    if (status)
        return status;
    uint64_t versions[2] = {ledger_version(now, uuid),
                            ledger_version(now + VEV_HEADER_BLOCK, uuid)};
    vev_ledger ledger;
    uint32_t newer = versions[1] > versions[0];
    if (vev_ledger_read(now + newer * VEV_HEADER_BLOCK, uuid, &ledger))
        p->floor_generation = ledger.floor_generation;
    /* The older one first, so that a valid one stands at every moment. One that is not valid just
     * now is being written, and the other counts. */
    for (uint32_t turn = 0; !status && turn < 2; turn++) {
        uint32_t which = turn == 0 ? 1 - newer : newer;
        const uint8_t *block = now + which * VEV_HEADER_BLOCK;
        uint8_t *there = p->ledgers + which * VEV_HEADER_BLOCK;
        if (versions[which] == 0 || memcmp(block, there, VEV_HEADER_BLOCK) == 0)
            continue;
        status = write_copy(p, VEV_AT_LEDGER + which * (uint64_t)VEV_HEADER_BLOCK, block,
                            VEV_HEADER_BLOCK);
        if (!status)
            status = sync_copy(p);
        if (!status)
            memcpy(there, block, VEV_HEADER_BLOCK);
    }
    return status;
}

/* Write those pages of `piece`, which was taken from `offset`, that the copy has not. */
static vev_status write_piece(pass *p, uint64_t offset, size_t size)
{
    /* What cannot be read is written: a disk gives the sector another place. */
    bool known = !p->force && p->io->read(p->io->ctx, p->fd, offset, p->there, size) == VEV_OK;
    bool began = false;
    vev_status status = VEV_OK;
    for (size_t at = 0; !status && at < size;) {
        if (!differs(p, at, known)) {
            at += VEV_COPY_PAGE;
            continue;
        }
        size_t end = at + VEV_COPY_PAGE;
        while (end < size && differs(p, end, known))
            end += VEV_COPY_PAGE;
        if (!began)
            status = follow_ledger(p);
        if (!status && p->front_unsynced)
            status = sync_copy(p);
        if (!status)
            status = write_copy(p, offset + at, p->piece + at, end - at);
        began = true;
        at = end;
    }
    return status;
}

/* ---- a segment ---- */

/* Where the chain of records of a segment goes on, while its data passes by in pieces. */
typedef struct chain {
    uint32_t offset;                              /* of the next word */
    enum { GOES_ON, AT_FREE, AT_END, BROKEN } at; /* behind the first two nothing counts */
    bool settled; /* every record so far is committed, or a hole for good */
} chain;

static void follow_chain(chain *c, const uint8_t *piece, uint32_t from, uint32_t size,
                         uint32_t data_size)
{
    while (c->at == GOES_ON && c->offset - from <= size - 8) {
        uint64_t word = vev_load64(piece + (c->offset - from));
        uint32_t kind = vev_word_state(word), record = vev_word_size(word);
        c->settled &= kind != VEV_WORD_RESERVED || vev_word_is_hole(word);
        if (word == 0)
            c->at = AT_FREE;
        else if (kind == VEV_WORD_END)
            c->at = AT_END;
        else if (kind == VEV_WORD_FREE || record < VEV_RECORD_ALIGN ||
                 record > data_size - 8 - c->offset)
            c->at = BROKEN;
        else
            c->offset += record;
    }
}

static vev_status persist_data(pass *p, uint32_t segment, chain *c)
{
    const vev_geometry *geometry = &p->ring->file.geometry;
    uint64_t at = vev_segment_offset(geometry, segment) + geometry->data_offset;
    vev_status status = VEV_OK;
    *c = (chain){.settled = true};
    for (uint32_t from = 0; !status && from < geometry->data_size; from += VEV_COPY_PIECE) {
        uint32_t size = VEV_MIN((uint32_t)VEV_COPY_PIECE, geometry->data_size - from);
        status = take(p, at + from, size);
        if (status)
            break;
        follow_chain(c, p->piece, from, size, geometry->data_size);
        bool last = c->at == AT_FREE || c->at == AT_END;
        if (last)
            size = (uint32_t)vev_align_up(c->offset - from + 8, VEV_COPY_PAGE);
        status = write_piece(p, at + from, size);
        if (last)
            break;
    }
    return status;
}

static vev_status persist_front(pass *p, uint32_t segment, vev_head *head, bool *keep_out)
{
    const vev_ring *ring = p->ring;
    const vev_geometry *geometry = &ring->file.geometry;
    uint64_t at = vev_segment_offset(geometry, segment);
    vev_status status = VEV_OK;
    *keep_out = false;
    p->front_unsynced = false;
    for (uint32_t from = 0; !status && from < geometry->data_offset; from += VEV_COPY_PIECE) {
        uint32_t size = VEV_MIN((uint32_t)VEV_COPY_PIECE, geometry->data_offset - from);
        status = take(p, at + from, size);
        if (!status && from == 0)
            *keep_out = vev_head_read(p->piece, ring->file.uuid, geometry, head) &&
                        head->generation >= p->floor_generation;
        if (from == 0) /* what it says was synced was so in memory */
            memset(p->piece + VEV_HEAD_CHECKPOINT, 0, sizeof(uint64_t));
        if (!status && !*keep_out)
            break;
        if (!status)
            status = write_piece(p, at + from, size);
    }
    return status;
}

static vev_status persist_segment(pass *p, uint32_t segment)
{
    const vev_ring *ring = p->ring;
    const vev_geometry *geometry = &ring->file.geometry;
    vev_head head, after;
    bool keep;
    uint64_t written = p->report->bytes_written;
    vev_status status = persist_front(p, segment, &head, &keep);
    /* A segment that is free, or counted out, is nothing to keep. What the copy has in its place is
     * dead by the ledger that the pass ends with. */
    if (status || !keep || p->whole[segment] == head.salt)
        return status;
    p->front_unsynced = p->report->bytes_written != written;
    p->whole[segment] = 0;
    chain c;
    status = persist_data(p, segment, &c);
    if (!status)
        status = take(p, vev_segment_offset(geometry, segment), VEV_HEADER_BLOCK);
    if (!status && head.sealed && c.at == AT_END && c.settled &&
        vev_head_read(p->piece, ring->file.uuid, geometry, &after) && after.salt == head.salt)
        p->whole[segment] = head.salt;
    return status;
}

typedef struct aged {
    uint32_t segment;
    uint64_t generation;
} aged;

static int by_generation(const void *a, const void *b)
{
    uint64_t x = ((const aged *)a)->generation, y = ((const aged *)b)->generation;
    return (x > y) - (x < y);
}

/* Oldest first, so that a pass that is cut off leaves no gaps if it can be helped. */
static vev_status persist_segments(pass *p)
{
    const vev_geometry *geometry = &p->ring->file.geometry;
    static const uint8_t none[VEV_HEAD_BYTES];
    aged list[VEV_SEGMENT_MAX_COUNT];
    uint32_t count = 0;
    vev_status status = VEV_OK;
    for (uint32_t s = 0; !status && s < geometry->segment_count; s++) {
        status = take(p, vev_segment_offset(geometry, s), VEV_HEAD_BYTES);
        if (!status && memcmp(p->piece, none, sizeof none) != 0)
            list[count++] = (aged){.segment = s, .generation = vev_load64(p->piece + 8)};
    }
    qsort(list, count, sizeof *list, by_generation);
    for (uint32_t i = 0; !status && i < count; i++)
        status = persist_segment(p, list[i].segment);
    return status;
}

/* ---- a ring ---- */

/* See to the copy's size, and to what it is of. VEV_E_FOREIGN when it is of another ring. */
static vev_status look_at_copy(pass *p, uint64_t *session)
{
    const vev_geometry *geometry = &p->ring->file.geometry;
    vev_file_facts facts;
    vev_status status = p->io->examine(p->io->ctx, p->fd, &facts);
    /* Room that another file system did not keep. */
    if (!status && facts.size < geometry->file_size)
        status = p->io->allocate(p->io->ctx, p->fd, geometry->file_size);
    if (status)
        return status;
    uint8_t block[VEV_HEADER_BLOCK];
    for (uint64_t copy = 0; copy < 2 && facts.size >= VEV_HEADER_REGION; copy++) {
        vev_file_header header;
        if (p->io->read(p->io->ctx, p->fd, copy * VEV_HEADER_BLOCK, block, sizeof block))
            continue;
        status = vev_file_header_read(block, &header);
        if (status == VEV_E_VERSION)
            return status;
        if (!status)
            return memcmp(header.uuid, p->ring->file.uuid, 16) == 0 ? VEV_OK : VEV_E_FOREIGN;
    }
    *session = 0; /* it is no ring any more: all of it is written again */
    return VEV_OK;
}

static vev_status persist_open(pass *p, const vev_copy_state *s)
{
    uint64_t session = vev_copy_session(p->io, p->fd);
    vev_status status = look_at_copy(p, &session);
    /* Somebody restored the log anew from this copy, and whoever has this one open did not notice:
     * two logs must not take turns in one copy. */
    if (!status && session != 0 && session != s->session && session != s->previous[p->ring->stream])
        status = VEV_E_FOREIGN;
    if (status)
        return status;
    /* Written by a pass that was killed, perhaps: on the disk before anything relies on it. */
    status = sync_copy(p);
    if (session == 0 || p->force)
        memset(p->whole, 0, VEV_SEGMENT_MAX_COUNT * sizeof *p->whole);
    if (!status && session != s->session) {
        uint8_t page[VEV_COPY_PAGE] = {0};
        vev_store64(page, s->session);
        status = write_copy(p, VEV_COPY_AT_SESSION, page, sizeof page);
    }
    if (p->force || p->io->read(p->io->ctx, p->fd, VEV_AT_LEDGER, p->ledgers, sizeof p->ledgers))
        memset(p->ledgers, 0, sizeof p->ledgers);
    if (!status)
        status = follow_ledger(p);
    if (!status)
        status = take(p, 0, VEV_AT_LEDGER);
    if (!status)
        status = write_piece(p, 0, VEV_AT_LEDGER);
    if (!status)
        status = persist_segments(p);
    if (!status)
        status = follow_ledger(p);
    return status ? status : sync_copy(p);
}

static vev_status persist_ring(vev_copy *copy, vev_ring *ring, vev_copy_state *s, bool force,
                               vev_persist_report *report)
{
    const vev_io *io = copy->io;
    char *path = vev_ring_path(copy->copy_dir, ring->stream, ".copy");
    char *fresh = vev_ring_path(copy->copy_dir, ring->stream, ".copy.new");
    pass *p = calloc(1, sizeof *p);
    uint8_t *pieces = malloc(2 * VEV_COPY_PIECE);
    vev_status status = path && fresh && p && pieces ? VEV_OK : VEV_E_NOMEM;
    bool made = false;
    if (!status) {
        *p = (pass){.io = io,
                    .ring = ring,
                    .force = force,
                    .whole = s->whole[ring->stream],
                    .report = report,
                    .piece = pieces,
                    .there = pieces + VEV_COPY_PIECE};
        status = io->open(io->ctx, path, VEV_FILE_READ | VEV_FILE_WRITE, &p->fd);
        made = status == ENOENT;
        if (made)
            status = io->remove(io->ctx, fresh); /* of a first pass that was cut off */
        if (made && !status)
            status =
                io->open(io->ctx, fresh, VEV_FILE_READ | VEV_FILE_WRITE | VEV_FILE_CREATE, &p->fd);
        if (!status) {
            status = persist_open(p, s);
            io->close(io->ctx, p->fd);
            if (made && status) /* a full disk gets its room back */
                (void)io->remove(io->ctx, fresh);
        }
        if (made && !status)
            status = io->rename(io->ctx, fresh, path);
        if (made && !status)
            status = io->sync_dir(io->ctx, copy->copy_dir);
    }
    free(pieces);
    free(p);
    free(fresh);
    free(path);
    return status;
}

vev_status vev_persist(vev_copy *copy, vev_ring *const *rings, vev_persist_report *report)
{
    const vev_io *io = copy->io;
    vev_persist_report unwanted;
    if (!report)
        report = &unwanted;
    memset(report, 0, sizeof *report);
    vev_copy_state *s = malloc(sizeof *s);
    if (!s)
        return VEV_E_NOMEM;
    vev_status status = vev_copy_lock(copy);
    if (status) {
        /* Not mounted, most likely: said to whoever asks how the log is. */
        int32_t error = status;
        (void)io->write(io->ctx, copy->fd, offsetof(vev_copy_state, error), &error, sizeof error);
        free(s);
        return status;
    }
    status = vev_copy_state_read(io, copy->fd, s);
    if (!status) {
        bool force = s->unsure != 0;
        uint64_t reached[VEV_STREAM_COUNT] = {0};
        /* In memory this costs nothing, and says how far there is nothing half-written. */
        for (uint32_t i = 0; !status && i < VEV_STREAM_COUNT; i++) {
            status = vev_ring_sync(rings[i], 0);
            reached[i] = vev_ring_synced_seq(rings[i]);
        }
        s->unsure = 1;
        if (!status)
            status = vev_copy_state_write(io, copy->fd, s);
        for (uint32_t i = 0; !status && i < VEV_STREAM_COUNT; i++)
            status = persist_ring(copy, rings[vev_ring_order[i]], s, force, report);
        s->error = status;
        s->bytes_written += report->bytes_written;
        if (!status) {
            memcpy(s->durable_seq, reached, sizeof reached);
            s->persisted_ns = vev_clock_ticks_ns();
            s->pass_count++;
            s->unsure = 0;
        }
        /* Refused before anything was written: nothing to be unsure of. */
        if (status == VEV_E_FOREIGN || status == VEV_E_VERSION)
            s->unsure = force;
        vev_status noted = vev_copy_state_write(io, copy->fd, s);
        status = status ? status : noted;
        report->durable_seq = s->durable_seq[VEV_EVENTS];
    }
    vev_copy_unlock(copy);
    free(s);
    return status;
}
