/* Tallies (INV-14): that figures are had without the maps, and never are any but those of the maps.
 * What a map says is counted with the tallies switched off. */
#include <sys/ioctl.h>

#include "fault_case.h"
#include "vev_clock.h"

enum { SEGMENT = 131072, SEGMENTS = 15, PER_LAP_MIN = 1100 };

/* ---- a disk that counts, and at which something happens ---- */

static struct {
    int fd;                         /* of events.ring */
    uint32_t maps;                  /* reads of state maps */
    uint64_t prefetched;            /* bytes */
    uint64_t at;                    /* a read here has happened: then is called */
    void (*then)(vev_ring *beside); /* once */
    void (*locked)(vev_ring *beside);
    vev_ring *beside;
} watched;

static vev_status watched_open(void *ctx, const char *path, int mode, int *fd_out)
{
    (void)ctx;
    return open_noting(path, mode, fd_out, &watched.fd);
}

static void happen(void (**what)(vev_ring *beside))
{
    void (*now)(vev_ring *) = *what;
    *what = NULL;
    if (now)
        now(watched.beside);
}

static vev_geometry geometry(void)
{
    vev_geometry made;
    CHECK(
        vev_geometry_make(&made, VEV_HEADER_REGION + (uint64_t)SEGMENTS * SEGMENT, SEGMENT, 0, 64));
    return made;
}

static uint64_t map_of(uint32_t segment)
{
    vev_geometry g = geometry();
    return vev_segment_offset(&g, segment) + g.map_offset;
}

static vev_status watched_read(void *ctx, int fd, uint64_t offset, void *buffer, size_t size)
{
    vev_status status = vev_io_posix.read(ctx, fd, offset, buffer, size);
    vev_geometry g = geometry();
    if (fd != watched.fd || offset < VEV_HEADER_REGION)
        return status;
    uint64_t inside = (offset - VEV_HEADER_REGION) % SEGMENT;
    watched.maps += inside >= g.map_offset && inside < g.data_offset;
    if (watched.then && offset == watched.at)
        happen(&watched.then);
    return status;
}

static void watched_prefetch(void *ctx, int fd, uint64_t offset, uint64_t size)
{
    watched.prefetched += offset >= VEV_HEADER_REGION ? size : 0;
    vev_io_posix.prefetch(ctx, fd, offset, size);
}

static bool watched_is_locked(void *ctx, int fd, uint64_t offset)
{
    bool locked = vev_io_posix.is_locked(ctx, fd, offset);
    if (fd == watched.fd)
        happen(&watched.locked);
    return locked;
}

static const vev_io *watched_io(void)
{
    static vev_io io;
    io = vev_io_posix;
    io.open = watched_open;
    io.read = watched_read;
    io.prefetch = watched_prefetch;
    io.is_locked = watched_is_locked;
    memset(&watched, 0, sizeof watched);
    return &io;
}

static uint32_t maps_read(void)
{
    uint32_t maps = watched.maps;
    watched.maps = 0;
    return maps;
}

/* ---- rings ---- */

static vev_ring *open_with(const vev_io *io, const char *dir, bool readonly)
{
    static vev_pool pool;
    vev_ring_options options = {.size = VEV_HEADER_REGION + (uint64_t)SEGMENTS * SEGMENT,
                                .segment_size = SEGMENT,
                                .record_size_min = 64,
                                .level = VEV_LEVEL_RAW,
                                .readonly = readonly};
    char path[160];
    snprintf(path, sizeof path, "%s/events.ring", dir);
    vev_ring *ring;
    OK(vev_ring_open(io, path, &options, &pool, &ring));
    return ring;
}

static void append_laps(vev_ring *ring, uint32_t laps)
{
    uint64_t until = (atomic_load(&ring->live->active) >> 10) + laps;
    while (atomic_load(&ring->live->active) >> 10 < until) {
        vev_entry entry = {.kind = 1};
        OK(vev_ring_append(ring, "an event", 8, &entry));
    }
}

/* A ring with as many sealed laps, in segments 0, 1, ..., and one that is just begun. */
static vev_ring *ring_with(const vev_io *io, const char *dir, uint32_t laps)
{
    CHECK(mkdir(dir, 0700) == 0);
    vev_ring *ring = open_with(io, dir, false);
    append_laps(ring, laps);
    return ring;
}

static vev_stats figures(vev_ring *ring)
{
    vev_stats stats;
    OK(vev_ring_stats(ring, &stats));
    check_conserved(&stats);
    return stats;
}

static vev_stats figures_of_maps(vev_ring *ring)
{
    vev__tallies = false;
    vev_stats stats = figures(ring);
    vev__tallies = true;
    return stats;
}

/* The figures are those of the maps. */
static vev_stats check_figures(vev_ring *ring)
{
    vev_stats stats = figures(ring), maps = figures_of_maps(ring);
    if (memcmp(&stats, &maps, sizeof stats) != 0) {
        fprintf(stderr,
                "delivered %llu, rejected %llu, pending %llu; by the maps %llu, %llu, %llu\n",
                (unsigned long long)stats.delivered, (unsigned long long)stats.rejected,
                (unsigned long long)stats.pending, (unsigned long long)maps.delivered,
                (unsigned long long)maps.rejected, (unsigned long long)maps.pending);
        exit(1);
    }
    return stats;
}

static uint64_t first_of(vev_ring *ring, uint32_t segment)
{
    uint8_t bytes[VEV_HEAD_BYTES];
    vev_head head;
    OK(ring->io->read(ring->io->ctx, ring->fd, vev_segment_offset(&ring->file.geometry, segment),
                      bytes, sizeof bytes));
    CHECK(vev_head_read(bytes, ring->file.uuid, &ring->file.geometry, &head));
    return head.base_seq;
}

/* Mark `count` records of a lap, from its `index`-th on. */
static void mark(vev_ring *ring, uint32_t segment, uint32_t index, uint32_t count, int state)
{
    uint64_t seqs[2048], first = first_of(ring, segment);
    CHECK(count <= 2048);
    for (uint32_t i = 0; i < count; i++)
        seqs[i] = first + index + i;
    OK(vev_ring_mark(ring, seqs, count, state, NULL));
}

static uint32_t tally(const vev_ring *ring, uint32_t segment)
{
    return atomic_load(&ring->live->tallies[segment]);
}

static bool is_known(const vev_ring *ring, uint32_t segment)
{
    uint64_t counts[4];
    return vev_tally_read(tally(ring, segment), 2048, counts);
}

static uint64_t generation(const vev_ring *ring, uint32_t segment)
{
    return atomic_load(&ring->live->generations[segment]);
}

static void put_live(const char *dir, size_t offset, const void *bytes, size_t size)
{
    overwrite(dir, VEV_AT_LIVE + offset, bytes, size);
}

static void put_tally(const char *dir, uint32_t segment, uint32_t word)
{
    put_live(dir, offsetof(vev_live, tallies) + 4u * segment, &word, sizeof word);
}

static uint32_t word_of(uint64_t delivered, uint64_t rejected)
{
    uint64_t counts[4] = {0};
    counts[VEV_DELIVERED] = delivered;
    counts[VEV_REJECTED] = rejected;
    return vev_tally_word(counts);
}

/* ---- the word ---- */

static void words(void)
{
    const uint32_t most = VEV_SEGMENT_SIZE_MAX / 48 / 16 * 16;
    for (uint32_t delivered = 0; delivered <= most; delivered += most / 16) {
        for (uint32_t rejected = 0; rejected <= VEV_MIN(1023u, most - delivered); rejected += 31) {
            uint64_t counts[4];
            CHECK(vev_tally_read(word_of(delivered, rejected), most, counts));
            CHECK(counts[VEV_DELIVERED] == delivered && counts[VEV_REJECTED] == rejected);
            CHECK(counts[VEV_PENDING] == most - delivered - rejected && counts[VEV_LOST] == 0);
        }
    }
    uint64_t lost[4] = {[VEV_LOST] = 1}, counts[4];
    CHECK(vev_tally_word(lost) == 0 && word_of(0, 1024) == 0 && word_of(0, 0) != 0);
    CHECK(!vev_tally_read(0, most, counts));
    CHECK(!vev_tally_read(vev_tally_token((VEV_SLOT_COUNT - 1) << 24 | 0xffffff), most, counts));
    CHECK(vev_tally_read(word_of(60, 40), 100, counts));
    CHECK(!vev_tally_read(word_of(60, 41), 100, counts)); /* there are not so many */
    CHECK(!vev_tally_read(UINT32_MAX, 100, counts));
    CHECK(vev_tally_token(0) != 0);
}

/* ---- what is read ---- */

/* The maps are read once in a boot, whoever asks, and that of the newest lap each time. */
static void maps_are_read_once(void)
{
    const char *dir = fresh_dir();
    const vev_io *io = watched_io();
    vev_ring *ring = ring_with(io, dir, 10);
    mark(ring, 3, 5, 70, VEV_DELIVERED);
    mark(ring, 3, 100, 7, VEV_REJECTED);
    (void)maps_read();
    vev_stats made = figures(ring);
    CHECK(made.delivered == 70 && made.rejected == 7 && maps_read() == 11);
    CHECK(watched.prefetched > 0);
    CHECK(is_known(ring, 3) && !is_known(ring, 10));

    watched.prefetched = 0;
    for (int turn = 0; turn < 5; turn++) { /* beside, after the last one, and read-only */
        vev_ring *other = ring;
        if (turn == 1 || turn == 2)
            other = open_with(io, dir, turn == 2);
        if (turn >= 3) {
            vev_ring_close(ring);
            ring = other = open_with(io, dir, turn == 4);
            (void)maps_read();
        }
        vev_stats stats = figures(other);
        CHECK(memcmp(&stats, &made, sizeof stats) == 0 && maps_read() == 1);
        if (other != ring)
            vev_ring_close(other);
    }
    vev_ring_close(ring);
    CHECK(watched.prefetched < 65536); /* the newest lap's when it was opened */
}

/* Whether who opens the log alone has to read the maps of its ten laps; what they add up to is the
 * same. */
static bool reads_maps_after(const char *dir, const vev_io *io, bool readonly)
{
    vev_ring *ring = open_with(io, dir, readonly);
    (void)maps_read();
    vev_stats stats = figures(ring);
    uint32_t maps = maps_read();
    CHECK(maps == 11 || maps == 1);
    CHECK(stats.delivered == 70);
    vev_ring_close(ring);
    return maps == 11;
}

/* After a boot tallies mean nothing, nor in a live area of before they were there. What was synced
 * in this boot is known from that all the same. */
static void tallies_of_others(void)
{
    const char *dir = fresh_dir();
    const vev_io *io = watched_io();
    vev_ring *ring = ring_with(io, dir, 10);
    mark(ring, 3, 5, 70, VEV_DELIVERED);
    (void)figures(ring);
    vev_ring_close(ring);
    const uint32_t other_boot = vev_clock_boot_tag() + 1, junk = 0x12345678;
    const uint32_t magics[] = {VEV_LIVE_MAGIC_3, VEV_LIVE_REBUILDING_3, junk, 0};
    const uint64_t five = 5;
    for (uint32_t i = 0; i < 5; i++) {
        CHECK(!reads_maps_after(dir, io, true) && !reads_maps_after(dir, io, false));
        /* A lie that nobody is to believe. */
        put_tally(dir, 2, word_of(100, 0));
        put_live(dir, offsetof(vev_live, durable_seq), &five, sizeof five);
        if (i < 4)
            put_live(dir, offsetof(vev_live, magic), &magics[i], 4);
        else
            put_live(dir, offsetof(vev_live, boot), &other_boot, 4);
        CHECK(reads_maps_after(dir, io, true));
        ring = open_with(io, dir, false);
        CHECK(!is_known(ring, 2) && !is_known(ring, 3));
        vev_stats stats = figures(ring);
        CHECK(i < 2 ? stats.durable_seq == 5 : stats.durable_seq == stats.last_seq);
        vev_ring_close(ring);
    }
    /* A rebuild that died believed them, too: it changes nothing in sealed laps. */
    const uint32_t rebuilding = VEV_LIVE_REBUILDING;
    put_live(dir, offsetof(vev_live, magic), &rebuilding, 4);
    CHECK(reads_maps_after(dir, io, true)); /* beside it */
    CHECK(!reads_maps_after(dir, io, false));
}

/* A copy of a log that was made while others marked in it has maps of later than its live area.
 * Moved, it is what it was. */
static void tallies_of_another_file(void)
{
    char dir[96];
    snprintf(dir, sizeof dir, "%s", fresh_dir());
    const char *other = fresh_dir();
    const vev_io *io = watched_io();
    vev_ring *ring = ring_with(io, dir, 10);
    mark(ring, 3, 5, 70, VEV_DELIVERED);
    (void)figures(ring);
    char command[700];
    snprintf(command, sizeof command, "cp -a %s %s", dir, other);
    CHECK(system(command) == 0);
    put_tally(other, 2, word_of(100, 0));
    CHECK(reads_maps_after(other, io, true) && reads_maps_after(other, io, false));
    CHECK(!reads_maps_after(other, io, true) && !reads_maps_after(other, io, false));
    vev_ring_close(ring);
    /* Not even where it takes the place of the first one, and its number. */
    char path[200];
    snprintf(path, sizeof path, "%s/events.ring", dir);
    uint64_t number = 0;
    int fd = open(path, O_RDONLY);
    bool tells = ioctl(fd, _IOR('v', 1, long), &number) == 0; /* FS_IOC_GETVERSION */
    close(fd);
    snprintf(command, sizeof command, "cp %s %s/x && rm %s && cp %s/x %s", path, other, path, other,
             path);
    CHECK(system(command) == 0);
    if (!tells) /* but not every file system helps there */
        put_live(dir, offsetof(vev_live, home), &number, 8);
    CHECK(reads_maps_after(dir, io, false));
    snprintf(command, sizeof command, "mv %s %s-moved", dir, dir);
    CHECK(system(command) == 0);
    snprintf(command, sizeof command, "%s-moved", dir);
    CHECK(!reads_maps_after(command, io, true) && !reads_maps_after(command, io, false));
}

/* In one boot only the tally of the lap that a segment holds counts; of the newest one none. */
static void tallies_of_other_laps(void)
{
    const char *dir = fresh_dir();
    const vev_io *io = watched_io();
    vev_ring *ring = ring_with(io, dir, 10);
    (void)figures(ring);
    vev_ring_close(ring);
    const uint64_t other = 77;
    put_live(dir, offsetof(vev_live, generations) + 8 * 2, &other, 8);
    put_tally(dir, 2, word_of(1, 0));
    put_tally(dir, 4, word_of(2048, 1)); /* more than there are */
    put_tally(dir, 10, word_of(1, 0));
    put_tally(dir, 12, word_of(1, 0)); /* no lap */
    ring = open_with(io, dir, true);
    CHECK(figures(ring).delivered == 0);
    vev_ring_close(ring);
    ring = open_with(io, dir, false);
    CHECK(tally(ring, 2) == 0 && tally(ring, 10) == 0 && tally(ring, 12) == 0);
    (void)maps_read();
    CHECK(figures(ring).delivered == 0 && maps_read() == 3);
    append_laps(ring, 2);
    CHECK(check_figures(ring).delivered == 0);
    vev_ring_close(ring);
}

/* A segment that is used again has none, though nobody has counted or marked in between. */
static void new_laps(void)
{
    const char *dir = fresh_dir();
    vev_ring *ring = ring_with(&vev_io_posix, dir, 10);
    mark(ring, 3, 5, 70, VEV_DELIVERED);
    CHECK(figures(ring).delivered == 70 && is_known(ring, 3));
    append_laps(ring, SEGMENTS + 3);
    CHECK(tally(ring, 3) == 0);
    CHECK(check_figures(ring).delivered == 70); /* in the ledger */
    vev_ring_close(ring);
}

/* After a failed sync what is in memory may not be what will be read. */
static void tallies_and_failed_syncs(void)
{
    const char *dir = fresh_dir();
    const vev_io *io = watched_io();
    vev_ring *ring = ring_with(io, dir, 10);
    (void)figures(ring);
    atomic_store(&ring->live->tallies[2], word_of(1, 0));
    CHECK(figures(ring).delivered == 1);
    atomic_store(&ring->live->sync_error, EIO);
    (void)maps_read();
    CHECK(figures(ring).delivered == 0 && maps_read() == 11);
    atomic_store(&ring->live->tallies[4], 0);
    CHECK(figures(ring).delivered == 0 && tally(ring, 4) == 0); /* nor is one made */
    vev_ring_close(ring);
    ring = open_with(io, dir, false);
    CHECK(atomic_load(&ring->live->sync_error) == 0 && tally(ring, 2) == 0);
    CHECK(check_figures(ring).delivered == 0);
    vev_ring_close(ring);
}

/* ---- who marks ---- */

static void marks_take_it_back(void)
{
    const char *dir = fresh_dir();
    vev_ring *ring = ring_with(&vev_io_posix, dir, 10),
             *other = open_with(&vev_io_posix, dir, false);
    const int states[] = {VEV_DELIVERED, VEV_REJECTED, VEV_PENDING, VEV_DELIVERED};
    for (uint32_t i = 0; i < 4; i++) {
        CHECK(check_figures(ring).pending > 0 && is_known(ring, 3));
        mark(other, 3, i % 3, 2, states[i]);
        CHECK(!is_known(ring, 3) && is_known(ring, 2));
        (void)check_figures(ring);
    }
    vev_ring_close(other);
    vev_ring_close(ring);
}

static void mark_two(vev_ring *beside) { mark(beside, 3, 10, 2, VEV_DELIVERED); }

static void count_beside(vev_ring *beside) { (void)figures(beside); }

static void mark_and_count(vev_ring *beside)
{
    mark_two(beside);
    count_beside(beside);
}

static void go_round(vev_ring *beside)
{
    append_laps(beside, SEGMENTS + 3);
    mark(beside, 3, 10, 20, VEV_DELIVERED);
}

static void go_round_and_count(vev_ring *beside)
{
    go_round(beside);
    count_beside(beside);
}

/* Between the read of a map and the tally, others mark in the lap, or count it, or use its segment
 * for another one. */
static void others_amid_counting(void)
{
    void (*const whats[])(vev_ring *) = {mark_two, count_beside, mark_and_count, go_round,
                                         go_round_and_count};
    for (size_t i = 0; i < sizeof whats / sizeof *whats; i++) {
        const char *dir = fresh_dir();
        vev_ring *ring = ring_with(watched_io(), dir, 10);
        watched.beside = open_with(&vev_io_posix, dir, false);
        watched.at = map_of(3);
        watched.then = whats[i];
        (void)figures(ring);
        CHECK(!watched.then);
        (void)check_figures(ring);
        append_laps(ring, 1);
        (void)check_figures(watched.beside);
        vev_ring_close(watched.beside);
        vev_ring_close(ring);
    }
}

/* Change the first record's state behind everybody's back, as who marks does once it holds a cell
 * and has taken the tally back. */
static void change_map(const char *dir, vev_ring *ring, uint32_t segment)
{
    uint8_t bytes[VEV_HEAD_BYTES];
    vev_head head;
    OK(ring->io->read(ring->io->ctx, ring->fd, vev_segment_offset(&ring->file.geometry, segment),
                      bytes, sizeof bytes));
    CHECK(vev_head_read(bytes, ring->file.uuid, &ring->file.geometry, &head));
    uint32_t seed = vev_lap_seed(ring->file.uuid, head.generation, head.salt);
    uint64_t word = vev_map_word(VEV_DELIVERED, seed, 0);
    overwrite(dir, map_of(segment), &word, sizeof word);
}

/* Who marks has stopped between taking the tally back and changing the map. */
static void stopped_amid_marking(void)
{
    const char *dir = fresh_dir();
    vev_ring *ring = ring_with(&vev_io_posix, dir, 10),
             *other = open_with(&vev_io_posix, dir, false);
    _Atomic uint64_t *cell = vev_ring_claim(other, generation(ring, 3));
    CHECK(figures(ring).delivered == 0);
    CHECK(tally(ring, 3) == 0 && is_known(ring, 2)); /* nothing is written in vain, either */
    change_map(dir, other, 3);
    CHECK(figures(ring).delivered == 1);
    vev_ring_release(cell);
    CHECK(check_figures(ring).delivered == 1 && is_known(ring, 3));
    vev_ring_close(other);
    vev_ring_close(ring);
}

static _Atomic uint64_t *claimed;

static void claim_now(vev_ring *beside) { claimed = vev_ring_claim(beside, generation(beside, 3)); }

/* Plant a cell of somebody who died amid marking in segment 3. */
static void plant_dead_cell(vev_ring *ring)
{
    atomic_store(&ring->live->slots[VEV_SLOT_COUNT - 1].cells[0].generation, generation(ring, 3));
}

/* The same, but it claimed its cell after that was looked at first and before the token was there,
 * so that it saw none. (When a dead one's lock is asked for, the slots before it have been looked
 * at.) */
static void claimed_amid_counting(void)
{
    const char *dir = fresh_dir();
    vev_ring *ring = ring_with(watched_io(), dir, 10);
    plant_dead_cell(ring);
    watched.beside = open_with(&vev_io_posix, dir, false);
    watched.locked = claim_now;
    CHECK(figures(ring).delivered == 0 && !watched.locked);
    CHECK(!is_known(ring, 3) && is_known(ring, 2));
    change_map(dir, watched.beside, 3);
    vev_ring_release(claimed);
    CHECK(check_figures(ring).delivered == 1 && is_known(ring, 3));
    vev_ring_close(watched.beside);
    vev_ring_close(ring);
}

/* The segment got another lap between the first look at it and the token, and that one's tally is
 * as empty as the one that was seen. */
static void lap_amid_counting(void)
{
    const char *dir = fresh_dir();
    vev_ring *ring = ring_with(watched_io(), dir, 10);
    plant_dead_cell(ring);
    watched.beside = open_with(&vev_io_posix, dir, false);
    watched.locked = go_round;
    (void)figures(ring);
    CHECK(!watched.locked);
    (void)check_figures(ring);
    vev_ring_close(watched.beside);
    vev_ring_close(ring);
}

/* Who died amid marking is in nobody's way. */
static void dead_amid_marking(void)
{
    const char *dir = fresh_dir();
    vev_ring *ring = ring_with(&vev_io_posix, dir, 10);
    plant_dead_cell(ring);
    change_map(dir, ring, 3);
    CHECK(check_figures(ring).delivered == 1 && is_known(ring, 3));
    vev_ring_close(ring);
}

/* ---- what has no tally ---- */

/* The figures come from the map each time, and nothing is written to the live area for them. */
static void check_counted_each_time(vev_ring *ring, uint32_t segment)
{
    (void)check_figures(ring);
    CHECK(!is_known(ring, segment) && is_known(ring, 5));
    atomic_store(&ring->live->tallies[segment], 0);
    (void)maps_read();
    (void)figures(ring);
    CHECK(tally(ring, segment) == 0 && maps_read() == 2);
}

static void counted_each_time(void)
{
    const char *dir = fresh_dir();
    vev_ring *ring = ring_with(watched_io(), dir, 10);
    mark(ring, 3, 5, 1, VEV_LOST);
    check_counted_each_time(ring, 3);
    CHECK(figures(ring).lost == 1);
    mark(ring, 3, 5, 1, VEV_PENDING);
    CHECK(check_figures(ring).lost == 0);
    CHECK(figures(ring).lost == 0 && is_known(ring, 3));
    mark(ring, 3, 0, 1024, VEV_REJECTED);
    check_counted_each_time(ring, 3);
    mark(ring, 3, 7, 1, VEV_DELIVERED);
    CHECK(check_figures(ring).rejected == 1023);
    CHECK(figures(ring).rejected == 1023 && is_known(ring, 3));
    vev_ring_close(ring);
}

/* A tally that is wrong is found by verify. */
static void verify_takes_it_back(void)
{
    const char *dir = fresh_dir();
    vev_ring *ring = ring_with(&vev_io_posix, dir, 10);
    mark(ring, 3, 5, 70, VEV_DELIVERED);
    CHECK(figures(ring).delivered == 70);
    uint32_t right = tally(ring, 4);
    atomic_store(&ring->live->tallies[3], word_of(60, 0));
    CHECK(figures(ring).delivered == 60);
    size_t count;
    uint64_t checked;
    OK(vev_ring_verify(ring, NULL, 0, &count, &checked));
    CHECK(count == 0 && tally(ring, 3) == 0 && tally(ring, 4) == right);
    CHECK(check_figures(ring).delivered == 70);
    vev_ring_close(ring);
}

#ifndef __SANITIZE_THREAD__
static bool map_fails;

static vev_status failing_map(void *ctx, int fd, uint64_t offset, size_t size, bool writable,
                              uint8_t **base_out)
{
    return map_fails ? ENOMEM : bad_map(ctx, fd, offset, size, writable, base_out);
}

/* A map that cannot be read says pending, today. When it can be read again it says what it said,
 * and when it has been healed it is empty. */
static void unreadable_maps(void)
{
    for (int heals = 0; heals < 3; heals++) { /* the third time only that, and it is not marked */
        const char *dir = fresh_dir();
        static vev_io io;
        io = bad_io();
        io.map = failing_map;
        make_bad(0);
        disk.bad = false;
        vev_ring *ring = ring_with(&io, dir, 10);
        mark(ring, 2, 0, 30, VEV_DELIVERED);
        mark(ring, 3, 0, 30, VEV_DELIVERED);
        if (heals) /* the tally knows better, until the map is changed */
            CHECK(check_figures(ring).delivered == 60);
        mark(ring, 5, 0, 1, VEV_DELIVERED); /* so that the map of 3 is not mapped any more */
        disk.at = map_of(3) / VEV_PIECE * VEV_PIECE;
        disk.bad = true;
        if (heals) {
            CHECK(figures(ring).delivered == 61 && figures_of_maps(ring).delivered == 31);
            uint64_t seq = first_of(ring, 3) + 40;
            map_fails = heals == 2;
            CHECK(vev_ring_mark(ring, &seq, 1, VEV_DELIVERED, NULL) == (map_fails ? ENOMEM : 0));
            map_fails = false;
            CHECK(!disk.bad && check_figures(ring).delivered == (heals == 2 ? 31 : 32));
        } else {
            CHECK(figures(ring).delivered == 31 && !is_known(ring, 3) && is_known(ring, 2));
            disk.bad = false;
            CHECK(check_figures(ring).delivered == 61);
        }
        vev_ring_close(ring);
    }
}
#endif

/* ---- many at once ---- */

enum { MARKERS = 3, COUNTERS = 2, ROUNDS = 60 };

_Noreturn static void mark_on(const char *dir, uint64_t state)
{
    vev_ring *ring = open_with(&vev_io_posix, dir, false);
    for (;;) {
        uint64_t seqs[8];
        state = state * 6364136223846793005u + 1442695040888963407u;
        uint64_t first = 1 + (state >> 33) % (10 * PER_LAP_MIN);
        for (uint64_t i = 0; i < 8; i++)
            seqs[i] = first + i * 5;
        static const int states[] = {VEV_DELIVERED, VEV_PENDING, VEV_REJECTED, VEV_DELIVERED};
        OK(vev_ring_mark(ring, seqs, 8, states[state >> 60 & 3u], NULL));
    }
}

_Noreturn static void count_on(const char *dir)
{
    vev_ring *ring = open_with(&vev_io_posix, dir, false);
    for (;;)
        (void)figures(ring);
}

static pid_t start(const char *dir, uint32_t i, uint64_t state)
{
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        if (i < MARKERS)
            mark_on(dir, state + 1);
        count_on(dir);
    }
    return child;
}

static void end(pid_t child)
{
    int status;
    CHECK(kill(child, SIGKILL) == 0 && waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status)); /* and did not end by itself */
}

/* Processes mark and count, and are killed at any moment. When none is left, all tallies are
 * right. */
static void killed_at_random(void)
{
    const char *dir = fresh_dir();
    vev_ring *ring = ring_with(&vev_io_posix, dir, 10);
    uint64_t state = 1, known = 0;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        bool open = round % 3 > 0; /* else the ring is rebuilt by one of them, and by us */
        if (!open)
            vev_ring_close(ring);
        pid_t children[MARKERS + COUNTERS];
        for (uint32_t i = 0; i < MARKERS + COUNTERS; i++)
            children[i] = start(dir, i, round * 100 + i);
        for (uint32_t turn = 0; turn < 4; turn++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            usleep((useconds_t)(state >> 52));
            uint32_t i = (uint32_t)(state >> 20) % (MARKERS + COUNTERS);
            end(children[i]);
            children[i] = start(dir, i, round * 100 + 10 * turn + i);
        }
        for (uint32_t i = 0; i < MARKERS + COUNTERS; i++)
            end(children[i]);
        if (!open)
            ring = open_with(&vev_io_posix, dir, false);
        for (uint32_t s = 0; s < 10; s++)
            known += is_known(ring, s);
        (void)check_figures(ring);
    }
    CHECK(known > 0); /* else nothing was tried */
    vev_ring_close(ring);
}

int main(void)
{
    begin_tests("tally");
    RUN(words);
    RUN(maps_are_read_once);
    RUN(tallies_of_others);
    RUN(tallies_of_another_file);
    RUN(tallies_of_other_laps);
    RUN(new_laps);
    RUN(tallies_and_failed_syncs);
    RUN(marks_take_it_back);
    RUN(others_amid_counting);
    RUN(stopped_amid_marking);
    RUN(claimed_amid_counting);
    RUN(lap_amid_counting);
    RUN(dead_amid_marking);
    RUN(counted_each_time);
    RUN(verify_takes_it_back);
#ifndef __SANITIZE_THREAD__
    RUN(unreadable_maps);
#endif
    RUN(killed_at_random);
    end_tests();
    return 0;
}
