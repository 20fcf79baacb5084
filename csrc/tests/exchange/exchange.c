/* A log that goes from machine to machine: what one architecture wrote, another reads and goes on with.
 *
 *     exchange write DIR COUNT   open or create a small log, append COUNT events, mark some, close
 *     exchange append DIR        append and tell every sequence number, until killed
 *     exchange dump DIR          print every record and the figures of all three rings
 *
 * tests/conformance/test_arm.py runs it and compares. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vevents/event.h"

#define OK(call)                                                                                   \
    do {                                                                                           \
        vev_status status_ = (call);                                                               \
        if (status_) {                                                                             \
            fprintf(stderr, "exchange: %s: %s\n", #call, vev_strerror(status_));                   \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

static const char *const names[VEV_STREAM_COUNT] = {"events", "media", "delivery"};

static vev_log *open_log(const char *dir, unsigned flags)
{
    vev_options options;
    vev_options_init(&options);
    options.events_size = options.media_size = options.delivery_size = 1 << 20;
    options.segment_size = 1 << 16;
    options.flags = flags;
    vev_log *log;
    OK(vev_log_open(dir, &options, &log));
    return log;
}

/* One event; every tenth has a frame. Returns its sequence number. */
static uint64_t append_one(vev_log *log, unsigned number)
{
    char buffer[2048], text[32];
    vev_event event;
    snprintf(text, sizeof text, "lot-%u", number * 7919u);
    vev_event_begin(&event, buffer, sizeof buffer, VEV_KIND_QUALITY_CHECK, "press-line");
    vev_event_data_str(&event, "result", number % 2 ? "pass" : "fail");
    vev_event_data_str(&event, "externalId", text);
    vev_event_meta_num(&event, "ratio", number / 3.0);
    vev_event_meta_int(&event, "big", INT64_MIN + (int64_t)number);
    vev_event_image_begin(&event, "top camera");
    if (number % 10 == 0) {
        uint8_t frame[300];
        memset(frame, 0xd8, sizeof frame);
        memcpy(frame, &number, sizeof number);
        vev_entry entry = {.flags = VEV_APPEND_ID | VEV_APPEND_RAW, .kind = VEV_IMAGE_JPEG};
        vev_frame_digest(frame, sizeof frame, entry.id);
        OK(vev_log_append(log, VEV_MEDIA, frame, sizeof frame, &entry));
        vev_event_image_frame(&event, entry.seq, entry.id, sizeof frame);
    }
    for (unsigned i = 0; i < number % 4; i++)
        vev_event_detection(&event, "burr", number + 0.5, 0.1 * number, 37, 22, 0.913);
    vev_event_image_end(&event);
    vev_entry entry = {0};
    OK(vev_log_append_event(log, &event, &entry));
    return entry.seq;
}

static void write_log(const char *dir, unsigned count)
{
    vev_log *log = open_log(dir, 0);
    for (unsigned i = 0; i < count; i++) {
        uint64_t seq = append_one(log, i);
        if (i % 3 == 0)
            OK(vev_log_mark(log, VEV_EVENTS, &seq, 1, i % 7 ? VEV_DELIVERED : VEV_REJECTED, NULL));
    }
    OK(vev_log_append(log, VEV_DELIVERY, "\x81\xa4kind\xa6orphan", 13, NULL));
    OK(vev_log_sync(log, NULL));
    vev_log_close(log);
}

static void dump_stream(vev_log *log, int stream)
{
    static uint8_t buffer[1 << 18];
    static vev_record records[256];
    uint64_t next = 0;
    size_t count;
    do {
        OK(vev_log_read(log, stream, next, 15, records, 256, buffer, sizeof buffer, &count, &next));
        for (size_t i = 0; i < count; i++) {
            const vev_record *r = &records[i];
            printf("%s %" PRIu64 " %" PRId64 " %" PRIu64 " %" PRIu32 " %" PRIu32 " %" PRIu32 " ",
                   names[stream], r->seq, r->wall_ns, r->mono_ns, r->boot, r->kind, r->state);
            for (size_t j = 0; j < sizeof r->id; j++)
                printf("%02x", r->id[j]);
            putchar(' ');
            for (size_t j = 0; j < r->size; j++)
                printf("%02x", buffer[r->offset + j]);
            putchar('\n');
        }
    } while (count > 0);
    vev_stats s;
    vev_damage damage[8];
    size_t damaged;
    uint64_t checked;
    OK(vev_log_stats(log, stream, &s));
    OK(vev_log_verify(log, stream, damage, 8, &damaged, &checked));
    printf("%s appended %" PRIu64 " delivered %" PRIu64 " pending %" PRIu64 " rejected %" PRIu64
           " evicted %" PRIu64 " lost %" PRIu64 " damaged %zu\n",
           names[stream], s.appended, s.delivered, s.pending, s.rejected, s.evicted, s.lost,
           damaged);
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "write") == 0) {
        write_log(argv[2], (unsigned)strtoul(argv[3], NULL, 10));
    } else if (argc == 3 && strcmp(argv[1], "append") == 0) {
        vev_log *log = open_log(argv[2], 0);
        for (unsigned i = 0;; i++) {
            printf("%" PRIu64 "\n", append_one(log, i));
            fflush(stdout);
        }
    } else if (argc == 3 && strcmp(argv[1], "dump") == 0) {
        vev_log *log = open_log(argv[2], VEV_OPEN_READONLY);
        for (int stream = 0; stream < VEV_STREAM_COUNT; stream++)
            dump_stream(log, stream);
        vev_log_close(log);
    } else {
        fprintf(stderr, "exchange write DIR COUNT | append DIR | dump DIR\n");
        return 2;
    }
    return 0;
}
