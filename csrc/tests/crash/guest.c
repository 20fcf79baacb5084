/* A device whose power is cut, seen from inside: what tools/guest.py runs in a virtual machine.
 *
 *     guest check DIR COPY DURABLE DELIVERED GAPS   open the log after a cut and compare
 *     guest write DIR COPY SEED                     append, acknowledge, sync and tell, until the
 *                                                   power goes
 *
 * COPY is the directory of a RAM-first log's copy, or `-`. Every event's payload follows from its
 * number. `write` prints `safe N M` when events up to N are said to be durable and those up to M were
 * marked delivered before that sync; `check` is told the last such line of the session before, and
 * fails unless
 *
 *   - the log opens, conservation holds in all rings, nothing was set aside
 *   - every event up to N is there, evicted or gone already, and what is there reads back as it was
 *     appended
 *   - every event up to M that is there is delivered
 *   - every event's frame, of those up to N, is there, evicted or gone already
 *
 * What is gone, a cut has taken before it was durable, where something told that its numbers had been
 * given out, a record behind it or a mark. `check` prints `gap 0:FIRST-LAST`, with the number of the
 * ring, and GAPS are those of earlier cuts, each with a comma behind it, or `-`. */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vevents/vevents.h"

#define FAIL(...)                                                                                  \
    do {                                                                                           \
        printf("FAILED: ");                                                                        \
        printf(__VA_ARGS__);                                                                       \
        printf("\n");                                                                              \
        fflush(stdout);                                                                            \
        exit(1);                                                                                   \
    } while (0)
#define OK(call)                                                                                   \
    do {                                                                                           \
        vev_status status_ = (call);                                                               \
        if (status_)                                                                               \
            FAIL("%s: %s", #call, vev_strerror(status_));                                          \
    } while (0)

enum { PAYLOAD_MAX = 1500, FRAME_EVERY = 16, FRAME_SIZE = 9000 };

static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 33) * 0xff51afd7ed558ccdull;
    return x ^ x >> 29;
}

static size_t make_payload(uint8_t *out, uint64_t seq)
{
    size_t size = 24 + (size_t)(mix(seq) % (PAYLOAD_MAX - 24));
    for (size_t i = 0; i < size; i += 8) {
        uint64_t word = mix(seq * 1315423911u + (seq % 2 ? i : i % 32));
        memcpy(out + i, &word, size - i < 8 ? size - i : 8);
    }
    return size;
}

static vev_log *open_log(const char *dir, const char *copy)
{
    if (strcmp(copy, "-") != 0)
        OK(vev_log_restore(dir, copy, 0, NULL));
    vev_options options;
    vev_options_init(&options);
    options.events_size = options.media_size = options.delivery_size = 1 << 20;
    options.segment_size = 1 << 16;
    options.sync_interval_ms = 0;
    vev_log *log;
    OK(vev_log_open(dir, &options, &log));
    return log;
}

static vev_stats stats_of(vev_log *log, int stream)
{
    vev_stats s;
    OK(vev_log_stats(log, stream, &s));
    if (s.appended != s.delivered + s.pending + s.rejected + s.evicted + s.lost)
        FAIL("ring %d does not add up", stream);
    if (s.set_aside || s.degraded)
        FAIL("ring %d was set aside or is degraded", stream);
    return s;
}

static uint8_t buffer[1 << 18];
static vev_record records[256];

/* Tell of numbers that are missing in front of `next`. Returns the first of them that is not among
 * the gaps; `next` if all are. */
static uint64_t look_at_gap(int stream, uint64_t first, uint64_t next, const char *gaps)
{
    if (first == next)
        return next;
    printf("gap %d:%" PRIu64 "-%" PRIu64 "\n", stream, first, next - 1);
    for (const char *at = gaps; first < next && strchr(at, ','); at = strchr(at, ',') + 1) {
        int of;
        uint64_t from, to;
        if (sscanf(at, "%d:%" SCNu64 "-%" SCNu64, &of, &from, &to) == 3 && of == stream &&
            from <= first && first <= to)
            first = to + 1 < next ? to + 1 : next;
    }
    return first;
}

static void check_events(vev_log *log, const vev_stats *stats, uint64_t durable, uint64_t delivered,
                         const char *gaps)
{
    uint64_t next = 0, expected = stats->first_seq;
    for (;;) {
        size_t count;
        OK(vev_log_read(log, VEV_EVENTS, next, 15, records, 256, buffer, sizeof buffer, &count,
                        &next));
        if (count == 0)
            break;
        for (size_t i = 0; i < count; i++) {
            const vev_record *record = &records[i];
            expected = look_at_gap(VEV_EVENTS, expected, record->seq, gaps);
            if (record->seq > expected && expected <= durable)
                FAIL("event %" PRIu64 " was durable (up to %" PRIu64 ") and is gone", expected,
                     durable);
            expected = record->seq + 1;
            uint8_t payload[PAYLOAD_MAX + 8];
            size_t size = make_payload(payload, record->seq);
            if (size != record->size || memcmp(payload, buffer + record->offset, size) != 0)
                FAIL("event %" PRIu64 " is not what was appended", record->seq);
            if (record->seq <= delivered && record->state != VEV_DELIVERED)
                FAIL("event %" PRIu64 " was delivered (up to %" PRIu64 ") and is not", record->seq,
                     delivered);
        }
    }
    expected = look_at_gap(VEV_EVENTS, expected, stats->last_seq + 1, gaps);
    if (expected <= durable && expected <= stats->last_seq)
        FAIL("event %" PRIu64 " was durable (up to %" PRIu64 ") and is gone", expected, durable);
}

/* Frame n is appended before event n * FRAME_EVERY. */
static void check_frames(vev_log *log, const vev_stats *stats, uint64_t durable, const char *gaps)
{
    uint64_t next = 0, expected = stats->first_seq;
    for (;;) {
        size_t count;
        OK(vev_log_read(log, VEV_MEDIA, next, 15, records, 16, buffer, sizeof buffer, &count,
                        &next));
        if (count == 0)
            break;
        for (size_t i = 0; i < count; i++) {
            expected = look_at_gap(VEV_MEDIA, expected, records[i].seq, gaps);
            if (records[i].seq > expected && expected * FRAME_EVERY <= durable)
                FAIL("frame %" PRIu64 " was durable and is gone", expected);
            expected = records[i].seq + 1;
        }
    }
    expected = look_at_gap(VEV_MEDIA, expected, stats->last_seq + 1, gaps);
    if (expected * FRAME_EVERY <= durable)
        FAIL("frame %" PRIu64 " was durable and is gone", expected);
}

static void check(const char *dir, const char *copy, uint64_t durable, uint64_t delivered,
                  const char *gaps)
{
    vev_log *log = open_log(dir, copy);
    vev_stats events = stats_of(log, VEV_EVENTS), media = stats_of(log, VEV_MEDIA);
    (void)stats_of(log, VEV_DELIVERY);
    if (events.last_seq < durable)
        FAIL("the last event is %" PRIu64 ", durable were %" PRIu64, events.last_seq, durable);
    check_events(log, &events, durable, delivered, gaps);
    check_frames(log, &media, durable, gaps);
    events = stats_of(log, VEV_EVENTS);
    printf("checked: %" PRIu64 " appended, %" PRIu64 " evicted, %" PRIu64
           " lost, durable were %" PRIu64 "\n",
           events.appended, events.evicted, events.lost, durable);
    vev_log_close(log);
}

static void write_on(const char *dir, const char *copy, uint64_t seed)
{
    vev_log *log = open_log(dir, copy);
    vev_stats stats = stats_of(log, VEV_EVENTS);
    uint64_t seq = stats.last_seq, marked = 0, durable;
    OK(vev_log_sync(log, NULL));
    printf("writing from %" PRIu64 "\n", seq + 1);
    fflush(stdout);
    for (uint64_t step = 0;; step++) {
        uint64_t chance = mix(seed * 7919 + step) % 1000;
        if (chance < 960) {
            static uint8_t frame[FRAME_SIZE];
            uint8_t payload[PAYLOAD_MAX + 8];
            /* Numbers of frames go on by themselves; after a cut some may have to be made up
             * for. */
            while (stats_of(log, VEV_MEDIA).last_seq < (seq + 1) / FRAME_EVERY) {
                memset(frame, (int)(seq % 255 + 1), sizeof frame);
                OK(vev_log_append(log, VEV_MEDIA, frame, sizeof frame, NULL));
            }
            vev_entry entry = {.flags = chance < 4 ? VEV_APPEND_SYNC : 0};
            OK(vev_log_append(log, VEV_EVENTS, payload, make_payload(payload, seq + 1), &entry));
            if (entry.seq != ++seq)
                FAIL("append gave %" PRIu64 " instead of %" PRIu64, entry.seq, seq);
        } else if (chance < 985) {
            uint64_t first = stats_of(log, VEV_EVENTS).first_seq, seqs[64];
            uint64_t from = marked + 1 > first ? marked + 1 : first;
            size_t count = 0;
            while (count < 64 && from + count < seq)
                seqs[count] = from + count, count++;
            OK(vev_log_mark(log, VEV_EVENTS, seqs, count, VEV_DELIVERED, NULL));
            marked = from + count - 1;
        } else {
            OK(vev_log_sync(log, &durable));
            printf("safe %" PRIu64 " %" PRIu64 "\n", durable, marked);
            fflush(stdout);
        }
    }
}

int main(int argc, char **argv)
{
    if (argc == 7 && strcmp(argv[1], "check") == 0) {
        check(argv[2], argv[3], strtoull(argv[4], NULL, 10), strtoull(argv[5], NULL, 10), argv[6]);
    } else if (argc == 5 && strcmp(argv[1], "write") == 0) {
        write_on(argv[2], argv[3], strtoull(argv[4], NULL, 10));
    } else {
        fputs("guest check DIR COPY DURABLE DELIVERED GAPS | guest write DIR COPY SEED\n", stderr);
        return 2;
    }
    return 0;
}
