/* What opening, the first read and the figures take from the file: as much of a large one as of a small
 * one. Bytes are counted, not seconds. */
#include "fault_case.h"

/* ---- a disk that counts ---- */

enum { SEGMENT = 65536, SEGMENTS = 255 };

static struct {
    int fd;         /* of events.ring */
    uint32_t heads; /* reads of heads */
    uint64_t bytes; /* of all reads */
} taken;

static vev_status counting_open(void *ctx, const char *path, int mode, int *fd_out)
{
    (void)ctx;
    return open_noting(path, mode, fd_out, &taken.fd);
}

static vev_status counting_read(void *ctx, int fd, uint64_t offset, void *buffer, size_t size)
{
    if (fd == taken.fd) {
        taken.heads += offset > 0 && offset % SEGMENT == 0;
        taken.bytes += size;
    }
    return vev_io_posix.read(ctx, fd, offset, buffer, size);
}

static vev_log *open_counting(const char *dir, const vev_options *options)
{
    static vev_io io;
    io = vev_io_posix;
    io.open = counting_open;
    io.read = counting_read;
    taken.heads = 0;
    taken.bytes = 0;
    vev_log *log;
    OK(vev__log_open(&io, dir, options, &log));
    return log;
}

/* What was taken since it was asked last. */
static uint32_t heads_taken(void)
{
    uint32_t heads = taken.heads;
    taken.heads = 0;
    return heads;
}

/* ---- logs ---- */

static vev_options many_segments(void)
{
    vev_options options = quiet();
    options.events_size = VEV_HEADER_REGION + SEGMENTS * SEGMENT;
    options.segment_size = SEGMENT;
    options.level = VEV_LEVEL_RAW;
    return options;
}

/* A log all of whose segments have been used, some of them twice. */
static vev_stats make_full_log(const char *dir)
{
    vev_options options = many_segments();
    vev_log *log = open_log(dir, &options);
    uint64_t appended = 0;
    vev_stats stats;
    do {
        append_numbers(log, VEV_EVENTS, appended, appended + 500);
        appended += 500;
        stats = stats_of(log, VEV_EVENTS);
    } while (stats.evicted < 2000);
    CHECK(stats.segment_count == SEGMENTS);
    vev_log_close(log);
    return stats;
}

static void check_same(const vev_stats *a, const vev_stats *b)
{
    CHECK(a->appended == b->appended && a->pending == b->pending && a->lost == b->lost);
    CHECK(a->delivered == b->delivered && a->evicted == b->evicted);
    CHECK(a->first_seq == b->first_seq && a->bytes_used == b->bytes_used);
}

/* ---- heads ---- */

/* Three heads name all 255 laps; with them are read the oldest one that each names, and what is free. */
static void few_heads_are_read(void)
{
    const char *dir = fresh_dir();
    vev_stats made = make_full_log(dir);
    vev_options options = many_segments();
    vev_log *log = open_counting(dir, &options);
    CHECK(heads_taken() <= 6);
    uint64_t first, last;
    CHECK(read_all(log, VEV_EVENTS, 1, &first, &last) == made.pending);
    CHECK(first == made.first_seq && last == made.last_seq);
    vev_stats stats = stats_of(log, VEV_EVENTS);
    check_same(&made, &stats);
    (void)heads_taken();
    append_numbers(log, VEV_EVENTS, made.appended, made.appended + 300);
    made = stats_of(log, VEV_EVENTS);
    CHECK(heads_taken() <= 6); /* a reclaimer has been told of them, too */

    /* Who comes second finds them likewise. */
    (void)heads_taken();
    vev_log *second = open_counting(dir, &options);
    stats = stats_of(second, VEV_EVENTS);
    check_same(&made, &stats);
    CHECK(heads_taken() <= 6);
    vev_log_close(second);

    options.flags |= VEV_OPEN_READONLY;
    second = open_counting(dir, &options);
    stats = stats_of(second, VEV_EVENTS);
    check_same(&made, &stats);
    CHECK(heads_taken() <= 6);
    vev_log_close(second);
    vev_log_close(log);
}

static void read_ring(const char *dir, uint64_t offset, void *out, size_t size)
{
    char path[160];
    snprintf(path, sizeof path, "%s/events.ring", dir);
    int fd = open(path, O_RDONLY);
    CHECK(fd >= 0 && pread(fd, out, size, (off_t)offset) == (ssize_t)size);
    close(fd);
}

static uint64_t at_segment(uint32_t s) { return VEV_HEADER_REGION + (uint64_t)s * SEGMENT; }

/* The segments of the laps, by age; the oldest first. */
static void laps_by_age(const char *dir, const vev_file_header *file, uint32_t segments[SEGMENTS])
{
    static uint64_t generations[SEGMENTS];
    for (uint32_t s = 0; s < SEGMENTS; s++) {
        uint8_t bytes[VEV_HEAD_BYTES];
        vev_head head;
        read_ring(dir, at_segment(s), bytes, sizeof bytes);
        CHECK(vev_head_read(bytes, file->uuid, &file->geometry, &head));
        generations[s] = head.generation;
        uint32_t i = s;
        for (; i > 0 && generations[segments[i - 1]] > head.generation; i--)
            segments[i] = segments[i - 1];
        segments[i] = s;
    }
}

static vev_file_header header_of(const char *dir)
{
    uint8_t block[VEV_HEADER_BLOCK];
    vev_file_header file;
    read_ring(dir, 0, block, sizeof block);
    OK(vev_file_header_read(block, &file));
    return file;
}

/* A power cut took the head of any one lap but the newest, and what stands there is older. */
static void named_by_others(void)
{
    const char *dir = fresh_dir();
    vev_stats made = make_full_log(dir);
    vev_file_header file = header_of(dir);
    uint32_t segments[SEGMENTS];
    laps_by_age(dir, &file, segments);
    vev_options options = many_segments();
    for (uint32_t i = 0; i + 1 < SEGMENTS; i++) {
        uint8_t kept[VEV_HEADER_BLOCK], older[VEV_HEADER_BLOCK] = {0};
        vev_head head = {.generation = 1 + i % 2, .base_seq = 1, .salt = 1};
        read_ring(dir, at_segment(segments[i]), kept, sizeof kept);
        vev_head_write(older, &file, &head);
        overwrite(dir, at_segment(segments[i]), older, sizeof older);
        vev_log *log = open_log(dir, &options);
        vev_stats stats = stats_of(log, VEV_EVENTS);
        check_same(&made, &stats);
        vev_log_close(log);
        overwrite(dir, at_segment(segments[i]), kept, sizeof kept);
    }
}

/* What names no others, as the laps of earlier versions, is read by itself. */
static void heads_without_a_past(void)
{
    const char *dir = fresh_dir();
    vev_stats made = make_full_log(dir);
    static const uint8_t none[VEV_HEADER_BLOCK - VEV_HEAD_PAST];
    for (uint32_t s = 0; s < SEGMENTS; s++)
        overwrite(dir, at_segment(s) + VEV_HEAD_PAST, none, sizeof none);
    vev_options options = many_segments();
    vev_log *log = open_counting(dir, &options);
    CHECK(heads_taken() == SEGMENTS);
    vev_stats stats = stats_of(log, VEV_EVENTS);
    check_same(&made, &stats);
    vev_log_close(log);
}

/* Break a ledger, so that only the other one counts. */
static void break_ledger(const char *dir, const vev_file_header *file, bool newer)
{
    uint8_t region[VEV_HEADER_REGION], junk[64] = {1};
    read_ring(dir, 0, region, sizeof region);
    vev_ledger ledgers[2];
    for (int i = 0; i < 2; i++)
        CHECK(vev_ledger_read(region + VEV_AT_LEDGER + i * VEV_HEADER_BLOCK, file->uuid,
                              &ledgers[i]));
    uint64_t which = (ledgers[1].version > ledgers[0].version) == newer;
    overwrite(dir, VEV_AT_LEDGER + which * VEV_HEADER_BLOCK, junk, sizeof junk);
}

/* With the newer ledger gone, the older one does not say that the oldest lap is reclaimed: its segment
 * holds the newest one by now, and that counts, wherever the search begins. */
static void newest_lap_behind_a_lost_ledger(void)
{
    for (uint64_t start = 0; start < SEGMENTS; start += 11) {
        const char *dir = fresh_dir();
        vev_stats made = make_full_log(dir);
        vev_file_header file = header_of(dir);
        break_ledger(dir, &file, true);
        overwrite(dir, VEV_AT_LIVE + offsetof(vev_live, active), &start, sizeof start);
        vev_options options = many_segments();
        vev_log *log = open_log(dir, &options);
        vev_stats stats = stats_of(log, VEV_EVENTS);
        CHECK(stats.pending == made.pending && stats.appended == made.appended);
        CHECK(stats.first_seq == made.first_seq);
        append_numbers(log, VEV_EVENTS, made.appended, made.appended + 3000);
        CHECK(stats_of(log, VEV_EVENTS).appended == made.appended + 3000);
        vev_log_close(log);
    }
}

/* Without any ledger nothing says which of the laps that are named have been reclaimed. */
static void no_past_without_a_ledger(void)
{
    const char *dir = fresh_dir();
    vev_stats made = make_full_log(dir);
    vev_file_header file = header_of(dir);
    uint32_t segments[SEGMENTS];
    laps_by_age(dir, &file, segments);
    static const uint8_t none[VEV_HEADER_BLOCK];
    overwrite(dir, at_segment(segments[0]), none, sizeof none); /* reclaimed, and cleared */
    overwrite(dir, VEV_AT_LEDGER, none, sizeof none);
    overwrite(dir, VEV_AT_LEDGER + VEV_HEADER_BLOCK, none, sizeof none);
    vev_options options = many_segments();
    options.flags |= VEV_OPEN_READONLY;
    for (int turn = 0; turn < 2; turn++) {
        vev_log *log = open_log(dir, &options);
        vev_stats stats = stats_of(log, VEV_EVENTS);
        CHECK(stats.appended == made.appended && stats.first_seq > made.first_seq);
        vev_log_close(log);
        options.flags &= ~(uint32_t)VEV_OPEN_READONLY;
    }
}

/* The newest lap has a seal that its records do not bear out. It is taken away, and not remembered. */
static void seal_that_is_wrong(void)
{
    const char *dir = fresh_dir();
    vev_options options = many_segments();
    vev_log *log = open_log(dir, &options);
    append_numbers(log, VEV_EVENTS, 0, 50);
    vev_log_close(log);
    vev_file_header file = header_of(dir);
    uint8_t block[VEV_HEADER_BLOCK];
    read_ring(dir, at_segment(0), block, sizeof block);
    vev_head_seal(block, file.uuid, 1, 30, 4000);
    overwrite(dir, at_segment(0), block, sizeof block);
    log = open_log(dir, &options);
    append_numbers(log, VEV_EVENTS, 50, 60);
    vev_stats stats = stats_of(log, VEV_EVENTS);
    CHECK(stats.appended == 60 && stats.pending == 60);
    vev_log_close(log);
}

/* The first event of a segment of 8 MiB, whose state map has 64 KiB: the ring's header is mapped, and of
 * the rest are read the head, a dictionary of at most 16 KiB, and the beginnings. */
static void first_read_takes_little(void)
{
    const char *dir = fresh_dir();
    vev_options options = quiet();
    options.events_size = 33 << 20;
    options.segment_size = 8 << 20;
    options.level = VEV_LEVEL_RAW;
    vev_log *log = open_counting(dir, &options);
    append_numbers(log, VEV_EVENTS, 0, 40000);
    taken.bytes = 0;
    uint8_t buffer[512];
    vev_record record;
    size_t count;
    uint64_t next;
    OK(vev_log_read(log, VEV_EVENTS, 0, 1, &record, 1, buffer, sizeof buffer, &count, &next));
    CHECK(count == 1 && record.seq == 1 && taken.bytes <= (4 + 16 + 4 + 16) << 10);
    /* States behind the first piece of the map. */
    uint64_t some[] = {3, 17000, 39999}, first, last;
    OK(vev_log_mark(log, VEV_EVENTS, some, 3, VEV_DELIVERED, NULL));
    CHECK(read_all(log, VEV_EVENTS, 1 << VEV_DELIVERED, &first, &last) == 3);
    CHECK(first == 3 && last == 39999);
    CHECK(read_all(log, VEV_EVENTS, 1, &first, &last) == 39997);
    vev_log_close(log);
}

/* The figures take as much of a state map as has records: of 4,000 records of 2 KB 1 KiB out of 64. */
static void figures_take_what_is_used(void)
{
    const char *dir = fresh_dir();
    vev_options options = quiet();
    options.events_size = 41 << 20;
    options.segment_size = 8 << 20;
    options.level = VEV_LEVEL_RAW;
    vev_log *log = open_counting(dir, &options);
    uint8_t payload[2000] = {0}, buffer[512];
    for (int i = 0; i < 14000; i++)
        OK(vev_log_append(log, VEV_EVENTS, payload, sizeof payload, NULL));
    uint64_t marked = 3999, next;
    OK(vev_log_mark(log, VEV_EVENTS, &marked, 1, VEV_DELIVERED, NULL));
    vev_record record;
    size_t count; /* the newest segment is gone through, as the figures need it */
    OK(vev_log_read(log, VEV_EVENTS, 14001, 1, &record, 1, buffer, sizeof buffer, &count, &next));
    taken.bytes = 0;
    vev_stats stats = stats_of(log, VEV_EVENTS);
    CHECK(stats.delivered == 1 && stats.pending == 13999 && stats.first_seq == 1);
    CHECK(taken.bytes <= 64 << 10);
    vev_log_close(log);
}

/* What a power cut left of a lap that had the same generation, in the block of the one that has it now. */
static void past_of_another_history(void)
{
    vev_file_header file = {.stream = 0};
    CHECK(vev_geometry_make(&file.geometry, 1 << 20, SEGMENT, 0, 64));
    static uint8_t before[VEV_HEADER_BLOCK], block[VEV_HEADER_BLOCK];
    vev_head last = {.generation = 7, .base_seq = 100, .salt = 1}, named;
    vev_head head = {.generation = 8, .base_seq = 150, .salt = 2}, other = head;
    vev_head_write(before, &file, &last);
    vev_past_write(block, &file, &head, before, 3);
    CHECK(vev_past_count(block, file.uuid, &head) == 0); /* it was never sealed */
    vev_head_seal(before, file.uuid, 7, 50, 4000);
    vev_past_write(block, &file, &head, before, 3);
    CHECK(vev_past_count(block, file.uuid, &head) == 1);
    uint32_t segment;
    CHECK(vev_past_read(block, &file.geometry, 0, &segment, &named));
    CHECK(segment == 3 && named.generation == 7 && named.base_seq == 100 && named.salt == 1);
    CHECK(named.sealed && named.record_count == 50 && named.data_end == 4000);
    other.salt = 4;
    CHECK(vev_past_count(block, file.uuid, &other) == 0);
    block[VEV_HEAD_PAST + 20] ^= 1;
    CHECK(vev_past_count(block, file.uuid, &head) == 0);
}

int main(void)
{
    begin_tests("opening");
    RUN(few_heads_are_read);
    RUN(heads_without_a_past);
    RUN(named_by_others);
    RUN(newest_lap_behind_a_lost_ledger);
    RUN(no_past_without_a_ledger);
    RUN(seal_that_is_wrong);
    RUN(first_read_takes_little);
    RUN(figures_take_what_is_used);
    RUN(past_of_another_history);
    end_tests();
    return 0;
}
