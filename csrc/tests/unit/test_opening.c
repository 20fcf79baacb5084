/* What opening, the first read and the figures take from the file: as much of a large one as of a
 * small one. Bytes are counted, not seconds. */
#include "fault_case.h"

#include <sys/resource.h>

/* ---- a disk that counts ---- */

enum { SEGMENT = 65536, SEGMENTS = 255 };

static struct {
    int fd;         /* of events.ring */
    uint32_t heads; /* reads of heads */
    uint64_t bytes; /* of all reads */
    uint64_t fetched;
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

static void counting_prefetch(void *ctx, int fd, uint64_t offset, uint64_t size)
{
    (void)ctx;
    (void)offset;
    taken.fetched += fd == taken.fd ? size : 0;
}

static vev_log *open_counting(const char *dir, const vev_options *options)
{
    static vev_io io;
    io = vev_io_posix;
    io.open = counting_open;
    io.read = counting_read;
    io.prefetch = counting_prefetch;
    taken.heads = 0;
    taken.bytes = taken.fetched = 0;
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

/* A log all of whose segments have been used, some of them twice. */
typedef struct full {
    const char *dir;
    vev_options options;
    vev_stats made;
    vev_file_header file;
    uint32_t segments[SEGMENTS]; /* by the age of their laps; the oldest first */
} full;

static full make_full_log(void)
{
    full f = {.dir = fresh_dir(), .options = many_segments()};
    vev_log *log = open_log(f.dir, &f.options);
    uint64_t appended = 0;
    do {
        append_numbers(log, VEV_EVENTS, appended, appended + 500);
        appended += 500;
        f.made = stats_of(log, VEV_EVENTS);
    } while (f.made.evicted < 2000);
    CHECK(f.made.segment_count == SEGMENTS);
    vev_log_close(log);
    f.file = header_of(f.dir);
    laps_by_age(f.dir, &f.file, f.segments);
    return f;
}

static void check_same(const vev_stats *a, const vev_stats *b)
{
    CHECK(a->appended == b->appended && a->pending == b->pending && a->lost == b->lost);
    CHECK(a->delivered == b->delivered && a->evicted == b->evicted);
    CHECK(a->first_seq == b->first_seq && a->bytes_used == b->bytes_used);
}

/* ---- heads ---- */

/* Three heads name all 255 laps; with them are read the oldest one that each names, and what is
 * free. */
static void few_heads_are_read(void)
{
    full f = make_full_log();
    vev_stats made = f.made;
    vev_log *log = open_counting(f.dir, &f.options);
    CHECK(heads_taken() <= 6);
    uint64_t first, last;
    CHECK(read_all(log, VEV_EVENTS, 1, &first, &last) == made.pending);
    CHECK(first == made.first_seq && last == made.last_seq);
    vev_stats stats = stats_of(log, VEV_EVENTS);
    check_same(&made, &stats);
    (void)heads_taken();
    uint64_t counted_out = 300 / (made.pending / SEGMENTS) + 2;
    append_numbers(log, VEV_EVENTS, made.appended, made.appended + 300);
    made = stats_of(log, VEV_EVENTS);
    /* A reclaimer has been told of them, too, and asks each that it counts out for its kinds. */
    CHECK(counted_out < 30 && heads_taken() <= 6 + counted_out);

    /* Who comes second finds them likewise. */
    (void)heads_taken();
    vev_log *second = open_counting(f.dir, &f.options);
    stats = stats_of(second, VEV_EVENTS);
    check_same(&made, &stats);
    CHECK(heads_taken() <= 6);
    vev_log_close(second);

    f.options.flags |= VEV_OPEN_READONLY;
    second = open_counting(f.dir, &f.options);
    stats = stats_of(second, VEV_EVENTS);
    check_same(&made, &stats);
    CHECK(heads_taken() <= 6);
    vev_log_close(second);
    vev_log_close(log);
}

/* A power cut took the head of any one lap but the newest, and what stands there is older. */
static void named_by_others(void)
{
    full f = make_full_log();
    for (uint32_t i = 0; i + 1 < SEGMENTS; i++) {
        uint8_t kept[VEV_HEADER_BLOCK], older[VEV_HEADER_BLOCK] = {0};
        vev_head head = {.generation = 1 + i % 2, .base_seq = 1, .salt = 1};
        read_ring(f.dir, at_segment(f.segments[i]), kept, sizeof kept);
        vev_head_write(older, &f.file, &head);
        overwrite(f.dir, at_segment(f.segments[i]), older, sizeof older);
        vev_log *log = open_log(f.dir, &f.options);
        vev_stats stats = stats_of(log, VEV_EVENTS);
        check_same(&f.made, &stats);
        vev_log_close(log);
        overwrite(f.dir, at_segment(f.segments[i]), kept, sizeof kept);
    }
}

/* What names no others, as the laps of earlier versions, is read by itself. */
static void heads_without_a_past(void)
{
    full f = make_full_log();
    static const uint8_t none[VEV_HEADER_BLOCK - VEV_HEAD_PAST];
    for (uint32_t s = 0; s < SEGMENTS; s++)
        overwrite(f.dir, at_segment(s) + VEV_HEAD_PAST, none, sizeof none);
    vev_log *log = open_counting(f.dir, &f.options);
    CHECK(heads_taken() == SEGMENTS);
    vev_stats stats = stats_of(log, VEV_EVENTS);
    check_same(&f.made, &stats);
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

/* With the newer ledger gone, the older one does not say that the oldest lap is reclaimed: its
 * segment holds the newest one by now, and that counts, wherever the search begins. */
static void newest_lap_behind_a_lost_ledger(void)
{
    for (uint64_t start = 0; start < SEGMENTS; start += 11) {
        full f = make_full_log();
        break_ledger(f.dir, &f.file, true);
        overwrite(f.dir, VEV_AT_LIVE + offsetof(vev_live, active), &start, sizeof start);
        vev_log *log = open_log(f.dir, &f.options);
        vev_stats stats = stats_of(log, VEV_EVENTS);
        CHECK(stats.pending == f.made.pending && stats.appended == f.made.appended);
        CHECK(stats.first_seq == f.made.first_seq);
        append_numbers(log, VEV_EVENTS, f.made.appended, f.made.appended + 3000);
        CHECK(stats_of(log, VEV_EVENTS).appended == f.made.appended + 3000);
        vev_log_close(log);
    }
}

/* Without any ledger nothing says which of the laps that are named have been reclaimed. */
static void no_past_without_a_ledger(void)
{
    full f = make_full_log();
    static const uint8_t none[VEV_HEADER_BLOCK];
    overwrite(f.dir, at_segment(f.segments[0]), none, sizeof none); /* reclaimed, and cleared */
    overwrite(f.dir, VEV_AT_LEDGER, none, sizeof none);
    overwrite(f.dir, VEV_AT_LEDGER + VEV_HEADER_BLOCK, none, sizeof none);
    uint8_t block[VEV_HEADER_BLOCK];
    vev_head oldest;
    read_ring(f.dir, at_segment(f.segments[1]), block, sizeof block);
    CHECK(vev_head_read(block, f.file.uuid, &f.file.geometry, &oldest));
    f.options.flags |= VEV_OPEN_READONLY;
    for (int turn = 0; turn < 2; turn++) {
        vev_log *log = open_log(f.dir, &f.options);
        vev_stats stats = stats_of(log, VEV_EVENTS);
        CHECK(stats.appended == f.made.appended && stats.first_seq > f.made.first_seq);
        CHECK(stats.first_seq == oldest.base_seq && stats.pending + stats.lost == stats.appended);
        CHECK(stats.lost == oldest.base_seq - 1);
        vev_log_close(log);
        f.options.flags &= ~(uint32_t)VEV_OPEN_READONLY;
    }
}

/* The newest lap has a seal that its records do not bear out. It is taken away, and not
 * remembered. */
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

/* The first event of a segment of 8 MiB, whose state map has 64 KiB: the ring's header is mapped,
 * and of the rest are read the head, a dictionary of at most 16 KiB, and the beginnings. */
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

/* The figures take as much of a state map as has records: of 4,000 records of 2 KB 1 KiB out of
 * 64. */
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

/* What a power cut left of a lap that had the same generation, in the block of the one that has it
 * now. */
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

/* ---- checkpoints ---- */

enum { LARGE = 4 << 20, RECORD = 104 };

/* A log whose newest segment is large, and holds so many records of one size; closed, in the boot
 * that wrote it or another one. */
static vev_options one_large_segment(void)
{
    vev_options options = quiet();
    options.events_size = VEV_HEADER_REGION + 4 * LARGE;
    options.segment_size = LARGE;
    options.level = VEV_LEVEL_RAW;
    return options;
}

static void append_alike(vev_log *log, uint32_t count)
{
    static const uint8_t payload[RECORD - VEV_RECORD_HEADER] = {7};
    for (uint32_t i = 0; i < count; i++)
        OK(vev_log_append(log, VEV_EVENTS, payload, sizeof payload, NULL));
}

static const char *make_large(uint32_t count, bool booted)
{
    const char *dir = fresh_dir();
    vev_options options = one_large_segment();
    vev_log *log = open_log(dir, &options);
    append_alike(log, count);
    vev_log_close(log);
    if (booted)
        boot_again(dir);
    return dir;
}

static uint64_t at_record(const vev_file_header *file, uint32_t index)
{
    return VEV_HEADER_REGION + file->geometry.data_offset + (uint64_t)index * RECORD;
}

static uint64_t head_word(const char *dir)
{
    uint64_t word;
    read_ring(dir, VEV_HEADER_REGION + VEV_HEAD_CHECKPOINT, &word, sizeof word);
    return word;
}

static uint64_t live_word(const char *dir)
{
    uint64_t word;
    read_ring(dir, VEV_AT_LIVE + offsetof(vev_live, checkpoint), &word, sizeof word);
    return word;
}

static uint32_t seed_of(const char *dir, const vev_file_header *file)
{
    uint8_t block[VEV_HEADER_BLOCK];
    vev_head head;
    read_ring(dir, VEV_HEADER_REGION, block, sizeof block);
    CHECK(vev_head_read(block, file->uuid, &file->geometry, &head));
    return vev_lap_seed(file->uuid, head.generation, head.salt);
}

/* How many records can be read one by one. */
static uint64_t count_readable(vev_log *log)
{
    static uint8_t buffer[1 << 16];
    static vev_record records[512];
    uint64_t next = 0, total = 0;
    size_t count;
    do {
        OK(vev_log_read(log, VEV_EVENTS, next, 15, records, 512, buffer, sizeof buffer, &count,
                        &next));
        total += count;
    } while (count > 0);
    return total;
}

/* What stands in front of a checkpoint is not looked at when a log is opened, be it that others
 * wrote it in this boot or that it was synced in another one; and in this boot next to nothing of
 * what comes after. */
static void opens_at_a_checkpoint(void)
{
    for (int booted = 0; booted < 2; booted++) {
        const char *dir = make_large(30000, booted);
        vev_file_header file = header_of(dir);
        vev_options options = one_large_segment();
        vev_log *log = open_counting(dir, &options);
        CHECK(taken.fetched <= (booted ? LARGE / 2 : 300 << 10));
        vev_log_close(log);
        if (booted)
            boot_again(dir);
#ifndef __SANITIZE_THREAD__
        /* With a page in front that cannot be read, the log would have to go on in another
         * segment. */
        make_bad(at_record(&file, 5000));
        vev_log *on_bad = open_on_bad_disk(dir, &options);
        vev_entry entry = {0};
        OK(vev_log_append(on_bad, VEV_EVENTS, "next", 4, &entry));
        CHECK(entry.seq == 30001 && disk.bad);
        vev_stats stats = stats_of(on_bad, VEV_EVENTS);
        CHECK(stats.appended == 30001 && stats.bytes_used < LARGE && disk.bad);
        vev_log_close(on_bad);
#endif
    }
}

/* The word is there after a sync that covered what it speaks of, and not after one that failed. */
static vev_status sync_error;
static const char *synced_dir;
static uint64_t word_amid_sync;

static vev_status watched_sync(void *ctx, int fd)
{
    if (synced_dir && fd == taken.fd)
        word_amid_sync = head_word(synced_dir);
    return sync_error ? sync_error : vev_io_posix.sync(ctx, fd);
}

static vev_status watched_sync_map(void *ctx, uint8_t *start, size_t size)
{
    word_amid_sync = synced_dir ? head_word(synced_dir) : 0;
    return sync_error ? sync_error : vev_io_posix.sync_map(ctx, start, size);
}

static void checkpoint_follows_the_sync(void)
{
    vev_io io = vev_io_posix;
    io.open = counting_open;
    io.sync = watched_sync;
    io.sync_map = watched_sync_map;
    const char *dir = fresh_dir();
    vev_options options = one_large_segment();
    vev_log *log;
    OK(vev__log_open(&io, dir, &options, &log));
    synced_dir = dir;
    uint64_t before = 0;
    for (int turn = 0; turn < 3; turn++) {
        append_alike(log, 11000); /* more than a MiB */
        CHECK(head_word(dir) == before);
        sync_error = turn == 2 ? EIO : 0;
        CHECK(vev_log_sync(log, NULL) == sync_error && word_amid_sync == before);
        CHECK((head_word(dir) != before) == (turn < 2));
        before = head_word(dir);
    }
    vev_file_header file = header_of(dir);
    uint32_t last = vev_checkpoint_offset(before, seed_of(dir, &file), file.geometry.data_size);
    CHECK(last == 21999 * RECORD);
    append_alike(log, 1000); /* nor while it is not opened anew */
    sync_error = 0;
    CHECK(vev_log_sync(log, NULL) != VEV_OK && head_word(dir) == before);
    vev_log_close(log);
    /* What that sync should have written is looked at again, all of it. */
    log = open_counting(dir, &options);
    CHECK(taken.fetched >= 34000 * RECORD && stats_of(log, VEV_EVENTS).appended == 34000);
    vev_log_close(log);
}

/* Nothing is believed of a checkpoint but that it is one. */
static void checkpoints_that_lie(void)
{
    const char *dir = make_large(30000, true);
    vev_file_header file = header_of(dir);
    uint32_t seed = seed_of(dir, &file), data_size = file.geometry.data_size;
    const uint32_t offsets[] = {8,
                                20000 * RECORD + 8,
                                29999 * RECORD,
                                30000 * RECORD,
                                31000 * RECORD,
                                data_size - 8,
                                data_size - VEV_RECORD_HEADER};
    vev_options options = one_large_segment();
    uint64_t torn[2] = {vev_word_sized(VEV_WORD_COMMITTED, RECORD, 5), 1};
    overwrite(dir, at_record(&file, 31000), torn, sizeof torn);
    for (uint32_t i = 0; i < 40; i++) {
        uint64_t word = vev_checkpoint_word(seed, offsets[i % 7]), live = 1ull << 24;
        if (i >= 35)
            word = i == 35 ? 0 : i == 36 ? UINT64_MAX : (uint64_t)i << 59 | 8000u * i;
        else if (i >= 28)
            word = vev_checkpoint_word(seed + 1, offsets[i % 7]); /* of another lap */
        live = i % 3 == 0 ? (uint64_t)(i % 2 + 1) << 24 | offsets[i % 7] / 8 : word;
        if (i % 2 == 0)
            overwrite(dir, VEV_HEADER_REGION + VEV_HEAD_CHECKPOINT, &word, sizeof word);
        if (i % 4 > 0)
            overwrite(dir, VEV_AT_LIVE + offsetof(vev_live, checkpoint), &live, sizeof live);
        else
            boot_again(dir);
        vev_log *log = open_log(dir, &options);
        CHECK(stats_of(log, VEV_EVENTS).appended == 30000);
        vev_log *second = open_log(dir, &options);
        CHECK(stats_of(second, VEV_EVENTS).appended == 30000);
        CHECK(count_readable(second) == 30000);
        vev_log_close(second);
        vev_log_close(log);
        options.flags |= VEV_OPEN_READONLY;
        overwrite(dir, VEV_AT_LIVE + offsetof(vev_live, checkpoint), &live, sizeof live);
        second = open_log(dir, &options);
        CHECK(stats_of(second, VEV_EVENTS).appended == 30000);
        vev_log_close(second);
        options.flags &= ~(uint32_t)VEV_OPEN_READONLY;
    }
    CHECK(vev_checkpoint_offset(vev_checkpoint_word(seed, 800), seed, data_size) == 800);
    CHECK(vev_checkpoint_offset(vev_checkpoint_word(seed, 800), seed + 1, data_size) == 0);
    CHECK(vev_checkpoint_offset(vev_checkpoint_word(seed, 801), seed, data_size) == 0);
    CHECK(vev_checkpoint_offset(vev_checkpoint_word(seed, data_size), seed, data_size) == 0);
}

/* Damage in front of a checkpoint costs the damaged records: who opens the log, who joins, and who
 * joins where the checkpoint is damaged or gone give out no number twice, and all but those can be
 * read. */
static void damage_in_front(void)
{
    static const uint8_t zeros[8], junk[8] = {1, 2, 3};
    enum { THERE, DAMAGED, GONE };
    for (int turn = 0; turn < 12; turn++) {
        int checkpoint = turn % 3;
        bool booted = turn % 2 == 0, goes_on = turn >= 6;
        uint64_t lost = checkpoint == GONE ? 2 : checkpoint == DAMAGED ? 4 : 3;
        const char *dir = make_large(30000, booted);
        vev_file_header file = header_of(dir);
        if (checkpoint != GONE) /* it looks as if it were free */
            overwrite(dir, at_record(&file, 1000), zeros, sizeof zeros);
        overwrite(dir, at_record(&file, 2000) + 48, junk, sizeof junk);
        overwrite(dir, at_record(&file, 3000), junk, sizeof junk);
        vev_options options = one_large_segment();
        vev_log *log = open_log(dir, &options);
        append_alike(log, 1);
        if (checkpoint == DAMAGED)
            overwrite(dir, at_record(&file, 29999) + 48, junk, sizeof junk);
        if (checkpoint == GONE) {
            overwrite(dir, VEV_HEADER_REGION + VEV_HEAD_CHECKPOINT, zeros, sizeof zeros);
            overwrite(dir, VEV_AT_LIVE + offsetof(vev_live, checkpoint), zeros, sizeof zeros);
        }
        vev_log *second = open_log(dir, &options);
        vev_entry entry = {0};
        OK(vev_log_append(second, VEV_EVENTS, "second", 6, &entry));
        CHECK(entry.seq == 30002);
        if (checkpoint != GONE)
            CHECK(stats_of(second, VEV_EVENTS).bytes_used < LARGE); /* it goes on where others do */
        OK(vev_log_append(log, VEV_EVENTS, "first", 5, &entry));
        CHECK(entry.seq == 30003);
        OK(vev_log_sync(second, NULL));
        CHECK(vev_log_durable_seq(second, VEV_EVENTS) == 30003);
        if (goes_on) { /* until one of them begins another segment */
            append_alike(second, 20000);
            append_alike(log, 20000);
        }
        uint64_t appended = goes_on ? 70003 : 30003;
        CHECK(count_readable(second) == appended - lost);
        vev_stats stats = stats_of(log, VEV_EVENTS);
        CHECK(stats.appended == appended && stats.lost == lost);
        CHECK(stats.pending == appended - lost);
        vev_log_close(second);
        vev_log_close(log);
    }
}

static uint64_t die_here(void *ctx, int fd, uint64_t offset, uint64_t size)
{
    if (fd == taken.fd)
        _exit(0);
    return vev_io_posix.content(ctx, fd, offset, size);
}

/* Open a log, and die before its newest segment is looked at. */
static void die_opening(const char *dir, const vev_options *options)
{
    pid_t child = fork();
    if (child == 0) {
        vev_io io = vev_io_posix;
        io.open = counting_open;
        io.content = die_here;
        taken.fd = -1;
        vev_log *log;
        (void)vev__log_open(&io, dir, options, &log);
        _exit(1);
    }
    wait_for(child);
}

/* A page that a power cut took, or that was copied before the later ones, is not the end; nor for
 * who comes after somebody who died before the copy was looked at. */
static void free_word_that_is_not_the_end(void)
{
    static const uint8_t zeros[sizeof(uint64_t)];
    for (int copied = 0; copied < 3; copied++) {
        const char *dir = make_large(30000, !copied);
        vev_file_header file = header_of(dir);
        uint64_t durable = 100, elsewhere = 1;
        overwrite(dir, VEV_HEADER_REGION + VEV_HEAD_CHECKPOINT, zeros, sizeof zeros);
        overwrite(dir, at_record(&file, 20000), zeros, sizeof zeros);
        if (copied) {
            overwrite(dir, VEV_AT_LIVE + offsetof(vev_live, durable_seq), &durable, sizeof durable);
            overwrite(dir, VEV_AT_LIVE + offsetof(vev_live, home), &elsewhere, sizeof elsewhere);
        }
        vev_options options = one_large_segment();
        if (copied == 2)
            die_opening(dir, &options);
        vev_log *log = open_log(dir, &options);
        vev_stats stats = stats_of(log, VEV_EVENTS);
        CHECK(stats.appended == 30000 && stats.lost == 1 && count_readable(log) == 29999);
        vev_log_close(log);
    }
}

/* A record that leaves no room for the end of its lap is none, be its checksum right: no writer
 * makes one, and nobody could go on behind it. */
static void record_without_room_behind_it(void)
{
    static const uint8_t payload[SEGMENT];
    const char *dir = fresh_dir();
    CHECK(mkdir(dir, 0700) == 0);
    vev_ring *ring = open_ring(dir);
    vev_entry entry = {0};
    OK(vev_ring_append(ring, payload, 64, &entry));
    vev_span *span = atomic_load(&ring->current);
    uint32_t offset = (uint32_t)atomic_load(&span->tail) * 8u;
    uint32_t size = ring->file.geometry.data_size - offset - VEV_RECORD_HEADER;
    vev_header header = {.seq = 2, .stored_size = size, .raw_size = size};
    uint64_t word = vev_record_write(span->data + offset, &span->lap, offset, &header, payload);
    vev_store64(span->data + offset, word);
    vev_ring_close(ring);
    alarm(60);
    ring = open_ring(dir);
    vev_ring *second = open_ring(dir);
    OK(vev_ring_append(ring, payload, 64, &entry));
    OK(vev_ring_append(second, payload, 64, &entry));
    CHECK(entry.seq == 3);
    alarm(0);
    vev_ring_close(second);
    vev_ring_close(ring);
}

/* A word whose writer died stays behind every checkpoint until recovery has made a hole of it. */
static void dead_writers_are_not_passed(void)
{
    static const uint8_t payload[RECORD - VEV_RECORD_HEADER] = {7};
    vev__checkpoint_step = 1;
    const char *dir = fresh_dir();
    vev_options small_log = quiet();
    vev_log_close(open_log(dir, &small_log));
    vev_ring *ring = open_ring(dir);
    vev_entry entry = {0};
    for (int i = 0; i < 50; i++)
        OK(vev_ring_append(ring, payload, sizeof payload, &entry));
    pid_t child = fork();
    if (child == 0) {
        OK(vev_ring_reattach(ring));
        uint32_t offset, index;
        (void)reserve_only(ring, &offset, &index);
        _exit(offset == 50 * RECORD ? 0 : 1);
    }
    wait_for(child);
    vev_watch seen;
    vev_ring_watch(ring, &seen, 1);
    for (int i = 0; i < 50; i++)
        OK(vev_ring_append(ring, payload, sizeof payload, &entry));
    CHECK(entry.seq == 101);
    (void)vev_ring_keep(ring, &seen, 1000000);
    OK(vev_ring_sync(ring, 0));
    vev_file_header file = header_of(dir);
    CHECK(vev_ring_checkpoint(ring, 1) == 49 * RECORD);
    CHECK(vev_checkpoint_offset(head_word(dir), seed_of(dir, &file), file.geometry.data_size) ==
          49 * RECORD);
    vev_ring_close(ring);
    ring = open_ring(dir);
    CHECK(vev_ring_checkpoint(ring, 1) == 100 * RECORD);
    vev_stats stats;
    OK(vev_ring_stats(ring, &stats));
    CHECK(stats.lost == 1 && stats.lost_unfinished == 1 && stats.appended == 101);
    OK(vev_ring_append(ring, payload, sizeof payload, &entry));
    OK(vev_ring_sync(ring, 0));
    CHECK(vev_ring_checkpoint(ring, 1) == 101 * RECORD);
    vev_ring_close(ring);
    vev__checkpoint_step = 65536;
}

/* The keeper moves it with what is appended, also where nothing is ever synced. */
static void keeper_moves_the_checkpoint(void)
{
    const char *dir = fresh_dir();
    vev_options options = one_large_segment();
    options.flags = 0;
    options.sync_interval_ms = 0;
    vev_log *log = open_log(dir, &options);
    append_alike(log, 10000);
    for (int turn = 0; live_word(dir) == 0 && turn < 1000; turn++) {
        usleep(10000);
        append_alike(log, 1);
    }
    CHECK(live_word(dir) >= (1ull << 24 | vev__checkpoint_step / 8) && head_word(dir) == 0);
    vev_log_close(log);
}

/* Without a helper appends move it themselves, and it is never far behind. */
static void appends_move_the_checkpoint(void)
{
    const char *dir = fresh_dir();
    vev_options options = one_large_segment();
    vev_log *log = open_log(dir, &options);
    for (uint64_t end = 0; end < LARGE * 3ull / 4; end += 1000 * RECORD) {
        CHECK((live_word(dir) & 0xffffff) * 8 + (1400 << 10) >= end);
        append_alike(log, 1000);
    }
    CHECK(live_word(dir) >> 24 == 1 && head_word(dir) == 0);
    vev_log_close(log);
}

/* A lap that begins in a segment has none of the lap before. */
static void no_checkpoint_of_an_earlier_lap(void)
{
    vev__checkpoint_step = 1;
    const char *dir = fresh_dir();
    vev_options options = quiet();
    options.segment_size = SEGMENT;
    options.level = VEV_LEVEL_RAW;
    vev_log *log = open_log(dir, &options);
    uint64_t appended = 0, before = 0;
    while (stats_of(log, VEV_EVENTS).evicted == 0) {
        append_numbers(log, VEV_EVENTS, appended, appended + 10);
        appended += 10;
        if (appended == 20)
            OK(vev_log_sync(log, NULL));
        before = before ? before : head_word(dir);
    }
    CHECK(before != 0 && head_word(dir) == 0);
    vev_log_close(log);
    vev__checkpoint_step = 65536;
}

/* A process that is a lap behind does not put its checkpoint in the place of a later one. */
static void no_checkpoint_over_a_later_one(void)
{
    vev__checkpoint_step = 1;
    const char *dir = fresh_dir();
    CHECK(mkdir(dir, 0700) == 0);
    vev_ring *behind = open_ring(dir), *ahead = open_ring(dir);
    uint8_t payload[1000] = {0};
    vev_entry entry;
    for (int n = 0; n < 10; n++) {
        entry = (vev_entry){0};
        OK(vev_ring_append(behind, payload, sizeof payload, &entry));
    }
    while (atomic_load(&ahead->live->active) >> 10 < 2) {
        entry = (vev_entry){0};
        OK(vev_ring_append(ahead, payload, sizeof payload, &entry));
    }
    entry = (vev_entry){0};
    OK(vev_ring_append(ahead, payload, sizeof payload, &entry));
    vev_ring_keep_checkpoint(ahead);
    uint32_t later = vev_ring_checkpoint(ahead, 2);
    CHECK(later > 0);
    vev_ring_keep_checkpoint(behind);
    CHECK(behind->walk_generation == 1 && vev_ring_checkpoint(ahead, 2) == later);
    vev_ring_close(behind);
    vev_ring_close(ahead);
    vev__checkpoint_step = 65536;
}

/* To read a ring is no reason to write to the flash, as the time of the last access would be. */
static void reading_leaves_no_time(void)
{
    const char *dir = fresh_dir();
    (void)make_log(dir, 300);
    char path[160];
    snprintf(path, sizeof path, "%s/events.ring", dir);
    const struct timespec times[2] = {{.tv_sec = 1000}, {.tv_nsec = UTIME_OMIT}};
    CHECK(utimensat(AT_FDCWD, path, times, 0) == 0);
    vev_options options = quiet();
    vev_log *log = open_log(dir, &options);
    uint64_t first, last;
    CHECK(read_all(log, VEV_EVENTS, 15, &first, &last) == 300);
    vev_log_close(log);
    struct stat st;
    CHECK(stat(path, &st) == 0);
    CHECK(st.st_atim.tv_sec == 1000);
}

/* Who may read a file and does not own it may not ask for that, and reads all the same. */
static void files_of_another_user(void)
{
    enum { NOBODY = 65534 };
    if (geteuid() != 0)
        return;
    const char *dir = fresh_dir();
    (void)make_log(dir, 1);
    char path[160];
    snprintf(path, sizeof path, "%s/events.ring", dir);
    CHECK(chmod(dir, 0755) == 0 && chmod(path, 0644) == 0);
    pid_t child = fork();
    if (child == 0) {
        /* Its ways there are nobody's business, so from inside. */
        int fd;
        bool there = chdir(dir) == 0 && setuid(NOBODY) == 0;
        _exit(there && vev_io_posix.open(NULL, "events.ring", VEV_FILE_READ, &fd) == 0 ? 0 : 1);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

/* What root makes in another user's directory is that user's, who could not go on with it else. */
static void made_by_root_for_another(void)
{
    enum { NOBODY = 65534 };
    if (geteuid() != 0)
        return;
    const char *dir = fresh_dir(), *names[] = {"events.ring", "media.ring", "delivery.ring"};
    CHECK(mkdir(dir, 0700) == 0 && chown(dir, NOBODY, NOBODY) == 0);
    for (int round = 0; round < 2; round++) {
        (void)make_log(dir, 1);
        for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
            char path[160];
            snprintf(path, sizeof path, "%s/%s", dir, names[i]);
            struct stat st;
            CHECK(stat(path, &st) == 0);
            CHECK(st.st_uid == NOBODY && st.st_gid == NOBODY && (st.st_mode & 0777) == 0600);
            CHECK(truncate(path, 0) == 0); /* so that it is set aside, and made anew */
        }
    }
}

static uint32_t syncs;
static vev_status sync_result;

static vev_status counted_sync(void *ctx, int fd)
{
    syncs++;
    return sync_result ? sync_result : vev_io_posix.sync(ctx, fd);
}

/* Who sees another boot need not be in one: /proc may be hidden from either. What the other has
 * appended is durable when it has been synced. */
static void boots_that_are_one(void)
{
    vev_options options = quiet();
    for (int fails = 0; fails < 2; fails++) {
        const char *dir = fresh_dir();
        vev_moment now;
        vev_now(&now);
        pid_t child = fork();
        if (child == 0) {
            vev_log *log = open_log(dir, &options);
            append_numbers(log, VEV_EVENTS, 0, 50);
            _exit(stats_of(log, VEV_EVENTS).durable_seq == 0 ? 0 : 1);
        }
        wait_for(child);
        now.boot++;
        vev_set_clock(&now);
        vev_io io = vev_io_posix;
        io.sync = counted_sync;
        syncs = 0;
        sync_result = fails ? EIO : VEV_OK;
        vev_log *log;
        OK(vev__log_open(&io, dir, &options, &log));
        CHECK(syncs >= 3); /* of each ring */
        vev_stats stats = stats_of(log, VEV_EVENTS);
        CHECK(stats.pending == 50 && stats.durable_seq == (fails ? 0 : 50));
        vev_log_close(log);
        vev_set_clock(NULL);
    }
}

/* A link to a card that is not there. */
static void link_to_nowhere(void)
{
    const char *dir = fresh_dir();
    vev_options options = quiet();
    vev_log *log;
    CHECK(symlink("nowhere", dir) == 0);
    CHECK(vev_log_open(dir, &options, &log) == ENOENT);
    CHECK(unlink(dir) == 0 && symlink(dir, dir) == 0);
    CHECK(vev_log_open(dir, &options, &log) == ELOOP);
}

/* A limit on the size of files ends no program. */
static void limit_on_file_sizes(void)
{
    const struct rlimit limit = {.rlim_cur = 1 << 19, .rlim_max = RLIM_INFINITY};
    vev_options options = quiet();
    const char *fresh = fresh_dir();
    pid_t child = fork();
    if (child == 0) {
        vev_log *log;
        CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
        CHECK(vev_log_open(fresh, &options, &log) == EFBIG);
        CHECK(rmdir(fresh) == 0); /* nothing is left in it */
        _exit(0);
    }
    wait_for(child);

    enum { MOST = 10000 };
    const char *dir = fresh_dir();
    (void)make_log(dir, 300);
    child = fork();
    if (child == 0) {
        CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
        vev_log *log = open_log(dir, &options);
        uint8_t payload[512];
        vev_status status = VEV_OK;
        uint64_t n = 300;
        while (!status && n < MOST) {
            status = vev_log_append(log, VEV_EVENTS, payload, make_payload(payload, n), NULL);
            n += !status;
        }
        CHECK(status == EFBIG);
        CHECK(stats_of(log, VEV_EVENTS).appended == n);
        vev_log_close(log);
        _exit(0);
    }
    wait_for(child);
    vev_log *log = open_log(dir, &options);
    uint64_t first, last, before = stats_of(log, VEV_EVENTS).pending;
    CHECK(before > 300 && read_all(log, VEV_EVENTS, 15, &first, &last) == before);
    append_numbers(log, VEV_EVENTS, before, before + 1);
    CHECK(stats_of(log, VEV_EVENTS).pending == before + 1);
    vev_log_close(log);
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
    RUN(opens_at_a_checkpoint);
    RUN(checkpoint_follows_the_sync);
    RUN(checkpoints_that_lie);
    RUN(damage_in_front);
    RUN(free_word_that_is_not_the_end);
    RUN(record_without_room_behind_it);
    RUN(dead_writers_are_not_passed);
    RUN(keeper_moves_the_checkpoint);
    RUN(appends_move_the_checkpoint);
    RUN(no_checkpoint_of_an_earlier_lap);
    RUN(no_checkpoint_over_a_later_one);
    RUN(reading_leaves_no_time);
    RUN(files_of_another_user);
    RUN(made_by_root_for_another);
    RUN(boots_that_are_one);
    RUN(link_to_nowhere);
    RUN(limit_on_file_sizes);
    end_tests();
    return 0;
}
