/* A log on a failing disk and beside processes that die or stop: every case here once went
 * wrong. */
#include <pthread.h>

#include "fault_case.h"
#include "vev_crc32c.h"

/* A log in which the second segment's dictionary has samples of its own. */
static vev_stats make_compressed_log(const char *dir)
{
    vev_options options = quiet();
    vev_log *log = open_log(dir, &options);
    uint8_t payload[400] = {0};
    for (uint64_t n = 0; stats_of(log, VEV_EVENTS).bytes_used < 3 * 40000; n++) {
        snprintf((char *)payload, sizeof payload, "%llu", (unsigned long long)n * 7919);
        OK(vev_log_append(log, VEV_EVENTS, payload, sizeof payload, NULL));
    }
    vev_stats stats = stats_of(log, VEV_EVENTS);
    vev_log_close(log);
    return stats;
}

/* ---- a disk with bad sectors ---- */

#ifndef __SANITIZE_THREAD__ /* the jump out of the handler would leave TSan's own locks taken */

/* The newest segment cannot be mapped: what is good in it stays, appends go on behind it. */
static void bad_sector_in_newest(void)
{
    for (int beside = 0; beside < 3; beside++) {
        const char *dir = fresh_dir();
        vev_stats made = make_log(dir, 150);
        uint64_t used = 65536 + made.segment_size - 49152 + made.bytes_used;
        /* In the middle of the records; at their end; in the room behind them. */
        make_bad(beside == 0   ? 65536 + made.segment_size / 2
                 : beside == 1 ? used - 1
                               : 65536 + made.segment_size - 1);
        vev_options options = quiet();
        vev_log *log = open_on_bad_disk(dir, &options);
        uint64_t first, last;
        append_numbers(log, VEV_EVENTS, 1000, 1100);
        uint64_t found = read_all(log, VEV_EVENTS, 15, &first, &last);
        vev_stats stats = stats_of(log, VEV_EVENTS);
        CHECK(found >= 250 - 3 * VEV_PIECE / 60 && found <= 250);
        CHECK(stats.degraded == 0 && stats.pending == found && stats.last_seq == last);
        CHECK(stats.lost == stats.appended - found && stats.lost < VEV_PIECE / 10);
        /* It can be acknowledged, reclaimed, and opened again. */
        for (uint64_t seq = 1; seq <= stats.last_seq; seq++)
            OK(vev_log_mark(log, VEV_EVENTS, &seq, 1, VEV_DELIVERED, NULL));
        vev_log_close(log);
        log = open_on_bad_disk(dir, &options);
        append_numbers(log, VEV_EVENTS, 0, 5000);
        CHECK(read_all(log, VEV_EVENTS, 1, &first, &last) > 1000);
        (void)stats_of(log, VEV_EVENTS);
        vev_log_close(log);
    }
}

/* Damage in an older segment costs the records in the bad sector, and they are counted as
 * damaged. */
static void bad_sector_in_sealed(void)
{
    const char *dir = fresh_dir();
    vev_stats made = make_log(dir, 700);
    make_bad(65536 + made.segment_size / 2);
    vev_options options = quiet();
    vev_log *log = open_on_bad_disk(dir, &options);
    uint64_t first, last;
    uint64_t found = read_all(log, VEV_EVENTS, 1, &first, &last);
    CHECK(found < 700 && found >= 700 - 2 - VEV_PIECE / 60 && last == 700);
    vev_stats stats = stats_of(log, VEV_EVENTS);
    CHECK(stats.lost == 700 - found && stats.lost_damaged == stats.lost);
    vev_log_close(log);
}

static uint64_t count_readable(vev_log *log)
{
    static vev_record records[1000];
    static uint8_t buffer[1 << 20];
    uint64_t next = 0, total = 0;
    for (;;) {
        size_t count;
        OK(vev_log_read(log, VEV_EVENTS, next, 1, records, 1000, buffer, sizeof buffer, &count,
                        &next));
        if (count == 0)
            return total;
        total += count;
    }
}

/* What cannot be read for a moment is not given up: records, and the dictionary of others. */
static void bad_sector_for_a_moment(void)
{
    const char *dir = fresh_dir();
    vev_stats made = make_compressed_log(dir);
    uint64_t total = made.appended;
    vev__give_up_ns = 60000000000u;
    uint64_t second = 65536 + made.segment_size; /* its dictionary has samples of its own */
    uint64_t places[] = {second + made.segment_size / 2, second + VEV_HEADER_BLOCK};
    for (int i = 0; i < 2; i++) {
        make_bad(places[i]);
        vev_options options = quiet();
        vev_log *log = open_on_bad_disk(dir, &options);
        uint64_t readable = count_readable(log);
        CHECK(readable < total && readable >= total / 4);
        CHECK(stats_of(log, VEV_EVENTS).lost == 0);
        disk.bad = false;
        CHECK(count_readable(log) == total);
        vev_log_close(log);
    }
    vev__give_up_ns = 0;
}

/* Nothing in the header region is there only once. */
static void bad_sector_in_header(void)
{
    for (uint64_t at = 0; at < VEV_HEADER_REGION; at += VEV_PIECE) {
        const char *dir = fresh_dir();
        make_log(dir, 1500); /* has wrapped, so that a ledger counts */
        make_bad(at);
        vev_options options = quiet();
        vev_log *log = open_on_bad_disk(dir, &options);
        CHECK(stats_of(log, VEV_EVENTS).appended == 1500);
        append_numbers(log, VEV_EVENTS, 0, 10);
        vev_stats stats = stats_of(log, VEV_EVENTS);
        CHECK(stats.appended == 1510 && stats.lost == 0 && stats.degraded == 0);
        vev_log_close(log);
    }
}

/* Delivery states that cannot be read are pending, and can be set again. */
static void bad_sector_in_state_map(void)
{
    const char *dir = fresh_dir();
    vev_stats made = make_log(dir, 100);
    vev_options options = quiet();
    vev_log *log = open_log(dir, &options);
    for (uint64_t seq = 1; seq <= 100; seq++)
        OK(vev_log_mark(log, VEV_EVENTS, &seq, 1, VEV_DELIVERED, NULL));
    append_numbers(log, VEV_EVENTS, 100, 400); /* seals it */
    made = stats_of(log, VEV_EVENTS);
    CHECK(made.delivered == 100);
    vev_log_close(log);
    make_bad(65536 + VEV_HEADER_BLOCK + VEV_DICTIONARY_MAX);
    log = open_on_bad_disk(dir, &options);
    uint64_t first, last, found = read_all(log, VEV_EVENTS, 1, &first, &last);
    CHECK(found >= 300 && found <= 400);
    for (uint64_t seq = 1; seq <= 400; seq++)
        OK(vev_log_mark(log, VEV_EVENTS, &seq, 1, VEV_DELIVERED, NULL));
    vev_stats stats = stats_of(log, VEV_EVENTS);
    CHECK(stats.delivered == 400 && stats.pending == 0);
    vev_log_close(log);
}

/* A disk that takes no more writes: the backlog can still be read and acknowledged. */
static void no_place_to_write(void)
{
    const char *dir = fresh_dir();
    vev_stats made = make_log(dir, 300);
    make_bad(65536 + made.segment_size + made.segment_size / 2);
    disk.write_error = EIO;
    vev_options options = quiet();
    vev_log *log = open_on_bad_disk(dir, &options);
    vev_log *second = open_on_bad_disk(dir, &options);
    uint8_t payload[512];
    for (int i = 0; i < 2; i++) {
        vev_log *one = i ? second : log;
        CHECK(vev_log_append(one, VEV_EVENTS, payload, make_payload(payload, 1), NULL) ==
              VEV_E_DEGRADED);
        uint64_t first, last;
        CHECK(read_all(one, VEV_EVENTS, 15, &first, &last) > 200);
        uint64_t seq = 1 + (uint64_t)i;
        size_t changed;
        OK(vev_log_mark(one, VEV_EVENTS, &seq, 1, VEV_DELIVERED, &changed));
        CHECK(changed == 1);
        CHECK(stats_of(one, VEV_EVENTS).degraded == EIO);
        CHECK(vev_log_sync(one, NULL) != VEV_OK);
    }
    vev_log_close(second);
    vev_log_close(log);
}

/* What this boot has seen on the disk is damaged, and there is no other segment to go on in: no
 * number is given out again, neither now nor once there is one. */
static void no_place_to_write_behind_damage(void)
{
    enum { COUNT = 100, SIZE = 300, HALF = 32768 };
    static const uint8_t payload[SIZE], none[HALF];
    const char *dir = fresh_dir();
    CHECK(mkdir(dir, 0700) == 0);
    vev_ring *ring = open_ring(dir);
    vev_entry entry = {.kind = VEV_KIND_CUSTOM};
    for (int i = 0; i < COUNT; i++)
        OK(vev_ring_append(ring, payload, sizeof payload, &entry));
    OK(vev_ring_sync(ring, 0));
    vev_ring_close(ring);
    overwrite(dir, VEV_HEADER_REGION + HALF, none, sizeof none);
    memset(&disk, 0, sizeof disk);
    disk.write_error = ENOSPC;
    vev_io io = bad_io();
    ring = open_ring_on(&io, dir);
    CHECK(vev_ring_append(ring, payload, sizeof payload, &entry) == VEV_E_DEGRADED);
    vev_ring_close(ring);
    disk.write_error = 0;
    ring = open_ring_on(&io, dir);
    OK(vev_ring_append(ring, payload, sizeof payload, &entry));
    vev_stats stats;
    OK(vev_ring_stats(ring, &stats));
    check_conserved(&stats);
    CHECK(entry.seq == COUNT + 1 && stats.appended == COUNT + 1);
    vev_ring_close(ring);
}

/* Who found no place to write to has not mended what a power cut left: the next one looks at all of
 * it, though it is the same boot by then. */
static void no_place_to_write_after_a_cut(void)
{
    enum { COUNT = 100, SIZE = 300, HOLE = VEV_HEADER_REGION + 32768 };
    static const uint8_t payload[SIZE], none[4096];
    const char *dir = fresh_dir();
    CHECK(mkdir(dir, 0700) == 0);
    vev_ring *ring = open_ring(dir);
    for (int i = 0; i < COUNT; i++) {
        vev_entry entry = {.kind = VEV_KIND_CUSTOM};
        OK(vev_ring_append(ring, payload, sizeof payload, &entry));
    }
    vev_ring_close(ring);
    overwrite(dir, HOLE, none, sizeof none);
    boot_again(dir);
    make_bad(HOLE - 8192);
    disk.write_error = ENOSPC;
    vev_io io = bad_io();
    ring = open_ring_on(&io, dir);
    CHECK(atomic_load(&ring->degraded) == ENOSPC);
    vev_ring_close(ring);
    memset(&disk, 0, sizeof disk);
    ring = open_ring_on(&io, dir);
    vev_stats stats;
    OK(vev_ring_stats(ring, &stats));
    check_conserved(&stats);
    CHECK(stats.appended == COUNT && stats.lost_damaged > 0);
    vev_ring_close(ring);
}

/* A log of so many events, of which those in the middle of the first segment are damaged and what
 * becomes of them cannot be written, until `disk.write_error` is taken back. */
static vev_log *open_with_damage(uint64_t count)
{
    const char *dir = fresh_dir();
    make_bad(0);
    disk.bad = false;
    vev_options options = quiet();
    vev_log *log = open_on_bad_disk(dir, &options);
    append_numbers(log, VEV_EVENTS, 0, count);
    vev_stats made = stats_of(log, VEV_EVENTS);
    uint8_t junk[600];
    memset(junk, 0xa5, sizeof junk);
    overwrite(dir, VEV_HEADER_REGION + made.segment_size / 2, junk, sizeof junk);
    int fd = disk.fd;
    make_bad(VEV_HEADER_REGION + VEV_HEADER_BLOCK + VEV_DICTIONARY_MAX);
    disk.fd = fd;
    disk.write_error = EIO;
    return log;
}

/* Records are damaged, and what became of them cannot be written: reading passes over the rest of
 * that segment, and comes back to it when the disk takes writes again. */
static void damage_that_cannot_be_marked(void)
{
    vev_log *log = open_with_damage(600);
    uint64_t first, last, found = read_all(log, VEV_EVENTS, 1, &first, &last);
    CHECK(first == 1 && last == 600 && found > 300 && found < 600);
    CHECK(stats_of(log, VEV_EVENTS).lost == 0);
    disk.write_error = 0;
    uint64_t again = read_all(log, VEV_EVENTS, 1, &first, &last);
    CHECK(again > found && again >= 590 && again < 600);
    CHECK(stats_of(log, VEV_EVENTS).lost == 600 - again);
    vev_log_close(log);
}

/* The same in the newest segment: what comes before is read, and then the error. */
static void newest_damage_that_cannot_be_marked(void)
{
    vev_log *log = open_with_damage(100);
    static vev_record records[200];
    static uint8_t buffer[1 << 18];
    size_t count;
    uint64_t next = 0;
    OK(vev_log_read(log, VEV_EVENTS, next, 1, records, 200, buffer, sizeof buffer, &count, &next));
    CHECK(count > 10 && count < 95 && next == count + 1);
    CHECK(vev_log_read(log, VEV_EVENTS, next, 1, records, 200, buffer, sizeof buffer, &count,
                       &next) == EIO);
    CHECK(count == 0);
    disk.write_error = 0;
    uint64_t first, last, found = read_all(log, VEV_EVENTS, 1, &first, &last);
    CHECK(found >= 90 && found < 100 && last == 100);
    vev_log_close(log);
}

#endif

/* ---- damage that is written ---- */

/* Verify names a dictionary that is broken, each record that needs it, and a lap whose head is
 * gone; it names as many as there is room for, and counts all. */
static void verify_names_the_damage(void)
{
    const char *dir = fresh_dir();
    vev__past_max = 1;
    vev_stats made = make_compressed_log(dir);
    vev__past_max = VEV_PAST_MAX;
    vev_options options = quiet();
    uint8_t junk[600], bytes[VEV_HEAD_BYTES];
    memset(junk, 0xa5, sizeof junk);
    const uint64_t second = VEV_HEADER_REGION + made.segment_size;
    vev_file_header file = header_of(dir);
    vev_head head;
    read_ring(dir, second, bytes, sizeof bytes);
    CHECK(vev_head_read(bytes, file.uuid, &file.geometry, &head) && head.sealed);
    overwrite(dir, second + VEV_HEADER_BLOCK, junk, sizeof junk);
    for (int readonly = 1; readonly >= 0; readonly--) {
        vev_options reading = options;
        reading.flags |= readonly ? VEV_OPEN_READONLY : 0u;
        vev_log *log = open_log(dir, &reading);
        static vev_damage ranges[2000];
        size_t count;
        uint64_t checked;
        OK(vev_log_verify(log, VEV_EVENTS, ranges, 2000, &count, &checked));
        CHECK(count > 100 && count <= head.record_count + 1);
        CHECK(ranges[0].offset == second + VEV_HEADER_BLOCK && ranges[0].count == 0);
        CHECK(ranges[0].size == head.dictionary_size && ranges[0].first_seq == head.base_seq);
        uint64_t behind = second + file.geometry.data_offset;
        for (size_t i = 1; i < count; i++) {
            CHECK(ranges[i].offset >= behind && ranges[i].size > VEV_RECORD_HEADER);
            CHECK(ranges[i].count == 1 && ranges[i].first_seq >= head.base_seq + i - 1);
            behind = ranges[i].offset + ranges[i].size;
        }
        CHECK(checked == made.appended - (count - 1));
        CHECK(stats_of(log, VEV_EVENTS).lost == 0);
        size_t same;
        memset(ranges, 0, sizeof ranges);
        OK(vev_log_verify(log, VEV_EVENTS, ranges, 1, &same, &checked));
        CHECK(same == count && ranges[0].size > 0 && ranges[1].size == 0);
        vev_log_close(log);
    }

    /* Of two heads in a row that are gone the first is named nowhere. */
    overwrite(dir, VEV_HEADER_REGION, junk, sizeof junk);
    overwrite(dir, second, junk, sizeof junk);
    options.flags |= VEV_OPEN_READONLY;
    vev_log *log = open_log(dir, &options);
    vev_damage range;
    size_t count;
    uint64_t checked;
    OK(vev_log_verify(log, VEV_EVENTS, &range, 1, &count, &checked));
    CHECK(range.offset == 0 && range.size == 0);
    CHECK(range.first_seq == 1 && range.count == head.base_seq - 1);
    vev_log_close(log);
}

/* Who writes to a segment whose dictionary is broken, and has none of his own, goes on without. */
static void broken_dictionary_of_others(void)
{
    const char *dir = fresh_dir();
    uint64_t made = make_log(dir, 50).appended;
    uint8_t junk[600], was[sizeof junk];
    memset(junk, 0xa5, sizeof junk);
    read_ring(dir, VEV_HEADER_REGION + VEV_HEADER_BLOCK, was, sizeof was);
    overwrite(dir, VEV_HEADER_REGION + VEV_HEADER_BLOCK, junk, sizeof junk);
    vev_ring *ring = open_ring(dir);
    vev_entry entry = {.kind = VEV_KIND_CUSTOM};
    OK(vev_ring_append(ring, "one more", 8, &entry));
    CHECK(entry.seq == made + 1);
    static vev_record records[100];
    static uint8_t buffer[1 << 16];
    size_t count;
    uint64_t next;
    OK(vev_ring_read(ring, entry.seq, 1, records, 100, buffer, sizeof buffer, &count, &next));
    CHECK(count == 1 && memcmp(buffer, "one more", 8) == 0);
    OK(vev_ring_read(ring, 0, 1, records, 100, buffer, sizeof buffer, &count, &next));
    CHECK(count >= 1 && records[count - 1].seq == entry.seq);
    vev_ring_close(ring);

    /* Who has the same one puts it right. */
    vev_options options = quiet();
    vev_log_close(open_log(dir, &options));
    uint8_t is[sizeof was];
    read_ring(dir, VEV_HEADER_REGION + VEV_HEADER_BLOCK, is, sizeof is);
    CHECK(memcmp(is, was, sizeof is) == 0 && memcmp(is, junk, sizeof is) != 0);
}

/* A damaged segment is kept as a ring of its own before its bytes are reused. */
static void damaged_segment_is_set_aside(void)
{
    const char *dir = fresh_dir();
    vev_stats made = make_log(dir, 700);
    uint8_t junk[600];
    memset(junk, 0xa5, sizeof junk);
    overwrite(dir, 65536 + made.segment_size / 2, junk, sizeof junk);
    vev_options options = quiet();
    vev_log *log = open_log(dir, &options);
    uint64_t first, last, before = read_all(log, VEV_EVENTS, 1, &first, &last);
    uint64_t lost = 700 - before;
    CHECK(lost > 0);
    append_numbers(log, VEV_EVENTS, 700, 6000); /* more than a lap */
    vev_stats stats = stats_of(log, VEV_EVENTS);
    CHECK(stats.first_seq > 700 && stats.lost == lost && stats.lost_damaged == lost);
    vev_log_close(log);
    log = open_log(dir, &options); /* the reasons are in the ledger */
    stats = stats_of(log, VEV_EVENTS);
    CHECK(stats.lost_damaged == lost && stats.lost_unfinished == 0 && stats.lost_missing == 0);
    vev_log_close(log);

    char aside[160], from[160], to[200];
    snprintf(aside, sizeof aside, "%s/aside", dir);
    snprintf(from, sizeof from, "%s/events.ring.damaged-1", dir);
    snprintf(to, sizeof to, "%s/events.ring", aside);
    struct stat info;
    CHECK(stat(from, &info) == 0 && (uint64_t)info.st_size == made.bytes_on_disk);
    CHECK((uint64_t)info.st_blocks * 512 < made.bytes_on_disk / 4); /* sparse */
    CHECK((info.st_mode & 077) == 0);
    CHECK(mkdir(aside, 0700) == 0 && rename(from, to) == 0);
    log = open_log(aside, &options);
    CHECK(stats_of(log, VEV_EVENTS).set_aside == 0);
    CHECK(read_all(log, VEV_EVENTS, 15, &first, &last) > 100 && first == 1);
    vev_log_close(log);
}

/* A segment's dictionary that passes its checksum and is none: its records are damaged, no more. */
static void hostile_dictionary(void)
{
    const char *dir = fresh_dir();
    vev_options options = quiet();
    vev_log *log = open_log(dir, &options);
    uint8_t same[300] = {1};
    for (int i = 0; i < 50; i++) /* stored compressed, as make_payload()'s are not */
        OK(vev_log_append(log, VEV_EVENTS, same, sizeof same, NULL));
    vev_log_close(log);
    uint8_t head[VEV_HEAD_BYTES], bytes[2048];
    char path[160];
    snprintf(path, sizeof path, "%s/events.ring", dir);
    int fd = open(path, O_RDONLY);
    CHECK(fd >= 0 && pread(fd, head, sizeof head, 65536) == (ssize_t)sizeof head);
    close(fd);
    memset(bytes, 0xff, sizeof bytes);
    memcpy(bytes, "\x37\xa4\x30\xec", 4); /* as a trained one begins */
    vev_store32(head + 32, sizeof bytes);
    vev_store32(head + 36, vev_crc32c(0, bytes, sizeof bytes));
    vev_store32(head + 80, vev_crc32c(0, head, 80));
    overwrite(dir, 65536, head, sizeof head);
    overwrite(dir, 65536 + VEV_HEADER_BLOCK, bytes, sizeof bytes);
    log = open_log(dir, &options);
    append_numbers(log, VEV_EVENTS, 100, 200);
    uint64_t first, last;
    CHECK(read_all(log, VEV_EVENTS, 1, &first, &last) == 100 && first == 51);
    CHECK(stats_of(log, VEV_EVENTS).lost_damaged == 50);
    vev_log_close(log);
    /* The user's own is the user's fault. */
    options.dictionary = bytes;
    options.dictionary_size = sizeof bytes;
    CHECK(vev_log_open(fresh_dir(), &options, &log) == VEV_E_INVALID);
}

/* A power cut took the seal and the end of a middle segment; "refuse" must not refuse for ever. */
static void lost_seal_under_refuse(void)
{
    const char *dir = fresh_dir();
    vev_stats made = make_log(dir, 700);
    static const uint8_t zeros[65536];
    overwrite(dir, 65536 + VEV_HEAD_SEAL, zeros, 64);
    overwrite(dir, 65536 + made.segment_size - 10000, zeros, 10000);
    vev_options options = quiet();
    options.full_policy = VEV_FULL_REFUSE;
    vev_log *log = open_log(dir, &options);
    uint64_t first, last, number = 700;
    for (int round = 0; round < 20; round++) {
        uint8_t payload[512];
        vev_status status = VEV_OK;
        for (int i = 0; !status && i < 3000; i++)
            status =
                vev_log_append(log, VEV_EVENTS, payload, make_payload(payload, number++), NULL);
        CHECK(status == VEV_OK || status == VEV_E_FULL);
        (void)read_all(log, VEV_EVENTS, 1, &first, &last);
        for (uint64_t seq = first; seq <= last; seq++)
            OK(vev_log_mark(log, VEV_EVENTS, &seq, 1, VEV_DELIVERED, NULL));
    }
    append_numbers(log, VEV_EVENTS, 0, 500);
    CHECK(stats_of(log, VEV_EVENTS).evicted == 0);
    vev_log_close(log);
}

/* ---- a clock that is far ahead ---- */

/* Where time_t has 32 bits, even the size of such a file cannot be asked for. */
static void files_of_after_2038(void)
{
    const char *dir = fresh_dir();
    make_log(dir, 100);
    char path[160];
    snprintf(path, sizeof path, "%s/events.ring", dir);
    CHECK(sizeof(time_t) == 8);
    struct timespec times[2] = {{.tv_sec = 2208988800}, {.tv_sec = 2208988800}};
    CHECK(utimensat(AT_FDCWD, path, times, 0) == 0);
    vev_options options = quiet();
    vev_log *log = open_log(dir, &options);
    CHECK(stats_of(log, VEV_EVENTS).pending == 100);
    vev_log_close(log);
}

/* ---- processes that die ---- */

/* A writer that died, then one that is slow, then a record: the slow one is not lost. */
static void dead_writer_before_a_living_one(void)
{
    const char *dir = fresh_dir();
    CHECK(mkdir(dir, 0700) == 0);
    vev_ring *ring = open_ring(dir);
    uint8_t payload[512];
    vev_entry entry = {0};
    for (uint64_t i = 0; i < 10; i++)
        OK(vev_ring_append(ring, payload, make_payload(payload, i), &entry));
    uint32_t offset, index;
    pid_t dead = fork();
    if (dead == 0) {
        (void)reserve_only(open_ring(dir), &offset, &index);
        _exit(0);
    }
    wait_for(dead);
    int reserved[2], go[2];
    char byte = 0;
    CHECK(pipe(reserved) == 0 && pipe(go) == 0);
    pid_t slow = fork();
    if (slow == 0) {
        vev_ring *own = open_ring(dir);
        _Atomic uint64_t *word = reserve_only(own, &offset, &index);
        CHECK(write(reserved[1], &byte, 1) == 1 && read(go[0], &byte, 1) == 1);
        vev_span *span = atomic_load(&own->current);
        memset(payload, 7, 64);
        vev_header header = {.seq = span->lap.base_seq + index, .stored_size = 64, .raw_size = 64};
        atomic_store(word,
                     vev_record_write(span->data + offset, &span->lap, offset, &header, payload));
        _exit(0);
    }
    CHECK(read(reserved[0], &byte, 1) == 1);
    OK(vev_ring_append(ring, payload, make_payload(payload, 99), &entry));
    CHECK(entry.seq == 13);
    vev_record records[20];
    uint8_t buffer[16384];
    size_t count;
    uint64_t next;
    OK(vev_ring_read(ring, 0, 15, records, 20, buffer, sizeof buffer, &count, &next));
    CHECK(count == 11 && records[10].seq == 13);
    CHECK(write(go[1], &byte, 1) == 1);
    wait_for(slow);
    OK(vev_ring_read(ring, 0, 1, records, 20, buffer, sizeof buffer, &count, &next));
    CHECK(count == 12 && records[10].seq == 12 && records[11].seq == 13);
    vev_stats stats;
    OK(vev_ring_stats(ring, &stats));
    CHECK(stats.lost == 1 && stats.lost_unfinished == 1 && stats.lost_damaged == 0);
    vev_ring_close(ring);
    /* Recovery keeps the reason. */
    ring = open_ring(dir);
    OK(vev_ring_stats(ring, &stats));
    CHECK(stats.lost == 1 && stats.lost_unfinished == 1 && stats.pending == 12);
    vev_ring_close(ring);
}

static vev_io dying_io;

static vev_status die_in_map(void *ctx, int fd, uint64_t offset, size_t size, bool writable,
                             uint8_t **base_out)
{
    if (offset >= VEV_HEADER_REGION)
        _exit(9);
    return vev_io_posix.map(ctx, fd, offset, size, writable, base_out);
}

/* How far the disk is known to have it does not grow because somebody died while rebuilding. */
static void dead_rebuilder(void)
{
    const char *dir = fresh_dir();
    vev_options options = quiet();
    for (int step = 0; step < 3; step++) {
        pid_t child = fork();
        if (child == 0) {
            vev_log *log;
            dying_io = vev_io_posix;
            if (step == 2)
                dying_io.map = die_in_map;
            OK(vev__log_open(&dying_io, dir, &options, &log));
            if (step == 0)
                append_numbers(log, VEV_EVENTS, 0, 100);
            CHECK(vev_log_durable_seq(log, VEV_EVENTS) == 0);
            _exit(0);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == (step == 2 ? 9 : 0));
    }
    vev_log *log = open_log(dir, &options);
    CHECK(vev_log_durable_seq(log, VEV_EVENTS) == 0);
    OK(vev_log_sync(log, NULL));
    CHECK(vev_log_durable_seq(log, VEV_EVENTS) == 100);
    vev_log_close(log);
}

static vev_status die_in_ledger_sync(void *ctx, uint8_t *start, size_t size)
{
    vev_status status = vev_io_posix.sync_map(ctx, start, size);
    if (size == VEV_HEADER_BLOCK)
        kill(getpid(), SIGKILL);
    return status;
}

/* Killed between writing the ledger and saying that the segment is reclaimed. */
static void dead_reclaimer(void)
{
    const char *dir = fresh_dir();
    vev_options options = quiet();
    vev_log *survivor = open_log(dir, &options);
    pid_t child = fork();
    if (child == 0) {
        vev_log *log;
        dying_io = vev_io_posix;
        dying_io.sync_map = die_in_ledger_sync;
        OK(vev__log_open(&dying_io, dir, &options, &log));
        append_numbers(log, VEV_EVENTS, 0, 100000);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status));
    vev_stats before = stats_of(survivor, VEV_EVENTS);
    append_numbers(survivor, VEV_EVENTS, 0, 3000);
    vev_stats after = stats_of(survivor, VEV_EVENTS);
    CHECK(after.appended == before.appended + 3000 && after.lost == 0);
    vev_log_close(survivor);
}

/* More children than slots use an inherited log: the ones without a slot are told, and no more. */
static void no_slot_for_a_child(void)
{
    enum { CHILDREN = VEV_SLOT_COUNT + 4 };
    const char *dir = fresh_dir();
    vev_options options = quiet();
    vev_log *log = open_log(dir, &options);
    int hold[2], ready[2];
    CHECK(pipe(hold) == 0 && pipe(ready) == 0);
    pid_t children[CHILDREN];
    for (int i = 0; i < CHILDREN; i++) {
        children[i] = fork();
        CHECK(children[i] >= 0);
        if (children[i] == 0) {
            close(hold[1]);
            uint8_t payload[512];
            int refused = 0;
            for (uint64_t n = 0; n < 3; n++) {
                vev_status status =
                    vev_log_append(log, VEV_EVENTS, payload, make_payload(payload, n), NULL);
                CHECK(status == VEV_OK || status == VEV_E_BUSY);
                refused += status == VEV_E_BUSY;
            }
            char byte = 0;
            CHECK(write(ready[1], &byte, 1) == 1);
            CHECK(read(hold[0], &byte, 1) == 0); /* until all of them have tried */
            _exit(refused == 0 ? 0 : 7);
        }
    }
    char byte;
    for (int i = 0; i < CHILDREN; i++)
        CHECK(read(ready[0], &byte, 1) == 1);
    close(hold[1]);
    int refused = 0;
    for (int i = 0; i < CHILDREN; i++) {
        int status;
        CHECK(waitpid(children[i], &status, 0) == children[i]);
        CHECK(WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 7));
        refused += WEXITSTATUS(status) == 7;
    }
    CHECK(refused >= 5); /* the parent has one, too */
    vev_stats stats = stats_of(log, VEV_EVENTS);
    CHECK(stats.appended >= 3 * (uint64_t)(CHILDREN - refused));
    vev_log_close(log);
}

static vev_log *shared_log;
static _Atomic bool stop_threads;

static void read_some(vev_log *log)
{
    vev_record records[50];
    uint8_t buffer[65536];
    uint64_t next = 0;
    for (int i = 0; i < 20; i++) {
        size_t count;
        OK(vev_log_read(log, VEV_EVENTS, next, 15, records, 50, buffer, sizeof buffer, &count,
                        &next));
        for (size_t r = 0; r < count; r += 25)
            OK(vev_log_mark(log, VEV_EVENTS, &records[r].seq, 1, (int)(next % 2), NULL));
    }
}

static void *keep_reading(void *argument)
{
    while (!atomic_load(&stop_threads))
        read_some(shared_log);
    return argument;
}

static void *keep_appending(void *argument)
{
    for (uint64_t n = 0; !atomic_load(&stop_threads); n++)
        append_numbers(shared_log, VEV_EVENTS, n, n + 1);
    return argument;
}

/* ---- files that are not ours any more ---- */

/* Append until that is refused. */
static vev_status append_until_refused(vev_log *log)
{
    uint8_t payload[512];
    vev_status status = VEV_OK;
    for (uint64_t n = 0; !status && n < 20000; n++)
        status = vev_log_append(log, VEV_EVENTS, payload, make_payload(payload, n), NULL);
    return status;
}

/* Nobody would ever find what is appended to a file without a name: a sync does not say that it is
 * kept, and appends end. */
static void deleted_file(void)
{
    const char *dir = fresh_dir();
    vev_options options = quiet();
    vev_log *log = open_log(dir, &options);
    append_numbers(log, VEV_EVENTS, 0, 5);
    OK(vev_log_sync(log, NULL));
    char path[160];
    snprintf(path, sizeof path, "%s/events.ring", dir);
    CHECK(unlink(path) == 0);
    OK(vev_log_sync(log, NULL)); /* nothing new */
    append_numbers(log, VEV_EVENTS, 5, 6);
    CHECK(vev_log_sync(log, NULL) == ENOENT);
    CHECK(vev_log_durable_seq(log, VEV_EVENTS) == 5);
    CHECK(append_until_refused(log) == VEV_E_DEGRADED);
    vev_stats stats = stats_of(log, VEV_EVENTS);
    CHECK(stats.degraded == ENOENT && stats.appended == 6);
    vev_log_close(log);
    /* Without any sync, when there is something to clear. */
    log = open_log(dir, &options);
    CHECK(stats_of(log, VEV_EVENTS).appended == 0);
    CHECK(unlink(path) == 0);
    CHECK(append_until_refused(log) == ENOENT && append_until_refused(log) == VEV_E_DEGRADED);
    vev_log_close(log);
}

static int noted_fd;

static vev_status open_and_note(void *ctx, const char *path, int mode, int *fd_out)
{
    (void)ctx;
    return open_noting(path, mode, fd_out, &noted_fd);
}

/* A program has closed all descriptors, and the number of ours is another file's. */
static void descriptor_of_another_file(void)
{
    enum { APPENDS, FOLLOWS, SYNCS, WAYS };
    for (int way = 0; way < WAYS; way++) {
        vev_io io = vev_io_posix;
        io.open = open_and_note;
        const char *dir = fresh_dir();
        vev_options options = quiet();
        vev_log *log;
        OK(vev__log_open(&io, dir, &options, &log));
        append_numbers(log, VEV_EVENTS, 0, 5);
        FILE *others = tmpfile();
        CHECK(others && dup2(fileno(others), noted_fd) == noted_fd);
        CHECK(ftruncate(noted_fd, 2 << 20) == 0);
        if (way == FOLLOWS) { /* where somebody else has gone on to */
            vev_log *beside = open_log(dir, &options);
            append_numbers(beside, VEV_EVENTS, 5, 600);
            vev_log_close(beside);
        }
        CHECK((way == SYNCS ? vev_log_sync(log, NULL) : append_until_refused(log)) == EBADF);
        CHECK(append_until_refused(log) == VEV_E_DEGRADED);
        uint64_t seq = 3;
        CHECK(vev_log_mark(log, VEV_EVENTS, &seq, 1, VEV_DELIVERED, NULL) == EBADF);
        vev_record record;
        uint8_t buffer[512];
        size_t count;
        CHECK(vev_log_read(log, VEV_EVENTS, 0, 1, &record, 1, buffer, sizeof buffer, &count,
                           &seq) == EBADF);
        struct stat now;
        CHECK(fstat(noted_fd, &now) == 0 && now.st_blocks == 0); /* nothing was written */
        vev_log_close(log);
        CHECK(fcntl(noted_fd, F_GETFD) >= 0); /* nor closed */
        CHECK(close(noted_fd) == 0 && fclose(others) == 0);
    }
}

/* A child that is forked in the middle of other threads' reads finds the log whole. */
static void fork_beside_readers(void)
{
    const char *dir = fresh_dir();
    vev_options options = quiet();
    shared_log = open_log(dir, &options);
    append_numbers(shared_log, VEV_EVENTS, 0, 2500);
    pthread_t threads[3];
    CHECK(pthread_create(&threads[0], NULL, keep_reading, NULL) == 0);
    CHECK(pthread_create(&threads[1], NULL, keep_reading, NULL) == 0);
    CHECK(pthread_create(&threads[2], NULL, keep_appending, NULL) == 0);
    for (int i = 0; i < 100; i++) {
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            alarm(20); /* a lock that nobody holds any more would be for ever */
            read_some(shared_log);
            _exit(0);
        }
        wait_for(child);
    }
    atomic_store(&stop_threads, true);
    for (int i = 0; i < 3; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    (void)stats_of(shared_log, VEV_EVENTS);
    vev_log_close(shared_log);
}

/* ---- waiting ---- */

/* Somebody who is slow in an older segment holds the mark back; the keeper comes again. */
static void sync_that_was_held_back(void)
{
    const char *dir = fresh_dir();
    vev_options options = small();
    options.sync_interval_ms = 50;
    vev_log *log = open_log(dir, &options);
    char path[160];
    snprintf(path, sizeof path, "%s/events.ring", dir);
    vev_pool pool = {0};
    vev_ring_options ring_options = {.size = 1 << 20, .level = VEV_LEVEL_RAW};
    vev_ring *other;
    OK(vev_ring_open(&vev_io_posix, path, &ring_options, &pool, &other));
    _Atomic uint64_t *cell = vev_ring_claim(other, 1);
    append_numbers(log, VEV_EVENTS, 0, 600);
    CHECK(stats_of(log, VEV_EVENTS).bytes_used > 65536); /* generation 2 or later */
    usleep(300000);
    CHECK(vev_log_durable_seq(log, VEV_EVENTS) < 600);
    vev_ring_release(cell);
    for (int i = 0; i < 400 && vev_log_durable_seq(log, VEV_EVENTS) < 600; i++)
        usleep(10000);
    CHECK(vev_log_durable_seq(log, VEV_EVENTS) == 600);
    vev_ring_close(other);
    vev_log_close(log);
}

/* A lock whose holder is stopped is waited for only so long. */
static void lock_of_a_stopped_process(void)
{
    const char *dir = fresh_dir();
    CHECK(mkdir(dir, 0700) == 0);
    char path[160];
    snprintf(path, sizeof path, "%s/lock", dir);
    const vev_io *io = &vev_io_posix;
    int one, two, dirs[2];
    OK(io->open(io->ctx, path, VEV_FILE_READ | VEV_FILE_WRITE | VEV_FILE_CREATE, &one));
    OK(io->open(io->ctx, path, VEV_FILE_READ | VEV_FILE_WRITE, &two));
    OK(vev_io_lock(io, one, VEV_LOCK_ROLL, VEV_LOCK_EXCLUSIVE, 20));
    CHECK(vev_io_lock(io, two, VEV_LOCK_ROLL, VEV_LOCK_EXCLUSIVE, 20) == VEV_E_BUSY);
    OK(io->lock(io->ctx, one, VEV_LOCK_ROLL, VEV_LOCK_NONE));
    OK(vev_io_lock(io, two, VEV_LOCK_ROLL, VEV_LOCK_EXCLUSIVE, 20));
    OK(vev_io_lock_dir(io, dir, 20, &dirs[0]));
    CHECK(vev_io_lock_dir(io, dir, 20, &dirs[1]) == VEV_E_BUSY);
    io->close(io->ctx, dirs[0]);
    io->close(io->ctx, one);
    io->close(io->ctx, two);
}

int main(void)
{
    vev__give_up_ns = 0;
    begin_tests("faults");
#ifndef __SANITIZE_THREAD__
    RUN(bad_sector_in_newest);
    RUN(bad_sector_in_sealed);
    RUN(bad_sector_for_a_moment);
    RUN(bad_sector_in_header);
    RUN(bad_sector_in_state_map);
    RUN(no_place_to_write);
    RUN(no_place_to_write_behind_damage);
    RUN(no_place_to_write_after_a_cut);
    RUN(damage_that_cannot_be_marked);
    RUN(newest_damage_that_cannot_be_marked);
#endif
    RUN(verify_names_the_damage);
    RUN(broken_dictionary_of_others);
    RUN(damaged_segment_is_set_aside);
    RUN(hostile_dictionary);
    RUN(lost_seal_under_refuse);
    RUN(files_of_after_2038);
    RUN(dead_writer_before_a_living_one);
    RUN(dead_rebuilder);
    RUN(dead_reclaimer);
    RUN(no_slot_for_a_child);
    RUN(fork_beside_readers);
    RUN(deleted_file);
    RUN(descriptor_of_another_file);
    RUN(sync_that_was_held_back);
    RUN(lock_of_a_stopped_process);
    end_tests();
    return 0;
}
