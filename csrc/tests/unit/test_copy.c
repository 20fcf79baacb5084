/* RAM-first on real files: what a copy costs, whose it is, and what comes back from it. Power cuts
 * are for crash_lab --ram-first. */
#include <stdbool.h>

#include "fault_case.h"

static char memory[96], flash[96];

static void fresh_places(void)
{
    snprintf(memory, sizeof memory, "%s", fresh_dir());
    snprintf(flash, sizeof flash, "%s", fresh_dir());
}

static bool restore(void)
{
    int restored;
    OK(vev_log_restore(memory, flash, 0, &restored));
    return restored != 0;
}

/* The power is cut: what is in memory is gone. */
static void cut_power(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", memory);
    CHECK(system(command) == 0);
}

static vev_log *open_in_memory(void)
{
    (void)restore();
    vev_options options = quiet();
    return open_log(memory, &options);
}

static vev_persist_report persist(vev_log *log)
{
    vev_persist_report report;
    OK(vev_log_persist(log, &report));
    return report;
}

static bool exists(const char *dir, const char *name)
{
    char path[200];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return access(path, F_OK) == 0;
}

static void comes_back_after_a_cut(void)
{
    fresh_places();
    CHECK(!restore()); /* nothing to take, nothing made but the state */
    CHECK(exists(memory, "persist.state") && !exists(memory, "events.ring"));
    vev_log *log = open_in_memory();
    append_numbers(log, VEV_EVENTS, 0, 300);
    append_numbers(log, VEV_MEDIA, 0, 10);
    CHECK(vev_log_durable_seq(log, VEV_EVENTS) == 0);
    CHECK(stats_of(log, VEV_EVENTS).durable_seq == 0);
    uint64_t seqs[] = {1, 2, 3};
    OK(vev_log_mark(log, VEV_EVENTS, seqs, 3, VEV_DELIVERED, NULL));
    uint64_t durable;
    OK(vev_log_sync(log, &durable));
    CHECK(durable == 300 && vev_log_durable_seq(log, VEV_MEDIA) == 10);
    append_numbers(log, VEV_EVENTS, 300, 400); /* not in the copy */
    CHECK(stats_of(log, VEV_EVENTS).durable_seq == 300);
    cut_power(); /* the process with it, if this were one of its own */
    CHECK(exists(flash, "events.copy") && !exists(flash, "events.copy.new"));

    CHECK(restore());
    vev_options options = quiet();
    vev_log *again = open_log(memory, &options);
    vev_stats stats = stats_of(again, VEV_EVENTS);
    CHECK(stats.appended == 300 && stats.pending == 297 && stats.delivered == 3);
    CHECK(stats.durable_seq == 300);
    uint64_t first, last;
    CHECK(read_all(again, VEV_EVENTS, 1u << VEV_PENDING, &first, &last) == 297 && last == 300);
    CHECK(read_all(again, VEV_MEDIA, 1u << VEV_PENDING, &first, &last) == 10);
    append_numbers(again, VEV_EVENTS, 300, 301);
    vev_log_close(again);
    CHECK(!restore());  /* the log is there */
    vev_log_close(log); /* too late for the copy */
}

static void writes_what_changed(void)
{
    fresh_places();
    vev_log *log = open_in_memory();
    append_numbers(log, VEV_EVENTS, 0, 2000);
    append_numbers(log, VEV_MEDIA, 0, 2000);
    vev_persist_report all = persist(log);
    CHECK(all.durable_seq == 2000);
    uint64_t used = stats_of(log, VEV_EVENTS).bytes_used + stats_of(log, VEV_MEDIA).bytes_used;
    CHECK(all.bytes_written > used && all.bytes_written < 2 * used + (1 << 19));
    vev_persist_report none = persist(log);
    CHECK(none.bytes_written == 0 && none.write_count == 0);
    append_numbers(log, VEV_EVENTS, 2000, 2001);
    vev_persist_report one = persist(log);
    CHECK(one.bytes_written >= 4096 && one.bytes_written <= 2 * 4096 && one.durable_seq == 2001);
    uint64_t seq = 5;
    OK(vev_log_mark(log, VEV_EVENTS, &seq, 1, VEV_DELIVERED, NULL));
    CHECK(persist(log).bytes_written == 4096);
    vev_copy_info info;
    OK(vev_log_copy_info(log, &info));
    CHECK(info.pass_count == 4 && info.error == VEV_OK && info.age_ms >= 0);
    CHECK(info.bytes_written == all.bytes_written + one.bytes_written + 4096);
    CHECK(strcmp(info.dir, flash) == 0 && info.interval_ms == 0);
    vev_log_close(log);
}

/* Laps upon laps, larger than what is compared at once, and each time all of it comes back. */
static void laps_come_back(void)
{
    fresh_places();
    for (int round = 0; round < 6; round++) {
        (void)restore();
        vev_options options = quiet();
        options.media_size = 24 << 20; /* segments of 1.5 MiB */
        vev_log *log = open_log(memory, &options);
        vev_stats before = stats_of(log, VEV_EVENTS), media = stats_of(log, VEV_MEDIA);
        CHECK(before.appended == 4000u * (unsigned)round);
        uint64_t first, last;
        CHECK(read_all(log, VEV_EVENTS, 15, &first, &last) ==
              before.last_seq + 1 - before.first_seq);
        static uint8_t frame[100000], back[1 << 18];
        for (uint64_t i = 1; i <= 400; i++) {
            if (media.appended >= i) {
                vev_record record;
                size_t count;
                uint64_t next, seq = media.last_seq + 1 - i;
                OK(vev_log_read(log, VEV_MEDIA, seq, 1u << VEV_PENDING, &record, 1, back,
                                sizeof back, &count, &next));
                if (seq >= media.first_seq) {
                    CHECK(count == 1 && record.seq == seq && record.size == sizeof frame);
                    memset(frame, (int)(seq % 251), sizeof frame); /* whole pages of zeros, too */
                    CHECK(memcmp(frame, back + record.offset, sizeof frame) == 0);
                }
            }
        }
        append_numbers(log, VEV_EVENTS, before.appended, before.appended + 4000);
        for (uint64_t i = 1; i <= 400; i++) {
            memset(frame, (int)((media.last_seq + i) % 251), sizeof frame);
            vev_entry entry = {.flags = VEV_APPEND_RAW};
            OK(vev_log_append(log, VEV_MEDIA, frame, sizeof frame, &entry));
            if (i % 100 == 0)
                (void)persist(log);
        }
        vev_log_close(log);
        cut_power();
    }
}

static void urgent_appends_reach_the_copy(void)
{
    fresh_places();
    vev_log *log = open_in_memory();
    append_numbers(log, VEV_EVENTS, 0, 5);
    vev_entry entry = {.flags = VEV_APPEND_SYNC};
    OK(vev_log_append(log, VEV_EVENTS, "urgent", 6, &entry));
    CHECK(entry.seq == 6 && entry.flags == VEV_APPEND_SYNC);
    CHECK(vev_log_durable_seq(log, VEV_EVENTS) == 6);
    char command[256];
    snprintf(command, sizeof command, "mv %s %s.away", flash, flash);
    CHECK(system(command) == 0);
    /* Stored, and not durable: the caller learns both. */
    CHECK(vev_log_append(log, VEV_EVENTS, "urgent", 6, &entry) == ENOENT && entry.seq == 7);
    CHECK(vev_log_durable_seq(log, VEV_EVENTS) == 6);
    vev_copy_info info;
    OK(vev_log_copy_info(log, &info));
    CHECK(info.error == ENOENT);
    snprintf(command, sizeof command, "mv %s.away %s", flash, flash);
    CHECK(system(command) == 0);
    OK(vev_log_sync(log, NULL));
    CHECK(vev_log_durable_seq(log, VEV_EVENTS) == 7);
    OK(vev_log_copy_info(log, &info));
    CHECK(info.error == VEV_OK);
    vev_log_close(log);
}

static void copy_of_another_log_is_left_alone(void)
{
    fresh_places();
    vev_log *log = open_in_memory();
    append_numbers(log, VEV_EVENTS, 0, 50);
    vev_log_close(log);
    cut_power();
    /* Somebody opens the log without restoring it. */
    vev_options options = quiet();
    log = open_log(memory, &options);
    append_numbers(log, VEV_EVENTS, 0, 3);
    CHECK(vev_log_persist(log, NULL) == VEV_E_INVALID);
    vev_copy_info info;
    CHECK(vev_log_copy_info(log, &info) == VEV_E_INVALID);
    vev_log_close(log);
    CHECK(vev_log_restore(memory, flash, 0, NULL) == VEV_E_FOREIGN);
    CHECK(!exists(memory, "persist.state"));
    cut_power();
    CHECK(restore());
    log = open_log(memory, &options);
    CHECK(stats_of(log, VEV_EVENTS).pending == 50);
    /* Another card in the slot, with a copy of another log. */
    char command[256];
    snprintf(command, sizeof command, "mv %s %s.first", flash, flash);
    CHECK(system(command) == 0);
    snprintf(memory, sizeof memory, "%s", fresh_dir());
    vev_log *second = open_in_memory();
    append_numbers(second, VEV_EVENTS, 0, 4);
    vev_log_close(second);
    append_numbers(log, VEV_EVENTS, 50, 51);
    CHECK(vev_log_sync(log, NULL) == VEV_E_FOREIGN);
    CHECK(vev_log_durable_seq(log, VEV_EVENTS) == 50);
    vev_log_close(log);
    cut_power();
    CHECK(restore());
    log = open_log(memory, &options);
    CHECK(stats_of(log, VEV_EVENTS).pending == 4);
    vev_log_close(log);
    CHECK(vev_log_restore(memory, "/no/such/directory", 0, NULL) == VEV_E_FOREIGN);
    CHECK(vev_log_restore(memory, "not/absolute", 0, NULL) == VEV_E_INVALID);
    CHECK(vev_log_restore(memory, memory, 0, NULL) == VEV_E_INVALID);
    CHECK(vev_log_restore(fresh_dir(), "/no/such/directory", 0, NULL) == ENOENT);
}

/* The directory in memory is removed under a process that goes on, and restored: two logs from
 * one. */
static void outlived_log_leaves_the_copy_alone(void)
{
    fresh_places();
    vev_log *old = open_in_memory();
    append_numbers(old, VEV_EVENTS, 0, 10);
    OK(vev_log_sync(old, NULL));
    cut_power();
    vev_log *new = open_in_memory();
    append_numbers(new, VEV_EVENTS, 10, 11);
    OK(vev_log_sync(new, NULL));
    append_numbers(old, VEV_EVENTS, 10, 13);
    CHECK(vev_log_sync(old, NULL) == VEV_E_FOREIGN);
    CHECK(vev_log_durable_seq(old, VEV_EVENTS) == 10);
    vev_log_close(old);
    OK(vev_log_sync(new, NULL));
    vev_log_close(new);
    cut_power();
    new = open_in_memory();
    CHECK(stats_of(new, VEV_EVENTS).appended == 11);
    vev_log_close(new);
}

/* A new card while the log is in memory gets all of it. */
static void copy_that_is_gone_is_made_again(void)
{
    fresh_places();
    vev_log *log = open_in_memory();
    append_numbers(log, VEV_EVENTS, 0, 3000); /* several sealed segments */
    (void)persist(log);
    char command[128];
    snprintf(command, sizeof command, "rm %s/*", flash);
    CHECK(system(command) == 0);
    append_numbers(log, VEV_EVENTS, 3000, 3001);
    (void)persist(log);
    vev_stats before = stats_of(log, VEV_EVENTS);
    vev_log_close(log);
    cut_power();
    CHECK(restore());
    vev_options options = quiet();
    log = open_log(memory, &options);
    vev_stats stats = stats_of(log, VEV_EVENTS);
    CHECK(stats.pending == before.pending && stats.last_seq == 3001);
    uint64_t first, last;
    CHECK(read_all(log, VEV_EVENTS, 1u << VEV_PENDING, &first, &last) == before.pending);
    CHECK(stats_of(log, VEV_EVENTS).lost == 0);
    vev_log_close(log);
}

static void damaged_copy_opens(void)
{
    static const long places[] = {0, 4096, 8192, 65536, 65536 + 40960, 200000};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        fresh_places();
        vev_log *log = open_in_memory();
        append_numbers(log, VEV_EVENTS, 0, 1500);
        vev_log_close(log);
        char path[128];
        snprintf(path, sizeof path, "%s/events.copy", flash);
        FILE *file = fopen(path, "r+");
        CHECK(file && fseek(file, places[i], SEEK_SET) == 0);
        for (int n = 0; n < 4000; n++)
            CHECK(fputc(n * 7 + 1, file) != EOF);
        CHECK(fclose(file) == 0);
        cut_power();
        CHECK(restore());
        vev_options options = quiet();
        log = open_log(memory, &options);
        vev_stats stats = stats_of(log, VEV_EVENTS);
        CHECK(stats.pending > 0 && stats.set_aside == 0);
        append_numbers(log, VEV_EVENTS, 1500, 1501);
        OK(vev_log_sync(log, NULL));
        vev_log_close(log);
    }
}

static void copy_that_is_cut_short_opens(void)
{
    static const long sizes[] = {0, 100, 65536, 300000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        fresh_places();
        vev_log *log = open_in_memory();
        append_numbers(log, VEV_EVENTS, 0, 500);
        vev_log_close(log);
        char path[128];
        snprintf(path, sizeof path, "%s/events.copy", flash);
        CHECK(truncate(path, sizes[i]) == 0);
        cut_power();
        (void)restore();
        vev_options options = quiet();
        log = open_log(memory, &options);
        append_numbers(log, VEV_EVENTS, 500, 501);
        (void)stats_of(log, VEV_EVENTS);
        vev_log_close(log);
        cut_power();
        CHECK(restore());
        log = open_log(memory, &options);
        CHECK(stats_of(log, VEV_EVENTS).pending >= 1);
        vev_log_close(log);
    }
}

/* A restore that was killed leaves files under other names; the next begins again. */
static void restore_begins_again(void)
{
    fresh_places();
    vev_log *log = open_in_memory();
    append_numbers(log, VEV_EVENTS, 0, 20);
    vev_log_close(log);
    cut_power();
    CHECK(mkdir(memory, 0700) == 0);
    char path[160];
    snprintf(path, sizeof path, "%s/events.ring.new", memory);
    FILE *file = fopen(path, "w");
    CHECK(file && fputs("half of it", file) >= 0 && fclose(file) == 0);
    CHECK(restore());
    CHECK(!exists(memory, "events.ring.new"));
    log = open_in_memory();
    CHECK(stats_of(log, VEV_EVENTS).pending == 20);
    vev_log_close(log);
}

/* What was written to events.copy and not synced yet. */
static struct {
    int fd;
    vev_geometry geometry;
    bool ledger, front[64]; /* front: by segment, its head and state map */
    unsigned ledgers, fronts, pieces;
} unsynced;

static vev_status watched_open(void *ctx, const char *path, int mode, int *fd_out)
{
    vev_status status = vev_io_posix.open(ctx, path, mode, fd_out);
    if (!status && strstr(path, "/events.copy"))
        unsynced.fd = *fd_out;
    return status;
}

static void watched_close(void *ctx, int fd)
{
    if (fd == unsynced.fd)
        unsynced.fd = -1;
    vev_io_posix.close(ctx, fd);
}

static vev_status watched_sync(void *ctx, int fd)
{
    if (fd == unsynced.fd) {
        unsynced.ledger = false;
        memset(unsynced.front, 0, sizeof unsynced.front);
    }
    return vev_io_posix.sync(ctx, fd);
}

static vev_status watched_write(void *ctx, int fd, uint64_t offset, const void *data, size_t size)
{
    if (fd != unsynced.fd)
        return vev_io_posix.write(ctx, fd, offset, data, size);
    if (offset >= VEV_AT_LEDGER && offset < VEV_AT_LIVE) {
        CHECK(size == VEV_HEADER_BLOCK);
        CHECK(!unsynced.ledger); /* never both at once */
        unsynced.ledger = true;
        unsynced.ledgers++;
    } else if (offset >= VEV_HEADER_REGION) {
        CHECK(!unsynced.ledger); /* INV-16 */
        uint64_t at = offset - VEV_HEADER_REGION;
        uint64_t segment = at / unsynced.geometry.segment_size;
        if (at % unsynced.geometry.segment_size < unsynced.geometry.data_offset) {
            unsynced.front[segment] = true;
            unsynced.fronts++;
        } else {
            CHECK(!unsynced.front[segment]); /* INV-11 */
            unsynced.pieces++;
        }
    }
    return vev_io_posix.write(ctx, fd, offset, data, size);
}

static void orders_of_a_pass(void)
{
    vev_io io = vev_io_posix;
    io.open = watched_open;
    io.close = watched_close;
    io.write = watched_write;
    io.sync = watched_sync;
    fresh_places();
    unsynced.fd = -1;
    CHECK(vev_geometry_make(&unsynced.geometry, 1 << 20, 65536, VEV_DICTIONARY_MAX, 64));
    (void)restore();
    vev_options options = quiet();
    vev_log *log;
    OK(vev__log_open(&io, memory, &options, &log));
    for (uint64_t n = 0; n < 12000; n += 400) { /* around several times */
        append_numbers(log, VEV_EVENTS, n, n + 400);
        uint64_t seqs[] = {n + 1, n + 50, n + 399};
        OK(vev_log_mark(log, VEV_EVENTS, seqs, 3, VEV_DELIVERED, NULL));
        (void)persist(log);
    }
    CHECK(stats_of(log, VEV_EVENTS).evicted > 0);
    CHECK(unsynced.ledgers > 10 && unsynced.fronts > 30 && unsynced.pieces > 30);
    vev_log_close(log);
}

/* Somebody is still writing in a segment that is full and sealed: what he commits later is missing
 * in the copy until the next pass (INV-12). */
static void late_commit_reaches_the_copy(void)
{
    fresh_places();
    vev_log *log = open_in_memory();
    append_numbers(log, VEV_EVENTS, 0, 5);
    vev_ring *ring = open_ring(memory);
    uint32_t offset, index;
    _Atomic uint64_t *word = reserve_only(ring, &offset, &index);
    vev_span *span = atomic_load(&ring->current);
    append_numbers(log, VEV_EVENTS, 6, 1200); /* into the next segments */
    CHECK(stats_of(log, VEV_EVENTS).first_seq == 1);
    (void)persist(log);
    vev_header header = {.seq = span->lap.base_seq + index, .stored_size = 64, .raw_size = 64};
    uint8_t payload[64] = "late";
    CHECK(vev_record_size(&header) == 104);
    uint64_t committed =
        vev_record_write(span->data + offset, &span->lap, offset, &header, payload);
    atomic_store(word, committed);
    vev_ring_close(ring);
    (void)persist(log);
    vev_log_close(log);
    cut_power();
    log = open_in_memory();
    vev_record record;
    size_t count;
    uint64_t next;
    OK(vev_log_read(log, VEV_EVENTS, 6, 1u << VEV_PENDING, &record, 1, payload, sizeof payload,
                    &count, &next));
    CHECK(count == 1 && record.seq == 6 && strcmp((char *)payload, "late") == 0);
    CHECK(stats_of(log, VEV_EVENTS).lost == 0);
    vev_log_close(log);
}

/* Several processes append, sync and read; one of them is killed in the middle of it. */
static void several_processes(void)
{
    fresh_places();
    vev_log *log = open_in_memory();
    vev_log_close(log);
    pid_t children[4];
    for (int i = 0; i < 4; i++) {
        children[i] = fork();
        CHECK(children[i] >= 0);
        if (children[i] == 0) {
            vev_log *own = open_in_memory();
            for (uint64_t n = 0; n < 300 || i == 0; n++) {
                append_numbers(own, VEV_EVENTS, n, n + 1);
                if (n % 50 == 0)
                    OK(vev_log_sync(own, NULL));
            }
            vev_log_close(own);
            _exit(0);
        }
    }
    for (int i = 1; i < 4; i++) {
        int status;
        CHECK(waitpid(children[i], &status, 0) == children[i] && status == 0);
    }
    CHECK(kill(children[0], SIGKILL) == 0 && waitpid(children[0], NULL, 0) == children[0]);
    log = open_in_memory();
    OK(vev_log_sync(log, NULL));
    vev_stats before = stats_of(log, VEV_EVENTS);
    CHECK(before.appended >= 900 && before.durable_seq == before.last_seq);
    vev_log_close(log);
    cut_power();
    CHECK(restore());
    log = open_in_memory();
    vev_stats after = stats_of(log, VEV_EVENTS);
    CHECK(after.appended == before.appended && after.pending == before.pending);
    vev_log_close(log);
}

/* The helper thread brings the copy up to date, at the interval of the log, not of the opener. */
static void background(void)
{
    fresh_places();
    OK(vev_log_restore(memory, flash, 50, NULL));
    vev_options options = small();
    options.sync_interval_ms = 0;
    vev_log *log = open_log(memory, &options);
    append_numbers(log, VEV_EVENTS, 0, 7);
    for (int i = 0; i < 2000 && vev_log_durable_seq(log, VEV_EVENTS) < 7; i++)
        usleep(10000);
    CHECK(vev_log_durable_seq(log, VEV_EVENTS) == 7);
    vev_options reading = small();
    reading.flags = VEV_OPEN_READONLY;
    vev_log *reader = open_log(memory, &reading);
    CHECK(vev_log_durable_seq(reader, VEV_EVENTS) == 7);
    CHECK(vev_log_persist(reader, NULL) == VEV_E_READONLY);
    vev_log_close(reader);
    vev_log_close(log);
}

static int64_t interval_of(vev_log *log)
{
    vev_copy_info info;
    OK(vev_log_copy_info(log, &info));
    return info.interval_ms;
}

/* Who asks for another interval gets it, and a log that is in use is not restored again. */
static void another_interval(void)
{
    fresh_places();
    vev_log *log = open_in_memory();
    append_numbers(log, VEV_EVENTS, 0, 5);
    int restored;
    for (uint32_t interval_ms = 1000; interval_ms <= 2000; interval_ms += 500) {
        OK(vev_log_restore(memory, flash, interval_ms, &restored));
        CHECK(!restored);
        vev_options options = quiet();
        vev_log *other = open_log(memory, &options);
        CHECK(interval_of(other) == interval_ms);
        CHECK(stats_of(other, VEV_EVENTS).pending == 5);
        vev_log_close(other);
    }
    CHECK(vev_log_copy_info(log, NULL) == VEV_E_INVALID);
    /* The directory of the copy is free again. */
    OK(vev_log_sync(log, NULL));
    CHECK(vev_log_durable_seq(log, VEV_EVENTS) == 5);
    vev_log_close(log);
}

/* Write to the state of the log, as it stands in vev_copy.c, or cut it there. */
static void overwrite_state(size_t offset, const void *bytes, size_t size)
{
    char path[160];
    snprintf(path, sizeof path, "%s/persist.state", memory);
    int fd = open(path, O_RDWR);
    CHECK(fd >= 0 && pwrite(fd, bytes, size, (off_t)offset) == (ssize_t)size);
    CHECK(bytes || ftruncate(fd, (off_t)offset) == 0);
    close(fd);
}

enum { AT_VERSION = 4, AT_BOOT = 8, AT_RESTORED = 24, AT_COPY_DIR = 112 };

static bool no_sync;

static vev_status sync_if_it_can(void *ctx, int fd)
{
    return no_sync ? EIO : vev_io_posix.sync(ctx, fd);
}

/* A log that was not in memory after all has outlived the power: nothing is believed of what the
 * last boot wrote to the copy, and all of it is written again. */
static void state_of_another_boot(void)
{
    fresh_places();
    (void)restore();
    vev_options options = quiet();
    vev_io io = vev_io_posix;
    io.sync = sync_if_it_can;
    vev_log *log;
    OK(vev__log_open(&io, memory, &options, &log));
    append_numbers(log, VEV_EVENTS, 0, 300);
    OK(vev_log_sync(log, NULL));
    CHECK(vev_log_durable_seq(log, VEV_EVENTS) == 300);
    vev_persist_report idle = persist(log);
    static const uint8_t boot[4] = {1}, later[8] = {0, 0, 0, 0, 0, 0, 0, 1};
    overwrite_state(AT_BOOT, boot, sizeof boot);
    overwrite_state(AT_RESTORED, later, sizeof later); /* its clock was further on */
    overwrite_state(AT_RESTORED + sizeof later, later, sizeof later);
    CHECK(vev_log_durable_seq(log, VEV_EVENTS) == 0);
    vev_copy_info info;
    OK(vev_log_copy_info(log, &info));
    CHECK(info.age_ms == -1 && info.error == 0 && info.pass_count == 0);
    no_sync = true;
    CHECK(vev_log_persist(log, NULL) == EIO);
    CHECK(vev_log_durable_seq(log, VEV_EVENTS) == 0);
    OK(vev_log_copy_info(log, &info));
    CHECK(info.age_ms == -1 && info.error == EIO);
    CHECK(info.since_ms >= 0 && info.since_ms < 3600 * 1000);
    no_sync = false;
    vev_persist_report again = persist(log);
    CHECK(again.bytes_written > idle.bytes_written + 300 * 20);
    CHECK(vev_log_durable_seq(log, VEV_EVENTS) == 300);
    OK(vev_log_copy_info(log, &info));
    CHECK(info.age_ms >= 0);
    CHECK(persist(log).bytes_written <= idle.bytes_written);
    vev_log_close(log);
}

/* A state that makes no sense is that of a disk after a cut: the log is one like any other, until
 * it is made RAM-first again. That of a later version is left alone. */
static void state_that_makes_no_sense(void)
{
    char endless[VEV_COPY_DIR_SIZE];
    memset(endless, '/', sizeof endless);
    const struct {
        size_t offset;
        const char *bytes;
        size_t size;
    } cases[] = {{0, "x", 1},
                 {AT_COPY_DIR, "x", 1},
                 {AT_COPY_DIR, endless, sizeof endless},
                 {AT_COPY_DIR + 2, NULL, 0}};
    vev_options options = quiet();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fresh_places();
        vev_log *log = open_in_memory();
        append_numbers(log, VEV_EVENTS, 0, 5);
        vev_log_close(log);
        overwrite_state(cases[i].offset, cases[i].bytes, cases[i].size);
        log = open_log(memory, &options);
        vev_copy_info info;
        CHECK(vev_log_copy_info(log, &info) == VEV_E_INVALID);
        CHECK(vev_log_persist(log, NULL) == VEV_E_INVALID);
        append_numbers(log, VEV_EVENTS, 5, 10);
        vev_log_close(log);
        (void)restore();
        log = open_log(memory, &options);
        CHECK(interval_of(log) == 0);
        CHECK(stats_of(log, VEV_EVENTS).pending == 10);
        vev_log_close(log);
    }
    overwrite_state(AT_VERSION, "\x02", 1);
    vev_log *log;
    CHECK(vev_log_open(memory, &options, &log) == VEV_E_VERSION);
    CHECK(vev_log_restore(memory, flash, 0, NULL) == VEV_E_VERSION);
}

/* A disk at which the process forks, once, the next time it syncs a file. */
static struct {
    bool armed;
    pid_t child;
} fork_at;

static vev_status sync_and_fork(void *ctx, int fd)
{
    if (fork_at.armed) {
        fork_at.armed = false;
        fork_at.child = fork();
        CHECK(fork_at.child >= 0);
        if (fork_at.child == 0) { /* a worker that goes on and has nothing to do with the log */
            alarm(60);
            for (;;)
                pause();
        }
    }
    return vev_io_posix.sync(ctx, fd);
}

/* The child lives: is the copy free all the same? It may not have come to run yet. */
static void check_lock_and_end_child(void)
{
    enum { WAIT_MS = 20000 };
    CHECK(!fork_at.armed);
    int lock;
    vev_status status = vev_io_lock_dir(&vev_io_posix, flash, WAIT_MS, &lock);
    CHECK(kill(fork_at.child, SIGKILL) == 0 && waitpid(fork_at.child, NULL, 0) == fork_at.child);
    OK(status);
    close(lock);
}

/* A process that is forked while the helper thread writes the copy does not keep its lock. */
static void fork_amid_a_pass(void)
{
    fresh_places();
    (void)restore();
    vev_io io = vev_io_posix;
    io.sync = sync_and_fork;
    vev_options options = quiet();
    vev_log *log;
    OK(vev__log_open(&io, memory, &options, &log));
    append_numbers(log, VEV_EVENTS, 0, 5);
    fork_at.armed = true;
    OK(vev_log_sync(log, NULL));
    check_lock_and_end_child();
    append_numbers(log, VEV_EVENTS, 5, 6);
    fork_at.armed = true;
    vev_log_close(log);
    check_lock_and_end_child();
}

/* The copy of a log that was cut off in its first pass has not all rings: those that are missing
 * are for the opener to make, who knows how large they are to be. */
static void rings_without_a_copy_are_not_made(void)
{
    fresh_places();
    vev_log *log = open_in_memory();
    append_numbers(log, VEV_EVENTS, 0, 5);
    append_numbers(log, VEV_MEDIA, 0, 3);
    vev_log_close(log);
    cut_power();
    char path[160];
    snprintf(path, sizeof path, "%s/events.copy", flash);
    CHECK(unlink(path) == 0);
    CHECK(restore());
    CHECK(exists(memory, "media.ring") && !exists(memory, "events.ring"));
    vev_options options = quiet();
    log = open_log(memory, &options);
    CHECK(stats_of(log, VEV_MEDIA).pending == 3 && stats_of(log, VEV_EVENTS).appended == 0);
    CHECK(stats_of(log, VEV_EVENTS).bytes_on_disk <= options.events_size);
    OK(vev_log_sync(log, NULL));
    CHECK(exists(flash, "events.copy"));
    vev_log_close(log);
}

static vev_status full_after_1_mib(void *ctx, int fd, uint64_t size)
{
    vev_status status = vev_io_posix.allocate(ctx, fd, VEV_MIN(size, 1ull << 20));
    return size > 1 << 20 ? ENOSPC : status;
}

/* There is no room for the copy: it does not take what room there is. */
static void full_flash_is_left_as_it_is(void)
{
    fresh_places();
    (void)restore();
    vev_options options = quiet();
    vev_log_close(open_log(memory, &options));
    char path[160];
    snprintf(path, sizeof path, "%s/media.copy", flash);
    CHECK(unlink(path) == 0);
    vev_io io = vev_io_posix;
    io.allocate = full_after_1_mib;
    vev_log *log;
    OK(vev__log_open(&io, memory, &options, &log));
    append_numbers(log, VEV_MEDIA, 0, 5);
    CHECK(vev_log_sync(log, NULL) == ENOSPC);
    CHECK(!exists(flash, "media.copy") && !exists(flash, "media.copy.new"));
    io.allocate = vev_io_posix.allocate;
    OK(vev_log_sync(log, NULL));
    CHECK(vev_log_durable_seq(log, VEV_MEDIA) == 5);
    vev_log_close(log);
}

int main(void)
{
    begin_tests("copy");
    RUN(comes_back_after_a_cut);
    RUN(writes_what_changed);
    RUN(laps_come_back);
    RUN(urgent_appends_reach_the_copy);
    RUN(copy_of_another_log_is_left_alone);
    RUN(outlived_log_leaves_the_copy_alone);
    RUN(copy_that_is_gone_is_made_again);
    RUN(damaged_copy_opens);
    RUN(copy_that_is_cut_short_opens);
    RUN(restore_begins_again);
    RUN(orders_of_a_pass);
    RUN(late_commit_reaches_the_copy);
    RUN(several_processes);
    RUN(background);
    RUN(another_interval);
    RUN(state_of_another_boot);
    RUN(state_that_makes_no_sense);
    RUN(fork_amid_a_pass);
    RUN(rings_without_a_copy_are_not_made);
    RUN(full_flash_is_left_as_it_is);
    end_tests();
    return 0;
}
