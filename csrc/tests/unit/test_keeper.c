/* What the helper thread takes off the path of an append, asked for by hand: no thread but in the
 * last case. */
#include "fault_case.h"
#include "vev_clock.h"
#include "vev_guard.h"

/* What the ring asked the disk for, and what it had touched last. */
static struct {
    unsigned maps, fronts, syncs; /* fronts: of segments, cleared */
    uint64_t written;
    uint64_t written_in[64]; /* by segment */
    uint8_t *touched[64];
    size_t touched_sizes[64];
    unsigned touches;
} asked;

static unsigned sync_ms; /* how long the disk takes to sync a few pages */

static vev_status count_map(void *ctx, int fd, uint64_t offset, size_t size, bool writable,
                            uint8_t **base_out)
{
    asked.maps++;
    return vev_io_posix.map(ctx, fd, offset, size, writable, base_out);
}

static uint32_t segment_size;

static vev_status count_write(void *ctx, int fd, uint64_t offset, const void *data, size_t size)
{
    if (segment_size > 0 && offset >= VEV_HEADER_REGION) {
        uint64_t segment = (offset - VEV_HEADER_REGION) / segment_size;
        CHECK(segment < 64);
        asked.fronts += (offset - VEV_HEADER_REGION) % segment_size == 0;
        asked.written_in[segment] += size;
    }
    asked.written += size;
    return vev_io_posix.write(ctx, fd, offset, data, size);
}

static vev_status count_sync(void *ctx, int fd)
{
    asked.syncs++;
    return vev_io_posix.sync(ctx, fd);
}

static vev_status count_sync_map(void *ctx, uint8_t *start, size_t size)
{
    (void)ctx;
    (void)start;
    (void)size;
    asked.syncs++;
    struct timespec pause = {.tv_nsec = (long)sync_ms * 1000000};
    nanosleep(&pause, NULL);
    return VEV_OK;
}

static void count_touch(void *ctx, uint8_t *start, size_t size)
{
    asked.touched[asked.touches % 64] = start;
    asked.touched_sizes[asked.touches++ % 64] = size;
    vev_io_posix.touch(ctx, start, size);
}

static bool was_touched(const void *address)
{
    for (unsigned i = 0; i < VEV_MIN(asked.touches, 64u); i++) {
        uint8_t *start = asked.touched[i];
        if ((const uint8_t *)address >= start &&
            (const uint8_t *)address < start + asked.touched_sizes[i])
            return true;
    }
    return false;
}

static vev_io counting_io(void)
{
    vev_io io = vev_io_posix;
    io.map = count_map;
    io.write = count_write;
    io.sync = count_sync;
    io.sync_map = count_sync_map;
    io.touch = count_touch;
    return io;
}

static vev_ring *open_counted(void)
{
    static vev_io io;
    io = counting_io();
    const char *dir = fresh_dir();
    CHECK(mkdir(dir, 0700) == 0);
    segment_size = 0;
    vev_ring *ring = open_ring_on(&io, dir);
    segment_size = ring->file.geometry.segment_size;
    memset(&asked, 0, sizeof asked);
    return ring;
}

/* The same ring once more, as another process would open it. */
static vev_ring *open_beside(const vev_ring *ring)
{
    char dir[160];
    snprintf(dir, sizeof dir, "%.*s", (int)(strlen(ring->path) - strlen("/events.ring")),
             ring->path);
    return open_ring(dir);
}

/* A look some time after the last one. The time is the tests' own. */
static uint64_t now_ns;

static void watch(vev_ring *ring, vev_watch *seen) { vev_ring_watch(ring, seen, now_ns); }

static vev_pace keep_after(vev_ring *ring, vev_watch *seen, uint64_t ms)
{
    now_ns += ms * 1000000;
    vev_pace pace = vev_ring_keep(ring, seen, now_ns);
    vev_ring_reclaim_ahead(ring); /* a thread of its own does */
    return pace;
}

static uint64_t generation_of(const vev_ring *ring)
{
    return atomic_load(&atomic_load(&ring->current)->generation);
}

static uint32_t tail_of(const vev_ring *ring)
{
    return (uint32_t)atomic_load(&atomic_load(&ring->current)->tail) * 8u;
}

static void append(vev_ring *ring, size_t size)
{
    static uint8_t payload[16384];
    vev_entry entry = {0};
    OK(vev_ring_append(ring, payload, size, &entry));
}

/* Until the next segment is ready, with a look `ms` after each append. */
static void append_until_ready(vev_ring *ring, vev_watch *seen, size_t size, uint64_t ms)
{
    while (atomic_load(&ring->ready_for) == 0) {
        append(ring, size);
        (void)keep_after(ring, seen, ms);
    }
}

/* With a look now and then, an append that goes on to the next segment asks the disk for nothing,
 * also when that segment had to be reclaimed. */
static void rolls_are_made_ready(void)
{
    vev_ring *ring = open_counted();
    vev_watch seen;
    watch(ring, &seen);
    append(ring, 300);
    (void)keep_after(ring, &seen, 10);
    for (int roll = 0; roll < 60; roll++) {
        uint64_t generation = generation_of(ring);
        for (unsigned n = 0; generation_of(ring) == generation; n++) {
            if (n % 16 == 0)
                CHECK(keep_after(ring, &seen, 10) != VEV_PACE_IDLE || n == 0);
            memset(&asked, 0, sizeof asked);
            append(ring, 300);
            CHECK(asked.maps == 0 && asked.written == 0 && asked.syncs == 0);
        }
    }
    vev_stats stats;
    OK(vev_ring_stats(ring, &stats));
    CHECK(stats.evicted > 0);
    check_conserved(&stats);
    vev_ring_close(ring);
}

/* Another process went on first: what was mapped for it is used, or given back, and never leaks. */
static void ready_beside_another_process(void)
{
    vev_ring *ring = open_counted();
    vev_watch seen;
    watch(ring, &seen);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) { /* a second open in one process would do, but locks are seen as another's */
        vev_ring *other = open_beside(ring);
        for (int i = 0; i < 3000; i++) {
            append(other, 300);
            if (i % 7 == 0)
                usleep(100);
        }
        _exit(0);
    }
    for (int i = 0; i < 3000; i++) {
        if (i % 16 == 0)
            (void)keep_after(ring, &seen, 10);
        append(ring, 300);
        if (i % 5 == 0)
            usleep(100);
    }
    wait_for(child);
    unsigned mapped = 0;
    for (int s = 0; s < VEV_SPAN_COUNT; s++)
        mapped += ring->spans[s].base != NULL;
    CHECK(mapped < VEV_SPAN_COUNT);
    vev_stats stats;
    OK(vev_ring_stats(ring, &stats));
    CHECK(stats.appended == 6000);
    check_conserved(&stats);
    vev_ring_close(ring);
}

/* Page faults are taken ahead of the tail: far for a fast ring, and for a slow one hardly, since a
 * page that is touched may be written to the disk for nothing. */
static void touches_ahead(void)
{
    vev_ring *ring = open_counted();
    vev_watch seen;
    watch(ring, &seen);
    const vev_span *span = atomic_load(&ring->current);
    append(ring, 100);
    CHECK(keep_after(ring, &seen, 10) == VEV_PACE_MOVING);
    CHECK(was_touched(span->data + tail_of(ring)));
    CHECK(atomic_load(&span->touched) <= tail_of(ring) + 4096);
    CHECK(keep_after(ring, &seen, 10) == VEV_PACE_IDLE);
    append(ring, 8000);
    CHECK(keep_after(ring, &seen, 10) >= VEV_PACE_FAST);
    CHECK(was_touched(span->data + tail_of(ring) + 31000));
    CHECK(atomic_load(&span->touched) >= tail_of(ring) + 4 * 8000);
    vev_ring_close(ring);
}

/* A sync leaves the pages that it wrote protected; those of the next append are touched again. */
static void rewarms_after_a_sync(void)
{
    vev_ring *ring = open_counted();
    append(ring, 100);
    OK(vev_ring_sync(ring, 0));
    memset(&asked, 0, sizeof asked);
    vev_ring_rewarm(ring);
    CHECK(was_touched(atomic_load(&ring->current)->data + tail_of(ring)));
    CHECK(was_touched(&ring->live->slots[ring->slot].cells[0]));
    vev_ring_close(ring);
}

/* A ring that is full of what nobody has fetched yet, and the first segment of it that is to go. */
static vev_ring *open_full(vev_watch *seen)
{
    vev_ring *ring = open_counted();
    vev_stats stats;
    do {
        append(ring, 8000);
        OK(vev_ring_stats(ring, &stats));
    } while (stats.evicted == 0 || tail_of(ring) > 9000);
    watch(ring, seen);
    return ring;
}

static void come_to_speed(vev_ring *ring, vev_watch *seen)
{
    for (uint64_t until = generation_of(ring) + 4; generation_of(ring) < until;) {
        append(ring, 8000);
        (void)keep_after(ring, seen, 1);
    }
}

static uint64_t evicted_from(vev_ring *ring)
{
    vev_stats stats;
    OK(vev_ring_stats(ring, &stats));
    return stats.evicted;
}

/* A slow log drops nothing before its segment is half full, and touches hardly ahead, however large
 * its records are. */
static void slow_log_keeps_what_it_has(void)
{
    vev_watch seen;
    vev_ring *ring = open_full(&seen);
    uint64_t evicted = evicted_from(ring);
    while (tail_of(ring) < ring->file.geometry.data_size / 2 - 9000) {
        append(ring, 8000);
        CHECK(keep_after(ring, &seen, 2000) == VEV_PACE_MOVING);
        CHECK(atomic_load(&atomic_load(&ring->current)->touched) <= tail_of(ring) + 4096);
        CHECK(keep_after(ring, &seen, 10) == VEV_PACE_IDLE);
        CHECK(evicted_from(ring) == evicted);
    }
    append(ring, 9000);
    append(ring, 8000);
    (void)keep_after(ring, &seen, 2000);
    CHECK(evicted_from(ring) > evicted);
    vev_ring_close(ring);
}

/* What clearing a segment from end to end takes: its front in whole pages, and what lies behind the
 * least that a front has, since whoever cleared the front may have had smaller pages. */
static uint64_t written_for_all_of(const vev_ring *ring)
{
    const vev_geometry *geometry = &ring->file.geometry;
    uint64_t front = vev_align_up(geometry->data_offset + VEV_CLEAR_MIN, vev_io_granule());
    return VEV_MIN(front, (uint64_t)segment_size) + geometry->data_size - VEV_CLEAR_MIN;
}

/* A fast log has its next segment early, but drops nothing for it before the present one is half
 * full. */
static void fast_log_drops_nothing_early(void)
{
    vev_watch seen;
    vev_ring *ring = open_full(&seen);
    uint64_t evicted = evicted_from(ring), generation = generation_of(ring);
    memset(&asked, 0, sizeof asked);
    while (tail_of(ring) < ring->file.geometry.data_size / 2 - 9000) {
        append(ring, 8000);
        CHECK(keep_after(ring, &seen, 1) >= VEV_PACE_FAST);
        CHECK(evicted_from(ring) == evicted && asked.fronts == 0);
    }
    append(ring, 9000);
    append(ring, 8000);
    (void)keep_after(ring, &seen, 1);
    CHECK(evicted_from(ring) > evicted && asked.fronts > 0);
    vev_stats stats;
    OK(vev_ring_stats(ring, &stats));
    for (uint64_t seq = stats.first_seq; seq <= stats.last_seq; seq++) {
        size_t changed;
        OK(vev_ring_mark(ring, &seq, 1, VEV_DELIVERED, &changed));
    }
    while (generation_of(ring) == generation)
        append(ring, 8000);
    evicted = evicted_from(ring);
    memset(&asked, 0, sizeof asked);
    append(ring, 8000);
    (void)keep_after(ring, &seen, 1);
    append(ring, 8000);
    CHECK(keep_after(ring, &seen, 1) >= VEV_PACE_FAST);
    CHECK(tail_of(ring) < ring->file.geometry.data_size / 2);
    CHECK(evicted_from(ring) == evicted && asked.fronts == 1);
    CHECK(asked.written_in[atomic_load(&ring->ready_for) - 1] == written_for_all_of(ring));
    vev_ring_close(ring);
}

/* Fill the rest of a segment, with a look after every append. Returns how much of the next one was
 * cleared before its first append. */
static uint64_t fill_segment(vev_ring *ring, vev_watch *seen, uint64_t look_ms)
{
    uint64_t generation = generation_of(ring);
    memset(&asked, 0, sizeof asked);
    while (generation_of(ring) == generation) {
        append(ring, 2000);
        if (generation_of(ring) == generation)
            (void)keep_after(ring, seen, look_ms);
    }
    return asked.written_in[atomic_load(&ring->current)->segment];
}

/* The next segment is cleared from end to end when one after the other is full at once; for a
 * burst, or what is slow again, no more is written than what is about to be overwritten. */
static void all_is_cleared_only_at_speed(void)
{
    vev_ring *ring = open_counted();
    vev_watch seen;
    watch(ring, &seen);
    const uint64_t least = ring->file.geometry.data_offset + VEV_CLEAR_MIN, page = vev_io_granule();
    const uint64_t little =
        vev_align_up(least, page) + vev_align_up(least + VEV_CLEAR_MIN + 8192, page) - least;
    CHECK(little < written_for_all_of(ring) || page >= segment_size); /* one page has all of it */
    CHECK(fill_segment(ring, &seen, 50) <= little);
    CHECK(fill_segment(ring, &seen, 1) <= little);
    CHECK(fill_segment(ring, &seen, 1) == written_for_all_of(ring));
    const vev_span *span = atomic_load(&ring->current);
    (void)keep_after(ring, &seen, 1);
    CHECK(atomic_load(&span->touched) == ring->file.geometry.data_size);
    for (uint32_t at = tail_of(ring); at < ring->file.geometry.data_size; at++)
        CHECK(span->data[at] == 0);
    (void)fill_segment(ring, &seen, 1);
    CHECK(fill_segment(ring, &seen, 50) <= little);
    vev_stats stats;
    OK(vev_ring_stats(ring, &stats));
    CHECK(stats.lost == 0);
    check_conserved(&stats);
    vev_ring_close(ring);
}

/* Segments that a lap can begin in without asking the disk, the next one not counted. */
static uint32_t count_free(const vev_ring *ring)
{
    uint32_t count = 0, spare = atomic_load(&ring->live->spare);
    for (uint32_t s = 0; s < ring->file.geometry.segment_count; s++)
        count += s + 1 != spare && !vev_ring_is_living(ring, s);
    return count;
}

static void roll_without_looks(vev_ring *ring)
{
    uint64_t generation = generation_of(ring);
    while (generation_of(ring) == generation)
        append(ring, 8000);
}

/* At speed a ring has more than the next segment to go on in, so that no append waits until a
 * ledger is on the disk; but no more than a quarter of it, and none when it is slow again. */
static void segments_are_free_at_speed(void)
{
    vev_watch seen;
    vev_ring *ring = open_full(&seen);
    CHECK(fill_segment(ring, &seen, 50) > 0 && count_free(ring) == 0);
    come_to_speed(ring, &seen);
    uint32_t most = ring->file.geometry.segment_count / 4;
    CHECK(count_free(ring) == most && most > 0);
    while (tail_of(ring) < ring->file.geometry.data_size / 2) {
        append(ring, 8000);
        (void)keep_after(ring, &seen, 1);
    }
    CHECK(atomic_load(&ring->ready_for) > 0 && count_free(ring) == most);
    uint64_t evicted = evicted_from(ring);
    memset(&asked, 0, sizeof asked);
    for (uint32_t n = 0; n < 1 + most; n++)
        roll_without_looks(ring);
    CHECK(asked.syncs == 0 && evicted_from(ring) == evicted && count_free(ring) == 0);
    roll_without_looks(ring);
    CHECK(asked.syncs == 1 && count_free(ring) == most); /* several are counted out at once */
    (void)fill_segment(ring, &seen, 50);
    roll_without_looks(ring);
    (void)keep_after(ring, &seen, 50);
    CHECK(count_free(ring) == 0);
    vev_stats stats;
    OK(vev_ring_stats(ring, &stats));
    check_conserved(&stats);
    vev_ring_close(ring);
}

/* A disk that was seen to be slow is given more time, and to a log that is not at speed as well; for
 * a while. */
static void more_is_free_on_a_slow_disk(void)
{
    vev_watch seen;
    vev_ring *ring = open_full(&seen);
    uint32_t most = ring->file.geometry.segment_count / 4;
    (void)fill_segment(ring, &seen, 10);
    (void)fill_segment(ring, &seen, 10);
    CHECK(!atomic_load(&ring->at_speed) && atomic_load(&ring->laps_ahead) == 0);
    sync_ms = (unsigned)(seen.last_lap_ns / 1000000) + 1;
    CHECK(sync_ms > 0 && sync_ms < 1000);
    (void)fill_segment(ring, &seen, 10);
    sync_ms = 0;
    (void)fill_segment(ring, &seen, 10);
    CHECK(!atomic_load(&ring->at_speed) && atomic_load(&ring->laps_ahead) >= 1);
    while (tail_of(ring) < ring->file.geometry.data_size / 2) {
        append(ring, 2000);
        (void)keep_after(ring, &seen, 10);
    }
    CHECK(atomic_load(&ring->ready_for) > 0);
    CHECK(count_free(ring) >= 1 && count_free(ring) <= most);
    memset(&asked, 0, sizeof asked);
    roll_without_looks(ring);
    roll_without_looks(ring);
    CHECK(asked.syncs == 0);
    for (int lap = 0; lap < 30; lap++)
        (void)fill_segment(ring, &seen, 10);
    CHECK(atomic_load(&ring->laps_ahead) == 0 && count_free(ring) == 0);
    vev_stats stats;
    OK(vev_ring_stats(ring, &stats));
    check_conserved(&stats);
    vev_ring_close(ring);
}

/* What was full at once is a measure of what comes next as long as that is as fast: when a slow disk
 * is met in a lap that is slower, nothing goes before its place is needed. */
static void slow_disk_after_a_burst(void)
{
    vev_watch seen;
    vev_ring *ring = open_full(&seen);
    (void)fill_segment(ring, &seen, 10);
    (void)fill_segment(ring, &seen, 10);
    (void)keep_after(ring, &seen, 10);
    CHECK(seen.last_lap_ns < 1000000000 && atomic_load(&ring->laps_ahead) == 0);
    sync_ms = (unsigned)(seen.last_lap_ns / 1000000) + 1;
    append_until_ready(ring, &seen, 2000, 5000);
    sync_ms = 0;
    CHECK(atomic_load(&ring->ledger_ns) >= seen.last_lap_ns);
    for (int n = 0; n < 4; n++) {
        append(ring, n % 2 ? 4000 : 100); /* some of it comes at once */
        (void)keep_after(ring, &seen, n % 2 ? 10 : 5000);
        CHECK(atomic_load(&ring->laps_ahead) == 0 && count_free(ring) == 0);
    }
    vev_ring_close(ring);
}

/* Nor is a lap short of which this process has seen the end alone, between two records of its own. */
static void slow_disk_and_another_process(void)
{
    vev_watch seen;
    vev_ring *ring = open_full(&seen), *other = open_beside(ring);
    roll_without_looks(other);
    uint64_t generation = generation_of(other);
    while (tail_of(other) < ring->file.geometry.data_size - 9000)
        append(other, 8000);
    atomic_store(&ring->ledger_ns, UINT64_C(100000000));
    append(ring, 100);
    (void)keep_after(ring, &seen, 5000);
    CHECK(generation_of(ring) == generation);
    while (generation_of(other) == generation)
        append(other, 100);
    append(ring, 100);
    CHECK(generation_of(ring) == generation + 1);
    (void)keep_after(ring, &seen, 10);
    CHECK(seen.last_lap_ns == 10000000);
    CHECK(atomic_load(&ring->laps_ahead) == 0 && count_free(ring) == 0);
    vev_ring_close(other);
    vev_ring_close(ring);
}

/* A next segment that another process has found is made ready here as well, also while more of them
 * are lacking. */
static void ready_before_others_are_free(void)
{
    vev_watch seen, seen_by_other;
    vev_ring *ring = open_full(&seen), *other = open_beside(ring);
    come_to_speed(ring, &seen);
    while (count_free(ring) > 0)
        roll_without_looks(ring);
    append(other, 100);
    watch(other, &seen_by_other);
    while (atomic_load(&ring->live->spare) == 0) {
        append(other, 2000);
        (void)keep_after(other, &seen_by_other, 1);
    }
    append(ring, 100);
    now_ns += 1000000;
    (void)vev_ring_keep(ring, &seen, now_ns);
    CHECK(atomic_load(&ring->laps_ahead) > 0 && count_free(ring) == 0);
    CHECK(atomic_load(&ring->ready_for) == atomic_load(&ring->live->spare));
    vev_ring_close(other);
    vev_ring_close(ring);
}

/* How fast events come is not measured by what appends had to wait for, nor by how seldom was
 * looked. */
static void speed_without_the_waits(void)
{
    vev_watch seen;
    vev_ring *ring = open_full(&seen);
    (void)fill_segment(ring, &seen, 10);
    (void)fill_segment(ring, &seen, 10);
    uint64_t lap_ns = seen.last_lap_ns;
    sync_ms = 30; /* for an append, since nobody has looked for long */
    (void)keep_after(ring, &seen, 1);
    atomic_store(&ring->live->spare, 0);
    roll_without_looks(ring);
    sync_ms = 0;
    CHECK(atomic_load(&ring->held_up_ns) >= 30000000);
    (void)keep_after(ring, &seen, 40);
    CHECK(seen.last_lap_ns <= 11000000 && atomic_load(&ring->held_up_ns) == 0);
    for (int lap = 0; lap < 4; lap++)
        roll_without_looks(ring);
    atomic_store(&ring->held_up_ns, 0);
    (void)keep_after(ring, &seen, lap_ns / 1000000 * 4);
    CHECK(seen.last_lap_ns > lap_ns / 2 && seen.last_lap_ns <= lap_ns);
    vev_ring_close(ring);
}

/* While an append waits for the next segment, there is no pause. */
static void waiting_is_no_pause(void)
{
    vev_watch seen;
    vev_ring *ring = open_full(&seen);
    come_to_speed(ring, &seen);
    uint32_t laps_ahead = atomic_load(&ring->laps_ahead);
    CHECK(laps_ahead > 0);
    atomic_fetch_add(&ring->waiting, 1);
    for (int look = 0; look < 5; look++)
        CHECK(keep_after(ring, &seen, 100) == VEV_PACE_MOVING);
    CHECK(atomic_load(&ring->laps_ahead) == laps_ahead);
    atomic_fetch_sub(&ring->waiting, 1);
    CHECK(keep_after(ring, &seen, 100) == VEV_PACE_IDLE);
    CHECK(atomic_load(&ring->laps_ahead) == 0);
    vev_ring_close(ring);
}

/* What comes after a pause is no stream. */
static void speed_ends_with_the_stream(void)
{
    vev_watch seen;
    vev_ring *ring = open_full(&seen);
    come_to_speed(ring, &seen);
    (void)keep_after(ring, &seen, 20);
    CHECK(atomic_load(&ring->at_speed) && atomic_load(&ring->laps_ahead) > 0);
    (void)keep_after(ring, &seen, 200);
    CHECK(!atomic_load(&ring->at_speed) && atomic_load(&ring->laps_ahead) == 0);
    vev_ring_close(ring);
}

/* Who keeps frames or notes counts on it that nothing goes before its place is needed. */
static void other_rings_evict_nothing_ahead(void)
{
    for (uint32_t stream = VEV_MEDIA; stream < VEV_STREAM_COUNT; stream++) {
        vev_watch seen;
        vev_ring *ring = open_full(&seen);
        ring->stream = stream;
        for (uint64_t until = generation_of(ring) + 4; generation_of(ring) < until;) {
            append(ring, 8000);
            (void)keep_after(ring, &seen, 1);
            CHECK(count_free(ring) == 0);
        }
        CHECK(atomic_load(&ring->at_speed));
        ring->stream = VEV_EVENTS;
        vev_ring_close(ring);
    }
}

static uint32_t cleared_up_to(const vev_ring *ring)
{
    return ((uint32_t)atomic_load(&ring->live->cleared) & 0xffffffu) * 8u;
}

static vev_ring *open_large(void)
{
    static vev_io io;
    static vev_pool pool;
    io = counting_io();
    vev_ring_options options = {
        .size = 8 << 20, .segment_size = 1 << 20, .record_size_min = 64, .level = VEV_LEVEL_RAW};
    char path[160];
    const char *dir = fresh_dir();
    CHECK(mkdir(dir, 0700) == 0);
    snprintf(path, sizeof path, "%s/events.ring", dir);
    vev_ring *ring;
    segment_size = 0;
    OK(vev_ring_open(&io, path, &options, &pool, &ring));
    segment_size = options.segment_size;
    memset(&asked, 0, sizeof asked);
    return ring;
}

/* A burst that nobody saw coming clears more and more at a time. */
static void burst_clears_in_growing_steps(void)
{
    vev_ring *ring = open_large();
    uint32_t steps = 0, before = cleared_up_to(ring);
    while (tail_of(ring) < 700 * 1024) {
        append(ring, 8000);
        uint32_t cleared = cleared_up_to(ring);
        steps += cleared != before;
        before = cleared;
    }
    CHECK(steps >= 4 && steps < 30); /* 43 of the least */
    CHECK(before <= tail_of(ring) + 80 * 1024 + vev_io_granule());
    vev_ring_close(ring);
}

/* Nor does one of several threads find nothing cleared, once a burst has gone on for a while; and
 * what comes after a pause does not clear as much again. */
static void burst_clears_in_time(void)
{
    vev_ring *ring = open_large();
    while (tail_of(ring) < 900 * 1024) {
        append(ring, 2000);
        CHECK(tail_of(ring) < 200 * 1024 || cleared_up_to(ring) - tail_of(ring) > 4096);
    }
    uint32_t cleared = cleared_up_to(ring), least = UINT32_MAX;
    for (int n = 0; n < 200; n++) {
        ring->cleared_ns = 0; /* long ago */
        append(ring, 500);
        CHECK(cleared_up_to(ring) <= cleared + 16384 + vev_io_granule());
        cleared = cleared_up_to(ring);
        least = VEV_MIN(least, cleared - tail_of(ring));
    }
    CHECK(least < 1024);
    vev_ring_close(ring);
}

/* Other threads cleared something after an append began: that is no pause. */
static void burst_of_several_threads(void)
{
    vev_ring *ring = open_large();
    while (tail_of(ring) < 300 * 1024)
        append(ring, 8000);
    uint64_t before = ring->burst_size;
    CHECK(before > 128 * 1024);
    while (ring->burst_size == before) {
        ring->cleared_ns += UINT64_C(10000000000);
        append(ring, 8000);
    }
    CHECK(ring->burst_size > before);
    vev_ring_close(ring);
}

/* Where an append is said to find room it asks the system for nothing, also at speed, where it
 * would clear in time, or bring the checkpoint nearer. */
static void room_at_speed(void)
{
    vev_ring *ring = open_large();
    vev_ring_set_speed(ring, true);
    unsigned sure = 0;
    for (int n = 0; n < 8000; n++) {
        bool has_room = vev_ring_has_room(ring, 500);
        memset(&asked, 0, sizeof asked);
        uint64_t walked = ring->walk_offset;
        append(ring, 500);
        CHECK(!has_room || (asked.written == 0 && asked.touches == 0 && asked.maps == 0));
        CHECK(!has_room || ring->walk_offset == walked);
        sure += has_room;
    }
    CHECK(sure > 7500);
    vev_ring_close(ring);
}

/* Where another thread is going on to the next segment, a child does not clear less for one who
 * waits. */
static void nobody_waits_in_a_child(void)
{
    vev_ring *ring = open_counted();
    atomic_fetch_add(&ring->waiting, 1);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        OK(vev_ring_reattach(ring));
        _exit(atomic_load(&ring->waiting) == 0 ? 0 : 1);
    }
    wait_for(child);
    vev_ring_close(ring);
}

/* At speed an append that leaves little of what is cleared clears more, so that no other one finds
 * none. */
static void clears_in_time_at_speed(void)
{
    vev_ring *ring = open_large();
    vev_ring_set_speed(ring, true);
    const uint32_t data_size = ring->file.geometry.data_size;
    append(ring, 8000); /* finds a page, as laps begin */
    for (uint64_t generation = generation_of(ring);; append(ring, 8000)) {
        if (generation_of(ring) != generation)
            break;
        uint32_t cleared = cleared_up_to(ring);
        CHECK(cleared == data_size || cleared - tail_of(ring) > 32 * 1024);
    }
    vev_ring_close(ring);
}

/* Nor do large records leave none. */
static void large_records_clear_in_time(void)
{
    vev_ring *ring = open_large();
    vev_ring_set_speed(ring, true);
    const uint32_t data_size = ring->file.geometry.data_size;
    static const uint8_t payload[60000];
    for (int n = 0; n < 200; n++) {
        vev_entry entry = {0};
        bool has_room = vev_ring_has_room(ring, sizeof payload);
        memset(&asked, 0, sizeof asked);
        OK(vev_ring_append(ring, payload, sizeof payload, &entry));
        uint32_t cleared = cleared_up_to(ring);
        CHECK(cleared == data_size || cleared - tail_of(ring) > 32 * 1024);
        CHECK(!has_room || (asked.written == 0 && asked.maps == 0));
    }
    vev_ring_close(ring);
}

/* The next append knows that a log is at speed, and that it is no more. */
static void speed_counts_at_once(void)
{
    vev_ring *ring = open_large();
    append(ring, 500);
    CHECK(cleared_up_to(ring) <= vev_io_granule());
    vev_ring_set_speed(ring, true);
    append(ring, 500);
    uint32_t cleared = cleared_up_to(ring);
    CHECK(cleared > 128 * 1024);
    vev_ring_set_speed(ring, false);
    while (cleared - tail_of(ring) > 1024) {
        append(ring, 500);
        CHECK(cleared_up_to(ring) == cleared);
    }
    vev_ring_close(ring);
}

/* INV-10: from lap to lap a segment keeps its bytes, but for what stands in front of the tail. */
static void clears_in_front_of_the_tail(void)
{
    vev_ring *ring = open_counted();
    const uint32_t data_size = ring->file.geometry.data_size;
    unsigned old = 0;
    for (int n = 0; n < 4000; n++) {
        append(ring, 100u + (unsigned)n % 7 * 300u);
        const vev_span *span = atomic_load(&ring->current);
        uint32_t tail = tail_of(ring), cleared = cleared_up_to(ring);
        CHECK(tail + VEV_RECORD_ALIGN <= cleared && cleared <= data_size);
        CHECK(cleared == atomic_load(&span->cleared));
        for (uint32_t at = tail; at < cleared; at++)
            CHECK(span->data[at] == 0);
        for (uint32_t at = cleared; at < data_size && atomic_load(&span->generation) > 40; at += 8)
            old += span->data[at] != 0;
    }
    CHECK(generation_of(ring) > 40 && (old > 0 || vev_io_granule() >= segment_size));
    vev_stats stats;
    OK(vev_ring_stats(ring, &stats));
    CHECK(stats.appended == 4000 && stats.lost == 0);
    check_conserved(&stats);
    vev_ring_close(ring);
}

/* What this process cleared of the next segment is nothing once another one has written a lap to
 * it. */
static void ready_segment_that_another_process_used(void)
{
    vev_ring *ring = open_counted();
    vev_watch seen;
    watch(ring, &seen);
    append_until_ready(ring, &seen, 2000, 1);
    uint64_t generation = generation_of(ring);
    vev_ring *other = open_beside(ring);
    uint32_t count = ring->file.geometry.segment_count;
    while (generation_of(other) < generation + count)
        append(other, 3000);
    for (int n = 0; n < 600; n++)
        append(n % 3 == 0 ? other : ring, 500);
    vev_stats stats;
    OK(vev_ring_stats(ring, &stats));
    CHECK(stats.lost == 0);
    check_conserved(&stats);
    vev_ring_close(other);
    vev_ring_close(ring);
}

/* Who went on to the next segment died before it said that it is not the next one any more. Nobody
 * clears it for a lap that is to come. */
static void next_segment_that_is_the_present_one(void)
{
    vev_ring *ring = open_counted();
    vev_watch seen;
    watch(ring, &seen);
    roll_without_looks(ring);
    uint32_t segment = atomic_load(&ring->current)->segment;
    atomic_store(&ring->live->spare, segment + 1);
    vev_stats stats;
    OK(vev_ring_stats(ring, &stats));
    uint64_t appended = stats.appended;
    for (; tail_of(ring) < ring->file.geometry.data_size - 8000; appended++) {
        append(ring, 4000);
        (void)keep_after(ring, &seen, 1);
    }
    CHECK(atomic_load(&ring->ready_for) > 0 && atomic_load(&ring->ready_for) != segment + 1);
    OK(vev_ring_stats(ring, &stats));
    CHECK(stats.appended == appended && stats.pending == appended);
    vev_ring_close(ring);
}

/* Or it died before that one was the active one: a lap is begun there, and not another one of the same
 * generation. */
static void next_segment_that_was_nearly_begun(void)
{
    vev_ring *ring = open_counted();
    vev_watch seen;
    watch(ring, &seen);
    append_until_ready(ring, &seen, 4000, 1);
    uint32_t segment = atomic_load(&ring->live->spare) - 1;
    atomic_store(&ring->live->generations[segment], generation_of(ring) + 1);
    (void)keep_after(ring, &seen, 1);
    roll_without_looks(ring);
    CHECK(atomic_load(&ring->current)->segment == segment);
    vev_ring_close(ring);
}

/* A sync of what has been synced does not even announce itself in the live area, which would make a
 * page of it dirty; what somebody else appended or marked is seen all the same. */
static void rest_is_left_alone(void)
{
    vev_ring *ring = open_counted();
    for (int n = 0; n < 10; n++)
        append(ring, 300);
    OK(vev_ring_sync(ring, 0));
    CHECK(vev_ring_synced_seq(ring) == 10);
    vev_cell *cells = ring->live->slots[ring->slot].cells;
    for (int i = 0; i < VEV_CELL_COUNT; i++)
        atomic_store(&cells[i].generation, 1); /* whoever wants one waits for ever */
    alarm(60);
    memset(&asked, 0, sizeof asked);
    OK(vev_ring_sync(ring, 0));
    CHECK(asked.syncs == 0);
    alarm(0);
    for (int i = 0; i < VEV_CELL_COUNT; i++)
        atomic_store(&cells[i].generation, 0);
    vev_ring *other = open_beside(ring);
    append(other, 300);
    OK(vev_ring_sync(ring, 0));
    CHECK(asked.syncs == 1 && vev_ring_synced_seq(ring) == 11);
    uint64_t seq = 3;
    size_t changed;
    OK(vev_ring_mark(ring, &seq, 1, VEV_DELIVERED, &changed));
    OK(vev_ring_sync(ring, 0));
    CHECK(changed == 1 && asked.syncs == 2);
    while (generation_of(other) == 1)
        append(other, 3000);
    OK(vev_ring_sync(ring, 0));
    CHECK(asked.syncs > 2 && vev_ring_synced_seq(ring) > 11);
    vev_ring_close(other);
    vev_ring_close(ring);
}

/* A file that somebody cut short stays so: with its size back it would seem to be whole. */
static void cut_file_does_not_grow(void)
{
#ifndef __SANITIZE_THREAD__ /* the jump out of the handler would leave TSan's own locks taken */
    OK(vev_guard_install());
    vev_ring *ring = open_counted();
    vev_watch seen;
    watch(ring, &seen);
    append(ring, 2000);
    CHECK(truncate(ring->path, VEV_HEADER_REGION) == 0);
    memset(&asked, 0, sizeof asked);
    (void)keep_after(ring, &seen, 1);
    static const uint8_t payload[8000];
    vev_entry entry = {0};
    vev_status status = vev_ring_append(ring, payload, sizeof payload, &entry);
    CHECK(status == EIO || status == VEV_E_DEGRADED); /* whoever saw it first */
    struct stat st;
    CHECK(stat(ring->path, &st) == 0 && st.st_size == VEV_HEADER_REGION && asked.written == 0);
    vev_ring_close(ring);
#endif
}

/* What others wrote to a segment before this process did, or while it did not, is not its speed. */
static void what_others_wrote_is_no_speed(void)
{
    vev_watch seen;
    vev_ring *ring = open_full(&seen);
    append(ring, 8000);
    vev_ring *second = open_beside(ring);
    watch(second, &seen);
    uint64_t evicted = evicted_from(ring);
    append(second, 50);
    CHECK(keep_after(second, &seen, 10) == VEV_PACE_MOVING);
    CHECK(evicted_from(ring) == evicted);
    append(ring, 8000);
    append(second, 50);
    CHECK(keep_after(second, &seen, 5000) == VEV_PACE_MOVING);
    CHECK(evicted_from(ring) == evicted);
    vev_ring_close(second);
    vev_ring_close(ring);
}

/* The threads, but for the one that appends, that have waited for the disk. */
static struct {
    pthread_mutex_t mutex;
    pthread_t appends, others[8];
    _Atomic uint32_t count;
} waited = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static vev_status note_thread(void *ctx, uint8_t *start, size_t size)
{
    pthread_t self = pthread_self();
    pthread_mutex_lock(&waited.mutex);
    uint32_t count = atomic_load(&waited.count), i = 0;
    while (i < count && !pthread_equal(waited.others[i], self))
        i++;
    if (i == count && count < 8 && !pthread_equal(waited.appends, self)) {
        waited.others[count] = self;
        atomic_store(&waited.count, count + 1);
    }
    pthread_mutex_unlock(&waited.mutex);
    return vev_io_posix.sync_map(ctx, start, size);
}

/* At speed segments are counted out in a thread beside the helper, which ends with the log. */
static void at_speed_with_its_threads(void)
{
    static vev_io io;
    io = vev_io_posix;
    io.sync_map = note_thread;
    waited.appends = pthread_self();
    vev_options options = small();
    options.level = VEV_LEVEL_RAW;
    options.sync_interval_ms = 10; /* so that the helper is seen, too */
    vev_log *log;
    OK(vev__log_open(&io, fresh_dir(), &options, &log));
    uint64_t appended = 0, began_ns = vev_clock_ticks_ns();
    while (atomic_load(&waited.count) < 2) {
        append_numbers(log, VEV_EVENTS, appended, appended + 500);
        appended += 500;
        CHECK(vev_clock_ticks_ns() - began_ns < 60000000000u);
    }
    vev_stats stats = stats_of(log, VEV_EVENTS);
    CHECK(stats.appended == appended && stats.evicted > 0);
    vev_log_close(log);
}

static vev_status note_slow_thread(void *ctx, uint8_t *start, size_t size)
{
    struct timespec pause = {.tv_nsec = 900 * 1000000};
    nanosleep(&pause, NULL);
    return note_thread(ctx, start, size);
}

/* On a slow disk so they are for a log that is far from speed. */
static void on_a_slow_disk_with_its_threads(void)
{
    static vev_io io;
    io = vev_io_posix;
    io.sync_map = note_slow_thread;
    vev_options options = small();
    options.level = VEV_LEVEL_RAW;
    options.sync_interval_ms = 0;
    options.flags = VEV_OPEN_NO_THREAD;
    const char *dir = fresh_dir();
    vev_log *log = open_log(dir, &options);
    uint64_t appended = 0;
    while (stats_of(log, VEV_EVENTS).evicted == 0) {
        append_numbers(log, VEV_EVENTS, appended, appended + 50);
        appended += 50;
    }
    vev_log_close(log);
    atomic_store(&waited.count, 0);
    options.flags = 0;
    OK(vev__log_open(&io, dir, &options, &log));
    uint64_t began_ns = vev_clock_ticks_ns();
    static const uint8_t payload[500];
    while (atomic_load(&waited.count) < 2) { /* the helper, until it knows; then another one */
        OK(vev_log_append(log, VEV_EVENTS, payload, sizeof payload, NULL));
        usleep(20000);
        CHECK(vev_clock_ticks_ns() - began_ns < 60000000000u);
    }
    (void)stats_of(log, VEV_EVENTS);
    vev_log_close(log);
}

/* A disk that takes its time with syncs, but for the thread that appends. */
static struct {
    pthread_t appends;
    atomic_bool slow, syncing;
    _Atomic uint32_t touches; /* by others, while it took its time */
} lazy;

static void take_time(void)
{
    if (pthread_equal(lazy.appends, pthread_self()))
        return;
    atomic_store(&lazy.syncing, true);
    while (atomic_load(&lazy.slow))
        usleep(1000);
}

static vev_status slow_sync(void *ctx, int fd)
{
    take_time();
    return vev_io_posix.sync(ctx, fd);
}

static vev_status slow_sync_map(void *ctx, uint8_t *start, size_t size)
{
    take_time();
    return vev_io_posix.sync_map(ctx, start, size);
}

static void touch_meanwhile(void *ctx, uint8_t *start, size_t size)
{
    if (atomic_load(&lazy.syncing) && !pthread_equal(lazy.appends, pthread_self()))
        atomic_fetch_add(&lazy.touches, 1);
    vev_io_posix.touch(ctx, start, size);
}

/* While the disk takes its time with a background sync, what comes next is made ready all the
 * same. */
static void looks_go_on_during_a_sync(void)
{
    static vev_io io;
    io = vev_io_posix;
    io.sync = slow_sync;
    io.sync_map = slow_sync_map;
    io.touch = touch_meanwhile;
    lazy.appends = pthread_self();
    atomic_store(&lazy.slow, true);
    vev_options options = small();
    options.sync_interval_ms = 10;
    vev_log *log;
    OK(vev__log_open(&io, fresh_dir(), &options, &log));
    uint64_t began_ns = vev_clock_ticks_ns(), appended = 0;
    while (atomic_load(&lazy.touches) < 20) {
        append_numbers(log, VEV_EVENTS, appended, appended + 10);
        appended += 10;
        usleep(5000);
        CHECK(vev_clock_ticks_ns() - began_ns < 60000000000u);
    }
    atomic_store(&lazy.slow, false);
    vev_log_close(log);
}

/* What comes when all has been synced long since is synced in the background, too. */
static void syncs_go_on_after_a_pause(void)
{
    vev_options options = small();
    options.sync_interval_ms = 10;
    vev_log *log = open_log(fresh_dir(), &options);
    uint64_t began_ns = vev_clock_ticks_ns();
    for (uint64_t n = 0; n < 4; n++) {
        append_numbers(log, VEV_EVENTS, n, n + 1);
        while (vev_log_durable_seq(log, VEV_EVENTS) <= n) {
            usleep(5000);
            CHECK(vev_clock_ticks_ns() - began_ns < 60000000000u);
        }
        usleep(50000); /* so that there is nothing to be done */
    }
    vev_log_close(log);
}

int main(void)
{
    begin_tests("keeper");
    RUN(rolls_are_made_ready);
    RUN(ready_beside_another_process);
    RUN(touches_ahead);
    RUN(rewarms_after_a_sync);
    RUN(slow_log_keeps_what_it_has);
    RUN(fast_log_drops_nothing_early);
    RUN(all_is_cleared_only_at_speed);
    RUN(segments_are_free_at_speed);
    RUN(more_is_free_on_a_slow_disk);
    RUN(slow_disk_after_a_burst);
    RUN(slow_disk_and_another_process);
    RUN(ready_before_others_are_free);
    RUN(other_rings_evict_nothing_ahead);
    RUN(speed_without_the_waits);
    RUN(waiting_is_no_pause);
    RUN(speed_ends_with_the_stream);
    RUN(burst_clears_in_growing_steps);
    RUN(burst_clears_in_time);
    RUN(burst_of_several_threads);
    RUN(clears_in_time_at_speed);
    RUN(large_records_clear_in_time);
    RUN(speed_counts_at_once);
    RUN(room_at_speed);
    RUN(nobody_waits_in_a_child);
    RUN(clears_in_front_of_the_tail);
    RUN(ready_segment_that_another_process_used);
    RUN(next_segment_that_is_the_present_one);
    RUN(next_segment_that_was_nearly_begun);
    RUN(rest_is_left_alone);
    RUN(cut_file_does_not_grow);
    RUN(what_others_wrote_is_no_speed);
    RUN(at_speed_with_its_threads);
    RUN(on_a_slow_disk_with_its_threads);
    RUN(looks_go_on_during_a_sync);
    RUN(syncs_go_on_after_a_pause);
    end_tests();
    return 0;
}
