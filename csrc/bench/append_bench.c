/* Appends from C: how long each takes, from p50 to the worst, in one thread or several.
 *
 * Prints one JSON object; `append_bench --help` names the options. No two of the 2,000 events are
 * alike: coordinates and scores are drawn at random, which is the worst for compression. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "core_distance.h"
#include "vev_base.h"
#include "vev_crc32c.h"
#include "vev_events_zdict.h"
#include "vev_zstd.h"
#include "vevents/event.h"

enum {
    DISTINCT = 2000,
    DETECTIONS_MAX = 1000,
    THREADS_MAX = 64,
    BUCKET_COUNT = 4096,
    BUFFER_SIZE = 1 << 17,
    SHARE = 64, /* events that a thread takes in hand at a time */
};

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

/* What one thread measured. */
typedef struct worker {
    _Alignas(128) pthread_t thread;
    histogram times;
    long page_faults, preemptions;
    double cpu_s;
    volatile uint32_t sum; /* keeps the compiler from leaving the control's work out */
} worker;

static struct {
    vev_log *log;
    vev_event base;
    char base_buffer[4096];
    sample *samples;
    size_t detections, events, threads;
    bool build, control, shared, busy_disk, histogram;
    pthread_barrier_t ready;
    vev_zdict *dictionary; /* of the control */
    int level;
    _Alignas(128) _Atomic size_t begun;   /* of all events, by threads that took them in hand */
    _Alignas(128) _Atomic uint64_t order; /* likewise: the place of each event among all */
    _Alignas(128) atomic_bool done;
    uint64_t disk_bytes, disk_worst_ns; /* what the other thread wrote, and how long a sync took */
} job = {.detections = 5, .events = 1000000, .threads = 1};

static const char usage[] =
    "append_bench [options] DIRECTORY: appends events to a log there, prints latencies as JSON\n"
    "\n"
    "With several threads `core_distances_ns` tells, before and after, how long a line of cache\n"
    "takes from the first core to the second.\n"
    "\n"
    "  --events N      appends for each thread, whichever does them (1000000)\n"
    "  --threads N     threads that append, 1 to 64 (1)\n"
    "  --detections N  boxes in each event, 0 to 1000 (5)\n"
    "  --build         make each event from arrays within the time measured, not beforehand\n"
    "  --level N       zstd level, -7 to 9, or 100 for no compression (-2)\n"
    "  --megabytes N   size of the ring of events (64)\n"
    "  --sync-ms N     time between background syncs; 0 turns them off (5000)\n"
    "  --busy-disk     another thread writes 1 MiB blocks to a file in DIRECTORY and syncs it\n"
    "  --control       append nothing: compress into memory of each thread's own, for what\n"
    "                  the machine itself does to such a loop\n"
    "  --shared-control  the same, and count the events in one place for all threads, as\n"
    "                  any log must that keeps them in one order\n"
    "  --histogram     with every bucket that was hit, as [lower bound in ns, count]\n"
    "  --help          this\n"
    "\n"
    "Exit code: 0, 1 when the log failed, 2 for a wrong option.\n";

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

static void build(vev_event *event, void *buffer, const sample *s, const void **payload_out,
                  size_t *size_out)
{
    vev_boxes boxes = {s->xyxy, s->confidence, s->class_id, job.detections, names, 3};
    vev_event_copy(event, buffer, BUFFER_SIZE, &job.base);
    vev_event_boxes(event, &boxes);
    vev_event_image_end(event);
    vev_status status = vev_event_finish(event, payload_out, size_out, NULL);
    if (status)
        die(vev_event_error(event), status);
}

static void make_samples(void)
{
    static char buffer[BUFFER_SIZE];
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
        build(&event, buffer, s, &payload, &s->size);
        s->payload = malloc(s->size);
        if (!s->payload)
            die("samples", VEV_E_NOMEM);
        memcpy(s->payload, payload, s->size);
    }
}

static double cpu_s(const struct rusage *used)
{
    return (double)(used->ru_utime.tv_sec + used->ru_stime.tv_sec) +
           (double)(used->ru_utime.tv_usec + used->ru_stime.tv_usec) / 1e6;
}

/* What an append does besides keeping the event, and the one thing that threads must share for it: a
 * place in the order of all. Without compression a copy instead. */
static uint32_t control(const void *payload, size_t size, char *buffer)
{
    static _Thread_local vev_zctx *context;
    size_t stored = size;
    if (!context && !(context = vev_zctx_create()))
        die("control", VEV_E_NOMEM);
    if (job.level == 100)
        memcpy(buffer, payload, size);
    else if (vev_zstd_compress(context, job.dictionary, job.level, buffer, BUFFER_SIZE, payload,
                               size, &stored) != VEV_OK)
        die("control", VEV_E_NOMEM);
    if (job.shared)
        atomic_fetch_add(&job.order, 1);
    return vev_crc32c(0, buffer, stored);
}

/* A function of its own, so that a profiler can be told to count what happens within. */
__attribute__((noinline)) static void append_one(worker *w, const sample *s, char *buffer)
{
    const void *payload = s->payload;
    size_t size = s->size;
    vev_event event;
    vev_entry entry = {.kind = VEV_KIND_QUALITY_CHECK};
    if (job.control) {
        w->sum = control(payload, size, buffer);
        return;
    }
    if (job.build)
        build(&event, buffer, s, &payload, &size);
    vev_status status = vev_log_append(job.log, VEV_EVENTS, payload, size, &entry);
    if (status)
        die("append", status);
}

static void *append_all(void *argument)
{
    worker *w = argument;
    char buffer[BUFFER_SIZE];
    size_t total = job.threads * job.events;
    struct rusage before, after;
    pthread_barrier_wait(&job.ready);
    getrusage(RUSAGE_THREAD, &before);
    /* Until all are done, each as many as it gets done: at the end no thread works alone. */
    for (size_t i; (i = atomic_fetch_add(&job.begun, SHARE)) < total;) {
        for (size_t end = i + SHARE < total ? i + SHARE : total; i < end; i++) {
            uint64_t began = now_ns();
            append_one(w, &job.samples[i % DISTINCT], buffer);
            record(&w->times, now_ns() - began);
        }
    }
    getrusage(RUSAGE_THREAD, &after);
    w->page_faults = after.ru_minflt - before.ru_minflt;
    w->preemptions = after.ru_nivcsw - before.ru_nivcsw;
    w->cpu_s = cpu_s(&after) - cpu_s(&before);
    return NULL;
}

/* Write blocks to a file and sync it every 16 of them, until told to stop. */
static void *keep_disk_busy(void *argument)
{
    enum { BLOCK = 1 << 20, BLOCKS = 256 };
    int fd = open(argument, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    char *block = malloc(BLOCK);
    if (fd < 0 || !block)
        die(argument, fd < 0 ? errno : VEV_E_NOMEM);
    memset(block, 0x5a, BLOCK);
    for (unsigned n = 0; n == 0 || !atomic_load(&job.done); n++) {
        if (pwrite(fd, block, BLOCK, (off_t)(n % BLOCKS) * BLOCK) != BLOCK)
            die(argument, errno);
        job.disk_bytes += BLOCK;
        if (n % 16 < 15)
            continue;
        uint64_t began = now_ns();
        if (fdatasync(fd) != 0)
            die(argument, errno);
        job.disk_worst_ns = VEV_MAX(job.disk_worst_ns, now_ns() - began);
    }
    free(block);
    close(fd);
    unlink(argument);
    return NULL;
}

/* Bytes that malloc has handed out; 0 where it does not tell. */
static size_t allocated(void)
{
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 33)
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
#else
    return 0;
#endif
}

static void print_histogram(const histogram *h)
{
    const char *comma = "";
    printf(", \"histogram\": [");
    for (unsigned b = 0; b < BUCKET_COUNT; b++) {
        if (h->counts[b] == 0)
            continue;
        printf("%s[%llu, %llu]", comma, (unsigned long long)bucket_ns(b),
               (unsigned long long)h->counts[b]);
        comma = ", ";
    }
    printf("]");
}

static long number(const char *text, long min, long max)
{
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || value < min || value > max) {
        fprintf(stderr, "append_bench: %s: must be a number from %ld to %ld\n", text, min, max);
        exit(2);
    }
    return value;
}

/* Returns the directory. */
static const char *parse(int argc, char **argv, vev_options *options)
{
    enum {
        EVENTS,
        THREADS,
        DETECTIONS,
        LEVEL,
        MEGABYTES,
        SYNC,
        BUILD,
        CONTROL,
        SHARED,
        BUSY,
        HISTOGRAM
    };
    static const struct option known[] = {{"events", 1, NULL, EVENTS},
                                          {"threads", 1, NULL, THREADS},
                                          {"detections", 1, NULL, DETECTIONS},
                                          {"level", 1, NULL, LEVEL},
                                          {"megabytes", 1, NULL, MEGABYTES},
                                          {"sync-ms", 1, NULL, SYNC},
                                          {"build", 0, NULL, BUILD},
                                          {"control", 0, NULL, CONTROL},
                                          {"shared-control", 0, NULL, SHARED},
                                          {"busy-disk", 0, NULL, BUSY},
                                          {"histogram", 0, NULL, HISTOGRAM},
                                          {"help", 0, NULL, 'h'},
                                          {0}};
    for (int option; (option = getopt_long(argc, argv, "h", known, NULL)) != -1;) {
        switch (option) {
        case EVENTS: job.events = (size_t)number(optarg, 1, 1000000000); break;
        case THREADS: job.threads = (size_t)number(optarg, 1, THREADS_MAX); break;
        case DETECTIONS: job.detections = (size_t)number(optarg, 0, DETECTIONS_MAX); break;
        case LEVEL: options->level = (int)number(optarg, -7, 100); break;
        case MEGABYTES: options->events_size = (uint64_t)number(optarg, 1, 1 << 20) << 20; break;
        case SYNC: options->sync_interval_ms = (uint32_t)number(optarg, 0, 86400000); break;
        case BUILD: job.build = true; break;
        case CONTROL: job.control = true; break;
        case SHARED: job.control = job.shared = true; break;
        case BUSY: job.busy_disk = true; break;
        case HISTOGRAM: job.histogram = true; break;
        case 'h': fputs(usage, stdout); exit(0);
        default: fputs("append_bench --help shows the options\n", stderr); exit(2);
        }
    }
    if (argc - optind != 1) {
        fputs(usage, stderr);
        exit(2);
    }
    return argv[optind];
}

/* Run the threads to their end. Returns how long that took, in seconds, and how much time of CPUs
 * it took the whole process. */
static double run(worker *workers, double *cpu_s_out)
{
    struct rusage before, after;
    pthread_barrier_init(&job.ready, NULL, (unsigned)job.threads + 1);
    for (size_t t = 0; t < job.threads; t++)
        if (pthread_create(&workers[t].thread, NULL, append_all, &workers[t]) != 0)
            die("thread", VEV_E_NOMEM);
    getrusage(RUSAGE_SELF, &before);
    uint64_t began = now_ns();
    pthread_barrier_wait(&job.ready);
    for (size_t t = 0; t < job.threads; t++)
        pthread_join(workers[t].thread, NULL);
    uint64_t ended = now_ns();
    getrusage(RUSAGE_SELF, &after);
    *cpu_s_out = cpu_s(&after) - cpu_s(&before);
    return (double)(ended - began) / 1e9;
}

int main(int argc, char **argv)
{
    vev_options options;
    vev_options_init(&options);
    const char *directory = parse(argc, argv, &options);
    make_samples();
    bool several = job.threads > 1;
    double distances_ns[2] = {several ? core_distance_ns() : 0};
    size_t before_open = allocated();
    vev_status status = vev_log_open(directory, &options, &job.log);
    if (status)
        die(directory, status);
    size_t opened = allocated();
    job.level = options.level;
    if (job.control && job.level != 100 &&
        vev_zdict_create(vev_events_zdict, sizeof vev_events_zdict, job.level, &job.dictionary))
        die("dictionary", VEV_E_NOMEM);

    static worker workers[THREADS_MAX];
    char busy_path[4096];
    pthread_t busy;
    snprintf(busy_path, sizeof busy_path, "%s/busy-disk", directory);
    if (job.busy_disk && pthread_create(&busy, NULL, keep_disk_busy, busy_path) != 0)
        die("thread", VEV_E_NOMEM);
    double total_cpu_s, append_cpu_s = 0, seconds = run(workers, &total_cpu_s);
    size_t appended = allocated();
    atomic_store(&job.done, true);
    if (job.busy_disk)
        pthread_join(busy, NULL);
    distances_ns[1] = several ? core_distance_ns() : 0;

    static histogram all;
    long page_faults = 0, preemptions = 0;
    for (size_t t = 0; t < job.threads; t++) {
        const histogram *h = &workers[t].times;
        for (unsigned b = 0; b < BUCKET_COUNT; b++)
            all.counts[b] += h->counts[b];
        all.total += h->total;
        all.worst_ns = h->worst_ns > all.worst_ns ? h->worst_ns : all.worst_ns;
        page_faults += workers[t].page_faults;
        preemptions += workers[t].preemptions;
        append_cpu_s += workers[t].cpu_s;
    }
    vev_stats stats;
    status = vev_log_stats(job.log, VEV_EVENTS, &stats);
    if (status)
        die("stats", status);
    uint64_t held = stats.last_seq + 1 - stats.first_seq;
    printf("{\"events\": %llu, \"threads\": %zu, \"detections\": %zu, \"payload_bytes\": %zu, "
           "\"stored_bytes\": %.1f, \"events_per_s\": %.0f, \"p50_us\": %.3f, \"p99_us\": %.3f, "
           "\"p99.9_us\": %.3f, \"p99.99_us\": %.3f, \"max_us\": %.3f, "
           "\"append_cpu_us\": %.3f, \"cpu_us\": %.3f, \"page_faults\": %ld, "
           "\"preemptions\": %ld, \"disk_megabytes\": %.0f, \"disk_sync_max_us\": %.0f, "
           "\"log_memory_bytes\": %zd, "
           "\"append_memory_bytes\": %zd, \"core_distances_ns\": [%.0f, %.0f]",
           (unsigned long long)all.total, job.threads, job.detections, job.samples[0].size,
           held > 0 ? (double)stats.bytes_used / (double)held : 0.0, (double)all.total / seconds,
           quantile_us(&all, 0.5), quantile_us(&all, 0.99), quantile_us(&all, 0.999),
           quantile_us(&all, 0.9999), (double)all.worst_ns / 1000,
           1e6 * append_cpu_s / (double)all.total, 1e6 * total_cpu_s / (double)all.total,
           page_faults, preemptions, (double)job.disk_bytes / 1e6, (double)job.disk_worst_ns / 1000,
           (ssize_t)(opened - before_open), (ssize_t)(appended - opened), distances_ns[0],
           distances_ns[1]);
    if (job.histogram)
        print_histogram(&all);
    puts("}");
    vev_log_close(job.log);
    return 0;
}
