/* Power cuts under a real file system: block_lab [--states N] [--seed S] [--keep DIR] [--again FILE]
 *
 * ext4 on a block device that remembers every write and every flush (block_disk.h). One or two
 * processes work on a log there: appends, urgent appends, marks, syncs, rolls and reclaims, with and
 * without the helper thread, while sync_file_range and a neighbour's fsync bring about write-back
 * and commits of the journal in between. They tell a witness in memory what the log has promised
 * them, stamped with the moment of the recording. Then the device is put back to many moments: what
 * had come before the last flush is there, of the rest a random part, torn at sectors. Each such
 * disk is mounted, so that ext4 replays its journal, and the log on it must keep, for all rings:
 *
 *   - it opens, and is not set aside
 *   - nothing at or below a durable_seq that was read before that moment is gone, except what had
 *     been reclaimed by then; only what was above it is lost
 *   - every record is the one that was appended under its number, with its kind and its id
 *   - what was marked before the last sync is marked; what nobody meant to mark by then, is not
 *   - conservation holds, and the log goes on
 *
 * One of the states is then recorded and worked on in its turn, so that recovery is cut, too.
 *
 * The seed fixes what is done and which states are tried, not when the kernel writes back. So what
 * fails is kept: DIR/<name>.img is the disk as the power cut left it, <name>.case the recording with
 * the witness, which --again checks once more. Exit 77: the machine cannot do this. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "block_disk.h"
#include "vev_checkpoint.h"

enum {
    SKIP = 77,
    NUMBERS = 1 << 17, /* of records in one run, at most, in each ring */
    NOTES = 1 << 16,
    WRITERS_MAX = 2,
    STATES_A_ROUND = 30,
    ROUNDS_MAX = 4,
    HANG_S = 300,
    PAYLOAD_MAX = 26000
};
#define FILE_SYSTEM "ext4"
#define NEVER UINT64_MAX
#define LLU(x) ((unsigned long long)(x))

/* What is known of a sequence number. Moments are of the recording in hand. */
typedef struct known {
    _Atomic uint64_t content; /* 0: not appended; set last, since the other process may look */
    uint64_t begun;           /* its append was not called before this moment */
    uint64_t meant;           /* nor was it marked */
    uint64_t kept;   /* from here on a power cut must leave it, whatever durable_seq says */
    uint64_t marked; /* from here on a power cut must leave it marked */
    uint8_t id[16];
    bool lost; /* did not survive an earlier cut */
} known;

/* What a process saw between two moments. */
typedef struct note {
    uint64_t before, after;
    uint64_t durable[VEV_STREAM_COUNT], first[VEV_STREAM_COUNT];
} note;

/* What the log is after a cut. */
typedef struct found {
    uint64_t first, last, lost;
    uint8_t present[NUMBERS]; /* 1 + state */
} found;

/* Memory shared by all processes of the lab. */
typedef struct witness {
    uint64_t seed, run, round, state;
    block_cut cut;
    char options[32]; /* of the mount */
    bool threaded;
    unsigned writers, steps;
    uint64_t lost_before[VEV_STREAM_COUNT]; /* by cuts of earlier rounds */
    _Atomic uint64_t contents, note_count;
    note notes[NOTES];
    known of[VEV_STREAM_COUNT][NUMBERS];
    found found[VEV_STREAM_COUNT];
} witness;

static witness *w;
static recording *rec;
static block_replay *replay;
static uint64_t random_state;
static uint64_t states, cuts, entries, units, reclaims, recovered_lost, fsck_needed, unmountable;
static int keep_fd = -1;
static const char *keep_name = ".";

static const char *doing = "start";

_Noreturn static void fail(const char *format, ...)
{
    fprintf(stderr, "block_lab: seed %llu, run %llu, round %llu, state %llu (moment %llu), %s: ",
            LLU(w->seed), LLU(w->run), LLU(w->round), LLU(w->state), LLU(w->cut.moment), doing);
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 33) * 0xff51afd7ed558ccdull;
    return x ^ x >> 29;
}

static uint64_t draw(uint64_t below)
{
    random_state += 0x9e3779b97f4a7c15ull;
    return mix(mix(random_state)) % below;
}

/* ---- records ---- */

static size_t make_payload(uint8_t *out, uint64_t content)
{
    uint64_t dice = mix(content + 7);
    size_t size = 16 + dice % 700;
    if (content % 4 == VEV_MEDIA)
        size += dice / 700 % 12000;
    else if (dice / 700 % 100 == 0)
        size += 4000 + dice / 70000 % 20000;
    for (size_t i = 0; i < size; i += 8) {
        /* Every other one compresses, so that dictionaries matter. */
        uint64_t word = mix(content * 1315423911u + (content >> 2 & 1u ? i : i % 32));
        memcpy(out + i, &word, 8);
    }
    return size;
}

static uint32_t kind_of(uint64_t content) { return (uint32_t)(mix(content) % VEV_KIND_COUNT); }

/* What a record is marked as, if at all. */
static uint32_t mark_of(uint64_t content)
{
    return mix(content + 1) % 4 == 0 ? VEV_REJECTED : VEV_DELIVERED;
}

/* ---- processes ---- */

static pid_t spawn(void)
{
    fflush(NULL);
    pid_t parent = getpid(), pid = fork();
    if (pid < 0)
        fail("fork: %s", strerror(errno));
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
        alarm(HANG_S);
    }
    return pid;
}

static bool ended_well(pid_t pid)
{
    int status;
    if (waitpid(pid, &status, 0) != pid)
        fail("waitpid: %s", strerror(errno));
    if (WIFSIGNALED(status))
        fprintf(stderr, "block_lab: %s: ended by signal %d (%s)\n", doing, WTERMSIG(status),
                WTERMSIG(status) == SIGALRM ? "it hung" : strsignal(WTERMSIG(status)));
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* Live in a boot of one's own: what the live areas say is of another one. */
static void boot_as(uint32_t boot)
{
    vev_moment moment;
    vev_now(&moment);
    moment.boot = boot;
    vev_set_clock(&moment);
}

static vev_log *open_log(const char *place, unsigned flags)
{
    vev_options options;
    vev_options_init(&options);
    options.events_size = options.media_size = options.delivery_size = 1 << 20;
    options.segment_size = 65536;
    options.sync_interval_ms = 20;
    options.flags = flags;
    options.level = draw(6) == 0 ? 100 : 1;
    char dir[64];
    snprintf(dir, sizeof dir, "%s/log", place);
    vev_log *log;
    vev_status status = vev_log_open(dir, &options, &log);
    if (status == ENOENT && flags & VEV_OPEN_READONLY)
        return NULL;
    if (status)
        fail("open: %s", vev_strerror(status));
    return log;
}

static vev_stats stats_of(vev_log *log, int stream)
{
    vev_stats s;
    vev_status status = vev_log_stats(log, stream, &s);
    if (status)
        fail("stats: %s", vev_strerror(status));
    if (s.appended != s.delivered + s.pending + s.rejected + s.evicted + s.lost ||
        s.appended != s.last_seq)
        fail("conservation, ring %d: %llu appended, last %llu; %llu delivered, %llu pending, "
             "%llu rejected, %llu evicted, %llu lost",
             stream, LLU(s.appended), LLU(s.last_seq), LLU(s.delivered), LLU(s.pending),
             LLU(s.rejected), LLU(s.evicted), LLU(s.lost));
    if (s.lost != s.lost_unfinished + s.lost_damaged + s.lost_missing)
        fail("ring %d: %llu lost; %llu unfinished, %llu damaged, %llu missing", stream, LLU(s.lost),
             LLU(s.lost_unfinished), LLU(s.lost_damaged), LLU(s.lost_missing));
    if (s.set_aside || s.degraded)
        fail("ring %d: %s (%d)", stream, s.set_aside ? "set aside" : "degraded", s.degraded);
    return s;
}

static void take_note(const note *n)
{
    uint64_t index = atomic_fetch_add(&w->note_count, 1);
    if (index < NOTES)
        w->notes[index] = *n;
}

static void note_log(vev_log *log)
{
    note n = {.before = atomic_load(&rec->now)};
    for (int s = 0; s < VEV_STREAM_COUNT; s++) {
        n.first[s] = stats_of(log, s).first_seq;
        n.durable[s] = vev_log_durable_seq(log, s);
    }
    n.after = atomic_load(&rec->now);
    take_note(&n);
}

/* ---- work ---- */

typedef struct marks {
    uint64_t seq[1 << 14];
    uint8_t stream[1 << 14];
    size_t count;
} marks;

static void append_one(vev_log *log, int stream)
{
    static uint8_t payload[PAYLOAD_MAX];
    uint64_t content = atomic_fetch_add(&w->contents, 1) << 2 | (uint64_t)stream;
    size_t size = make_payload(payload, content);
    vev_entry entry = {.kind = kind_of(content),
                       .flags = (draw(100) < 3 ? VEV_APPEND_SYNC : 0u) |
                                (stream == VEV_MEDIA ? VEV_APPEND_RAW : 0u)};
    uint64_t begun = atomic_load(&rec->now), flushes = atomic_load(&rec->flushes);
    vev_status status = vev_log_append(log, stream, payload, size, &entry);
    if (status)
        fail("append: %s", vev_strerror(status));
    if (entry.seq >= NUMBERS)
        fail("the lab is too small");
    known *k = &w->of[stream][entry.seq];
    if (k->content)
        fail("ring %d: record %llu was given twice", stream, LLU(entry.seq));
    k->begun = begun;
    k->meant = k->kept = k->marked = NEVER;
    memcpy(k->id, entry.id, sizeof k->id);
    atomic_store(&k->content, content);
    if (entry.flags & VEV_APPEND_SYNC) {
        k->kept = atomic_load(&rec->now);
        /* Of two, the other one may just be writing a record before this one. */
        if (w->writers == 1 && vev_log_durable_seq(log, stream) < entry.seq)
            fail("ring %d: urgent record %llu is not durable", stream, LLU(entry.seq));
        if (w->writers == 1 && !w->threaded && atomic_load(&rec->flushes) == flushes)
            fail("ring %d: urgent record %llu, and the disk heard of no flush", stream,
                 LLU(entry.seq));
    }
}

static void mark_some(vev_log *log, unsigned index, marks *m)
{
    int stream = (int)draw(VEV_STREAM_COUNT);
    vev_stats s = stats_of(log, stream);
    uint64_t moment = atomic_load(&rec->now);
    uint64_t seqs[2][16];
    size_t counts[2] = {0, 0};
    for (int i = 0; i < 16 && s.last_seq >= s.first_seq; i++) {
        uint64_t seq = s.first_seq + draw(s.last_seq - s.first_seq + 1);
        known *k = &w->of[stream][seq];
        /* Each process has numbers of its own to mark, so that the first moment is the one
         * noted. */
        if (!k->content || k->meant != NEVER || seq % w->writers != index)
            continue;
        k->meant = moment;
        bool rejected = mark_of(k->content) == VEV_REJECTED;
        seqs[rejected][counts[rejected]++] = seq;
    }
    for (int rejected = 0; rejected < 2; rejected++) {
        vev_status status = vev_log_mark(log, stream, seqs[rejected], counts[rejected],
                                         rejected ? VEV_REJECTED : VEV_DELIVERED, NULL);
        if (status)
            fail("mark: %s", vev_strerror(status));
        for (size_t i = 0; i < counts[rejected] && m->count < sizeof m->stream; i++) {
            m->seq[m->count] = seqs[rejected][i];
            m->stream[m->count++] = (uint8_t)stream;
        }
    }
}

static void sync_all(vev_log *log, marks *m)
{
    vev_status status = vev_log_sync(log, NULL);
    if (status)
        fail("sync: %s", vev_strerror(status));
    uint64_t moment = atomic_load(&rec->now);
    for (size_t i = 0; i < m->count; i++)
        w->of[m->stream[i]][m->seq[i]].marked = moment;
    m->count = 0;
}

/* Let the kernel write some of a ring when it likes, without a flush. */
static void write_back(void)
{
    static const char *const names[] = {"events", "media", "delivery"};
    char path[64];
    snprintf(path, sizeof path, BLOCK_RECORDED "/log/%s.ring", names[draw(3)]);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        fail("%s: %s", path, strerror(errno));
    off_t from = (off_t)draw(256) * BLOCK_PAGE;
    (void)sync_file_range(fd, from, (off_t)(1 + draw(draw(2) ? 4 : 256)) * BLOCK_PAGE,
                          SYNC_FILE_RANGE_WRITE);
    close(fd);
}

/* Somebody else on the same disk, who makes it commit and flush. */
static void neighbour(unsigned index)
{
    static uint8_t bytes[65536];
    char path[64];
    snprintf(path, sizeof path, BLOCK_RECORDED "/neighbour-%u", index);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        fail("%s: %s", path, strerror(errno));
    if (draw(6) == 0 && ftruncate(fd, (off_t)draw(1 << 20)) != 0)
        fail("%s: %s", path, strerror(errno));
    memset(bytes, (int)draw(256), sizeof bytes);
    if (pwrite(fd, bytes, 1 + draw(sizeof bytes), (off_t)draw(1 << 20)) < 0)
        fail("%s: %s", path, strerror(errno));
    switch (draw(8)) {
    case 0: fsync(fd); break;
    case 1:
    case 2: fdatasync(fd); break;
    case 3: draw(8) == 0 ? (void)syncfs(fd) : (void)0; break;
    default: break;
    }
    close(fd);
}

_Noreturn static void work(unsigned index)
{
    static marks m;
    doing = "working";
    random_state = mix(mix(w->seed * 1000003 + w->run) + w->round * 64 + index);
    boot_as((uint32_t)w->round);
    vev_log *log = open_log(BLOCK_RECORDED, w->threaded ? 0 : VEV_OPEN_NO_THREAD);
    for (unsigned step = 0; step < w->steps && block_has_room(rec); step++) {
        uint64_t choice = draw(1000);
        if (choice < 550)
            append_one(log, VEV_EVENTS);
        else if (choice < 700)
            append_one(log, VEV_MEDIA);
        else if (choice < 850)
            append_one(log, VEV_DELIVERY);
        else if (choice < 920)
            mark_some(log, index, &m);
        else if (choice < 940)
            sync_all(log, &m);
        else if (choice < 980)
            write_back();
        else
            neighbour(index);
        note_log(log);
    }
    _exit(0); /* without closing: that would sync */
}

/* The last word on what was reclaimed, when nobody can do so any more. */
_Noreturn static void look(void)
{
    doing = "looking";
    boot_as((uint32_t)w->round);
    vev_log *log = open_log(BLOCK_RECORDED, VEV_OPEN_READONLY);
    note n = {.before = NEVER, .after = NEVER}; /* it holds for all moments to come */
    for (int s = 0; s < VEV_STREAM_COUNT; s++)
        n.first[s] = stats_of(log, s).first_seq;
    take_note(&n);
    _exit(0);
}

/* ---- checks ---- */

static void check_record(int stream, const vev_record *r, const uint8_t *payload)
{
    static uint8_t expected[PAYLOAD_MAX];
    uint64_t moment = w->cut.moment;
    const known *k = &w->of[stream][r->seq];
    if (!k->content || k->begun > moment)
        fail("ring %d: record %llu comes from the future", stream, LLU(r->seq));
    if (k->lost)
        fail("ring %d: record %llu was lost and came back", stream, LLU(r->seq));
    size_t size = make_payload(expected, k->content);
    if (size != r->size || memcmp(expected, payload, size) != 0 || kind_of(k->content) != r->kind ||
        memcmp(k->id, r->id, sizeof k->id) != 0)
        fail("ring %d: record %llu is not what was appended", stream, LLU(r->seq));
    if (r->state != VEV_PENDING && (k->meant > moment || r->state != mark_of(k->content)))
        fail("ring %d: record %llu is in state %u; that was never meant", stream, LLU(r->seq),
             r->state);
    if (r->state == VEV_PENDING && k->marked <= moment)
        fail("ring %d: record %llu was marked and synced, and is pending", stream, LLU(r->seq));
}

static uint64_t read_ring(vev_log *log, int stream)
{
    static uint8_t buffer[1 << 18];
    static vev_record records[512];
    found *f = &w->found[stream];
    memset(f->present, 0, sizeof f->present);
    uint64_t next = 0, previous = 0, total = 0;
    for (;;) {
        size_t count;
        vev_status status =
            vev_log_read(log, stream, next, 15, records, 512, buffer, sizeof buffer, &count, &next);
        if (status)
            fail("read: %s", vev_strerror(status));
        if (count == 0)
            return total;
        for (size_t i = 0; i < count; i++) {
            const vev_record *r = &records[i];
            if (r->seq <= previous || r->seq >= NUMBERS)
                fail("ring %d: record %llu after %llu", stream, LLU(r->seq), LLU(previous));
            check_record(stream, r, buffer + r->offset);
            previous = r->seq;
            f->present[r->seq] = (uint8_t)(1 + r->state);
        }
        total += count;
    }
}

static void check_ring(vev_log *log, int stream)
{
    uint64_t moment = w->cut.moment, durable = 0, first = NEVER, appended = 0, meant = 0;
    uint64_t note_count = VEV_MIN(atomic_load(&w->note_count), (uint64_t)NOTES);
    for (uint64_t i = 0; i < note_count; i++) {
        const note *n = &w->notes[i];
        if (n->after <= moment)
            durable = VEV_MAX(durable, n->durable[stream]);
        if (n->before >= moment) /* it was looked at later, so no more can be gone than that */
            first = VEV_MIN(first, n->first[stream]);
    }
    for (uint64_t seq = 1; seq < NUMBERS && w->of[stream][seq].content; seq++) {
        const known *k = &w->of[stream][seq];
        if (k->begun <= moment)
            appended = seq;
        meant += k->meant <= moment;
    }
    uint64_t total = read_ring(log, stream);
    vev_stats s = stats_of(log, stream);
    found *f = &w->found[stream];
    f->first = s.first_seq;
    f->last = s.last_seq;
    f->lost = s.lost;
    if (s.last_seq < durable || s.last_seq > appended)
        fail("ring %d ends at %llu; durable was %llu, appended %llu", stream, LLU(s.last_seq),
             LLU(durable), LLU(appended));
    if (s.first_seq > first)
        fail("ring %d begins at %llu; reclaimed was what is below %llu", stream, LLU(s.first_seq),
             LLU(first));
    for (uint64_t seq = s.first_seq; seq <= appended; seq++)
        if ((seq <= durable || w->of[stream][seq].kept <= moment) && !f->present[seq] &&
            !w->of[stream][seq].lost)
            fail("ring %d: record %llu was %s (up to %llu) and is gone; the ring is %llu .. "
                 "%llu, %llu lost",
                 stream, LLU(seq), seq <= durable ? "durable" : "urgent", LLU(durable),
                 LLU(s.first_seq), LLU(s.last_seq), LLU(s.lost));
    if (s.lost > w->lost_before[stream] + (s.last_seq - durable))
        fail("ring %d: %llu lost, %llu of them earlier, and only %llu were not durable", stream,
             LLU(s.lost), LLU(w->lost_before[stream]), LLU(s.last_seq - durable));
    if (s.delivered + s.rejected > meant)
        fail("ring %d: %llu delivered or rejected, and %llu were meant to be", stream,
             LLU(s.delivered + s.rejected), LLU(meant));
    vev_damage damage[64];
    size_t damage_count;
    uint64_t checked, damaged = 0;
    vev_status status = vev_log_verify(log, stream, damage, 64, &damage_count, &checked);
    /* One that was handed over before it was damaged counts as delivered. */
    for (size_t i = 0; i < VEV_MIN(damage_count, (size_t)64); i++)
        for (uint64_t n = 0; n < damage[i].count; n++)
            damaged += w->of[stream][damage[i].first_seq + n].meant > moment;
    if (status || checked != total || damaged > s.lost)
        fail("ring %d: verify: %s; %llu read, %llu verified, %llu damaged, %llu lost", stream,
             vev_strerror(status), LLU(total), LLU(checked), LLU(damaged), LLU(s.lost));
}

/* Append to a log that a cut left, and read it back. */
static void go_on(vev_log *log, int stream, uint64_t first)
{
    enum { MORE = 12 };
    static uint8_t buffer[MORE * PAYLOAD_MAX], payload[PAYLOAD_MAX];
    for (uint64_t i = 0; i < MORE; i++) {
        vev_entry entry = {.flags = i + 1 == MORE ? VEV_APPEND_SYNC : 0};
        size_t size = make_payload(payload, first + i);
        vev_status status = vev_log_append(log, stream, payload, size, &entry);
        if (status || entry.seq != first + i)
            fail("ring %d: append: %s, record %llu instead of %llu", stream, vev_strerror(status),
                 LLU(entry.seq), LLU(first + i));
    }
    vev_record records[MORE];
    size_t count;
    uint64_t next;
    vev_status status =
        vev_log_read(log, stream, first, 15, records, MORE, buffer, sizeof buffer, &count, &next);
    if (status || count != MORE)
        fail("ring %d: %zu of %d records appended after the cut are there: %s", stream, count, MORE,
             vev_strerror(status));
    for (uint64_t i = 0; i < MORE; i++) {
        const vev_record *r = &records[i];
        size_t size = make_payload(payload, first + i);
        if (r->seq != first + i || r->state != VEV_PENDING || r->size != size ||
            memcmp(payload, buffer + r->offset, size) != 0)
            fail("ring %d: record %llu, appended after the cut, is wrong (state %u)", stream,
                 LLU(r->seq), r->state);
    }
    if (stats_of(log, stream).durable_seq != first + MORE - 1)
        fail("ring %d: an urgent record after the cut is not durable", stream);
}

/* Check the log at BLOCK_REPLAYED. */
_Noreturn static void check(void)
{
    doing = "after the cut";
    random_state = w->cut.seed;
    boot_as(1u << 30);
    vev_log *log = open_log(BLOCK_REPLAYED, draw(2) ? VEV_OPEN_NO_THREAD : 0);
    for (int s = 0; s < VEV_STREAM_COUNT; s++)
        check_ring(log, s);
    vev_log_close(log);
    log = open_log(BLOCK_REPLAYED, VEV_OPEN_NO_THREAD);
    /* It must also go on, and nothing that the cut left behind must show through. */
    doing = "going on after the cut";
    for (int s = 0; s < VEV_STREAM_COUNT; s++)
        go_on(log, s, w->found[s].last + 1);
    vev_log_close(log);
    _exit(0);
}

/* ---- states ---- */

/* Run a program of e2fsprogs on an open file. */
static bool run_tool(char *const *arguments)
{
    pid_t pid = spawn();
    if (pid == 0) {
        int null = open("/dev/null", O_RDWR | O_CLOEXEC);
        dup2(null, STDOUT_FILENO);
        dup2(null, STDERR_FILENO);
        execvp(arguments[0], arguments);
        _exit(127);
    }
    int status;
    /* e2fsck ends with 1 when it has mended something. */
    return waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) <= 1;
}

/* Keep what is needed to look into a failure. */
static void keep_case(void)
{
    char name[96];
    for (int part = 0; part < 2; part++) {
        snprintf(name, sizeof name, "block-lab-%llu-%llu.%s", LLU(w->seed), LLU(w->state),
                 part ? "case" : "img");
        int fd = openat(keep_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        FILE *file = fd < 0 ? NULL : fdopen(fd, "w");
        bool good = file && (part ? fwrite(w, sizeof *w, 1, file) == 1 && block_save(rec, file)
                                  : fwrite(replay->image, BLOCK_DISK_SIZE, 1, file) == 1);
        if (file)
            good &= fclose(file) == 0;
        fprintf(stderr, "block_lab: %s %s/%s\n", good ? "kept" : "cannot keep", keep_name, name);
    }
}

/* Mount the image and check the log on it. False when no file system is there any more. */
static bool check_image(void)
{
    int fd = block_image(replay->image);
    if (fd < 0)
        fail("image: %s", strerror(-fd));
    int error = block_mount(fd, BLOCK_REPLAYED, FILE_SYSTEM, w->options);
    if (error) {
        fsck_needed++;
        char path[32];
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        fcntl(fd, F_SETFD, 0);
        char *fsck[] = {(char[]){"e2fsck"}, (char[]){"-fy"}, path, NULL};
        if (!run_tool(fsck) || block_mount(fd, BLOCK_REPLAYED, FILE_SYSTEM, w->options) != 0) {
            close(fd);
            unmountable++;
            return false;
        }
    }
    close(fd);
    pid_t pid = spawn();
    if (pid == 0)
        check();
    bool good = ended_well(pid);
    if (!good)
        keep_case();
    if (umount(BLOCK_REPLAYED) != 0)
        fail("umount: %s", strerror(errno));
    if (!good)
        exit(1);
    return error == 0;
}

static block_cut draw_cut(void)
{
    static const unsigned percents[] = {0, 3, 20, 50, 80, 97, 100};
    static const size_t sizes[] = {BLOCK_SECTOR, BLOCK_SECTOR, BLOCK_PAGE, SIZE_MAX};
    uint64_t now = atomic_load(&rec->now), note_count = atomic_load(&w->note_count);
    block_cut cut = {.seed = draw(1ull << 62),
                     .percent = percents[draw(7)],
                     .unit = sizes[draw(4)],
                     .moment = draw(now + 1)};
    switch (draw(5)) {
    case 0:
    case 1: /* before a flush, when the most is at stake */
        while (cut.moment < now && rec->entries[cut.moment].kind != BLOCK_FLUSH)
            cut.moment++;
        break;
    case 2: /* when something has just been promised */
        if (note_count > 0)
            cut.moment = w->notes[draw(VEV_MIN(note_count, (uint64_t)NOTES))].after;
        cut.moment = VEV_MIN(cut.moment, now);
        break;
    default: break;
    }
    return cut;
}

static int by_moment(const void *a, const void *b)
{
    uint64_t x = ((const block_cut *)a)->moment, y = ((const block_cut *)b)->moment;
    return (x > y) - (x < y);
}

/* Try many cuts of what was recorded. Returns one whose disk can be worked on. */
static block_cut try_cuts(uint64_t wanted)
{
    static block_cut tried[STATES_A_ROUND];
    size_t count = (size_t)VEV_MIN(wanted, (uint64_t)STATES_A_ROUND), usable = 0;
    block_cut chosen = {.unit = BLOCK_SECTOR};
    for (size_t i = 0; i < count; i++)
        tried[i] = draw_cut();
    qsort(tried, count, sizeof tried[0], by_moment);
    block_replay_reset(replay, rec);
    for (size_t i = 0; i < count; i++) {
        w->cut = tried[i];
        w->state = ++states;
        units += block_replay_cut(replay, &w->cut);
        if (check_image() && draw(++usable) == 0)
            chosen = tried[i];
        for (int s = 0; s < VEV_STREAM_COUNT; s++) {
            reclaims += w->found[s].first > 1;
            recovered_lost += w->found[s].lost > w->lost_before[s];
        }
    }
    cuts++;
    return chosen;
}

/* Go on from what a cut left: it becomes the disk, and what was found on it what is known. */
static void carry_on(const block_cut *cut)
{
    w->cut = *cut;
    block_replay_cut(replay, cut);
    if (!check_image())
        fail("a disk that was good is not");
    memcpy(rec->base, replay->image, BLOCK_DISK_SIZE);
    note n = {0};
    for (int s = 0; s < VEV_STREAM_COUNT; s++) {
        const found *f = &w->found[s];
        for (uint64_t seq = 1; seq < NUMBERS && w->of[s][seq].content; seq++) {
            known *k = &w->of[s][seq];
            uint8_t present = f->present[seq];
            if (seq > f->last) {
                memset(k, 0, sizeof *k);
                continue;
            }
            k->begun = 0;
            k->meant = k->meant <= cut->moment ? 0 : NEVER;
            k->kept = present ? 0 : NEVER;
            k->marked = present > 1 + VEV_PENDING ? 0 : NEVER;
            k->lost |= seq >= f->first && !present;
        }
        n.first[s] = f->first;
        n.durable[s] = f->last;
        w->lost_before[s] = f->lost;
    }
    atomic_store(&w->note_count, 0);
    take_note(&n);
}

/* ---- recording ---- */

static void make_file_system(void)
{
    bool small = draw(2);
    memset(rec->base, 0, sizeof rec->base);
    int fd = block_image(rec->base);
    if (fd < 0)
        fail("image: %s", strerror(-fd));
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    fcntl(fd, F_SETFD, 0);
    char *tool[] = {(char[]){"mkfs.ext4"},
                    (char[]){"-qF"},
                    (char[]){"-b"},
                    small ? (char[]){"1024"} : (char[]){"4096"},
                    (char[]){"-J"},
                    small ? (char[]){"size=1"} : (char[]){"size=4"},
                    (char[]){"-N"},
                    (char[]){"64"},
                    (char[]){"-m"},
                    (char[]){"0"},
                    (char[]){"-E"},
                    (char[]){"lazy_itable_init=0,lazy_journal_init=0"},
                    path,
                    NULL};
    if (!run_tool(tool) || pread(fd, rec->base, sizeof rec->base, 0) != (ssize_t)sizeof rec->base) {
        fprintf(stderr, "block_lab: needs mkfs.ext4 (e2fsprogs)\n");
        exit(SKIP);
    }
    close(fd);
}

static void record_round(void)
{
    doing = "recording";
    w->threaded = draw(2);
    w->writers = 1 + (unsigned)draw(WRITERS_MAX);
    w->steps = 30u << draw(7); /* from within the first segment to several laps of the rings */
    w->steps += (unsigned)draw(w->steps);
    int error = block_start(rec, FILE_SYSTEM, w->options);
    if (error && w->run == 1 && w->round == 1) {
        fprintf(stderr, "block_lab: needs loop devices and " FILE_SYSTEM ": mount: %s\n",
                strerror(error));
        exit(SKIP);
    }
    if (error)
        fail("cannot mount: %s", strerror(error));
    pid_t pids[WRITERS_MAX + 1];
    for (unsigned i = 0; i < w->writers; i++)
        if ((pids[i] = spawn()) == 0)
            work(i);
    bool good = true;
    for (unsigned i = 0; i < w->writers; i++)
        good &= ended_well(pids[i]);
    if (!good)
        exit(1);
    if ((pids[WRITERS_MAX] = spawn()) == 0)
        look();
    if (!ended_well(pids[WRITERS_MAX]))
        exit(1);
    error = block_stop();
    if (error)
        fail("cannot unmount: %s", strerror(error));
    entries += atomic_load(&rec->now);
    /* If flushes do not come through, nothing here means anything. */
    if (atomic_load(&rec->flushes) == 0) {
        fprintf(stderr, "block_lab: the loop device passes no flushes on\n");
        exit(SKIP);
    }
}

static void do_run(uint64_t wanted)
{
    static const char *const modes[] = {"data=ordered", "data=ordered", "data=journal",
                                        "data=writeback"};
    uint64_t run = w->run + 1, seed = w->seed;
    madvise(w, sizeof *w, MADV_REMOVE); /* all zeros */
    w->seed = seed;
    w->run = run;
    random_state = mix(mix(seed * 1000003 + run));
    atomic_store(&w->contents, 1);
    snprintf(w->options, sizeof w->options, "%s", modes[draw(4)]);
    make_file_system();
    uint64_t rounds = 1 + draw(ROUNDS_MAX), until = states + wanted;
    for (w->round = 1; w->round <= rounds && states < until; w->round++) {
        record_round();
        block_cut chosen = try_cuts(until - states);
        if (w->round < rounds)
            carry_on(&chosen);
    }
}

static void check_again(const char *name)
{
    FILE *file = fopen(name, "re");
    if (!file || fread(w, sizeof *w, 1, file) != 1 || !block_load(rec, file)) {
        fprintf(stderr, "block_lab: %s: no case of this lab\n", name);
        exit(2);
    }
    fclose(file);
    const char *lacks = block_prepare();
    if (lacks) {
        fprintf(stderr, "block_lab: needs %s\n", lacks);
        exit(SKIP);
    }
    block_replay_reset(replay, rec);
    block_replay_cut(replay, &w->cut);
    bool good = check_image();
    printf("block_lab: %s: %s\n", name, good ? "good" : "no file system");
    exit(0);
}

int main(int argc, char **argv)
{
    uint64_t wanted = 100, seed = 1;
    const char *again = NULL;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--states") == 0)
            wanted = strtoull(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--seed") == 0)
            seed = strtoull(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--keep") == 0)
            keep_name = argv[i + 1];
        else if (strcmp(argv[i], "--again") == 0)
            again = argv[i + 1];
    }
    rec = block_reserve();
    w = mmap(NULL, sizeof *w, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE,
             -1, 0);
    replay = malloc(sizeof *replay);
    keep_fd = open(keep_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (!rec || w == MAP_FAILED || !replay || keep_fd < 0) {
        fprintf(stderr, "block_lab: %s: %s\n", keep_name, strerror(errno));
        return 2;
    }
    vev__checkpoint_step = 1; /* so that every sync leaves one */
    if (again)
        check_again(again);
    w->seed = seed;
    printf("block_lab: seed %llu\n", LLU(seed));
    fflush(stdout);
    const char *lacks = block_prepare();
    if (lacks) {
        fprintf(stderr, "block_lab: needs %s\n", lacks);
        return SKIP;
    }
    while (states < wanted)
        do_run(wanted - states);
    printf("block_lab: %llu states of %llu recordings in %llu runs; %llu writes and flushes, %llu "
           "units at stake; %llu rings had reclaimed, %llu had lost what was not durable; %llu "
           "disks needed fsck, %llu could not be mounted; all good\n",
           LLU(states), LLU(cuts), LLU(w->run), LLU(entries), LLU(units), LLU(reclaims),
           LLU(recovered_lost), LLU(fsck_needed), LLU(unmountable));
    return 0;
}
