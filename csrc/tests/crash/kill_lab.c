/* Processes killed by the thousand: kill_lab [--kills N] [--seed S] [--writers W] [--dir D]
 *
 * W processes append to one small log, one reads it and marks what it read as delivered, one opens
 * and closes it all the time. This process kills them at random moments, one, some or all, and starts
 * new ones; it stops some for a while. Each tells through a pipe what the log has promised it, before
 * it goes on: that is the witness. Again and again, beside the others and after the death of all:
 *
 *   - no sequence number was given to two appends, nor did a record ever change
 *   - every witnessed record that was not reclaimed is there, as it was appended, and is not lost
 *   - what was marked is delivered; what nobody meant to mark is not
 *   - conservation holds in all three rings, and no more is lost than writers were killed
 *   - the figures are those that the state maps add up to, by tallies or without
 *   - whoever lives goes on, also while another is stopped, and the log opens
 *
 * The seed fixes what is done, not how the kernel interleaves it: a failure need not come again with
 * the same one. The folder of a failed run is kept. Nothing is asserted on time; HANG_S only tells
 * a wait from one without end. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "vev_checkpoint.h"
#include "vev_states.h"

enum {
    WRITERS_MAX = 6,
    WORKERS_MAX = WRITERS_MAX + 2,
    HANG_S = 30,
    /* Then a new log, so that its creation is killed as well. */
    KILLS_A_RUN = 100,
    KILLS_A_LONG_RUN = 400,
    WITNESS_SIZE = 1 << 20 /* far more records than a ring holds */
};

typedef enum { WRITER, MARKER, OPENER } role;

/* APPENDED: append returned OK. MEANT: about to be marked. MARKED: mark returned OK. */
enum { APPENDED = 1, MEANT = 2, MARKED = 4, ALIVE = 8 };

typedef struct message {
    uint64_t seq, content;
    uint32_t kind, stream;
} message;

typedef struct worker {
    role role;
    pid_t pid;
    int fd; /* what it tells us */
    uint64_t told;
    bool stopped;
} worker;

/* What is known of a sequence number, at its place modulo WITNESS_SIZE. */
typedef struct witness {
    uint64_t seq, content;
    uint32_t flags;
    uint32_t look; /* the last check that found it, or the one during which it was first heard of */
} witness;

static witness *seen[VEV_STREAM_COUNT];
static uint64_t newest[VEV_STREAM_COUNT]; /* highest number witnessed */
static uint32_t look;
static worker workers[WORKERS_MAX];
static int worker_count;
static uint64_t seed, state, run, serial, kills, run_writer_kills, run_lost;
static uint64_t appends, marks, opens, laps, deaths, looks, stops, stops_inside, lost_sum;
static uint64_t slowest_open_ns;
static bool locks_visible;
static char root[4000], dir[4096];
static const char *doing = "start";

static void end_workers(void);

_Noreturn static void fail(const char *format, ...)
{
    fprintf(stderr, "kill_lab: seed %llu, run %llu, kill %llu, %s: ", (unsigned long long)seed,
            (unsigned long long)run, (unsigned long long)kills, doing);
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, "\nkill_lab: kept %s\n", dir);
    end_workers();
    _exit(1);
}
#define LLU(x) ((unsigned long long)(x))

static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 33) * 0xff51afd7ed558ccdull;
    return x ^ x >> 29;
}

static uint64_t draw(uint64_t below)
{
    state += 0x9e3779b97f4a7c15ull;
    return mix(mix(state)) % below;
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* ---- payloads ---- */

enum { PAYLOAD_MAX = 24576 };

/* The content names process, append and stream, and fixes every byte. */
static size_t make_payload(uint8_t *out, uint64_t content)
{
    size_t size = 16 + (size_t)(mix(content) % 400);
    if (content >> 34 & 1u)
        size += 1000 + (size_t)(mix(content) %
                                5000); /* so that a kill more often falls into the copying */
    else if (mix(content + 1) % 150 == 0)
        size = 4000 + (size_t)(mix(content) % 20000);
    for (size_t i = 0; i < size; i += 8) {
        /* Every other one compresses, so that dictionaries matter. */
        uint64_t word = mix(content * 1315423911u + (content >> 2 & 1u ? i : i % 32));
        memcpy(out + i, &word, 8);
    }
    memcpy(out, &content, 8);
    return size;
}

/* The content of a payload; 0 when it is none of ours. */
static uint64_t check_payload(const uint8_t *payload, size_t size, int stream)
{
    static uint8_t expected[PAYLOAD_MAX + 8];
    uint64_t content;
    if (size < sizeof content)
        return 0;
    memcpy(&content, payload, sizeof content);
    if ((content & 3u) != (uint64_t)stream || make_payload(expected, content) != size ||
        memcmp(expected, payload, size) != 0)
        return 0;
    return content;
}

/* ---- the workers ---- */

static vev_options options_of_run(void)
{
    vev_options options;
    vev_options_init(&options);
    options.events_size = (run % 2 + 1) << 20;
    options.media_size = options.delivery_size = 1 << 20;
    options.segment_size = 65536;
    options.sync_interval_ms = 20;
    return options;
}

/* Ends the worker; that it ended by itself is what this process then fails on. */
_Noreturn static void give_up(const char *what, vev_status status)
{
    fprintf(stderr, "kill_lab: worker %d: %s: %s (%d)\n", (int)getpid(), what, vev_strerror(status),
            status);
    _exit(1);
}

static void tell(int fd, const message *messages, size_t count)
{
    /* Not more than PIPE_BUF, so a kill leaves all of it in the pipe or nothing. */
    size_t size = count * sizeof *messages;
    if (write(fd, messages, size) != (ssize_t)size)
        give_up("pipe", errno);
}

static void check_stats(const vev_stats *s)
{
    if (s->appended != s->delivered + s->pending + s->rejected + s->evicted + s->lost) {
        fprintf(stderr,
                "kill_lab: conservation: %llu appended; %llu delivered, %llu pending, %llu "
                "rejected, %llu evicted, %llu lost; first_seq %llu\n",
                LLU(s->appended), LLU(s->delivered), LLU(s->pending), LLU(s->rejected),
                LLU(s->evicted), LLU(s->lost), LLU(s->first_seq));
        give_up("conservation", VEV_E_CORRUPT);
    }
    if (s->set_aside || s->degraded)
        give_up(s->set_aside ? "the ring was set aside" : "degraded", s->degraded);
}

static vev_log *open_worker_log(unsigned flags)
{
    vev_options options = options_of_run();
    options.flags = flags;
    options.level = draw(8) == 0 ? 100 : 1;
    vev_log *log;
    vev_status status = vev_log_open(dir, &options, &log);
    if (status == ENOENT && flags & VEV_OPEN_READONLY)
        return NULL; /* nobody lived long enough to create it */
    if (status)
        give_up("open", status);
    return log;
}

_Noreturn static void write_on(int fd)
{
    static uint8_t payload[PAYLOAD_MAX + 8];
    uint64_t one_in = draw(3) == 0 ? 20 : 0; /* so many appends are urgent */
    vev_log *log = open_worker_log(draw(4) == 0 ? VEV_OPEN_NO_THREAD : 0);
    for (uint64_t n = 1;; n++) {
        uint64_t choice = draw(100);
        int stream = choice < 85 ? VEV_EVENTS : choice < 95 ? VEV_MEDIA : VEV_DELIVERY;
        uint64_t content = serial << 34 | n << 2 | (uint64_t)stream;
        vev_entry entry = {.kind = (uint32_t)draw(VEV_KIND_COUNT)};
        entry.flags = (stream == VEV_MEDIA ? VEV_APPEND_RAW : 0u) |
                      (draw(5) == 0 ? VEV_APPEND_ID : 0u) |
                      (one_in && draw(one_in) == 0 ? VEV_APPEND_SYNC : 0u);
        vev_status status =
            vev_log_append(log, stream, payload, make_payload(payload, content), &entry);
        if (status)
            give_up("append", status);
        message m = {
            .seq = entry.seq, .content = content, .kind = APPENDED, .stream = (uint32_t)stream};
        tell(fd, &m, 1);
    }
}

_Noreturn static void mark_on(int fd)
{
    enum { BATCH = 32 };
    static uint8_t buffer[1 << 17];
    vev_record records[BATCH];
    message messages[BATCH];
    uint64_t seqs[BATCH], next = 0;
    vev_log *log = open_worker_log(draw(2) ? VEV_OPEN_NO_THREAD : 0);
    for (;;) {
        size_t count, wanted = 0;
        vev_status status = vev_log_read(log, VEV_EVENTS, next, 1 << VEV_PENDING, records, BATCH,
                                         buffer, sizeof buffer, &count, &next);
        if (status)
            give_up("read", status);
        for (size_t i = 0; i < count; i++) {
            uint64_t content =
                check_payload(buffer + records[i].offset, records[i].size, VEV_EVENTS);
            if (!content)
                give_up("a record is none that was appended", VEV_E_CORRUPT);
            if (draw(4) == 0) /* like a server that was out of reach */
                continue;
            seqs[wanted] = records[i].seq;
            messages[wanted++] = (message){
                .seq = records[i].seq, .content = content, .kind = MEANT, .stream = VEV_EVENTS};
        }
        if (count == 0 || draw(10) == 0) {
            next = 0;
            message m = {.kind = ALIVE};
            tell(fd, &m, 1);
            vev_stats stats;
            if ((status = vev_log_stats(log, VEV_EVENTS, &stats)) != VEV_OK)
                give_up("stats", status);
            check_stats(&stats);
        }
        if (wanted == 0)
            continue;
        tell(fd, messages, wanted);
        status = vev_log_mark(log, VEV_EVENTS, seqs, wanted, VEV_DELIVERED, NULL);
        if (status)
            give_up("mark", status);
        for (size_t i = 0; i < wanted; i++)
            messages[i].kind = MARKED;
        tell(fd, messages, wanted);
    }
}

_Noreturn static void open_on(int fd)
{
    static const unsigned flags[] = {0, VEV_OPEN_NO_THREAD, VEV_OPEN_READONLY};
    for (;;) {
        vev_log *log = open_worker_log(flags[draw(3)]);
        for (int s = 0; log && s < VEV_STREAM_COUNT; s++) {
            vev_stats stats;
            vev_status status = vev_log_stats(log, s, &stats);
            if (status)
                give_up("stats", status);
            check_stats(&stats);
        }
        vev_log_close(log);
        message m = {.kind = ALIVE};
        tell(fd, &m, 1);
    }
}

static void start_worker(worker *w)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) != 0)
        fail("pipe: %s", strerror(errno));
    serial++;
    uint64_t its_state = mix(state + serial);
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid < 0)
        fail("fork: %s", strerror(errno));
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(0);
        alarm(0);
        signal(SIGALRM, SIG_DFL);
        close(fds[0]);
        for (int i = 0; i < worker_count; i++)
            if (workers[i].pid)
                close(workers[i].fd);
        state = its_state;
        switch (w->role) {
        case WRITER: write_on(fds[1]);
        case MARKER: mark_on(fds[1]);
        case OPENER: open_on(fds[1]);
        }
    }
    close(fds[1]);
    fcntl(fds[0], F_SETFL, O_NONBLOCK);
    w->pid = pid;
    w->fd = fds[0];
    w->told = 0;
    w->stopped = false;
}

/* ---- the witness ---- */

/* Remember that record `seq` holds `content`; what was known before must agree. */
static witness *note(uint32_t stream, uint64_t seq, uint64_t content)
{
    witness *w = &seen[stream][seq % WITNESS_SIZE];
    if (w->seq > seq)
        fail("ring %u gave record %llu, long after %llu", stream, LLU(seq), LLU(w->seq));
    if (w->seq < seq)
        *w = (witness){.seq = seq, .content = content, .look = look};
    if (w->content != content)
        fail("ring %u: record %llu is both %llx and %llx", stream, LLU(seq), LLU(w->content),
             LLU(content));
    newest[stream] = VEV_MAX(newest[stream], seq);
    return w;
}

static void hear(worker *w, const message *m)
{
    w->told++;
    if (m->kind == ALIVE) {
        opens += w->role == OPENER;
        return;
    }
    witness *known = note(m->stream, m->seq, m->content);
    if (m->kind == APPENDED && known->flags & APPENDED)
        fail("ring %u gave record %llu twice", m->stream, LLU(m->seq));
    known->flags |= m->kind;
    appends += m->kind == APPENDED;
    marks += m->kind == MARKED;
}

/* Everything that a worker has told so far. False when its end of the pipe is closed. */
static bool listen_to(worker *w)
{
    static message messages[4096];
    for (;;) {
        ssize_t size = read(w->fd, messages, sizeof messages);
        if (size < 0 && errno == EAGAIN)
            return true;
        if (size < 0 || (size_t)size % sizeof messages[0] != 0)
            fail("pipe: %zd", size);
        if (size == 0)
            return false;
        for (size_t i = 0; i < (size_t)size / sizeof messages[0]; i++)
            hear(w, &messages[i]);
    }
}

static void listen_to_all(uint64_t wait_ns)
{
    uint64_t until = now_ns() + wait_ns;
    for (;;) {
        struct pollfd polled[WORKERS_MAX];
        nfds_t count = 0;
        for (int i = 0; i < worker_count; i++) {
            if (!workers[i].pid)
                continue;
            if (!listen_to(&workers[i]))
                fail("worker %d ended by itself", (int)workers[i].pid);
            polled[count++] = (struct pollfd){.fd = workers[i].fd, .events = POLLIN};
        }
        uint64_t now = now_ns();
        if (now >= until)
            return;
        struct timespec left = {.tv_sec = (time_t)((until - now) / 1000000000u),
                                .tv_nsec = (long)((until - now) % 1000000000u)};
        (void)ppoll(polled, count, &left, NULL);
    }
}

/* ---- killing and stopping ---- */

static void send_kill(worker *w)
{
    if (kill(w->pid, SIGKILL) != 0)
        fail("kill: %s", strerror(errno));
    kills++;
    run_writer_kills += w->role == WRITER;
}

/* Wait for the end of a worker that was sent SIGKILL and hear its last words. */
static void bury(worker *w)
{
    int status;
    if (waitpid(w->pid, &status, 0) != w->pid)
        fail("waitpid: %s", strerror(errno));
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
        fail("worker %d ended by itself", (int)w->pid);
    while (listen_to(w)) {
    }
    close(w->fd);
    w->pid = 0;
}

static void end_workers(void)
{
    for (int i = 0; i < worker_count; i++) {
        if (workers[i].pid > 0)
            (void)kill(workers[i].pid, SIGKILL);
    }
}

static void kill_all(void)
{
    for (int i = 0; i < worker_count; i++)
        if (workers[i].pid)
            send_kill(&workers[i]);
    for (int i = 0; i < worker_count; i++)
        if (workers[i].pid)
            bury(&workers[i]);
}

static void start_missing(void)
{
    for (int i = 0; i < worker_count; i++)
        if (!workers[i].pid)
            start_worker(&workers[i]);
}

/* Every worker that is not stopped must get on by `steps`. */
static void await_progress(uint64_t steps)
{
    uint64_t wanted[WORKERS_MAX], since = now_ns();
    for (int i = 0; i < worker_count; i++)
        wanted[i] = workers[i].told + (workers[i].role == WRITER ? steps : 1);
    for (int i = 0; i < worker_count; i++) {
        while (!workers[i].stopped && workers[i].told < wanted[i]) {
            listen_to_all(200000);
            if (now_ns() - since > HANG_S * 1000000000ull)
                fail("worker %d (%s) does not get on", (int)workers[i].pid,
                     workers[i].role == WRITER   ? "writer"
                     : workers[i].role == MARKER ? "marker"
                                                 : "opener");
        }
    }
}

/* Whether a stopped process holds a lock that the others need: to open the log (on the directory,
 * or that of a rebuild) or to go on to the next segment. The system drops it when the process dies
 * but not when it is stopped. */
static bool inside_lock(pid_t pid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fdinfo", (int)pid);
    DIR *folder = opendir(path);
    bool inside = false;
    struct dirent *entry;
    while (folder && (entry = readdir(folder)) != NULL) {
        char name[sizeof path + sizeof entry->d_name + 1], line[256];
        snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        FILE *file = fopen(name, "re");
        while (file && fgets(line, sizeof line, file)) {
            char type[16], mode[16];
            unsigned long long start;
            if (sscanf(line, "lock: %*d: %15s %*s %15s %*d %*s %llu", type, mode, &start) != 3)
                continue;
            inside |= strcmp(type, "FLOCK") == 0 || start == VEV_LOCK_ROLL ||
                      start == VEV_LOCK_RECLAIM ||
                      (start == VEV_LOCK_ATTACH && strcmp(mode, "WRITE") == 0);
        }
        if (file)
            fclose(file);
    }
    if (folder)
        closedir(folder);
    return inside;
}

/* Some systems do not show locks in /proc; then a stop cannot be told from one inside a lock. */
static bool see_locks(void)
{
    char path[sizeof root + 8];
    snprintf(path, sizeof path, "%s/lock", root);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    struct flock lock = {.l_type = F_WRLCK, .l_start = (off_t)VEV_LOCK_ROLL, .l_len = 1};
    bool visible = fd >= 0 && fcntl(fd, F_OFD_SETLK, &lock) == 0 && inside_lock(getpid());
    close(fd);
    unlink(path);
    return visible;
}

/* ---- checks ---- */

/* Compare every record that can be read with what is known of it. */
static uint64_t read_ring(vev_log *log, int stream, bool alone)
{
    enum { BATCH = 512 };
    static uint8_t buffer[1 << 18];
    static vev_record records[BATCH];
    uint64_t next = 0, previous = 0, total = 0;
    for (;;) {
        size_t count;
        vev_status status = vev_log_read(log, stream, next, 15, records, BATCH, buffer,
                                         sizeof buffer, &count, &next);
        if (status)
            fail("read: %s", vev_strerror(status));
        if (count == 0)
            return total;
        total += count;
        for (size_t i = 0; i < count; i++) {
            const vev_record *r = &records[i];
            uint64_t content = check_payload(buffer + r->offset, r->size, stream);
            if (!content || r->seq <= previous)
                fail("ring %d: record %llu after %llu is none that was appended", stream,
                     LLU(r->seq), LLU(previous));
            previous = r->seq;
            witness *w = note((uint32_t)stream, r->seq, content);
            w->look = look;
            if (r->state == VEV_LOST)
                fail("ring %d: record %llu is there and counts as lost%s", stream, LLU(r->seq),
                     w->flags & APPENDED ? "; its append returned OK" : "");
            if (w->flags & MARKED && r->state != VEV_DELIVERED)
                fail("record %llu was marked and is in state %u", LLU(r->seq), r->state);
        }
        /* What was marked since we last listened has been announced by now. Not to be heard any
         * earlier: a mark that came after the read is no fault of the read. */
        if (!alone)
            listen_to_all(0);
        for (size_t i = 0; i < count; i++) {
            const witness *w = &seen[stream][records[i].seq % WITNESS_SIZE];
            if (records[i].state == VEV_DELIVERED && !(w->flags & MEANT))
                fail("ring %d: record %llu is delivered and nobody marked it", stream,
                     LLU(records[i].seq));
        }
    }
}

/* The figures must be those of the state maps. */
static void check_maps(vev_log *log, int stream, const vev_stats *stats)
{
    vev_stats maps;
    vev__tallies = false;
    if (vev_log_stats(log, stream, &maps))
        fail("stats");
    vev__tallies = true;
    if (stats->delivered != maps.delivered || stats->pending != maps.pending)
        fail("ring %d: %llu delivered, %llu pending; by the maps %llu and %llu", stream,
             LLU(stats->delivered), LLU(stats->pending), LLU(maps.delivered), LLU(maps.pending));
}

/* `alone`: everybody else is dead, so nothing moves. Otherwise writers soon wait for us to listen
 * again, but what they do until then must not be taken for a fault. */
static void check_log(bool alone)
{
    doing = alone ? "opening after the death of all" : "opening beside others";
    if (!alone)
        listen_to_all(0);
    vev_options options = options_of_run();
    options.flags = VEV_OPEN_NO_THREAD; /* a helper thread would reclaim on our behalf */
    vev_log *log;
    uint64_t started = now_ns();
    vev_status status = vev_log_open(dir, &options, &log);
    if (status)
        fail("open: %s", vev_strerror(status));
    if (alone)
        slowest_open_ns = VEV_MAX(slowest_open_ns, now_ns() - started);
    doing = alone ? "checking after the death of all" : "checking beside others";
    look++;
    uint64_t lost = 0;
    for (int s = 0; s < VEV_STREAM_COUNT; s++) {
        uint64_t known = newest[s];
        vev_stats before, stats;
        if (vev_log_stats(log, s, &before))
            fail("stats");
        if (alone) /* before it is read, for that marks what is lost */
            check_maps(log, s, &before);
        uint64_t total = read_ring(log, s, alone);
        if (vev_log_stats(log, s, &stats))
            fail("stats");
        check_stats(&before);
        check_stats(&stats);
        if (stats.last_seq < known)
            fail("ring %d ends at %llu; %llu was appended", s, LLU(stats.last_seq), LLU(known));
        for (uint64_t seq = stats.first_seq; seq <= known; seq++) {
            const witness *w = &seen[s][seq % WITNESS_SIZE];
            if (w->seq == seq && w->look != look)
                fail("ring %d: record %llu (%u) is gone; the ring is %llu .. %llu", s, LLU(seq),
                     w->flags, LLU(stats.first_seq), LLU(stats.last_seq));
        }
        if (alone)
            check_maps(log, s, &stats);
        lost += stats.lost;
        laps += stats.first_seq > 1 && alone;
        if (!alone)
            continue;
        vev_damage damage[64];
        size_t damage_count;
        uint64_t checked, damaged = 0;
        if (vev_log_verify(log, s, damage, 64, &damage_count, &checked))
            fail("verify");
        for (size_t i = 0; i < VEV_MIN(damage_count, (size_t)64); i++)
            damaged += damage[i].count;
        if (checked != total || damaged > stats.lost || before.appended != stats.appended)
            fail("ring %d: %llu records read, %llu verified, %llu damaged, %llu lost", s,
                 LLU(total), LLU(checked), LLU(damaged), LLU(stats.lost));
    }
    if (lost > run_writer_kills)
        fail("%llu records lost by %llu kills of writers", LLU(lost), LLU(run_writer_kills));
    if (alone) {
        run_lost = lost;
        vev_entry entry = {.flags = VEV_APPEND_SYNC};
        uint8_t payload[PAYLOAD_MAX + 8];
        uint64_t content = ++serial << 34 | VEV_EVENTS;
        status = vev_log_append(log, VEV_EVENTS, payload, make_payload(payload, content), &entry);
        if (status)
            fail("append: %s", vev_strerror(status));
        note(VEV_EVENTS, entry.seq, content)->flags |= APPENDED;
    }
    vev_log_close(log);
    looks++;
}

/* ---- a run ---- */

static void stop_one(void)
{
    worker *w = &workers[draw((uint64_t)worker_count)];
    doing = "stopping";
    int status;
    if (kill(w->pid, SIGSTOP) != 0 || waitpid(w->pid, &status, WUNTRACED) != w->pid ||
        !WIFSTOPPED(status))
        fail("worker %d does not stop", (int)w->pid);
    w->stopped = true;
    stops++;
    if (!locks_visible || inside_lock(w->pid)) {
        stops_inside++;
        listen_to_all(draw(3000000));
    } else {
        for (uint64_t rounds = 1 + draw(3); rounds > 0; rounds--) {
            doing = "beside a stopped process";
            worker *other = &workers[draw((uint64_t)worker_count)];
            if (other != w && draw(4) > 0) {
                send_kill(other);
                bury(other);
                start_worker(other);
            }
            await_progress(1 + draw(500)); /* up to some laps of the ring by all together */
            if (draw(3) == 0)
                check_log(false);
        }
    }
    if (draw(3) == 0) {
        send_kill(w);
        bury(w);
        start_worker(w);
        return;
    }
    kill(w->pid, SIGCONT);
    w->stopped = false;
}

static void remove_folder(const char *path)
{
    DIR *folder = opendir(path);
    struct dirent *entry;
    while (folder && (entry = readdir(folder)) != NULL) {
        char name[sizeof dir + sizeof entry->d_name + 1];
        snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        unlink(name);
    }
    if (folder)
        closedir(folder);
    rmdir(path);
}

static void on_alarm(int number)
{
    (void)number;
    static const char text[] = "kill_lab: no end: ";
    (void)!write(STDERR_FILENO, text, sizeof text - 1);
    (void)!write(STDERR_FILENO, doing, strlen(doing));
    (void)!write(STDERR_FILENO, "\n", 1);
    end_workers();
    _exit(1);
}

static void kill_some(void)
{
    doing = "killing";
    bool chosen[WORKERS_MAX] = {false};
    uint64_t count = draw(4) == 0 ? 1 + draw((uint64_t)worker_count) : 1;
    while (count-- > 0)
        chosen[draw((uint64_t)worker_count)] = true;
    for (int i = 0; i < worker_count; i++)
        if (chosen[i])
            send_kill(&workers[i]);
    /* A new one may open the log while an old one is not quite dead. */
    for (int i = 0; i < worker_count; i++)
        if (chosen[i])
            bury(&workers[i]);
    start_missing();
}

static void do_run(uint64_t wanted)
{
    snprintf(dir, sizeof dir, "%s/log-%llu", root, LLU(++run));
    run_writer_kills = 0;
    for (int s = 0; s < VEV_STREAM_COUNT; s++) {
        memset(seen[s], 0, WITNESS_SIZE * sizeof *seen[s]);
        newest[s] = 0;
    }
    /* A log that is never without a process is never rebuilt, and must bear every death. */
    bool lasting = run % 3 == 0;
    uint64_t deaths_percent = lasting ? 0 : run % 3 * 5;
    uint64_t last = kills + VEV_MIN(wanted, (uint64_t)(lasting ? KILLS_A_LONG_RUN : KILLS_A_RUN));
    while (kills < last) {
        alarm(4 * HANG_S);
        start_missing();
        doing = "listening";
        /* From within an open to several laps later, each order of magnitude as likely. */
        uint64_t scale = 1000ull << draw(15);
        listen_to_all(scale + draw(scale));
        uint64_t choice = draw(100);
        if (choice < deaths_percent) {
            kill_all();
            deaths++;
            check_log(true);
        } else if (choice < 70) {
            kill_some();
        } else if (choice < 78) {
            check_log(false);
        } else if (choice < 92) {
            stop_one();
        } else {
            doing = "after kills";
            await_progress(1 + draw(400));
        }
    }
    kill_all();
    check_log(true);
    lost_sum += run_lost;
    remove_folder(dir);
}

int main(int argc, char **argv)
{
    uint64_t wanted = 300, writers = 4;
    const char *base = getenv("TMPDIR");
    seed = 1;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--kills") == 0)
            wanted = strtoull(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--seed") == 0)
            seed = strtoull(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--writers") == 0)
            writers = strtoull(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--dir") == 0)
            base = argv[i + 1];
    }
    if (writers < 1 || writers > WRITERS_MAX)
        fail("1 to %d writers", WRITERS_MAX);
    snprintf(root, sizeof root, "%s/kill-lab-XXXXXX", base && *base ? base : "/tmp");
    if (!mkdtemp(root))
        fail("%s: %s", root, strerror(errno));
    printf("kill_lab: seed %llu\n", LLU(seed));
    fflush(stdout);
    state = mix(seed * 1000003);
    signal(SIGALRM, on_alarm);
    vev__checkpoint_step = 1; /* so that there is one at every look */
    locks_visible = see_locks();
    for (int s = 0; s < VEV_STREAM_COUNT; s++) {
        size_t size = WITNESS_SIZE * sizeof *seen[s];
        seen[s] = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        /* A fork need not copy what only this process looks at. */
        if (seen[s] == MAP_FAILED || madvise(seen[s], size, MADV_DONTFORK) != 0)
            fail("mmap: %s", strerror(errno));
    }
    worker_count = (int)writers + 2;
    for (int i = 0; i < worker_count; i++)
        workers[i].role = i < (int)writers ? WRITER : i == (int)writers ? MARKER : OPENER;
    while (kills < wanted)
        do_run(wanted - kills);
    rmdir(root);
    printf("kill_lab: %llu kills in %llu runs, %llu times of all; %llu appends and %llu marks "
           "witnessed, %llu opens (slowest alone %.1f ms), %llu checks; %llu stops, %llu of them "
           "inside a lock; %llu records lost; all good\n",
           LLU(kills), LLU(run), LLU(deaths), LLU(appends), LLU(marks), LLU(opens),
           (double)slowest_open_ns / 1e6, LLU(looks), LLU(stops), LLU(stops_inside), LLU(lost_sum));
    return 0;
}
