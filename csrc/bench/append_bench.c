/* Appends from C: how long each takes, from p50 to the worst, in one thread or several.
 *
 *     append_bench DIRECTORY [--events N] [--threads N] [--detections N] [--level N] [--build]
 *                            [--sync-ms N] [--megabytes N]
 *
 * Prints one JSON object. Without --build the events are built beforehand, so that append alone is
 * measured. No two of the 2,000 events are alike: coordinates and scores are drawn at random, which
 * is the worst for compression. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "vevents/event.h"

enum { DISTINCT = 2000, DETECTIONS_MAX = 1000, BUCKET_COUNT = 4096 };

static const char *const names[] = {"person", "forklift", "pallet"};

typedef struct sample {
    float xyxy[4 * DETECTIONS_MAX], confidence[DETECTIONS_MAX];
    int64_t class_id[DETECTIONS_MAX];
    void *payload;
    size_t size;
} sample;

/* Latencies in buckets 1/64 of a power of two wide. */
typedef struct histogram {
    uint64_t counts[BUCKET_COUNT], total, worst_ns;
} histogram;

static struct {
    vev_log *log;
    vev_event base;
    char base_buffer[4096];
    sample *samples;
    size_t detections, events;
    int build;
} job;

static uint64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static unsigned bucket_of(uint64_t ns)
{
    if (ns < 64)
        return (unsigned)ns;
    unsigned top = 63u - (unsigned)__builtin_clzll(ns);
    unsigned bucket = (top - 5) * 64 + (unsigned)(ns >> (top - 6) & 63u);
    return bucket < BUCKET_COUNT ? bucket : BUCKET_COUNT - 1;
}

static uint64_t bucket_ns(unsigned bucket)
{
    return bucket < 64 ? bucket : (64ull + bucket % 64) << (bucket / 64 - 1);
}

static void record(histogram *h, uint64_t ns)
{
    h->counts[bucket_of(ns)]++;
    h->total++;
    if (ns > h->worst_ns)
        h->worst_ns = ns;
}

static double quantile_us(const histogram *h, double share)
{
    uint64_t wanted = (uint64_t)(share * (double)h->total), seen = 0;
    for (unsigned b = 0; b < BUCKET_COUNT; b++) {
        seen += h->counts[b];
        if (seen > wanted)
            return (double)bucket_ns(b) / 1000;
    }
    return (double)h->worst_ns / 1000;
}

static void die(const char *what, vev_status status)
{
    fprintf(stderr, "append_bench: %s: %s\n", what, vev_strerror(status));
    exit(1);
}

static float draw(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (float)(*state >> 40) / 16777216.0f;
}

static void build(vev_event *event, void *buffer, size_t buffer_size, const sample *s,
                  const void **payload_out, size_t *size_out)
{
    vev_boxes boxes = {s->xyxy, s->confidence, s->class_id, job.detections, names, 3};
    vev_event_copy(event, buffer, buffer_size, &job.base);
    vev_event_boxes(event, &boxes);
    vev_event_image_end(event);
    vev_status status = vev_event_finish(event, payload_out, size_out, NULL);
    if (status)
        die(vev_event_error(event), status);
}

static void make_samples(void)
{
    static char buffer[1 << 17];
    uint64_t state = 1;
    vev_event_begin(&job.base, job.base_buffer, sizeof job.base_buffer, VEV_KIND_QUALITY_CHECK,
                    "press-line");
    vev_event_device(&job.base, "press-03");
    vev_event_data_str(&job.base, "result", "fail");
    vev_event_meta_str(&job.base, "shift", "night");
    vev_event_image_begin(&job.base, "top camera");
    job.samples = calloc(DISTINCT, sizeof *job.samples);
    if (!job.samples)
        die("samples", VEV_E_NOMEM);
    for (size_t i = 0; i < DISTINCT; i++) {
        sample *s = &job.samples[i];
        for (size_t d = 0; d < job.detections; d++) {
            for (size_t c = 0; c < 4; c++)
                s->xyxy[4 * d + c] = 960 * draw(&state) + (c > 1 ? 960.0f : 0.0f);
            s->confidence[d] = draw(&state);
            s->class_id[d] = (int64_t)(3 * draw(&state));
        }
        vev_event event;
        const void *payload;
        build(&event, buffer, sizeof buffer, s, &payload, &s->size);
        s->payload = malloc(s->size);
        if (!s->payload)
            die("samples", VEV_E_NOMEM);
        memcpy(s->payload, payload, s->size);
    }
}

static void *append_all(void *argument)
{
    histogram *h = argument;
    char buffer[1 << 17];
    vev_event event;
    for (size_t i = 0; i < job.events; i++) {
        const sample *s = &job.samples[i % DISTINCT];
        const void *payload = s->payload;
        size_t size = s->size;
        vev_entry entry = {.kind = VEV_KIND_QUALITY_CHECK};
        uint64_t began = now_ns();
        if (job.build)
            build(&event, buffer, sizeof buffer, s, &payload, &size);
        vev_status status = vev_log_append(job.log, VEV_EVENTS, payload, size, &entry);
        record(h, now_ns() - began);
        if (status)
            die("append", status);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    vev_options options;
    vev_options_init(&options);
    size_t threads = 1;
    job.events = 1000000;
    job.detections = 5;
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "--build") == 0) {
            job.build = 1;
            continue;
        }
        long value = i + 1 < argc ? strtol(argv[i + 1], NULL, 10) : -1000;
        if (strcmp(argv[i], "--events") == 0 && value > 0)
            job.events = (size_t)value;
        else if (strcmp(argv[i], "--threads") == 0 && value > 0 && value <= 64)
            threads = (size_t)value;
        else if (strcmp(argv[i], "--detections") == 0 && value >= 0 && value <= DETECTIONS_MAX)
            job.detections = (size_t)value;
        else if (strcmp(argv[i], "--level") == 0 && value > -1000)
            options.level = (int)value;
        else if (strcmp(argv[i], "--sync-ms") == 0 && value >= 0)
            options.sync_interval_ms = (uint32_t)value;
        else if (strcmp(argv[i], "--megabytes") == 0 && value > 0)
            options.events_size = (uint64_t)value << 20;
        else
            die(argv[i], VEV_E_INVALID);
        i++;
    }
    if (argc < 2)
        die("append_bench DIRECTORY [...]", VEV_E_INVALID);
    make_samples();
    vev_status status = vev_log_open(argv[1], &options, &job.log);
    if (status)
        die(argv[1], status);

    static histogram all, each[64];
    pthread_t workers[64];
    uint64_t began = now_ns();
    for (size_t t = 1; t < threads; t++)
        if (pthread_create(&workers[t], NULL, append_all, &each[t]) != 0)
            die("thread", VEV_E_NOMEM);
    append_all(&each[0]);
    for (size_t t = 1; t < threads; t++)
        pthread_join(workers[t], NULL);
    double seconds = (double)(now_ns() - began) / 1e9;
    for (size_t t = 0; t < threads; t++) {
        for (unsigned b = 0; b < BUCKET_COUNT; b++)
            all.counts[b] += each[t].counts[b];
        all.total += each[t].total;
        all.worst_ns = each[t].worst_ns > all.worst_ns ? each[t].worst_ns : all.worst_ns;
    }
    vev_stats stats;
    status = vev_log_stats(job.log, VEV_EVENTS, &stats);
    if (status)
        die("stats", status);
    printf("{\"events\": %llu, \"threads\": %zu, \"detections\": %zu, \"payload_bytes\": %zu, "
           "\"stored_bytes\": %.1f, \"events_per_s\": %.0f, \"p50_us\": %.2f, \"p99_us\": %.2f, "
           "\"p99.9_us\": %.2f, \"p99.99_us\": %.2f, \"worst_us\": %.1f}\n",
           (unsigned long long)all.total, threads, job.detections, job.samples[0].size,
           (double)stats.bytes_used / (double)(stats.last_seq - stats.first_seq + 1),
           (double)all.total / seconds, quantile_us(&all, 0.5), quantile_us(&all, 0.99),
           quantile_us(&all, 0.999), quantile_us(&all, 0.9999), (double)all.worst_ns / 1000);
    vev_log_close(job.log);
    return 0;
}
