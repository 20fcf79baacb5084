/* What tests of a whole log share: a directory of its own, small rings, payloads that tell their
 * number, and stats that are always checked for conservation. */
#ifndef LOG_CASE_H
#define LOG_CASE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vevents/vevents.h"

#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #cond);                     \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)
#define OK(call)                                                                                   \
    do {                                                                                           \
        vev_status status_ = (call);                                                               \
        if (status_) {                                                                             \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, vev_strerror(status_));  \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

static char root[64];

static const char *fresh_dir(void)
{
    static char dir[96];
    static int count;
    snprintf(dir, sizeof dir, "%s/log-%d-%d", root, (int)getpid(), count++);
    return dir;
}

static vev_options small(void)
{
    vev_options options;
    vev_options_init(&options);
    options.events_size = 1 << 20;
    options.media_size = 4 << 20;
    options.delivery_size = 1 << 20;
    options.segment_size = 0;
    return options;
}

static vev_log *open_log(const char *dir, const vev_options *options)
{
    vev_log *log;
    OK(vev_log_open(dir, options, &log));
    return log;
}

static inline void check_conserved(const vev_stats *stats)
{
    if (stats->appended !=
        stats->delivered + stats->pending + stats->rejected + stats->evicted + stats->lost) {
        fprintf(stderr, "conservation broken: %llu != %llu + %llu + %llu + %llu + %llu\n",
                (unsigned long long)stats->appended, (unsigned long long)stats->delivered,
                (unsigned long long)stats->pending, (unsigned long long)stats->rejected,
                (unsigned long long)stats->evicted, (unsigned long long)stats->lost);
        exit(1);
    }
}

static vev_stats stats_of(vev_log *log, int stream)
{
    vev_stats stats;
    OK(vev_log_stats(log, stream, &stats));
    check_conserved(&stats);
    return stats;
}

/* A payload that tells its number and has a length of its own. */
static size_t make_payload(uint8_t *buffer, uint64_t number)
{
    size_t size = 20 + (size_t)(number * 7919 % 400);
    for (size_t i = 0; i < size; i++)
        buffer[i] = (uint8_t)((number * 31 + i * i) >> 3);
    memcpy(buffer, &number, sizeof number);
    return size;
}

static void append_numbers(vev_log *log, int stream, uint64_t from, uint64_t to)
{
    uint8_t payload[512];
    for (uint64_t n = from; n < to; n++) {
        vev_entry entry = {.kind = (uint32_t)(n % 6)};
        OK(vev_log_append(log, stream, payload, make_payload(payload, n), &entry));
    }
}

/* Read everything in the given states; every payload must be one that make_payload() makes. */
__attribute__((unused)) static uint64_t read_all(vev_log *log, int stream, unsigned mask,
                                                 uint64_t *first, uint64_t *last)
{
    static uint8_t buffer[1 << 18];
    static vev_record records[256];
    uint64_t next = 0, total = 0;
    *first = *last = 0;
    for (;;) {
        size_t count;
        OK(vev_log_read(log, stream, next, mask, records, 256, buffer, sizeof buffer, &count,
                        &next));
        if (count == 0)
            return total;
        for (size_t i = 0; i < count; i++) {
            uint8_t expected[512];
            uint64_t number;
            memcpy(&number, buffer + records[i].offset, sizeof number);
            CHECK(records[i].size == make_payload(expected, number));
            CHECK(memcmp(expected, buffer + records[i].offset, records[i].size) == 0);
            CHECK(records[i].seq > *last);
            if (*first == 0)
                *first = records[i].seq;
            *last = records[i].seq;
        }
        total += count;
    }
}

static void begin_tests(const char *name)
{
    const char *base = getenv("TMPDIR");
    snprintf(root, sizeof root, "%s/vev-%s-XXXXXX", base ? base : "/tmp", name);
    CHECK(mkdtemp(root) != NULL);
}

static void end_tests(void)
{
    char command[96];
    snprintf(command, sizeof command, "rm -rf %s", root);
    CHECK(system(command) == 0);
    puts("ok");
}

#endif
