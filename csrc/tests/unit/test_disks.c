/* What a second review found: damaged heads, failing syncs, slow readers, statuses that misled.
 * Every case here once went wrong. */
#include <pthread.h>

#include "fault_case.h"

/* This program runs as on a file system without fallocate (vfat), an old system, or in a sandbox
 * that forbids it: the core's fallback is what all of its rings are made with. */
int fallocate(int fd, int mode, off_t offset, off_t size)
{
    static const int errors[] = {EOPNOTSUPP, ENOSYS, EPERM};
    static _Atomic unsigned call;
    (void)fd;
    (void)mode;
    (void)offset;
    (void)size;
    errno = errors[call++ % 3];
    return -1;
}

/* And as on a FUSE file system without generations, which may answer with an error and whatever was
 * in its memory. By its name for the linker: C libraries differ in its type. */
int failing_ioctl(int fd, unsigned long request, uint32_t *answer) __asm__("ioctl");
int failing_ioctl(int fd, unsigned long request, uint32_t *answer)
{
    static _Atomic uint32_t junk;
    (void)fd;
    (void)request;
    *answer = ++junk;
    errno = ENOTTY;
    return -1;
}

/* ---- damage ---- */

/* One byte of a large frame is wrong: the frame behind it is found, although random bytes look like
 * the beginning of a record once in a few hundred. */
static void large_frames_behind_damage(void)
{
    enum { DATA = 16 << 20, FRAME = 1 << 20 };
    uint8_t *data = calloc(1, DATA), *frame = malloc(FRAME);
    CHECK(data && frame);
    vev_lap lap = {.seed = 1, .file_offset = 65536, .base_seq = 1, .max_records = 16384};
    uint64_t random = 88172645463325252u;
    uint32_t offset = 0, second = 0;
    for (uint64_t seq = 1; seq <= 12; seq++) {
        for (size_t i = 0; i < FRAME; i += 8) {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            memcpy(frame + i, &random, 8);
        }
        vev_header header = {.seq = seq, .stored_size = FRAME, .raw_size = FRAME};
        uint64_t word = vev_record_write(data + offset, &lap, offset, &header, frame);
        memcpy(data + offset, &word, 8);
        if (seq == 2)
            second = offset;
        offset += vev_record_size(&header);
    }
    data[VEV_RECORD_HEADER + 100] ^= 1;
    CHECK(vev_record_resync(data, DATA, DATA, &lap, 0, 0) == second);
    CHECK(vev_record_resync(data, DATA, second + 8, &lap, 0, 0) == second);
    CHECK(vev_record_resync(data, DATA, second, &lap, 0, 0) == DATA);
    free(frame);
    free(data);
}

/* Without fallocate a ring that was cut short gets its room back, and keeps its bytes. */
static void cut_short_without_fallocate(void)
{
    const char *dir = fresh_dir();
    vev_stats made = make_log(dir, 300);
    char path[160];
    snprintf(path, sizeof path, "%s/events.ring", dir);
    CHECK(truncate(path, (off_t)made.bytes_on_disk - 4096) == 0);
    vev_options options = quiet();
    vev_log *log = open_log(dir, &options);
    vev_stats stats = stats_of(log, VEV_EVENTS);
    CHECK(stats.pending == 300 && stats.lost == 0 && stats.set_aside == 0);
    vev_log_close(log);
}

/* Flip a bit in the head of the newest or of the oldest segment. */
static void damage_head(const char *dir, const vev_stats *stats, bool newest)
{
    char path[160];
    snprintf(path, sizeof path, "%s/events.ring", dir);
    int fd = open(path, O_RDONLY);
    CHECK(fd >= 0);
    uint64_t found = 0, at = 0;
    uint8_t head[32], byte = 0;
    for (uint32_t s = 0; s < stats->segment_count; s++) {
        uint64_t here = VEV_HEADER_REGION + (uint64_t)s * stats->segment_size, generation;
        CHECK(pread(fd, head, sizeof head, (off_t)here) == (ssize_t)sizeof head);
        memcpy(&generation, head + 8, 8);
        if (generation == 0 || (found != 0 && (generation > found) != newest))
            continue;
        found = generation;
        at = here + 24;
        byte = head[24] ^ 1;
    }
    close(fd);
    CHECK(found != 0);
    overwrite(dir, at, &byte, 1);
}

static bool is_there(const char *dir, const char *name)
{
    char path[200];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return access(path, F_OK) == 0;
}

/* A damaged head costs nothing where a later one names its lap; that of the newest segment costs
 * its records: they are counted, and their numbers not given out again. */
static void damaged_head(void)
{
    for (int newest = 0; newest < 2; newest++) {
        const char *dir = fresh_dir();
        vev_stats made = make_log(dir, 600);
        damage_head(dir, &made, newest == 1);
        vev_options options = quiet();
        vev_log *log = open_log(dir, &options);
        append_numbers(log, VEV_EVENTS, 600, 601);
        vev_stats stats = stats_of(log, VEV_EVENTS);
        CHECK(stats.last_seq == 601 && stats.appended == 601);
        CHECK((stats.lost > 0) == (newest == 1) && stats.pending == 601 - stats.lost);
        CHECK(stats.lost_missing == stats.lost);
        uint64_t first, last;
        CHECK(read_all(log, VEV_EVENTS, 1, &first, &last) == stats.pending);
        vev_log_close(log);
        log = open_log(dir, &options);
        stats = stats_of(log, VEV_EVENTS);
        CHECK(stats.appended == 601 && stats.pending == 601 - stats.lost);
        CHECK(!is_there(dir, "events.ring.damaged-1"));
        vev_log_close(log);
    }
}

/* Whoever opens a damaged ring beside others leaves it where they write to it. */
static void damaged_head_beside_others(void)
{
    const char *dir = fresh_dir();
    vev_options options = quiet();
    vev_log *log = open_log(dir, &options);
    append_numbers(log, VEV_EVENTS, 0, 600);
    vev_stats stats = stats_of(log, VEV_EVENTS);
    damage_head(dir, &stats, true);
    vev_log *second = open_log(dir, &options);
    CHECK(stats_of(second, VEV_EVENTS).set_aside == 0);
    CHECK(!is_there(dir, "events.ring.damaged-1"));
    uint8_t payload[512];
    CHECK(vev_log_append(second, VEV_EVENTS, payload, make_payload(payload, 1), NULL) ==
          VEV_E_DEGRADED);
    append_numbers(log, VEV_EVENTS, 600, 1200);
    uint64_t first, last;
    CHECK(read_all(second, VEV_EVENTS, 1, &first, &last) > 600 && last == 1200);
    vev_log_close(second);
    vev_log_close(log);
}

/* ---- sectors that cannot be read ---- */

#ifndef __SANITIZE_THREAD__

static bool has_no_cell(const vev_ring *ring)
{
    for (int i = 0; i < VEV_CELL_COUNT; i++) {
        if (atomic_load(&ring->live->slots[ring->slot].cells[i].generation) != 0)
            return false;
    }
    return true;
}

/* The page under the tail goes bad: who was appending there leaves no cell taken, which would keep
 * others from using the segment again. */
static void tail_goes_bad_while_mapped(void)
{
    const char *dir = fresh_dir();
    CHECK(mkdir(dir, 0700) == 0);
    vev_ring *ring = open_ring(dir);
    vev_span *span = atomic_load(&ring->current);
    break_page(span->base + ring->file.geometry.data_offset / page_size() * page_size());
    vev_entry entry = {0};
    CHECK(vev_ring_append(ring, "x", 1, &entry) == EIO && has_no_cell(ring));
    CHECK(vev_ring_append(ring, "x", 1, &entry) == VEV_E_DEGRADED);
    CHECK(vev_ring_sync(ring, 0) != VEV_OK && has_no_cell(ring));
    vev_ring_close(ring);
}

/* The page of delivery states goes bad under the mapping: one mark fails, the next ones heal it. */
static void state_map_goes_bad_while_mapped(void)
{
    const char *dir = fresh_dir();
    CHECK(mkdir(dir, 0700) == 0);
    vev_io io = bad_io();
    make_bad(0);
    disk.bad = false;
    vev_ring *ring = open_ring_on(&io, dir);
    uint8_t payload[512];
    vev_entry entry = {0};
    for (uint64_t n = 0; n < 100; n++)
        OK(vev_ring_append(ring, payload, make_payload(payload, n), &entry));
    uint64_t seqs[] = {1, 2, 3};
    size_t changed;
    OK(vev_ring_mark(ring, seqs, 1, VEV_DELIVERED, &changed));
    CHECK(changed == 1);
    int fd = disk.fd;
    uint32_t map = ring->file.geometry.map_offset;
    make_bad(vev_segment_offset(&ring->file.geometry, ring->mark_segment) + map);
    disk.fd = fd;
    break_page(ring->mark_base + map / page_size() * page_size());
    CHECK(vev_ring_mark(ring, seqs, 3, VEV_DELIVERED, &changed) == EIO && changed == 2);
    CHECK(!disk.bad && has_no_cell(ring));
    OK(vev_ring_mark(ring, seqs, 3, VEV_DELIVERED, &changed));
    CHECK(changed == 1);
    vev_ring_close(ring);
}

/* A segment whose states cannot be written does not keep the rest of a batch from being marked. */
static void marks_beside_a_bad_state_map(void)
{
    const char *dir = fresh_dir();
    make_log(dir, 600);
    make_bad(VEV_HEADER_REGION + VEV_HEADER_BLOCK + VEV_DICTIONARY_MAX);
    vev_options options = quiet();
    vev_log *log = open_on_bad_disk(dir, &options);
    disk.write_error = EIO;
    uint64_t seqs[] = {1, 2, 600};
    size_t changed;
    CHECK(vev_log_mark(log, VEV_EVENTS, seqs, 3, VEV_DELIVERED, &changed) == EIO && changed == 1);
    disk.write_error = 0;
    OK(vev_log_mark(log, VEV_EVENTS, seqs, 3, VEV_DELIVERED, &changed));
    CHECK(changed == 2);
    CHECK(stats_of(log, VEV_EVENTS).delivered == 3);
    vev_log_close(log);
}

/* A card from a dead device is read without being written to, wherever its bad sector is. */
static void read_only_with_a_bad_header(void)
{
    const char *dir = fresh_dir();
    make_log(dir, 300);
    for (uint64_t at = 0; at < VEV_HEADER_REGION; at += page_size()) {
        make_bad(at);
        vev_options options = quiet();
        options.flags |= VEV_OPEN_READONLY;
        vev_log *log = open_on_bad_disk(dir, &options);
        CHECK(stats_of(log, VEV_EVENTS).pending == 300);
        vev_log_close(log);
    }
}

/* A page that one process cannot read is not overwritten while others use what is in it. */
static void bad_live_area_beside_others(void)
{
    for (uint64_t at = VEV_AT_LIVE; at < VEV_AT_LIVE + sizeof(vev_live); at += page_size()) {
        const char *dir = fresh_dir();
        vev_options options = quiet();
        vev_log *log = open_log(dir, &options);
        append_numbers(log, VEV_EVENTS, 0, 5000);
        vev_stats before = stats_of(log, VEV_EVENTS);
        pid_t child = fork();
        if (child == 0) {
            make_bad(at);
            alarm(20);
            vev_io io = bad_io();
            vev_log *second;
            vev_status status = vev__log_open(&io, dir, &options, &second);
            _exit(status == VEV_OK || status == EIO ? 0 : 1);
        }
        wait_for(child);
        append_numbers(log, VEV_EVENTS, 5000, 5300);
        vev_stats stats = stats_of(log, VEV_EVENTS);
        CHECK(stats.appended == 5300 && stats.lost == 0 && stats.evicted >= before.evicted);
        vev_log_close(log);
        log = open_log(dir, &options);
        CHECK(stats_of(log, VEV_EVENTS).appended == 5300);
        vev_log_close(log);
    }
}

/* Nor in the segment that they write to: who joins them cannot append, but read what can be read. */
static void bad_newest_segment_beside_others(void)
{
    const char *dir = fresh_dir();
    vev_options options = quiet();
    vev_log *log = open_log(dir, &options);
    append_numbers(log, VEV_EVENTS, 0, 600);
    vev_file_header file = header_of(dir);
    uint64_t active;
    read_ring(dir, VEV_AT_LIVE + offsetof(vev_live, active), &active, sizeof active);
    uint64_t segment = vev_segment_offset(&file.geometry, (uint32_t)active & 1023u);
    const uint64_t places[] = {segment, segment + file.geometry.data_offset};
    for (int i = 0; i < 2; i++) {
        pid_t child = fork();
        if (child == 0) {
            make_bad(places[i]);
            vev__give_up_ns = UINT64_MAX;
            alarm(20);
            vev_log *second = open_on_bad_disk(dir, &options);
            uint8_t payload[512];
            vev_status status =
                vev_log_append(second, VEV_EVENTS, payload, make_payload(payload, 1), NULL);
            CHECK(status == VEV_E_DEGRADED || status == EIO);
            uint64_t first, last;
            CHECK(read_all(second, VEV_EVENTS, 1, &first, &last) > 300);
            vev_log_close(second);
            _exit(0);
        }
        wait_for(child);
    }
    append_numbers(log, VEV_EVENTS, 600, 1200);
    CHECK(stats_of(log, VEV_EVENTS).appended == 1200 && stats_of(log, VEV_EVENTS).lost == 0);
    vev_log_close(log);
}

/* A bad sector in the newest segment and no room for another (a copy-on-write disk, a quota): the
 * backlog can be read. */
static void no_room_to_go_on_in(void)
{
    int errors[] = {EIO, ENOSPC, EDQUOT, EROFS};
    for (int i = 0; i < 4; i++) {
        const char *dir = fresh_dir();
        vev_stats made = make_log(dir, 100);
        boot_again(dir); /* so that all of the segment is looked at */
        make_bad(VEV_HEADER_REGION + made.segment_size - 1);
        disk.write_error = errors[i];
        vev_options options = quiet();
        vev_log *log = open_on_bad_disk(dir, &options);
        uint64_t first, last;
        CHECK(read_all(log, VEV_EVENTS, 1, &first, &last) == 100);
        CHECK(stats_of(log, VEV_EVENTS).degraded == errors[i]);
        vev_log_close(log);
    }
}

#endif

/* ---- syncs and room that fail ---- */

/* What fails, in events.ring only where a file is named. */
static struct {
    int fd;
    int sync_map;       /* errno of every one, or 0 */
    bool sync_map_once; /* this one only */
    int wipe;           /* errno of writes of whole pieces */
    int roll_lock;
    _Atomic bool hold_sync, in_sync;
} fail;

static vev_status failing_open(void *ctx, const char *path, int mode, int *fd_out)
{
    (void)ctx;
    return open_noting(path, mode, fd_out, &fail.fd);
}

static vev_status failing_sync_map(void *ctx, uint8_t *start, size_t size)
{
    vev_status status = fail.sync_map;
    if (fail.sync_map_once)
        fail.sync_map = 0;
    return status ? status : vev_io_posix.sync_map(ctx, start, size);
}

static vev_status failing_write(void *ctx, int fd, uint64_t offset, const void *data, size_t size)
{
    return fail.wipe && size >= VEV_PIECE ? fail.wipe
                                          : vev_io_posix.write(ctx, fd, offset, data, size);
}

static vev_status failing_lock(void *ctx, int fd, uint64_t offset, int kind)
{
    if (fail.roll_lock && offset == VEV_LOCK_ROLL && kind != VEV_LOCK_NONE)
        return fail.roll_lock;
    return vev_io_posix.lock(ctx, fd, offset, kind);
}

static vev_status held_sync(void *ctx, int fd)
{
    if (fd == fail.fd) {
        while (atomic_load(&fail.hold_sync)) {
            atomic_store(&fail.in_sync, true);
            usleep(100);
        }
    }
    return vev_io_posix.sync(ctx, fd);
}

static const vev_io *failing_io(void)
{
    static vev_io io;
    memset(&fail, 0, sizeof fail);
    io = vev_io_posix;
    io.open = failing_open;
    io.sync_map = failing_sync_map;
    io.write = failing_write;
    io.lock = failing_lock;
    io.sync = held_sync;
    return &io;
}

static vev_log *open_failing(const char *dir)
{
    vev_options options = quiet();
    vev_log *log;
    OK(vev__log_open(failing_io(), dir, &options, &log));
    return log;
}

/* What a killed writer left is mended at open; if that cannot be synced for want of room, the log
 * opens all the same, and goes on. */
static void no_room_to_mend(void)
{
    int errors[] = {EIO, ENOSPC, EDQUOT};
    for (int i = 0; i < 3; i++) {
        const char *dir = fresh_dir();
        CHECK(mkdir(dir, 0700) == 0);
        pid_t child = fork();
        if (child == 0) {
            vev_ring *ring = open_ring(dir);
            uint8_t payload[512];
            uint32_t offset, index;
            vev_entry entry = {0};
            for (uint64_t n = 0; n < 30; n++)
                OK(vev_ring_append(ring, payload, make_payload(payload, n), &entry));
            (void)reserve_only(ring, &offset, &index);
            _exit(0);
        }
        wait_for(child);
        const vev_io *io = failing_io();
        fail.sync_map = errors[i];
        vev_ring *ring = open_ring_on(io, dir);
        vev_record records[50];
        static uint8_t buffer[1 << 16];
        size_t count;
        uint64_t next;
        OK(vev_ring_read(ring, 0, 1, records, 50, buffer, sizeof buffer, &count, &next));
        vev_stats stats;
        OK(vev_ring_stats(ring, &stats));
        CHECK(count == 30 && stats.pending == 30 && stats.appended == 30 + stats.lost);
        vev_entry entry = {0};
        OK(vev_ring_append(ring, buffer, 100, &entry)); /* behind it */
        vev_ring_close(ring);
    }
}

/* The system reports a failed write-back once, to whoever syncs next. That may be the ledger's
 * sync, and the records are not durable all the same. */
static void failed_sync_of_the_ledger(void)
{
    vev_log *log = open_failing(fresh_dir());
    append_numbers(log, VEV_EVENTS, 0, 1000);
    OK(vev_log_sync(log, NULL));
    append_numbers(log, VEV_EVENTS, 1000, 1010);
    fail.sync_map_once = true;
    fail.sync_map = EIO;
    uint8_t payload[512];
    vev_status status = VEV_OK;
    for (uint64_t n = 1010; !status && n < 9000; n++)
        status = vev_log_append(log, VEV_EVENTS, payload, make_payload(payload, n), NULL);
    CHECK(status == EIO); /* it was for the ledger: nothing else is synced here */
    append_numbers(log, VEV_EVENTS, 0, 10);
    CHECK(vev_log_sync(log, NULL) == EIO);
    vev_stats stats = stats_of(log, VEV_EVENTS);
    CHECK(stats.durable_seq == 1000 && stats.degraded == EIO);
    vev_log_close(log);
}

static void append_laps(vev_ring *ring, uint64_t count)
{
    uint64_t until = (atomic_load(&ring->live->active) >> 10) + count;
    uint8_t payload[2000] = {0};
    while (atomic_load(&ring->live->active) >> 10 < until) {
        vev_entry entry = {0};
        OK(vev_ring_append(ring, payload, sizeof payload, &entry));
    }
}

/* One ledger counts several segments out, laps are written to them, and that ledger is lost. The
 * one before it does not say that they are reused: the new laps count, wherever the search for them
 * begins. */
static void newest_laps_behind_a_lost_ledger(void)
{
    for (uint64_t start = 0; start < 15; start++) {
        const char *dir = fresh_dir();
        CHECK(mkdir(dir, 0700) == 0);
        vev_ring *ring = open_ring(dir);
        CHECK(ring->file.geometry.segment_count == 15);
        append_laps(ring, 14);
        atomic_store(&ring->laps_ahead, 4);
        vev_ledger before, ledger;
        CHECK(vev_ledger_latest(ring->region, ring->file.uuid, &before));
        append_laps(ring, 4);
        CHECK(vev_ledger_latest(ring->region, ring->file.uuid, &ledger));
        CHECK(ledger.version == before.version + 1);
        CHECK(ledger.floor_generation == before.floor_generation + 5);
        vev_stats made, stats;
        OK(vev_ring_stats(ring, &made));
        vev_ring_close(ring);
        static const uint8_t junk[64] = {1};
        overwrite(dir, VEV_AT_LEDGER + ledger.version % 2 * VEV_HEADER_BLOCK, junk, sizeof junk);
        overwrite(dir, VEV_AT_LIVE + offsetof(vev_live, active), &start, sizeof start);
        ring = open_ring(dir);
        OK(vev_ring_stats(ring, &stats));
        CHECK(stats.appended == made.appended);
        append_laps(ring, 20);
        OK(vev_ring_stats(ring, &stats));
        check_conserved(&stats);
        vev_ring_close(ring);
    }
}

/* Whoever counted segments out died before it said so in the live area. They are used all the same,
 * and no others are counted out for them. */
static void counted_out_by_who_died(void)
{
    const char *dir = fresh_dir();
    CHECK(mkdir(dir, 0700) == 0);
    vev_ring *ring = open_ring(dir);
    append_laps(ring, 14);
    atomic_store(&ring->laps_ahead, 4);
    append_laps(ring, 1);
    vev_ledger before, ledger;
    CHECK(vev_ledger_latest(ring->region, ring->file.uuid, &before));
    uint32_t left = 0;
    for (uint32_t s = 0; s < ring->file.geometry.segment_count; s++) {
        uint64_t generation = atomic_load(&ring->live->generations[s]);
        left += (generation & VEV_GENERATION_RECLAIMED) != 0;
        atomic_store(&ring->live->generations[s], generation & ~VEV_GENERATION_RECLAIMED);
    }
    CHECK(left == 4);
    append_laps(ring, left);
    CHECK(vev_ledger_latest(ring->region, ring->file.uuid, &ledger));
    CHECK(ledger.version == before.version);
    append_laps(ring, 1);
    CHECK(vev_ledger_latest(ring->region, ring->file.uuid, &ledger));
    CHECK(ledger.version == before.version + 1);
    vev_stats stats;
    OK(vev_ring_stats(ring, &stats));
    check_conserved(&stats);
    vev_ring_close(ring);
}

static uint32_t count_counted_out(const vev_ring *ring)
{
    uint32_t count = 0;
    for (uint32_t s = 0; s < ring->file.geometry.segment_count; s++)
        count += (atomic_load(&ring->live->generations[s]) & VEV_GENERATION_RECLAIMED) != 0;
    return count;
}

static vev_ring *rival;

/* The other one had the lock first. */
static vev_status lock_behind_a_rival(void *ctx, int fd, uint64_t offset, int kind)
{
    vev_ring *first = rival;
    if (first && offset == VEV_LOCK_RECLAIM && kind == VEV_LOCK_EXCLUSIVE) {
        rival = NULL;
        append_laps(first, 1);
    }
    return vev_io_posix.lock(ctx, fd, offset, kind);
}

/* Two processes find at the same time that too few segments are free: only one counts some out. */
static void counted_out_by_a_rival(void)
{
    const char *dir = fresh_dir();
    CHECK(mkdir(dir, 0700) == 0);
    vev_io io = vev_io_posix;
    io.lock = lock_behind_a_rival;
    vev_ring *ring = open_ring_on(&io, dir);
    append_laps(ring, 14);
    vev_ring *other = open_ring(dir);
    atomic_store(&ring->laps_ahead, 2);
    atomic_store(&other->laps_ahead, 2);
    vev_ledger before, ledger;
    CHECK(vev_ledger_latest(ring->region, ring->file.uuid, &before));
    rival = other;
    vev_ring_reclaim_ahead(ring);
    CHECK(rival == NULL && count_counted_out(ring) == 2);
    CHECK(vev_ledger_latest(ring->region, ring->file.uuid, &ledger));
    CHECK(ledger.floor_generation == before.floor_generation + 3);
    vev_ring_close(other);
    vev_ring_close(ring);
}

static _Atomic bool in_ledger;

static vev_status slow_sync_map(void *ctx, uint8_t *start, size_t size)
{
    atomic_store(&in_ledger, true);
    usleep(200000);
    return vev_io_posix.sync_map(ctx, start, size);
}

static void *reclaim_ahead(void *ring)
{
    vev_ring_reclaim_ahead(ring);
    return NULL;
}

/* An append that needs a segment while the helper counts some out waits for those, and takes no
 * more. */
static void append_beside_a_helper_that_reclaims(void)
{
    const char *dir = fresh_dir();
    CHECK(mkdir(dir, 0700) == 0);
    vev_io io = vev_io_posix;
    io.sync_map = slow_sync_map;
    vev_ring *ring = open_ring_on(&io, dir);
    append_laps(ring, 14);
    atomic_store(&ring->laps_ahead, 2);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, reclaim_ahead, ring) == 0);
    while (!atomic_load(&in_ledger))
        usleep(100);
    append_laps(ring, 1);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(count_counted_out(ring) == 1);
    vev_stats stats;
    OK(vev_ring_stats(ring, &stats));
    check_conserved(&stats);
    vev_ring_close(ring);
}

static void read_through(vev_ring *ring)
{
    static vev_record records[200];
    static uint8_t buffer[1 << 18];
    uint64_t next = 0;
    size_t count;
    do {
        OK(vev_ring_read(ring, next, 15, records, 200, buffer, sizeof buffer, &count, &next));
    } while (count > 0);
}

/* Two damaged segments that one ledger counts out: each is kept by itself, behind a ledger of all
 * that came before. The other one, which its head names, is not in the same file. */
static void damaged_segments_of_one_ledger(void)
{
    const char *dir = fresh_dir();
    CHECK(mkdir(dir, 0700) == 0);
    vev_ring *ring = open_ring(dir);
    append_laps(ring, 14);
    uint8_t junk[600];
    memset(junk, 0xa5, sizeof junk);
    const vev_geometry *geometry = &ring->file.geometry;
    for (uint32_t s = 0; s < 2; s++)
        overwrite(dir, vev_segment_offset(geometry, s) + geometry->segment_size / 2, junk,
                  sizeof junk);
    read_through(ring);
    vev_stats stats;
    OK(vev_ring_stats(ring, &stats));
    CHECK(stats.lost == 2);
    uint64_t begins[3];
    for (int i = 0; i < 3; i++)
        begins[i] = ring->listed[i].head.base_seq;
    atomic_store(&ring->laps_ahead, 4);
    append_laps(ring, 1);
    for (int i = 0; i < 2; i++) {
        static vev_pool pool;
        vev_ring_options options = {.readonly = true, .level = VEV_LEVEL_RAW};
        char path[200];
        snprintf(path, sizeof path, "%s/events.ring.damaged-%d", dir, i + 1);
        vev_ring *kept;
        OK(vev_ring_open(&vev_io_posix, path, &options, &pool, &kept));
        OK(vev_ring_stats(kept, &stats));
        check_conserved(&stats);
        CHECK(stats.first_seq == begins[i] && stats.last_seq == begins[i + 1] - 1);
        CHECK(stats.pending == begins[i + 1] - begins[i] - 1 && stats.lost == (uint64_t)i + 1);
        vev_ring_close(kept);
    }
    vev_ring_close(ring);
}

/* Only so many damaged segments are kept, and what is there already is left as it is. */
static void damaged_segments_are_few(void)
{
    const char *dir = fresh_dir();
    vev_stats made = make_log(dir, 700);
    char path[200];
    for (int n = 1; n <= VEV_ASIDE_MAX; n++) {
        snprintf(path, sizeof path, "%s/events.ring.damaged-%d", dir, n);
        FILE *file = fopen(path, "w");
        CHECK(file && fputs("kept", file) >= 0 && fclose(file) == 0);
    }
    uint8_t junk[600];
    memset(junk, 0xa5, sizeof junk);
    overwrite(dir, VEV_HEADER_REGION + made.segment_size / 2, junk, sizeof junk);
    vev_options options = quiet();
    vev_log *log = open_log(dir, &options);
    uint64_t first, last;
    CHECK(read_all(log, VEV_EVENTS, 1, &first, &last) < 700);
    append_numbers(log, VEV_EVENTS, 700, 6000);
    CHECK(stats_of(log, VEV_EVENTS).first_seq > 700);
    vev_log_close(log);
    for (int n = 1; n <= VEV_ASIDE_MAX + 1; n++) {
        snprintf(path, sizeof path, "%s/events.ring.damaged-%d", dir, n);
        struct stat info;
        CHECK((stat(path, &info) == 0) == (n <= VEV_ASIDE_MAX));
        CHECK(n > VEV_ASIDE_MAX || info.st_size == 4);
    }
}

static int rooms_left;

static vev_status allocate_some(void *ctx, int fd, uint64_t size)
{
    return rooms_left-- > 0 ? vev_io_posix.allocate(ctx, fd, size) : ENOSPC;
}

static bool has_file(const char *dir, const char *what)
{
    char command[200];
    snprintf(command, sizeof command, "ls -A %s | grep -q '%s'", dir, what);
    return system(command) == 0;
}

/* Where there is no room for all three rings, those that were made are gone again, and those that
 * were there are not. */
static void three_rings_or_none(void)
{
    vev_io io = vev_io_posix;
    io.allocate = allocate_some;
    vev_options options = quiet();
    for (int room = 0; room < 3; room++) {
        const char *dir = fresh_dir();
        vev_log *log;
        rooms_left = room;
        CHECK(vev__log_open(&io, dir, &options, &log) == ENOSPC && log == NULL);
        CHECK(!has_file(dir, "ring"));
        rooms_left = 3;
        OK(vev__log_open(&io, dir, &options, &log));
        append_numbers(log, VEV_EVENTS, 0, 10);
        vev_log_close(log);

        char path[160];
        snprintf(path, sizeof path, "%s/delivery.ring", dir);
        CHECK(unlink(path) == 0);
        rooms_left = 0;
        CHECK(vev__log_open(&io, dir, &options, &log) == ENOSPC && log == NULL);
        CHECK(has_file(dir, "^events.ring$") && has_file(dir, "^media.ring$"));
        CHECK(!has_file(dir, "delivery"));
        log = open_log(dir, &options);
        CHECK(stats_of(log, VEV_EVENTS).pending == 10);
        vev_log_close(log);
    }
}

/* A ledger that cannot be synced for a while: the damaged segment is kept once, not at every
 * try. */
static void damaged_segment_is_kept_once(void)
{
    const char *dir = fresh_dir();
    vev_stats made = make_log(dir, 700);
    uint8_t junk[600];
    memset(junk, 0xa5, sizeof junk);
    overwrite(dir, VEV_HEADER_REGION + made.segment_size / 2, junk, sizeof junk);
    vev_log *log = open_failing(dir);
    uint64_t first, last, found = read_all(log, VEV_EVENTS, 1, &first, &last);
    CHECK(found < 700);
    fail.sync_map = EIO;
    uint8_t payload[512];
    int failures = 0;
    for (uint64_t n = 0; failures < 5 && n < 9000; n++)
        failures += vev_log_append(log, VEV_EVENTS, payload, make_payload(payload, n), NULL) == EIO;
    CHECK(failures == 5);
    CHECK(is_there(dir, "events.ring.damaged-1") && !is_there(dir, "events.ring.damaged-2"));
    fail.sync_map = 0;
    append_numbers(log, VEV_EVENTS, 0, 100);
    CHECK(stats_of(log, VEV_EVENTS).lost == 700 - found);
    vev_log_close(log);
}

/* An urgent append that fails before it is stored says so by its number. */
static void urgent_append_without_room(void)
{
    vev_log *log = open_failing(fresh_dir());
    fail.wipe = ENOSPC;
    uint8_t payload[512];
    uint64_t stored = 0;
    vev_entry entry;
    vev_status status;
    do {
        entry = (vev_entry){.flags = VEV_APPEND_SYNC, .seq = 77};
        status = vev_log_append(log, VEV_EVENTS, payload, make_payload(payload, stored), &entry);
        stored += !status;
    } while (!status && stored < 9000);
    CHECK(status == ENOSPC && entry.seq == 0);
    CHECK(stats_of(log, VEV_EVENTS).appended == stored);
    vev_log_close(log);
}

/* A disk that can be read, but takes nothing, costs no more than the one segment that was to make
 * room. */
static void disk_that_takes_nothing(void)
{
    vev_log *log = open_failing(fresh_dir());
    uint8_t payload[512];
    uint64_t n = 0;
    while (stats_of(log, VEV_EVENTS).evicted == 0) {
        OK(vev_log_append(log, VEV_EVENTS, payload, make_payload(payload, n), NULL));
        n++;
    }
    vev_stats before = stats_of(log, VEV_EVENTS);
    uint64_t in_segment = before.first_seq - 1;
    CHECK(before.max_payload < 65536);
    fail.wipe = EIO;
    static const uint8_t large[65536]; /* its max_payload needs a segment of its own */
    int failures = 0, tries = 3000;
    for (int i = 0; i < tries; i++) {
        vev_entry entry = {.flags = VEV_APPEND_RAW};
        failures +=
            vev_log_append(log, VEV_EVENTS, large, i % 2 ? before.max_payload : 300, &entry) == EIO;
    }
    vev_stats stats = stats_of(log, VEV_EVENTS);
    CHECK(failures > 1000 && stats.evicted <= before.evicted + 2 * in_segment);
    CHECK(stats.appended == before.appended + (uint64_t)(tries - failures));
    fail.wipe = 0;
    append_numbers(log, VEV_EVENTS, 0, 3000);
    CHECK(stats_of(log, VEV_EVENTS).appended == stats.appended + 3000);
    vev_log_close(log);
}

/* A place that cannot be cleared costs the rest of its segment, and no record. */
static struct {
    uint64_t segment_size;
    uint64_t from; /* places in a segment */
    uint64_t only; /* the segment; UINT64_MAX: any */
} bad_places;

static vev_status write_but_there(void *ctx, int fd, uint64_t offset, const void *data, size_t size)
{
    if (fd == fail.fd && offset >= VEV_HEADER_REGION && bad_places.segment_size > 0) {
        uint64_t at = offset - VEV_HEADER_REGION, segment = at / bad_places.segment_size;
        if (at % bad_places.segment_size + size > bad_places.from &&
            (bad_places.only == UINT64_MAX || bad_places.only == segment))
            return EIO;
    }
    return vev_io_posix.write(ctx, fd, offset, data, size);
}

static const vev_io *bad_places_io(uint64_t only)
{
    static vev_io io;
    io = *failing_io();
    io.write = write_but_there;
    memset(&bad_places, 0, sizeof bad_places);
    bad_places.from = 40960; /* behind the front */
    bad_places.only = only;
    return &io;
}

static vev_log *open_with_bad_places(uint64_t only)
{
    vev_options options = quiet();
    vev_log *log;
    OK(vev__log_open(bad_places_io(only), fresh_dir(), &options, &log));
    bad_places.segment_size = stats_of(log, VEV_EVENTS).segment_size;
    return log;
}

static void place_that_cannot_be_cleared(void)
{
    vev_log *log = open_with_bad_places(1);
    append_numbers(log, VEV_EVENTS, 0, 9000);
    vev_stats stats = stats_of(log, VEV_EVENTS);
    CHECK(stats.appended == 9000 && stats.lost == 0 && stats.evicted > 0);
    vev_log_close(log);
}

/* The same, where the helper meets that place again and again, or appends at speed, who clear in
 * time. */
static void place_that_is_met_again(void)
{
    for (int at_speed = 0; at_speed < 2; at_speed++) {
        const char *dir = fresh_dir();
        CHECK(mkdir(dir, 0700) == 0);
        vev_ring *ring = open_ring_on(bad_places_io(1), dir);
        bad_places.segment_size = ring->file.geometry.segment_size;
        vev_ring_set_speed(ring, at_speed == 1);
        vev_watch seen;
        uint64_t now_ns = 1;
        vev_ring_watch(ring, &seen, now_ns);
        static const uint8_t payload[300];
        for (int n = 0; n < 3000; n++) {
            vev_entry entry = {0};
            OK(vev_ring_append(ring, payload, sizeof payload, &entry));
            now_ns += 10000000;
            if (!at_speed)
                (void)vev_ring_keep(ring, &seen, now_ns);
        }
        vev_stats stats;
        OK(vev_ring_stats(ring, &stats));
        CHECK(stats.appended == 3000 && stats.lost == 0);
        check_conserved(&stats);
        vev_ring_close(ring);
    }
}

/* Where all segments can be begun and none can be filled, appends fail before the backlog is
 * gone. */
static void segments_that_cannot_be_filled(void)
{
    vev_log *log = open_with_bad_places(UINT64_MAX);
    uint8_t payload[512];
    int failures = 0;
    for (uint64_t n = 0; n < 30000; n++)
        failures += vev_log_append(log, VEV_EVENTS, payload, make_payload(payload, n), NULL) == EIO;
    vev_stats stats = stats_of(log, VEV_EVENTS);
    CHECK(failures > 10000 && stats.appended == 30000 - (uint64_t)failures);
    CHECK(stats.evicted == 0 && stats.pending == stats.appended);
    vev_log_close(log);
}

static vev_log *shared_log;
static vev_status urgent_status;
static vev_entry urgent;

static void *sync_shared(void *argument)
{
    OK(vev_log_sync(shared_log, NULL));
    return argument;
}

static void *append_urgently(void *argument)
{
    uint8_t payload[512];
    urgent = (vev_entry){.flags = VEV_APPEND_SYNC};
    urgent_status =
        vev_log_append(shared_log, VEV_EVENTS, payload, make_payload(payload, 1), &urgent);
    return argument;
}

/* One that is stored and cannot be synced, since somebody is stopped amid a change of segments, is
 * not told that nothing is stored. */
static void urgent_append_that_is_stored(void)
{
    const char *dir = fresh_dir();
    shared_log = open_failing(dir);
    int fd = fail.fd;
    vev_options options = quiet();
    vev_log *other = open_log(dir, &options);
    fail.fd = fd;
    append_numbers(shared_log, VEV_EVENTS, 0, 10);
    atomic_store(&fail.hold_sync, true);
    pthread_t threads[2];
    CHECK(pthread_create(&threads[0], NULL, sync_shared, NULL) == 0);
    while (!atomic_load(&fail.in_sync))
        usleep(100);
    CHECK(pthread_create(&threads[1], NULL, append_urgently, NULL) == 0);
    while (stats_of(shared_log, VEV_EVENTS).appended < 11)
        usleep(100);
    append_numbers(other, VEV_EVENTS, 11, 611); /* into the next segment */
    fail.roll_lock = VEV_E_BUSY;
    atomic_store(&fail.hold_sync, false);
    CHECK(pthread_join(threads[0], NULL) == 0 && pthread_join(threads[1], NULL) == 0);
    CHECK(urgent_status == EBUSY && urgent.seq == 11);
    fail.roll_lock = 0;
    vev_log_close(other);
    vev_log_close(shared_log);
}

/* ---- others at the same time ---- */

static struct {
    pid_t child;
    int go;
    bool armed;
} writer;

static bool commit_before_the_answer(void *ctx, int fd, uint64_t offset)
{
    if (writer.armed) {
        writer.armed = false;
        char byte = 0;
        CHECK(write(writer.go, &byte, 1) == 1);
        wait_for(writer.child);
    }
    return vev_io_posix.is_locked(ctx, fd, offset);
}

/* A writer commits and ends between a reader's look at the record and its question whether the
 * writer lives: the record is there. */
static void writer_that_ends_while_looked_at(void)
{
    const char *dir = fresh_dir();
    CHECK(mkdir(dir, 0700) == 0);
    vev_io io = vev_io_posix;
    io.is_locked = commit_before_the_answer;
    vev_ring *ring = open_ring_on(&io, dir);
    uint8_t payload[512] = {0};
    vev_entry entry = {0};
    for (int i = 0; i < 3; i++)
        OK(vev_ring_append(ring, payload, 64, &entry));
    int reserved[2], go[2];
    CHECK(pipe(reserved) == 0 && pipe(go) == 0);
    writer.child = fork();
    if (writer.child == 0) {
        char byte = 0;
        uint32_t offset, index;
        vev_ring *own = open_ring(dir);
        _Atomic uint64_t *word = reserve_only(own, &offset, &index);
        CHECK(write(reserved[1], &byte, 1) == 1 && read(go[0], &byte, 1) == 1);
        vev_span *span = atomic_load(&own->current);
        vev_header header = {.seq = span->lap.base_seq + index, .stored_size = 64, .raw_size = 64};
        atomic_store(word,
                     vev_record_write(span->data + offset, &span->lap, offset, &header, payload));
        _exit(0);
    }
    char byte;
    CHECK(read(reserved[0], &byte, 1) == 1);
    for (int i = 0; i < 2; i++)
        OK(vev_ring_append(ring, payload, 64, &entry));
    CHECK(entry.seq == 6);
    writer.go = go[1];
    writer.armed = true;
    vev_record records[20];
    uint8_t buffer[8192];
    size_t count;
    uint64_t next;
    OK(vev_ring_read(ring, 0, 1, records, 20, buffer, sizeof buffer, &count, &next));
    CHECK(!writer.armed && count == 6);
    vev_stats stats;
    OK(vev_ring_stats(ring, &stats));
    CHECK(stats.pending == 6 && stats.lost == 0);
    vev_ring_close(ring);
    for (int i = 0; i < 2; i++) {
        close(reserved[i]);
        close(go[i]);
    }
}

static struct {
    _Atomic bool held, let_go, timed_out;
} reader;
static _Thread_local bool is_reader;

/* The reader's disk answers when the test lets it, or after 5 s so that a failure is told. */
static vev_status slow_read(void *ctx, int fd, uint64_t offset, void *buffer, size_t size)
{
    if (is_reader) {
        atomic_store(&reader.held, true);
        int turn = 0;
        while (!atomic_load(&reader.let_go) && ++turn < 50000)
            usleep(100);
        if (turn == 50000) {
            atomic_store(&reader.timed_out, true);
            atomic_store(&reader.let_go, true);
        }
    }
    return vev_io_posix.read(ctx, fd, offset, buffer, size);
}

static void *verify_shared(void *argument)
{
    is_reader = true;
    size_t count;
    uint64_t checked;
    OK(vev_log_verify(shared_log, VEV_EVENTS, NULL, 0, &count, &checked));
    return argument;
}

/* A reader on a slow disk does not hold up appends, not even those that need its segments. */
static void appends_beside_a_slow_reader(void)
{
    vev_io io = vev_io_posix;
    io.read = slow_read;
    vev_options options = quiet();
    OK(vev__log_open(&io, fresh_dir(), &options, &shared_log));
    append_numbers(shared_log, VEV_EVENTS, 0, 5000);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, verify_shared, NULL) == 0);
    while (!atomic_load(&reader.held))
        usleep(100);
    append_numbers(shared_log, VEV_EVENTS, 5000, 11000); /* more than a lap */
    atomic_store(&reader.let_go, true);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(!atomic_load(&reader.timed_out));
    CHECK(stats_of(shared_log, VEV_EVENTS).appended == 11000);
    vev_log_close(shared_log);
}

static vev_ring *shared_ring;
static _Atomic bool appended;

static void *append_one(void *argument)
{
    uint8_t payload[512];
    vev_entry entry = {0};
    OK(vev_ring_append(shared_ring, payload, make_payload(payload, 1), &entry));
    atomic_store(&appended, true);
    return argument;
}

/* An append that meets a segment just being retired waits for its successor; a claim of no lap at
 * all would have let it write unprotected, and taken the protection of others away. */
static void append_beside_a_retirement(void)
{
    const char *dir = fresh_dir();
    CHECK(mkdir(dir, 0700) == 0);
    shared_ring = open_ring(dir);
    vev_span *span = atomic_load(&shared_ring->current);
    uint64_t generation = atomic_exchange(&span->generation, 0);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, append_one, NULL) == 0);
    for (int i = 0; i < 50 && !atomic_load(&appended); i++)
        usleep(1000);
    CHECK(!atomic_load(&appended));
    atomic_store(&span->generation, generation);
    CHECK(pthread_join(thread, NULL) == 0);
    vev_ring_close(shared_ring);
}

static struct {
    _Atomic bool opening;
    _Atomic pid_t child;
    int hold[2];
} forked;

static vev_status slow_allocate(void *ctx, int fd, uint64_t size)
{
    /* The other thread forks now, if it can. */
    for (int i = 0; i < 100 && !atomic_load(&forked.child); i++) {
        atomic_store(&forked.opening, true);
        usleep(500);
    }
    return vev_io_posix.allocate(ctx, fd, size);
}

static void *fork_meanwhile(void *argument)
{
    while (!atomic_load(&forked.opening))
        usleep(100);
    pid_t child = fork();
    if (child == 0) {
        char byte;
        close(forked.hold[1]);
        CHECK(read(forked.hold[0], &byte, 1) == 0); /* as long as the parent likes */
        _exit(0);
    }
    atomic_store(&forked.child, child);
    return argument;
}

/* A child forked by another thread while a log is being opened does not keep the log's locks. */
static void fork_while_opening(void)
{
    const char *dir = fresh_dir();
    CHECK(pipe(forked.hold) == 0);
    vev_io io = vev_io_posix;
    io.allocate = slow_allocate;
    vev_options options = quiet();
    pthread_t thread;
    vev_log *log;
    CHECK(pthread_create(&thread, NULL, fork_meanwhile, NULL) == 0);
    OK(vev__log_open(&io, dir, &options, &log));
    CHECK(pthread_join(thread, NULL) == 0 && atomic_load(&forked.child) > 0);
    int fd;
    OK(vev_io_lock_dir(&io, dir, 50, &fd));
    io.close(io.ctx, fd);
    close(forked.hold[1]);
    wait_for(forked.child);
    close(forked.hold[0]);
    vev_log_close(log);
}

int main(void)
{
    vev__give_up_ns = 0;
    begin_tests("disks");
    RUN(large_frames_behind_damage);
    RUN(cut_short_without_fallocate);
    RUN(damaged_head);
    RUN(damaged_head_beside_others);
#ifndef __SANITIZE_THREAD__
    RUN(tail_goes_bad_while_mapped);
    RUN(state_map_goes_bad_while_mapped);
    RUN(marks_beside_a_bad_state_map);
    RUN(read_only_with_a_bad_header);
    RUN(bad_live_area_beside_others);
    RUN(bad_newest_segment_beside_others);
    RUN(no_room_to_go_on_in);
#endif
    RUN(no_room_to_mend);
    RUN(failed_sync_of_the_ledger);
    RUN(newest_laps_behind_a_lost_ledger);
    RUN(counted_out_by_who_died);
    RUN(counted_out_by_a_rival);
    RUN(append_beside_a_helper_that_reclaims);
    RUN(damaged_segments_of_one_ledger);
    RUN(three_rings_or_none);
    RUN(damaged_segments_are_few);
    RUN(damaged_segment_is_kept_once);
    RUN(urgent_append_without_room);
    RUN(disk_that_takes_nothing);
    RUN(place_that_cannot_be_cleared);
    RUN(place_that_is_met_again);
    RUN(segments_that_cannot_be_filled);
    RUN(urgent_append_that_is_stored);
    RUN(writer_that_ends_while_looked_at);
    RUN(appends_beside_a_slow_reader);
    RUN(append_beside_a_retirement);
    RUN(fork_while_opening);
    end_tests();
    return 0;
}
