/* The copy on flash of a log in memory.
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
 * the copy of a ring is whole or not there. Its names are not those of a log's files, so that
 * nobody opens it as a log: the next pass would undo what was appended to it. */
#include "vev_copy.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "vev_clock.h"
#include "vev_stats.h"
#include "vev_sync.h"

enum {
    STATE_MAGIC = 0x50434556,
    STATE_VERSION = 1,
    PAGE = 4096,
    PIECE = 256 * 1024,
    /* In the header region of a copy, where a ring keeps its live area. */
    AT_SESSION = VEV_HEADER_REGION - PAGE,
};

static const char STATE_NAME[] = "persist.state";
static const char *const STREAM_NAMES[VEV_STREAM_COUNT] = {"events", "media", "delivery"};
/* Frames before the events that name them. */
static const uint32_t ORDER[VEV_STREAM_COUNT] = {VEV_MEDIA, VEV_EVENTS, VEV_DELIVERY};

/* What `persist.state` holds. Written under the lock of the copy's directory. */
typedef struct state {
    uint32_t magic, version;
    uint32_t boot; /* everything but `copy_dir` is of this boot */
    uint32_t interval_ms;
    uint32_t unsure; /* a pass began and did not end well */
    int32_t error;   /* how the last one ended */
    uint64_t restored_ns, persisted_ns;
    uint64_t durable_seq[VEV_STREAM_COUNT];
    uint64_t session;                    /* drawn by whoever restored the log; never 0 */
    uint64_t previous[VEV_STREAM_COUNT]; /* the copies' sessions, as they were restored */
    uint64_t pass_count, bytes_written;
    char copy_dir[VEV_COPY_DIR_SIZE];
    /* By segment: the salt of the lap whose records are all in the copy and will not change. */
    uint64_t whole[VEV_STREAM_COUNT][VEV_SEGMENT_MAX_COUNT];
} state;
VEV_STATIC_ASSERT(offsetof(state, whole) == PAGE, "whole pages");
VEV_STATIC_ASSERT(sizeof((vev_copy_info){0}.dir) == VEV_COPY_DIR_SIZE, "cffi knows no names");

struct vev_copy {
    const vev_io *io;
    int fd; /* of persist.state */
    uint32_t interval_ms;
    pthread_mutex_t lock_mutex; /* `lock`; never held for long */
    int lock;                   /* of the copy's directory, during a pass; -1 else */
    char copy_dir[VEV_COPY_DIR_SIZE];
};

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
    uint8_t *piece, *there;                /* PIECE bytes each */
} pass;

/* ---- names ---- */

static char *name_of(const char *dir, const char *name, const char *suffix)
{
    size_t size = strlen(dir) + strlen(name) + strlen(suffix) + 2;
    char *path = malloc(size);
    if (path)
        snprintf(path, size, "%s/%s%s", dir, name, suffix);
    return path;
}

/* ---- the state ---- */

static vev_status read_state(const vev_io *io, int fd, state *s)
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

static vev_status write_state(const vev_io *io, int fd, const state *s)
{
    return io->write(io->ctx, fd, 0, s, sizeof *s);
}

static vev_status open_state(const vev_io *io, const char *dir, int mode, int *fd_out)
{
    char *path = name_of(dir, STATE_NAME, "");
    if (!path)
        return VEV_E_NOMEM;
    vev_status status = io->open(io->ctx, path, mode, fd_out);
    free(path);
    return status;
}

vev_status vev_copy_attach(const vev_io *io, const char *dir, bool readonly, vev_copy **copy_out)
{
    *copy_out = NULL;
    int fd;
    vev_status status = open_state(io, dir, VEV_FILE_READ | (readonly ? 0 : VEV_FILE_WRITE), &fd);
    if (status)
        return status == ENOENT ? VEV_OK : status;
    vev_copy *copy = calloc(1, sizeof *copy);
    state *s = malloc(sizeof *s);
    status = copy && s ? read_state(io, fd, s) : VEV_E_NOMEM;
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
static vev_status lock_copy(vev_copy *copy)
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

static void unlock_copy(vev_copy *copy)
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
    if (copy->io->read(copy->io->ctx, copy->fd, offsetof(state, boot), &boot, sizeof boot) ||
        boot != vev_clock_boot_tag() || copy->io->read(copy->io->ctx, copy->fd, offset, out, size))
        memset(out, 0, size);
}

uint64_t vev_copy_durable_seq(const vev_copy *copy, uint32_t stream)
{
    uint64_t seq;
    peek(copy, offsetof(state, durable_seq) + stream * sizeof seq, &seq, sizeof seq);
    return seq;
}

uint64_t vev_copy_persisted_ns(const vev_copy *copy)
{
    uint64_t ns;
    peek(copy, offsetof(state, persisted_ns), &ns, sizeof ns);
    return ns;
}

uint32_t vev_copy_interval_ms(const vev_copy *copy) { return copy->interval_ms; }

void vev_copy_look(const vev_copy *copy, vev_copy_info *info)
{
    memset(info, 0, sizeof *info);
    uint64_t persisted_ns = vev_copy_persisted_ns(copy), now_ns = vev_clock_ticks_ns(), restored_ns;
    peek(copy, offsetof(state, restored_ns), &restored_ns, sizeof restored_ns);
    info->since_ms = restored_ns == 0 ? 0 : (int64_t)((now_ns - restored_ns) / 1000000);
    peek(copy, offsetof(state, pass_count), &info->pass_count, sizeof info->pass_count);
    peek(copy, offsetof(state, bytes_written), &info->bytes_written, sizeof info->bytes_written);
    peek(copy, offsetof(state, error), &info->error, sizeof info->error);
    info->age_ms = persisted_ns == 0 ? -1 : (int64_t)((now_ns - persisted_ns) / 1000000);
    info->interval_ms = copy->interval_ms;
    memcpy(info->dir, copy->copy_dir, sizeof info->dir);
}

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
    return p->force || !there_known || memcmp(p->piece + at, p->there + at, PAGE) != 0;
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
            at += PAGE;
            continue;
        }
        size_t end = at + PAGE;
        while (end < size && differs(p, end, known))
            end += PAGE;
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
    for (uint32_t from = 0; !status && from < geometry->data_size; from += PIECE) {
        uint32_t size = VEV_MIN((uint32_t)PIECE, geometry->data_size - from);
        status = take(p, at + from, size);
        if (status)
            break;
        follow_chain(c, p->piece, from, size, geometry->data_size);
        bool last = c->at == AT_FREE || c->at == AT_END;
        if (last)
            size = (uint32_t)vev_align_up(c->offset - from + 8, PAGE);
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
    for (uint32_t from = 0; !status && from < geometry->data_offset; from += PIECE) {
        uint32_t size = VEV_MIN((uint32_t)PIECE, geometry->data_offset - from);
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
    if (!status &&
        facts.size < geometry->file_size) /* room that another file system did not keep */
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

static uint64_t read_session(const vev_io *io, int fd)
{
    uint8_t bytes[8];
    return io->read(io->ctx, fd, AT_SESSION, bytes, sizeof bytes) ? 0 : vev_load64(bytes);
}

static vev_status persist_open(pass *p, const state *s)
{
    uint64_t session = read_session(p->io, p->fd);
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
        uint8_t page[PAGE] = {0};
        vev_store64(page, s->session);
        status = write_copy(p, AT_SESSION, page, sizeof page);
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

static vev_status persist_ring(vev_copy *copy, vev_ring *ring, state *s, bool force,
                               vev_persist_report *report)
{
    const vev_io *io = copy->io;
    char *path = name_of(copy->copy_dir, STREAM_NAMES[ring->stream], ".copy");
    char *fresh = name_of(copy->copy_dir, STREAM_NAMES[ring->stream], ".copy.new");
    pass *p = calloc(1, sizeof *p);
    uint8_t *pieces = malloc(2 * PIECE);
    vev_status status = path && fresh && p && pieces ? VEV_OK : VEV_E_NOMEM;
    bool made = false;
    if (!status) {
        *p = (pass){.io = io,
                    .ring = ring,
                    .force = force,
                    .whole = s->whole[ring->stream],
                    .report = report,
                    .piece = pieces,
                    .there = pieces + PIECE};
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

vev_status vev_copy_persist(vev_copy *copy, vev_ring *const *rings, vev_persist_report *report)
{
    const vev_io *io = copy->io;
    vev_persist_report unwanted;
    if (!report)
        report = &unwanted;
    memset(report, 0, sizeof *report);
    state *s = malloc(sizeof *s);
    if (!s)
        return VEV_E_NOMEM;
    vev_status status = lock_copy(copy);
    if (status) {
        /* Not mounted, most likely: said to whoever asks how the log is. */
        int32_t error = status;
        (void)io->write(io->ctx, copy->fd, offsetof(state, error), &error, sizeof error);
        free(s);
        return status;
    }
    status = read_state(io, copy->fd, s);
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
            status = write_state(io, copy->fd, s);
        for (uint32_t i = 0; !status && i < VEV_STREAM_COUNT; i++)
            status = persist_ring(copy, rings[ORDER[i]], s, force, report);
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
        vev_status noted = write_state(io, copy->fd, s);
        status = status ? status : noted;
        report->durable_seq = s->durable_seq[VEV_EVENTS];
    }
    unlock_copy(copy);
    free(s);
    return status;
}

/* ---- restoring ---- */

/* Take one ring from its copy. What cannot be read there costs what was in it. */
static vev_status copy_back(const vev_io *io, int from, int to, uint64_t size, bool *whole_out)
{
    uint8_t *piece = malloc(PIECE);
    if (!piece)
        return VEV_E_NOMEM;
    static const uint8_t zeros[PAGE];
    *whole_out = true;
    vev_status status = io->allocate(io->ctx, to, size);
    for (uint64_t at = 0; !status && at < size; at += PIECE) {
        size_t piece_size = (size_t)VEV_MIN((uint64_t)PIECE, size - at);
        uint64_t unreadable;
        status = vev_io_read_around(io, from, at, piece, piece_size, &unreadable);
        *whole_out &= unreadable == 0;
        if (at == 0) /* the live area is nobody's */
            memset(piece + VEV_AT_LIVE, 0, VEV_HEADER_REGION - VEV_AT_LIVE);
        for (size_t page = 0; !status && page < piece_size; page += PAGE)
            if (memcmp(piece + page, zeros, VEV_MIN((size_t)PAGE, piece_size - page)) != 0)
                status = io->write(io->ctx, to, at + page, piece + page,
                                   VEV_MIN((size_t)PAGE, piece_size - page));
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
static void claim(const vev_io *io, int fd, const state *s)
{
    uint8_t page[PAGE] = {0};
    vev_store64(page, s->session);
    if (io->write(io->ctx, fd, AT_SESSION, page, sizeof page) == VEV_OK)
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
                               uint32_t stream, state *s, bool *taken_out)
{
    char *ring = name_of(dir, STREAM_NAMES[stream], ".ring");
    char *fresh = name_of(dir, STREAM_NAMES[stream], ".ring.new");
    char *path = name_of(copy_dir, STREAM_NAMES[stream], ".copy");
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
        s->previous[stream] = read_session(io, copy);
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
    char *fresh = name_of(dir, STREAM_NAMES[stream], ".ring.new");
    char *ring = name_of(dir, STREAM_NAMES[stream], ".ring");
    vev_status status = fresh && ring ? io->rename(io->ctx, fresh, ring) : VEV_E_NOMEM;
    free(fresh);
    free(ring);
    return status;
}

static vev_status write_new_state(const vev_io *io, const char *dir, const state *s)
{
    char *fresh = name_of(dir, STATE_NAME, ".new");
    char *path = name_of(dir, STATE_NAME, "");
    vev_status status = fresh && path ? io->remove(io->ctx, fresh) : VEV_E_NOMEM;
    int fd;
    if (!status)
        status = io->open(io->ctx, fresh, VEV_FILE_READ | VEV_FILE_WRITE | VEV_FILE_CREATE, &fd);
    if (!status) {
        status = write_state(io, fd, s);
        io->close(io->ctx, fd);
        if (!status)
            status = io->rename(io->ctx, fresh, path);
    }
    free(fresh);
    free(path);
    return status;
}

/* A log that is RAM-first already: only the interval may be another one now. */
static vev_status adjust(const vev_io *io, int fd, const char *copy_dir, uint32_t interval_ms,
                         state *s)
{
    vev_status status = read_state(io, fd, s);
    if (status)
        return status;
    if (strcmp(s->copy_dir, copy_dir) != 0)
        return VEV_E_FOREIGN;
    if (s->interval_ms == interval_ms)
        return VEV_OK;
    int lock;
    status = vev_io_lock_dir(io, copy_dir, VEV_OPEN_WAIT_MS, &lock);
    if (!status) {
        status =
            io->write(io->ctx, fd, offsetof(state, interval_ms), &interval_ms, sizeof interval_ms);
        io->close(io->ctx, lock);
    }
    return status;
}

static vev_status make_ram_first(const vev_io *io, const char *dir, const char *copy_dir,
                                 uint32_t interval_ms, state *s, bool *restored_out)
{
    memset(s, 0, sizeof *s);
    s->magic = STATE_MAGIC;
    s->version = STATE_VERSION;
    s->boot = vev_clock_boot_tag();
    s->interval_ms = interval_ms;
    s->restored_ns = vev_clock_ticks_ns();
    memcpy(s->copy_dir, copy_dir, strlen(copy_dir));
    bool taken[VEV_STREAM_COUNT] = {false};
    vev_status status = vev_random_bytes(&s->session, sizeof s->session);
    s->session |= 1; /* 0 is none */
    for (uint32_t stream = 0; !status && stream < VEV_STREAM_COUNT; stream++)
        status = restore_ring(io, dir, copy_dir, stream, s, &taken[stream]);
    for (uint32_t i = 0; i < VEV_STREAM_COUNT; i++) {
        if (!status && taken[ORDER[i]]) {
            status = put_in_place(io, dir, ORDER[i]);
            *restored_out = true;
        }
    }
    return status ? status : write_new_state(io, dir, s);
}

static vev_status restore_locked(const vev_io *io, const char *dir, const char *copy_dir,
                                 uint32_t interval_ms, state *s, bool *restored_out)
{
    int fd;
    vev_status status = open_state(io, dir, VEV_FILE_READ | VEV_FILE_WRITE, &fd);
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

vev_status vev_copy_restore(const vev_io *io, const char *dir, const char *copy_dir,
                            uint32_t interval_ms, bool *restored_out)
{
    *restored_out = false;
    /* In one directory each would wait for the other's lock. */
    if (copy_dir[0] != '/' || strlen(copy_dir) >= VEV_COPY_DIR_SIZE || strcmp(dir, copy_dir) == 0)
        return VEV_E_INVALID;
    state *s = malloc(sizeof *s);
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
