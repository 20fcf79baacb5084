/* The public functions: argument checks, then the rooms above. A log is three rings, the contexts
 * they share, a helper thread, and care for fork(). */
#include "vev_log.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "vev_append.h"
#include "vev_copy.h"
#include "vev_cursor.h"
#include "vev_events_zdict.h"
#include "vev_guard.h"
#include "vev_keeper.h"
#include "vev_open.h"
#include "vev_persist.h"
#include "vev_restore.h"
#include "vev_ring.h"
#include "vev_states.h"
#include "vev_stats.h"
#include "vev_sync.h"

#define MIB (1ull << 20)

/* docs/design/0010: every second place is tried for a match, which takes a fifth of the work away
 * and adds a hundredth to the bytes. */
#define LEVEL_DEFAULT (-2)

struct vev_log {
    vev_log *next; /* in the list of open logs, for fork() */
    const vev_io *io;
    vev_pool pool;
    vev_ring *rings[VEV_STREAM_COUNT];
    vev_copy *copy; /* NULL: the log is not RAM-first */
    vev_keeper *keeper;
    uint32_t sync_interval_ms;
    bool readonly, threaded;
    _Atomic bool forked; /* this is a child's copy that has not attached yet */
};

const char *vev_version(void) { return VEV_VERSION; }

const char *vev_strerror(vev_status status)
{
    static _Thread_local char text[128];
    switch (status) {
    case VEV_OK: return "success";
    case VEV_E_INVALID: return "an argument is out of range";
    case VEV_E_TOO_BIG: return "larger than the ring, or the buffer of the event, takes";
    case VEV_E_BUFFER: return "the buffer is too small";
    case VEV_E_READONLY: return "the log was opened read-only";
    case VEV_E_FULL: return "the log is full and was told to refuse rather than to drop";
    case VEV_E_BUSY: return "too many processes have the log open, or all its segments are in use";
    case VEV_E_DEGRADED: return "the log's disk failed, or its files are gone: no more appends";
    case VEV_E_VERSION: return "the log was written by a newer version of vevents";
    case VEV_E_CORRUPT: return "the file is not a ring, or is broken beyond use";
    case VEV_E_FOREIGN: return "the log in memory and the copy on flash do not belong together";
    case VEV_E_NOMEM: return "out of memory";
    default: break;
    }
    if (status < 0)
        return "unknown status";
#ifdef __GLIBC__ /* its form returns the text, which need not be in the buffer */
    return strerror_r(status, text, sizeof text);
#else /* POSIX's own */
    return strerror_r(status, text, sizeof text) == 0 ? text : "unknown error";
#endif
}

/* ---- fork ---- */

static pthread_mutex_t open_logs_mutex = PTHREAD_MUTEX_INITIALIZER;
static vev_log *open_logs;
/* Held while a log is being opened or restored: a child that is forked meanwhile would keep copies
 * of its files, and with them its locks, which nobody in the child knows of. */
static pthread_mutex_t opening_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t atfork_once = PTHREAD_ONCE_INIT;

/* No other thread is amid changing what the child will use. Compression contexts that other
 * threads are using stay taken in the child. */
static void before_fork(void)
{
    pthread_mutex_lock(&opening_mutex);
    pthread_mutex_lock(&open_logs_mutex);
    for (vev_log *log = open_logs; log; log = log->next) {
        for (int s = 0; s < VEV_STREAM_COUNT; s++) {
            pthread_mutex_lock(&log->rings[s]->roll_mutex);
            pthread_mutex_lock(&log->rings[s]->reclaim_mutex);
            pthread_mutex_lock(&log->rings[s]->read_mutex);
            pthread_mutex_lock(&log->rings[s]->dictionary_mutex);
        }
        vev_copy_before_fork(log->copy);
    }
}

static void let_go(vev_ring *ring)
{
    pthread_mutex_unlock(&ring->dictionary_mutex);
    pthread_mutex_unlock(&ring->read_mutex);
    pthread_mutex_unlock(&ring->reclaim_mutex);
    pthread_mutex_unlock(&ring->roll_mutex);
}

static void after_fork_in_parent(void)
{
    for (vev_log *log = open_logs; log; log = log->next) {
        vev_copy_after_fork_in_parent(log->copy);
        for (int s = 0; s < VEV_STREAM_COUNT; s++)
            let_go(log->rings[s]);
    }
    pthread_mutex_unlock(&open_logs_mutex);
    pthread_mutex_unlock(&opening_mutex);
}

/* Give up what only the parent may hold: its file locks live as long as any copy of the open file,
 * and a dead parent must be seen as dead. */
static void after_fork_in_child(void)
{
    for (vev_log *log = open_logs; log; log = log->next) {
        atomic_store(&log->forked, true);
        vev_copy_after_fork_in_child(log->copy);
        for (int s = 0; s < VEV_STREAM_COUNT; s++) {
            if (log->rings[s]->fd >= 0)
                log->io->close(log->io->ctx, log->rings[s]->fd);
            log->rings[s]->fd = -1;
            let_go(log->rings[s]);
        }
    }
    pthread_mutex_init(&open_logs_mutex, NULL);
    pthread_mutex_init(&opening_mutex, NULL);
}

static void install_atfork(void)
{
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

static vev_status reattach(vev_log *log)
{
    vev_status status = VEV_OK;
    pthread_mutex_lock(&open_logs_mutex);
    if (atomic_load(&log->forked)) {
        vev_keeper_forget(log->keeper);
        log->keeper = NULL;
        for (int s = 0; !status && s < VEV_STREAM_COUNT; s++)
            if (log->rings[s]->fd < 0)
                status = vev_ring_reattach(log->rings[s]);
        if (!status && log->threaded)
            status = vev_keeper_start(log->rings, log->copy, log->sync_interval_ms, &log->keeper);
        if (!status)
            atomic_store(&log->forked, false);
    }
    pthread_mutex_unlock(&open_logs_mutex);
    return status;
}

/* What every call does first. */
static inline vev_status enter(vev_log *log, int stream)
{
    if (!log || stream < 0 || stream >= VEV_STREAM_COUNT)
        return VEV_E_INVALID;
    if (VEV_UNLIKELY(atomic_load_explicit(&log->forked, memory_order_acquire)))
        return reattach(log);
    return VEV_OK;
}

/* ---- open and close ---- */

void vev_options_init(vev_options *options)
{
    memset(options, 0, sizeof *options);
    options->struct_size = sizeof *options;
    options->events_size = 64 * MIB;
    options->media_size = 256 * MIB;
    options->delivery_size = 4 * MIB;
    options->sync_interval_ms = 5000;
    options->level = LEVEL_DEFAULT;
}

/* A segment is the unit of reclaiming: small enough that little is dropped at once, large enough
 * that its fixed parts do not weigh and a frame fits. */
static uint32_t choose_segment_size(uint64_t ring_size, uint64_t parts, uint64_t low, uint64_t high)
{
    uint64_t size = ring_size / parts / VEV_SEGMENT_ALIGN * VEV_SEGMENT_ALIGN;
    size = VEV_MIN(VEV_MAX(size, low), high);
    while ((ring_size - VEV_HEADER_REGION) / size > VEV_SEGMENT_MAX_COUNT)
        size *= 2;
    while (size > VEV_SEGMENT_ALIGN &&
           (ring_size - VEV_HEADER_REGION) / size < 2 * VEV_SEGMENT_MIN_COUNT)
        size = size / 2 / VEV_SEGMENT_ALIGN * VEV_SEGMENT_ALIGN;
    return (uint32_t)VEV_MAX(size, (uint64_t)VEV_SEGMENT_ALIGN);
}

static vev_ring_options ring_options(const vev_options *options, int stream)
{
    vev_ring_options ring = {.stream = (uint32_t)stream,
                             .full_policy = VEV_FULL_DROP_OLDEST,
                             .level = options->level,
                             .readonly = (options->flags & VEV_OPEN_READONLY) != 0,
                             .record_size_min = 64};
    uint64_t parts = 32, low = 256 * 1024, high = 8 * MIB;
    switch (stream) {
    case VEV_EVENTS:
        ring.size = options->events_size;
        ring.segment_size = options->segment_size;
        ring.full_policy = options->full_policy;
        break;
    case VEV_MEDIA:
        ring.size = options->media_size;
        ring.record_size_min = 1024;
        parts = 16;
        high = 16 * MIB;
        break;
    default: ring.size = options->delivery_size; break;
    }
    if (stream != VEV_MEDIA) {
        ring.dictionary = options->dictionary ? options->dictionary : vev_events_zdict;
        ring.dictionary_size =
            options->dictionary ? options->dictionary_size : sizeof vev_events_zdict;
        ring.dictionary_capacity = VEV_DICTIONARY_MAX;
    }
    if (ring.segment_size == 0)
        ring.segment_size = choose_segment_size(ring.size, parts, low, high);
    return ring;
}

static bool options_valid(const vev_options *options)
{
    bool level_ok =
        (options->level >= -7 && options->level <= 9) || options->level == VEV_LEVEL_RAW;
    return options->struct_size == sizeof *options && level_ok && options->events_size >= MIB &&
           options->media_size >= MIB && options->delivery_size >= MIB &&
           options->dictionary_size <= VEV_DICTIONARY_MAX &&
           (options->full_policy == VEV_FULL_DROP_OLDEST ||
            options->full_policy == VEV_FULL_REFUSE) &&
           options->segment_size % VEV_SEGMENT_ALIGN == 0;
}

static void close_rings(vev_log *log)
{
    for (int s = 0; s < VEV_STREAM_COUNT; s++) {
        vev_ring_close(log->rings[s]);
    }
    vev_copy_detach(log->copy);
    for (int i = 0; i < VEV_CONTEXT_COUNT; i++) {
        vev_zctx_free(log->pool.contexts[i].zctx);
        free(log->pool.contexts[i].scratch);
    }
    free(log);
}

/* Opening may have looked at all of the newest segment, up to 64 MiB; appends need hardly any of
 * it. */
static void rest_newest(const vev_ring *ring)
{
    const vev_span *span = atomic_load(&ring->current);
    if (span)
        ring->io->rest(ring->io->ctx, span->base, ring->file.geometry.segment_size);
}

/* See vev__log_unopened(). */
static _Thread_local int unopened = -1;

static vev_status open_rings(vev_log *log, const char *dir, const vev_options *options)
{
    vev_status status = VEV_OK;
    for (int s = 0; !status && s < VEV_STREAM_COUNT; s++) {
        vev_ring_options ring = ring_options(options, s);
        char *path = vev_ring_path(dir, (uint32_t)s, ".ring");
        if (!path)
            return VEV_E_NOMEM;
        status = vev_ring_open(log->io, path, &ring, &log->pool, &log->rings[s]);
        free(path);
        if (!status)
            rest_newest(log->rings[s]);
        else
            unopened = s;
    }
    return status;
}

vev_status vev__log_open(const vev_io *io, const char *dir, const vev_options *options,
                         vev_log **log_out)
{
    if (!log_out)
        return VEV_E_INVALID;
    *log_out = NULL;
    unopened = -1;
    vev_options defaults;
    if (!options) {
        vev_options_init(&defaults);
        options = &defaults;
    }
    if (!dir || !*dir || !options_valid(options))
        return VEV_E_INVALID;
    vev_log *log = calloc(1, sizeof *log);
    if (!log)
        return VEV_E_NOMEM;
    log->io = io;
    log->readonly = (options->flags & VEV_OPEN_READONLY) != 0;
    log->threaded = !log->readonly && !(options->flags & VEV_OPEN_NO_THREAD);
    log->sync_interval_ms = options->sync_interval_ms;
    vev_status status = options->flags & VEV_OPEN_NO_GUARD ? VEV_OK : vev_guard_install();
    int lock = -1;
    pthread_once(&atfork_once, install_atfork);
    pthread_mutex_lock(&opening_mutex);
    if (!status && !log->readonly) {
        status = io->make_dir(io->ctx, dir);
        if (!status)
            status = vev_io_lock_dir(io, dir, VEV_OPEN_WAIT_MS,
                                     &lock); /* one creates, the others wait */
    }
    if (!status)
        status = open_rings(log, dir, options);
    if (!status)
        status = vev_copy_attach(io, dir, log->readonly, &log->copy);
    /* The copy goes on without the files' names, unless somebody else has taken it over
     * (VEV_E_FOREIGN). */
    for (int s = 0; !status && log->copy && s < VEV_STREAM_COUNT; s++)
        log->rings[s]->named = false;
    if (!status && log->threaded)
        status = vev_keeper_start(log->rings, log->copy, log->sync_interval_ms, &log->keeper);
    if (status) {
        /* A log is three rings or none. */
        for (int s = 0; s < VEV_STREAM_COUNT; s++)
            if (log->rings[s] && log->rings[s]->created)
                (void)io->remove(io->ctx, log->rings[s]->path);
        close_rings(log);
    }
    io->close(io->ctx, lock);
    if (!status) {
        pthread_mutex_lock(&open_logs_mutex);
        log->next = open_logs;
        open_logs = log;
        pthread_mutex_unlock(&open_logs_mutex);
    }
    pthread_mutex_unlock(&opening_mutex);
    if (status)
        return status;
    *log_out = log;
    return VEV_OK;
}

int vev__log_unopened(void) { return unopened; }

vev_status vev_log_open(const char *dir, const vev_options *options, vev_log **log_out)
{
    return vev__log_open(&vev_io_posix, dir, options, log_out);
}

void vev_log_close(vev_log *log)
{
    if (!log)
        return;
    if (atomic_load(&log->forked)) {
        /* The child never used it: the maps are its own, everything else is the parent's. */
        vev_keeper_forget(log->keeper);
    } else {
        vev_keeper_stop(log->keeper);
        /* Nobody is left to tell: the records are as safe as before, and the next open counts. */
        vev_status ignored = vev_log_sync(log, NULL);
        (void)ignored;
    }
    /* Until its files are closed a child that is forked must know of them. */
    pthread_mutex_lock(&open_logs_mutex);
    vev_log **at = &open_logs;
    while (*at && *at != log)
        at = &(*at)->next;
    if (*at)
        *at = log->next;
    close_rings(log);
    pthread_mutex_unlock(&open_logs_mutex);
}

/* ---- the rest passes on ---- */

vev_status vev_log_append(vev_log *log, int stream, const void *payload, size_t size,
                          vev_entry *entry)
{
    vev_status status = enter(log, stream);
    if (status)
        return status;
    if (!payload)
        return VEV_E_INVALID;
    vev_entry none;
    if (!entry) {
        memset(&none, 0, sizeof none);
        entry = &none;
    }
    if (VEV_LIKELY(!log->copy || !(entry->flags & VEV_APPEND_SYNC)))
        return vev_ring_append(log->rings[stream], payload, size, entry);
    entry->flags &= ~(uint32_t)VEV_APPEND_SYNC; /* of memory: no power cut is survived by that */
    status = vev_ring_append(log->rings[stream], payload, size, entry);
    entry->flags |= VEV_APPEND_SYNC;
    if (status)
        return status;
    status = vev_persist(log->copy, log->rings, NULL);
    /* A negative status would say that nothing is stored. */
    return status == VEV_E_BUSY ? EBUSY : status < 0 ? EIO : status;
}

bool vev__log_has_room(vev_log *log, int stream, size_t payload_size)
{
    return log && stream >= 0 && stream < VEV_STREAM_COUNT && !atomic_load(&log->forked) &&
           vev_ring_has_room(log->rings[stream], payload_size);
}

vev_status vev_log_read(vev_log *log, int stream, uint64_t from_seq, unsigned state_mask,
                        vev_record *records, size_t record_cap, void *buffer, size_t buffer_size,
                        size_t *count_out, uint64_t *next_out)
{
    vev_status status = enter(log, stream);
    if (status)
        return status;
    if (!count_out || !next_out)
        return VEV_E_INVALID;
    return vev_ring_read(log->rings[stream], from_seq, state_mask, records, record_cap, buffer,
                         buffer_size, count_out, next_out);
}

vev_status vev_log_mark(vev_log *log, int stream, const uint64_t *seqs, size_t seq_count, int state,
                        size_t *changed_out)
{
    vev_status status = enter(log, stream);
    return status ? status : vev_ring_mark(log->rings[stream], seqs, seq_count, state, changed_out);
}

vev_status vev_log_sync(vev_log *log, uint64_t *durable_out)
{
    vev_status status = enter(log, VEV_EVENTS);
    if (log && log->copy && !log->readonly) {
        if (!status)
            status = vev_persist(log->copy, log->rings, NULL);
    } else {
        for (int s = 0; !status && s < VEV_STREAM_COUNT; s++)
            status = vev_ring_sync(log->rings[vev_ring_order[s]], 0);
    }
    if (!status && durable_out)
        *durable_out = vev_log_durable_seq(log, VEV_EVENTS);
    return status;
}

vev_status vev_log_persist(vev_log *log, vev_persist_report *report_out)
{
    vev_status status = enter(log, VEV_EVENTS);
    if (status)
        return status;
    if (log->readonly)
        return VEV_E_READONLY;
    return log->copy ? vev_persist(log->copy, log->rings, report_out) : VEV_E_INVALID;
}

vev_status vev_log_copy_info(vev_log *log, vev_copy_info *info_out)
{
    vev_status status = enter(log, VEV_EVENTS);
    if (!status && (!log->copy || !info_out))
        status = VEV_E_INVALID;
    if (!status)
        vev_copy_look(log->copy, info_out);
    return status;
}

/* Whether all rings of a log are there. */
static bool has_rings(const vev_io *io, const char *dir)
{
    bool all = true;
    for (uint32_t s = 0; all && s < VEV_STREAM_COUNT; s++) {
        char *path = vev_ring_path(dir, s, ".ring");
        int fd;
        all = path && io->open(io->ctx, path, VEV_FILE_READ, &fd) == VEV_OK;
        if (all)
            io->close(io->ctx, fd);
        free(path);
    }
    return all;
}

vev_status vev__log_restore(const vev_io *io, const char *dir, const char *copy_dir,
                            uint32_t interval_ms, int *restored_out)
{
    if (!dir || !*dir || !copy_dir)
        return VEV_E_INVALID;
    bool restored;
    pthread_once(&atfork_once, install_atfork);
    pthread_mutex_lock(&opening_mutex); /* a child must not keep the locks of the directories */
    vev_status status = vev_restore(io, dir, copy_dir, interval_ms, &restored);
    pthread_mutex_unlock(&opening_mutex);
    /* A copy that was cut off in its first pass has not all rings, and to make one is for somebody
     * who knows how large it is to be. */
    if (!status && restored && has_rings(io, dir)) {
        /* What is mended by opening is mended in the copy as well, and durable_seq begins with what
         * it holds. That a flash takes no writes is no reason not to use what was read from it. */
        vev_options options;
        vev_options_init(&options);
        options.flags = VEV_OPEN_NO_THREAD;
        vev_log *log;
        if (vev__log_open(io, dir, &options, &log) == VEV_OK)
            vev_log_close(log);
    }
    if (restored_out)
        *restored_out = !status && restored;
    return status;
}

vev_status vev_log_restore(const char *dir, const char *copy_dir, uint32_t interval_ms,
                           int *restored_out)
{
    return vev__log_restore(&vev_io_posix, dir, copy_dir, interval_ms, restored_out);
}

uint64_t vev_log_durable_seq(vev_log *log, int stream)
{
    if (enter(log, stream))
        return 0;
    vev_ring *ring = log->rings[stream];
    if (log->copy)
        return vev_copy_durable_seq(log->copy, (uint32_t)stream);
    if (ring->readonly) {
        vev_stats stats;
        return vev_ring_stats(ring, &stats) ? 0 : stats.durable_seq;
    }
    return vev_ring_synced_seq(ring);
}

vev_status vev_log_stats(vev_log *log, int stream, vev_stats *stats_out)
{
    vev_status status = enter(log, stream);
    if (status)
        return status;
    if (!stats_out)
        return VEV_E_INVALID;
    status = vev_ring_stats(log->rings[stream], stats_out);
    if (!status && log->copy)
        stats_out->durable_seq = vev_copy_durable_seq(log->copy, (uint32_t)stream);
    return status;
}

vev_status vev_log_verify(vev_log *log, int stream, vev_damage *ranges, size_t range_cap,
                          size_t *count_out, uint64_t *checked_out)
{
    vev_status status = enter(log, stream);
    if (status)
        return status;
    if (!count_out || !checked_out || (!ranges && range_cap > 0))
        return VEV_E_INVALID;
    return vev_ring_verify(log->rings[stream], ranges, range_cap, count_out, checked_out);
}
