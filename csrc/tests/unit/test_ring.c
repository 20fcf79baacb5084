/* The log as a whole, on a real file system: append, read, mark, wrap, reopen, several
 * processes. */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fault_case.h"
#include "vev_clock.h"

static void test_append_and_read(void)
{
    const char *dir = fresh_dir();
    vev_options options = small();
    vev_log *log = open_log(dir, &options);
    append_numbers(log, VEV_EVENTS, 0, 1000);
    uint64_t first, last;
    CHECK(read_all(log, VEV_EVENTS, 1 << VEV_PENDING, &first, &last) == 1000);
    CHECK(first == 1 && last == 1000);
    vev_stats stats = stats_of(log, VEV_EVENTS);
    CHECK(stats.appended == 1000 && stats.pending == 1000);
    uint64_t durable;
    OK(vev_log_sync(log, &durable));
    CHECK(durable == 1000);
    vev_log_close(log);
    struct stat st;
    char path[128];
    snprintf(path, sizeof path, "%s/events.ring", dir);
    CHECK(stat(path, &st) == 0 && (st.st_mode & 0777) == 0600);
    log = open_log(dir, &options);
    CHECK(read_all(log, VEV_EVENTS, 1 << VEV_PENDING, &first, &last) == 1000);
    append_numbers(log, VEV_EVENTS, 1000, 1100);
    CHECK(read_all(log, VEV_EVENTS, 1 << VEV_PENDING, &first, &last) == 1100 && last == 1100);
    vev_log_close(log);
}

static void test_mark(void)
{
    const char *dir = fresh_dir();
    vev_options options = small();
    vev_log *log = open_log(dir, &options);
    append_numbers(log, VEV_EVENTS, 0, 300);
    uint64_t seqs[] = {1, 2, 3, 100, 300, 301, 99999, 2};
    size_t changed;
    OK(vev_log_mark(log, VEV_EVENTS, seqs, 8, VEV_DELIVERED, &changed));
    CHECK(changed == 5); /* 301 has not been appended yet */
    vev_stats stats = stats_of(log, VEV_EVENTS);
    CHECK(stats.delivered == 5 && stats.pending == 295);
    uint64_t one = 7;
    OK(vev_log_mark(log, VEV_EVENTS, &one, 1, VEV_REJECTED, NULL));
    vev_log_close(log);
    log = open_log(dir, &options);
    stats = stats_of(log, VEV_EVENTS);
    CHECK(stats.delivered == 5 && stats.pending == 294 && stats.rejected == 1);
    uint64_t future = 301;
    OK(vev_log_mark(log, VEV_EVENTS, &future, 1, VEV_DELIVERED, &changed));
    CHECK(changed == 0);
    append_numbers(log, VEV_EVENTS, 300, 301);
    stats = stats_of(log, VEV_EVENTS);
    CHECK(stats.delivered == 5 && stats.pending == 295);
    uint64_t first, last;
    CHECK(read_all(log, VEV_EVENTS, 1 << VEV_PENDING, &first, &last) == 295 && first == 4);
    CHECK(read_all(log, VEV_EVENTS, 1 << VEV_DELIVERED, &first, &last) == 5);
    CHECK(vev_log_mark(log, VEV_EVENTS, &one, 1, 9, NULL) == VEV_E_INVALID);
    vev_log_close(log);
}

static void test_wrap(int threaded)
{
    const char *dir = fresh_dir();
    vev_options options = small();
    options.flags = threaded ? 0 : VEV_OPEN_NO_THREAD;
    vev_log *log = open_log(dir, &options);
    uint64_t appended = 0, first, last;
    for (int round = 0; round < 40; round++) {
        append_numbers(log, VEV_EVENTS, appended, appended + 1000);
        appended += 1000;
        vev_stats stats = stats_of(log, VEV_EVENTS);
        CHECK(stats.appended == appended);
        uint64_t count, oldest;
        do { /* the helper thread may reclaim a segment between the two looks */
            oldest = stats.first_seq;
            count = read_all(log, VEV_EVENTS, 1 << VEV_PENDING, &first, &last);
            stats = stats_of(log, VEV_EVENTS);
        } while (stats.first_seq != oldest);
        CHECK(count == stats.pending);
        CHECK(last == appended);
        uint64_t some[] = {last, last - 1, last - 2};
        OK(vev_log_mark(log, VEV_EVENTS, some, 3, VEV_DELIVERED, NULL));
        if (round % 7 == 6) {
            vev_log_close(log);
            log = open_log(dir, &options);
        }
    }
    vev_stats stats = stats_of(log, VEV_EVENTS);
    CHECK(stats.evicted > 0 && stats.lost == 0 && stats.delivered == 120);
    uint64_t by_kind = 0;
    for (int kind = 0; kind < 8; kind++)
        by_kind += stats.evicted_by_kind[kind];
    CHECK(by_kind == stats.evicted && stats.evicted_by_kind[7] == 0);
    CHECK(stats.evicted_by_kind[1] > 0 && stats.evicted_by_kind[5] > 0);
    vev_log_close(log);
}

static void test_refuse(void)
{
    const char *dir = fresh_dir();
    vev_options options = small();
    options.full_policy = VEV_FULL_REFUSE;
    vev_log *log = open_log(dir, &options);
    uint8_t payload[512];
    uint64_t n = 0, first, last;
    vev_status status;
    while ((status = vev_log_append(log, VEV_EVENTS, payload, make_payload(payload, n), NULL)) ==
           VEV_OK)
        CHECK(++n < 100000);
    CHECK(status == VEV_E_FULL);
    CHECK(read_all(log, VEV_EVENTS, 1 << VEV_PENDING, &first, &last) == n);
    vev_stats stats = stats_of(log, VEV_EVENTS);
    CHECK(stats.evicted == 0 && stats.pending == n);
    for (uint64_t seq = 1; seq <= n; seq++)
        OK(vev_log_mark(log, VEV_EVENTS, &seq, 1, VEV_DELIVERED, NULL));
    append_numbers(log, VEV_EVENTS, n, n + 100);
    stats = stats_of(log, VEV_EVENTS);
    CHECK(stats.evicted == 0 && stats.delivered == n && stats.pending == 100);
    vev_log_close(log);
}

static void test_limits(void)
{
    const char *dir = fresh_dir();
    vev_options options = small();
    vev_log *log = open_log(dir, &options);
    vev_stats stats = stats_of(log, VEV_MEDIA);
    size_t max = (size_t)stats.max_payload;
    uint8_t *big = malloc(max + 1);
    for (uint64_t i = 0; i <= max; i++)
        big[i] = (uint8_t)(i * 2654435761u >> 13);
    vev_entry entry = {.flags = VEV_APPEND_RAW, .kind = 1};
    CHECK(vev_log_append(log, VEV_MEDIA, big, max + 1, &entry) == VEV_E_TOO_BIG);
    CHECK(vev_log_append(log, VEV_MEDIA, big, 0, &entry) == VEV_E_INVALID);
    entry.kind = 8;
    CHECK(vev_log_append(log, VEV_MEDIA, big, 1, &entry) == VEV_E_INVALID);
    CHECK(vev_log_append(log, 3, big, 1, NULL) == VEV_E_INVALID);
    entry.kind = 1;
    for (int i = 0; i < 20; i++)
        OK(vev_log_append(log, VEV_MEDIA, big, max, &entry));
    stats = stats_of(log, VEV_MEDIA);
    CHECK(stats.appended == 20 && stats.evicted > 0 && stats.pending > 0);
    vev_record record;
    size_t count;
    uint64_t next;
    uint8_t small_buffer[16];
    CHECK(vev_log_read(log, VEV_MEDIA, 0, 15, &record, 1, small_buffer, 16, &count, &next) ==
          VEV_E_BUFFER);
    CHECK(record.size == max);
    uint8_t *back = malloc(max);
    OK(vev_log_read(log, VEV_MEDIA, 20, 15, &record, 1, back, max, &count, &next));
    CHECK(count == 1 && record.seq == 20 && memcmp(back, big, record.size) == 0 && next == 21);
    free(back);
    free(big);
    vev_log_close(log);
    options.level = 50;
    CHECK(vev_log_open(dir, &options, &log) == VEV_E_INVALID && log == NULL);
}

/* What cannot be meant is refused, and nothing is touched for it. */
static void test_arguments(void)
{
    const char *dir = fresh_dir();
    vev_options options = small();
    vev_log *log = open_log(dir, &options);
    append_numbers(log, VEV_EVENTS, 0, 10);
    enum { TOO_MANY = 65537 };
    vev_record *records = calloc(TOO_MANY, sizeof *records);
    uint8_t buffer[8192];
    size_t count;
    uint64_t next, checked, seq = 1;
    CHECK(records != NULL);
#define READ(stream, to, cap, at, size, count_out, next_out)                                       \
    vev_log_read(log, stream, 0, 15, to, cap, at, size, count_out, next_out)
    OK(READ(VEV_EVENTS, records, TOO_MANY - 1, buffer, sizeof buffer, &count, &next));
    CHECK(count == 10);
    CHECK(READ(VEV_EVENTS, records, TOO_MANY, buffer, sizeof buffer, &count, &next) ==
          VEV_E_INVALID);
    CHECK(READ(VEV_EVENTS, records, 0, buffer, sizeof buffer, &count, &next) == VEV_E_INVALID);
    CHECK(READ(VEV_EVENTS, NULL, 1, buffer, sizeof buffer, &count, &next) == VEV_E_INVALID);
    CHECK(READ(VEV_EVENTS, records, 1, NULL, 1, &count, &next) == VEV_E_INVALID);
    CHECK(READ(VEV_EVENTS, records, 1, NULL, 0, &count, &next) == VEV_E_BUFFER);
    CHECK(READ(VEV_EVENTS, records, 1, buffer, sizeof buffer, NULL, &next) == VEV_E_INVALID);
    CHECK(READ(VEV_EVENTS, records, 1, buffer, sizeof buffer, &count, NULL) == VEV_E_INVALID);
    CHECK(READ(-1, records, 1, buffer, sizeof buffer, &count, &next) == VEV_E_INVALID);
#undef READ
    free(records);

    CHECK(vev_log_mark(log, VEV_EVENTS, &seq, 1, -1, NULL) == VEV_E_INVALID);
    CHECK(vev_log_mark(log, VEV_EVENTS, NULL, 1, VEV_DELIVERED, NULL) == VEV_E_INVALID);
    OK(vev_log_mark(log, VEV_EVENTS, NULL, 0, VEV_DELIVERED, NULL));
    CHECK(vev_log_verify(log, VEV_EVENTS, NULL, 1, &count, &checked) == VEV_E_INVALID);
    CHECK(vev_log_verify(log, VEV_EVENTS, NULL, 0, NULL, &checked) == VEV_E_INVALID);
    CHECK(vev_log_verify(log, VEV_EVENTS, NULL, 0, &count, NULL) == VEV_E_INVALID);
    CHECK(vev_log_copy_info(log, NULL) == VEV_E_INVALID);
    CHECK(vev_log_stats(log, VEV_EVENTS, NULL) == VEV_E_INVALID);
    CHECK(vev_log_durable_seq(NULL, VEV_EVENTS) == 0 && vev_log_durable_seq(log, 3) == 0);
    CHECK(vev_log_sync(NULL, NULL) == VEV_E_INVALID);
    CHECK(stats_of(log, VEV_EVENTS).pending == 10);
    vev_log_close(log);
}

/* Options that make no sense make no log. */
static void test_options(void)
{
    vev_options good = small(), many[12];
    vev_log *log;
    for (size_t i = 0; i < 12; i++)
        many[i] = good;
    many[0].struct_size--;
    many[1].events_size = (1 << 20) - 1;
    many[2].media_size = (1 << 20) - 1;
    many[3].delivery_size = (1 << 20) - 1;
    many[4].dictionary_size = VEV_DICTIONARY_MAX + 1;
    many[5].full_policy = 99;
    many[6].full_policy = -1;
    many[7].segment_size = 65536 + 4096;
    many[8].level = 10;
    many[9].level = -8;
    many[10].level = VEV_LEVEL_RAW - 1;
    many[11].level = VEV_LEVEL_RAW + 1;
    const char *dir = fresh_dir();
    for (size_t i = 0; i < 12; i++) {
        CHECK(vev_log_open(dir, &many[i], &log) == VEV_E_INVALID && log == NULL);
        CHECK(access(dir, F_OK) != 0);
    }
    CHECK(vev_log_open(NULL, &good, &log) == VEV_E_INVALID && log == NULL);
    CHECK(vev_log_open("", &good, &log) == VEV_E_INVALID && log == NULL);
    CHECK(vev_log_open(dir, &good, NULL) == VEV_E_INVALID);
    CHECK(vev_log_restore(NULL, "/copy", 0, NULL) == VEV_E_INVALID);
    CHECK(vev_log_restore("", "/copy", 0, NULL) == VEV_E_INVALID);
    CHECK(vev_log_restore(dir, NULL, 0, NULL) == VEV_E_INVALID);
    CHECK(vev_log_restore(dir, "copy", 0, NULL) == VEV_E_INVALID);
    CHECK(vev_log_restore(dir, dir, 0, NULL) == VEV_E_INVALID);
    char far[5000] = "/";
    memset(far + 1, 'x', sizeof far - 2);
    CHECK(vev_log_restore(dir, far, 0, NULL) == VEV_E_INVALID);
    CHECK(access(dir, F_OK) != 0);
    for (int level = -7; level <= 9; level += 16) {
        good.level = level;
        vev_log_close(open_log(fresh_dir(), &good));
    }
}

/* INV-7: whoever has announced the lap that it writes to is seen, by its own process as well as by
 * others, and no longer than that. */
static void test_cells(void)
{
    const char *dir = fresh_dir();
    CHECK(mkdir(dir, 0700) == 0);
    vev_ring *ring = open_ring(dir), *other = open_ring(dir);
    for (int turn = 0; turn < 2; turn++) {
        vev_ring *one = turn ? ring : other, *two = turn ? other : ring;
        CHECK(!vev_ring_is_pinned(one, 0, UINT64_MAX));
        _Atomic uint64_t *cell = vev_ring_claim(one, 5);
        CHECK(vev_ring_is_pinned(one, 5, 5) && vev_ring_is_pinned(two, 5, 5));
        CHECK(vev_ring_is_pinned(one, 1, 5) && vev_ring_is_pinned(two, 5, 9));
        CHECK(!vev_ring_is_pinned(one, 1, 4) && !vev_ring_is_pinned(two, 6, 9));
        vev_ring_release(cell);
        CHECK(!vev_ring_is_pinned(one, 5, 5) && !vev_ring_is_pinned(two, 5, 5));
    }
    /* Who died in there does not count. */
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        (void)vev_ring_claim(open_ring(dir), 7);
        _exit(0);
    }
    wait_for(child);
    CHECK(!vev_ring_is_pinned(ring, 0, UINT64_MAX));
    vev_ring_close(other);
    vev_ring_close(ring);
}

static void *append_thread(void *argument)
{
    append_numbers(argument, VEV_EVENTS, 0, 5000);
    return NULL;
}

static void test_threads(void)
{
    const char *dir = fresh_dir();
    vev_options options = small();
    options.events_size = 8 << 20;
    vev_log *log = open_log(dir, &options);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        CHECK(pthread_create(&threads[i], NULL, append_thread, log) == 0);
    uint64_t first, last;
    for (int i = 0; i < 20; i++) {
        (void)read_all(log, VEV_EVENTS, 1 << VEV_PENDING, &first, &last);
        OK(vev_log_sync(log, NULL));
    }
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    CHECK(read_all(log, VEV_EVENTS, 1 << VEV_PENDING, &first, &last) == 20000);
    CHECK(first == 1 && last == 20000);
    CHECK(stats_of(log, VEV_EVENTS).pending == 20000);
    uint64_t durable;
    OK(vev_log_sync(log, &durable));
    CHECK(durable == 20000);
    vev_log_close(log);
}

static void test_processes(void)
{
    const char *dir = fresh_dir();
    vev_options options = small();
    options.events_size = 8 << 20;
    for (int i = 0; i < 3; i++) {
        if (fork() == 0) {
            vev_log *log = open_log(dir, &options);
            append_numbers(log, VEV_EVENTS, 0, 4000);
            vev_log_close(log);
            _exit(0);
        }
    }
    for (int i = 0; i < 3; i++) {
        int status;
        CHECK(wait(&status) > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    vev_log *log = open_log(dir, &options);
    uint64_t first, last;
    CHECK(read_all(log, VEV_EVENTS, 15, &first, &last) == 12000);
    CHECK(stats_of(log, VEV_EVENTS).appended == 12000);
    vev_log_close(log);
}

static void test_fork_after_open(void)
{
    const char *dir = fresh_dir();
    vev_options options = small();
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
    /* TSan takes no new threads in a child; in ASan's allocator, a lock that a thread of the parent
     * held at the fork stays taken. */
    options.flags = VEV_OPEN_NO_THREAD;
#endif
    vev_log *log = open_log(dir, &options);
    append_numbers(log, VEV_EVENTS, 0, 100);
    pid_t child = fork();
    if (child == 0) {
        append_numbers(log, VEV_EVENTS, 100, 600);
        vev_log_close(log);
        _exit(0);
    }
    append_numbers(log, VEV_EVENTS, 600, 900);
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    append_numbers(log, VEV_EVENTS, 900, 1000);
    uint64_t first, last;
    CHECK(read_all(log, VEV_EVENTS, 15, &first, &last) == 1000);
    CHECK(stats_of(log, VEV_EVENTS).appended == 1000);
    vev_log_close(log);
}

static void test_kill(void)
{
    const char *dir = fresh_dir();
    vev_options options = small();
    options.events_size = 2 << 20;
    uint64_t before = 0;
    for (int round = 0; round < 20; round++) {
        int pipe_fds[2];
        CHECK(pipe(pipe_fds) == 0);
        pid_t child = fork();
        if (child == 0) {
            vev_log *log = open_log(dir, &options);
            uint8_t payload[512];
            for (uint64_t n = 0;; n++) {
                vev_entry entry = {0};
                OK(vev_log_append(log, VEV_EVENTS, payload, make_payload(payload, n), &entry));
                CHECK(write(pipe_fds[1], &entry.seq, sizeof entry.seq) == sizeof entry.seq);
            }
        }
        close(pipe_fds[1]);
        uint64_t seq, witness = 0;
        int enough = 200 + round * 37;
        while (enough-- > 0 && read(pipe_fds[0], &seq, sizeof seq) == sizeof seq)
            witness = seq;
        kill(child, SIGKILL);
        while (read(pipe_fds[0], &seq, sizeof seq) == sizeof seq)
            witness = seq;
        close(pipe_fds[0]);
        waitpid(child, NULL, 0);
        CHECK(witness > before);
        vev_options quiet = options;
        quiet.flags = VEV_OPEN_NO_THREAD; /* else it might reclaim between the two looks */
        vev_log *log = open_log(dir, &quiet);
        vev_stats stats = stats_of(log, VEV_EVENTS);
        CHECK(stats.last_seq >= witness && stats.lost == 0);
        uint64_t first, last;
        CHECK(read_all(log, VEV_EVENTS, 15, &first, &last) == stats.pending);
        CHECK(last >= witness);
        before = stats.last_seq;
        vev_log_close(log);
    }
}

static void test_damage(void)
{
    const char *dir = fresh_dir();
    vev_options options = small();
    vev_log *log = open_log(dir, &options);
    append_numbers(log, VEV_EVENTS, 0, 200);
    vev_stats stats = stats_of(log, VEV_EVENTS);
    vev_log_close(log);
    uint8_t junk[600];
    memset(junk, 0xa5, sizeof junk);
    /* The dictionary: it is the built-in one, so nothing is lost. */
    overwrite(dir, 65536 + 8192, junk, sizeof junk);
    log = open_log(dir, &options);
    uint64_t first, last;
    CHECK(read_all(log, VEV_EVENTS, 15, &first, &last) == 200);
    vev_log_close(log);
    /* Records in the middle. */
    overwrite(dir, 65536 + stats.segment_size / 2, junk, sizeof junk);
    log = open_log(dir, &options);
    uint64_t found = read_all(log, VEV_EVENTS, 15, &first, &last);
    stats = stats_of(log, VEV_EVENTS);
    CHECK(found < 200 && found >= 190 && last == 200);
    CHECK(stats.lost == 200 - found && stats.pending == found && stats.appended == 200);
    append_numbers(log, VEV_EVENTS, 200, 300);
    CHECK(read_all(log, VEV_EVENTS, 1, &first, &last) == found + 100 && last == 300);
    vev_log_close(log);

    /* The file header and its copy gone: the segments know what they are of. */
    overwrite(dir, 0, junk, sizeof junk);
    log = open_log(dir, &options);
    CHECK(read_all(log, VEV_EVENTS, 1, &first, &last) == found + 100);
    vev_log_close(log);
    overwrite(dir, 0, junk, sizeof junk);
    overwrite(dir, 4096, junk, sizeof junk);
    log = open_log(dir, &options);
    CHECK(read_all(log, VEV_EVENTS, 1, &first, &last) == found + 100);
    CHECK(stats_of(log, VEV_EVENTS).set_aside == 0);
    vev_log_close(log);
    /* And every segment head gone as well: set aside, a new ring. */
    overwrite(dir, 0, junk, sizeof junk);
    overwrite(dir, 4096, junk, sizeof junk);
    for (uint32_t s = 0; s < stats.segment_count; s++)
        overwrite(dir, 65536 + (uint64_t)s * stats.segment_size, junk, sizeof junk);
    log = open_log(dir, &options);
    stats = stats_of(log, VEV_EVENTS);
    CHECK(stats.set_aside == 1 && stats.appended == 0);
    char path[160];
    snprintf(path, sizeof path, "%s/events.ring.damaged-1", dir);
    CHECK(access(path, F_OK) == 0);
    append_numbers(log, VEV_EVENTS, 0, 10);
    vev_log_close(log);
}

static void test_truncated_under_map(void)
{
#ifdef __SANITIZE_THREAD__
    return; /* the jump out of the handler would leave TSan's own locks taken */
#endif
    const char *dir = fresh_dir();
    vev_options options = small();
    options.flags =
        VEV_OPEN_NO_THREAD; /* it may be amid clearing, and a write makes a file longer */
    vev_log *log = open_log(dir, &options);
    append_numbers(log, VEV_EVENTS, 0, 50);
    char path[160];
    snprintf(path, sizeof path, "%s/events.ring", dir);
    CHECK(truncate(path, 0) == 0);
    uint8_t payload[512];
    size_t size = make_payload(payload, 50);
    vev_status status = vev_log_append(log, VEV_EVENTS, payload, size, NULL);
    CHECK(status == EIO || status == VEV_E_DEGRADED);
    CHECK(vev_log_append(log, VEV_EVENTS, payload, size, NULL) == VEV_E_DEGRADED);
    /* More often than there are cells: none may be left taken by a jump. */
    uint64_t seq = 5;
    for (int i = 0; i < 2 * VEV_KIND_COUNT; i++) {
        CHECK(vev_log_sync(log, NULL) != VEV_OK);
        CHECK(vev_log_mark(log, VEV_EVENTS, &seq, 1, VEV_DELIVERED, NULL) != VEV_OK);
    }
    vev_log_close(log);
}

static void own_sigbus_handler(int signo) { _exit(signo == SIGBUS ? 42 : 1); }

/* A program that handles SIGBUS itself still gets those that are not ours, and not those that
 * are. */
static void test_programs_own_sigbus_handler(void)
{
#ifdef __SANITIZE_THREAD__
    return; /* as above */
#endif
    const char *dir = fresh_dir();
    char path[160];
    snprintf(path, sizeof path, "%s/events.ring", dir);
    pid_t child = fork();
    if (child == 0) {
        signal(SIGBUS, own_sigbus_handler);
        vev_options options = small();
        vev_log *log = open_log(dir, &options);
        append_numbers(log, VEV_EVENTS, 0, 10);
        CHECK(truncate(path, 0) == 0);
        uint8_t payload[512];
        vev_status status =
            vev_log_append(log, VEV_EVENTS, payload, make_payload(payload, 10), NULL);
        CHECK(status == EIO || status == VEV_E_DEGRADED);
        int fd = open(path, O_RDWR);
        CHECK(fd >= 0 && ftruncate(fd, 4096) == 0);
        volatile char *mine = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        CHECK(mine != MAP_FAILED && ftruncate(fd, 0) == 0);
        mine[0] = 1;
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 42);
}

#if defined(__GLIBC__) && !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)

static _Atomic uint64_t allocations;

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *old, size_t size);

void *malloc(size_t size)
{
    atomic_fetch_add(&allocations, 1);
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    atomic_fetch_add(&allocations, 1);
    return __libc_calloc(count, size);
}

void *realloc(void *old, size_t size)
{
    atomic_fetch_add(&allocations, 1);
    return __libc_realloc(old, size);
}

/* Do by hand for a log's events what its helper thread does: clear and touch far ahead. */
static void look_ahead_of(const char *dir)
{
    vev_ring *ring = open_ring(dir);
    vev_watch seen;
    vev_ring_watch(ring, &seen, 0);
    static const uint8_t burst[150000];
    vev_entry entry = {0};
    OK(vev_ring_append(ring, burst, sizeof burst, &entry));
    CHECK(vev_ring_keep(ring, &seen, 1000000) >= VEV_PACE_FAST);
    vev_ring_close(ring);
}

/* Once it is warm, append makes no system call and allocates nothing as long as somebody clears
 * ahead of it, until its segment is full. */
static void test_append_keeps_to_itself(void)
{
    const char *dir = fresh_dir();
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        vev_options options = small();
        options.flags = VEV_OPEN_NO_THREAD;
        options.events_size = 16 << 20; /* with a segment that all of them fit into */
        options.segment_size = 1 << 20;
        vev_log *log = open_log(dir, &options);
        look_ahead_of(dir);
        append_numbers(log, VEV_EVENTS, 0, 1); /* of 28 bytes; those below are up to 419 */
        vev_clock_boot_tag();
        struct sock_filter filter[] = {
            BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 0, 1),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        };
        struct sock_fprog program = {sizeof filter / sizeof filter[0], filter};
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
            prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) != 0)
            _exit(77);
        uint64_t before = atomic_load(&allocations);
        append_numbers(log, VEV_EVENTS, 1, 701);
        _exit(atomic_load(&allocations) == before ? 0 : 3);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
        puts("skipped: this kernel has no seccomp filters");
        return;
    }
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

#else
static void test_append_keeps_to_itself(void) {}
#endif

static void test_readonly(void)
{
    const char *dir = fresh_dir();
    vev_options options = small();
    vev_log *log = open_log(dir, &options);
    append_numbers(log, VEV_EVENTS, 0, 100);
    vev_options reading = small();
    reading.flags = VEV_OPEN_READONLY;
    vev_log *reader = open_log(dir, &reading);
    uint64_t first, last;
    CHECK(read_all(reader, VEV_EVENTS, 15, &first, &last) == 100);
    append_numbers(log, VEV_EVENTS, 100, 150);
    CHECK(read_all(reader, VEV_EVENTS, 15, &first, &last) == 150);
    CHECK(stats_of(reader, VEV_EVENTS).pending == 150);
    CHECK(vev_log_append(reader, VEV_EVENTS, "x", 1, NULL) == VEV_E_READONLY);
    vev_log_close(reader);
    vev_log_close(log);
    CHECK(vev_log_open(fresh_dir(), &reading, &reader) == ENOENT);
}

static void test_urgent(void)
{
    const char *dir = fresh_dir();
    vev_options options = small();
    options.sync_interval_ms = 0;
    vev_log *log = open_log(dir, &options);
    append_numbers(log, VEV_EVENTS, 0, 10);
    CHECK(vev_log_durable_seq(log, VEV_EVENTS) == 0);
    vev_entry entry = {.flags = VEV_APPEND_SYNC, .kind = VEV_KIND_SAFETY_ALERT};
    OK(vev_log_append(log, VEV_EVENTS, "alert", 5, &entry));
    CHECK(entry.seq == 11 && vev_log_durable_seq(log, VEV_EVENTS) == 11);
    CHECK((entry.id[6] & 0xf0) == 0x40 && (entry.id[8] & 0xc0) == 0x80);
    append_numbers(log, VEV_EVENTS, 10, 20);
    CHECK(vev_log_durable_seq(log, VEV_EVENTS) == 11);
    vev_log_close(log);
}

static unsigned locks_asked;

static vev_status count_lock(void *ctx, int fd, uint64_t offset, int kind)
{
    locks_asked++;
    return vev_io_posix.lock(ctx, fd, offset, kind);
}

/* An append that is said to find room goes on to no other segment, in which it might have to
 * wait. */
static void test_room(void)
{
    vev_options options = small();
    options.flags = VEV_OPEN_NO_THREAD;
    vev_io io = vev_io_posix;
    io.lock = count_lock;
    const char *dir = fresh_dir();
    vev_log *log;
    OK(vev__log_open(&io, dir, &options, &log));
    unsigned sure = 0;
    for (uint64_t n = 0; n < 20000; n++) {
        uint8_t payload[512];
        size_t size = make_payload(payload, n);
        bool has_room = vev__log_has_room(log, VEV_EVENTS, size);
        locks_asked = 0;
        append_numbers(log, VEV_EVENTS, n, n + 1);
        CHECK(!has_room || locks_asked == 0);
        sure += has_room;
    }
    CHECK(sure > 19000);
    CHECK(stats_of(log, VEV_EVENTS).evicted > 0);
    CHECK(!vev__log_has_room(log, VEV_EVENTS, stats_of(log, VEV_EVENTS).max_payload));
    CHECK(!vev__log_has_room(log, VEV_STREAM_COUNT, 1));
    CHECK(!vev__log_has_room(NULL, VEV_EVENTS, 1));

    /* Another process has gone on meanwhile. */
    while (!vev__log_has_room(log, VEV_EVENTS, 512))
        append_numbers(log, VEV_EVENTS, 0, 1);
    vev_log *other = open_log(dir, &options);
    append_numbers(other, VEV_EVENTS, 0, 1000);
    CHECK(!vev__log_has_room(log, VEV_EVENTS, 512));
    append_numbers(log, VEV_EVENTS, 0, 1);
    vev_log_close(other);

    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        CHECK(!vev__log_has_room(log, VEV_EVENTS, 1)); /* it has to attach first */
        append_numbers(log, VEV_EVENTS, 0, 1);
        vev_log_close(log);
        _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    (void)stats_of(log, VEV_EVENTS);
    vev_log_close(log);
}

int main(void)
{
    begin_tests("ring");
    test_programs_own_sigbus_handler(); /* first: the handler is put in place once per process */
    test_append_and_read();
    test_mark();
    test_wrap(0);
    test_wrap(1);
    test_refuse();
    test_limits();
    test_arguments();
    test_options();
    test_cells();
    test_threads();
    test_processes();
    test_fork_after_open();
    test_kill();
    test_damage();
    test_truncated_under_map();
    test_append_keeps_to_itself();
    test_room();
    test_readonly();
    test_urgent();
    end_tests();
    return 0;
}
