/* Power cuts by the thousand: crash_lab [--states N] [--seed S] [--ram-first yes]
 *
 * A log on a lab disk is worked on at random: appends, urgent appends, acknowledgements, syncs,
 * laps, failing operations. At random moments the power is cut in many ways at once: every subset
 * of the dirty sectors while there are few, random subsets of sectors or pages when there are many.
 * Each state must open, and then, against a witness that saw everything:
 *
 *   - conservation holds, and last_seq is not beyond what was appended
 *   - the figures are those that the state maps add up to, whatever tallies a live area holds
 *   - nothing at or below durable_seq that was not evicted before the cut is lost
 *   - every record reads back as what was appended under its number: never a wrong or a stale one
 *   - what was acknowledged before the last sync is delivered; what never was, is not
 *   - in front of a checkpoint stand good records only, and holes that recovery made (INV-13)
 *
 * The power is also cut in the middle of syncs. One of the states is then worked on, so that recovery from
 * recovery is tried as well.
 *
 * With --ram-first the log is in memory, which a cut takes whole, and a copy of it is on the disk. The
 * power is then cut in the middle of a pass over the copy as well, at any of its writes and syncs;
 * others append and acknowledge while it runs; and the process that does it is killed. */
#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include "lab_disk.h"
#include "vev_checkpoint.h"
#include "vev_log.h"
#include "vev_reclaim.h"
#include "vev_states.h"

enum { WITNESS_MAX = 400000, EXHAUSTIVE_BITS = 8, STATES_A_CUT = 24 };

#define DIR "log"
#define COPY_DIR "/flash"

/* What is known of a sequence number. */
typedef struct witness {
    uint64_t content;  /* seed of its payload */
    bool maybe_acked;  /* marked delivered at some time, perhaps in vain */
    bool acked;        /* marked delivered with success since the last cut */
    bool acked_synced; /* and synced since */
    bool acked_before; /* marked before the sync that is running */
    bool lost;         /* did not survive an earlier cut */
} witness;

static witness seen[WITNESS_MAX];
static uint64_t last_seq, durable_seq, first_seq, content_count;
static bool failed_ledgers; /* a ledger whose sync failed may be on the disk all the same */
static uint64_t seed, states, cuts, laps, kills, checkpoints;

/* RAM-first: what happens in the middle of a pass. */
static struct {
    bool on;
    vev_log *log;                            /* NULL: leave the passes alone */
    uint64_t next_cut, next_kill, next_work; /* at so many operations on the copy from now */
    jmp_buf killed;
} ram;

/* The disk that is worked on: the power may be cut before its so-manieth sync from now is done. */
static struct {
    lab_disk *disk; /* NULL: leave the syncs alone */
    vev_log *log;
    uint64_t next_cut;
} syncing;

#define FAIL(...)                                                                                  \
    do {                                                                                           \
        fprintf(stderr, "crash_lab: seed %llu, state %llu, cut %llu: ", (unsigned long long)seed,  \
                (unsigned long long)states, (unsigned long long)cuts);                             \
        fprintf(stderr, __VA_ARGS__);                                                              \
        fputc('\n', stderr);                                                                       \
        exit(1);                                                                                   \
    } while (0)
#define LLU(x) ((unsigned long long)(x))

static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 33) * 0xff51afd7ed558ccdull;
    return x ^ x >> 29;
}

static size_t make_payload(uint8_t *out, uint64_t content)
{
    size_t size = 16 + (size_t)(mix(content) % 700);
    if (content % 97 == 0)
        size = 6000 + (size_t)(mix(content) % 20000);
    for (size_t i = 0; i < size; i += 8) {
        /* Every other one compresses, so that dictionaries matter. */
        uint64_t word = mix(content * 1315423911u + (content % 2 ? i : i % 32));
        memcpy(out + i, &word, 8);
    }
    return size;
}

static vev_options options_of_lab(void)
{
    vev_options options;
    vev_options_init(&options);
    options.events_size = options.media_size = options.delivery_size = 1 << 20;
    options.segment_size = 65536;
    options.sync_interval_ms = 0;
    options.flags = VEV_OPEN_NO_THREAD | VEV_OPEN_NO_GUARD;
    return options;
}

static vev_status (*plain_write)(void *, int, uint64_t, const void *, size_t);
static vev_status (*plain_sync)(void *, int);
static vev_status (*plain_sync_map)(void *, uint8_t *, size_t);
static void amid_a_pass(lab_disk *disk);
static void amid_a_sync(lab_disk *disk);
static void work(lab_disk *disk, vev_log *log, unsigned steps, bool syncs);

static bool is_of_the_copy(const lab_disk *disk, int fd)
{
    return strncmp(disk->files[fd].name, COPY_DIR, strlen(COPY_DIR)) == 0;
}

static vev_status write_amid(void *ctx, int fd, uint64_t offset, const void *data, size_t size)
{
    if (ram.log && is_of_the_copy(ctx, fd))
        amid_a_pass(ctx);
    return plain_write(ctx, fd, offset, data, size);
}

static vev_status sync_amid(void *ctx, int fd)
{
    if (ram.log && is_of_the_copy(ctx, fd))
        amid_a_pass(ctx);
    amid_a_sync(ctx);
    return plain_sync(ctx, fd);
}

static vev_status sync_map_amid(void *ctx, uint8_t *start, size_t size)
{
    amid_a_sync(ctx);
    return plain_sync_map(ctx, start, size);
}

static vev_log *open_on(lab_disk *disk, vev_io *io)
{
    lab_io(disk, io);
    plain_sync = io->sync;
    plain_sync_map = io->sync_map;
    io->sync = sync_amid;
    io->sync_map = sync_map_amid;
    if (ram.on) {
        plain_write = io->write;
        io->write = write_amid;
        vev_status restored = vev__log_restore(io, DIR, COPY_DIR, 0, NULL);
        if (restored)
            FAIL("restore: %s", vev_strerror(restored));
    }
    vev_options options = options_of_lab();
    vev_log *log;
    vev_status status = vev__log_open(io, DIR, &options, &log);
    if (status)
        FAIL("open: %s", vev_strerror(status));
    return log;
}

/* Another boot: the live areas are of the old one, and their tallies may be of any time. */
static void reboot(lab_disk *disk)
{
    enum { LAPS_MAX = 16 }; /* of a ring of the lab; a copy has other things further on */
    const size_t at = VEV_AT_LIVE + offsetof(vev_live, tallies);
    for (int i = 0; i < LAB_FILES; i++) {
        lab_file *file = &disk->files[i];
        if (file->name[0] && file->size > VEV_HEADER_REGION) {
            memset(file->cache + VEV_AT_LIVE + 4, 0, 4);
            memset(file->disk + VEV_AT_LIVE + 4, 0, 4);
            for (size_t s = 0; s < LAPS_MAX; s++) {
                uint32_t word = vev_tally_word((uint64_t[4]){[VEV_DELIVERED] = s % 3});
                memcpy(file->cache + at + 4 * s, &word, 4);
                memcpy(file->disk + at + 4 * s, &word, 4);
            }
        }
    }
}

/* The figures, which are those of the state maps. */
static vev_stats figures(vev_log *log)
{
    vev_stats stats, maps;
    vev_status status = vev_log_stats(log, VEV_EVENTS, &stats);
    vev__tallies = false;
    if (!status)
        status = vev_log_stats(log, VEV_EVENTS, &maps);
    vev__tallies = true;
    if (status)
        FAIL("stats: %s", vev_strerror(status));
    if (stats.delivered != maps.delivered || stats.pending != maps.pending)
        FAIL("%llu are delivered; by the maps %llu", LLU(stats.delivered), LLU(maps.delivered));
    return stats;
}

/* What is in memory goes with the power. */
static void drop_memory(lab_disk *disk)
{
    for (int i = 0; ram.on && i < LAB_FILES; i++)
        if (strncmp(disk->files[i].name, DIR "/", strlen(DIR "/")) == 0)
            disk->files[i].name[0] = disk->files[i].durable_name[0] = '\0';
}

static uint8_t present[WITNESS_MAX];

/* Read the whole log, compare with the witness, and note in `present` what is there. */
static void read_log(vev_log *log)
{
    static uint8_t buffer[1 << 17], expected[1 << 15];
    static vev_record records[512];
    uint64_t next = 0, previous = 0;
    memset(present, 0, (size_t)last_seq + 1);
    for (;;) {
        size_t count;
        vev_status status = vev_log_read(log, VEV_EVENTS, next, 15, records, 512, buffer,
                                         sizeof buffer, &count, &next);
        if (status)
            FAIL("read: %s", vev_strerror(status));
        if (count == 0)
            return;
        for (size_t i = 0; i < count; i++) {
            const vev_record *record = &records[i];
            if (record->seq <= previous || record->seq > last_seq)
                FAIL("record %llu after %llu, appended were %llu", LLU(record->seq), LLU(previous),
                     LLU(last_seq));
            previous = record->seq;
            const witness *w = &seen[record->seq];
            size_t size = make_payload(expected, w->content);
            if (size != record->size || memcmp(expected, buffer + record->offset, size) != 0)
                FAIL("record %llu is not what was appended", LLU(record->seq));
            if (w->lost)
                FAIL("record %llu was lost and came back", LLU(record->seq));
            if (record->state == VEV_DELIVERED && !w->maybe_acked)
                FAIL("record %llu counts as delivered and never was", LLU(record->seq));
            if (record->state != VEV_DELIVERED && w->acked_synced)
                FAIL("record %llu was delivered before the last sync and is not", LLU(record->seq));
            present[record->seq] = 1;
        }
    }
}

/* What the checkpoint of a segment promises, before anybody opened what the cut has left. */
static void check_checkpoint(const vev_file_header *file, uint64_t floor_generation,
                             const uint8_t *segment, uint64_t at)
{
    const vev_geometry *geometry = &file->geometry;
    vev_head head;
    if (!vev_head_read(segment, file->uuid, geometry, &head) || head.generation < floor_generation)
        return;
    vev_lap lap = {.seed = vev_lap_seed(file->uuid, head.generation, head.salt),
                   .file_offset = at + geometry->data_offset,
                   .base_seq = head.base_seq,
                   .max_records = geometry->max_records};
    const uint8_t *data = segment + geometry->data_offset;
    uint32_t checkpoint = vev_checkpoint_offset(vev_load64(segment + VEV_HEAD_CHECKPOINT), lap.seed,
                                                geometry->data_size);
    for (uint32_t offset = 0; checkpoint > 0 && offset <= checkpoint;) {
        vev_header header;
        uint64_t word = vev_load64(data + offset);
        bool good = vev_record_check(data + offset, geometry->data_size - offset,
                                     geometry->data_size, &lap, offset, &header);
        if (!good && (offset == checkpoint || vev_word_state(word) != VEV_WORD_RESERVED ||
                      !vev_word_is_hole(word) || vev_word_size(word) < VEV_RECORD_ALIGN))
            FAIL("generation %llu: no record at %u, and the checkpoint is %u", LLU(head.generation),
                 offset, checkpoint);
        checkpoints += offset == checkpoint;
        offset += vev_word_size(word);
    }
}

static void check_checkpoints(lab_disk *disk)
{
    const lab_file *file = lab_find(disk, DIR "/events.ring");
    vev_file_header header;
    vev_ledger ledger;
    if (!file || vev_file_header_read(file->cache, &header) ||
        !vev_ledger_latest(file->cache, header.uuid, &ledger))
        return;
    for (uint32_t s = 0; s < header.geometry.segment_count; s++) {
        uint64_t at = vev_segment_offset(&header.geometry, s);
        check_checkpoint(&header, ledger.floor_generation, file->cache + at, at);
    }
}

static void check_state(lab_disk *disk)
{
    vev_io io;
    states++;
    check_checkpoints(disk);
    vev_log *log = open_on(disk, &io);
    vev_stats stats = figures(log); /* before the reads mark what they find lost */
    read_log(log);
    stats = figures(log);
    if (stats.appended !=
        stats.delivered + stats.pending + stats.rejected + stats.evicted + stats.lost)
        FAIL("conservation: %llu appended", LLU(stats.appended));
    if (stats.set_aside)
        FAIL("the ring was set aside");
    if (stats.last_seq > last_seq || stats.last_seq < durable_seq)
        FAIL("last_seq %llu, appended %llu, durable %llu", LLU(stats.last_seq), LLU(last_seq),
             LLU(durable_seq));
    for (uint64_t seq = failed_ledgers ? stats.first_seq : first_seq; seq <= durable_seq; seq++)
        if (!present[seq] && !seen[seq].lost)
            FAIL("record %llu was durable (up to %llu) and is gone", LLU(seq), LLU(durable_seq));
    if (stats.durable_seq < durable_seq)
        FAIL("durable_seq fell from %llu to %llu", LLU(durable_seq), LLU(stats.durable_seq));
    /* It must also go on. */
    vev_entry entry = {.flags = VEV_APPEND_SYNC};
    vev_status status = vev_log_append(log, VEV_EVENTS, "once more", 9, &entry);
    if (status || entry.seq != stats.last_seq + 1)
        FAIL("append after recovery: %s, record %llu", vev_strerror(status), LLU(entry.seq));
    vev_log_close(log);
}

/* ---- which sectors survive ---- */

typedef struct subset {
    bool exhaustive;
    uint64_t bits;
    unsigned percent;
    lab_disk *random;
} subset;

static bool survives(void *ctx, size_t i)
{
    subset *s = ctx;
    if (s->exhaustive)
        return s->bits >> i & 1u;
    return lab_random(s->random) % 100 < s->percent;
}

/* Try many outcomes of one power cut; return one of them. */
static lab_disk *cut_power(lab_disk *disk)
{
    static const unsigned percents[] = {0, 3, 20, 50, 80, 97, 100};
    cuts++;
    size_t dirty = lab_dirty(disk, LAB_SECTOR);
    bool exhaustive = dirty <= EXHAUSTIVE_BITS;
    uint64_t count = exhaustive ? 1ull << dirty : STATES_A_CUT;
    uint64_t kept_index = lab_random(disk) % count;
    lab_disk *kept = NULL;
    for (uint64_t i = 0; i < count; i++) {
        subset s = {.exhaustive = exhaustive,
                    .bits = i,
                    .percent = percents[lab_random(disk) % 7],
                    .random = disk};
        size_t unit = exhaustive || lab_random(disk) % 2 ? LAB_SECTOR : LAB_PAGE;
        lab_disk *after = lab_power_cut(disk, unit, lab_random(disk), survives, &s);
        reboot(after);
        drop_memory(after);
        if (i == kept_index) {
            /* Copied before it is checked, since the check goes on working with it. */
            kept = lab_power_cut(after, LAB_SECTOR, lab_random(disk), survives, &s);
        }
        check_state(after);
        lab_free(after);
    }
    return kept;
}

/* ---- work ---- */

static void note_sync_begins(void)
{
    for (uint64_t seq = first_seq; seq <= last_seq; seq++)
        seen[seq].acked_before = seen[seq].acked;
}

static void note_sync(uint64_t reached)
{
    for (uint64_t seq = first_seq; seq <= reached; seq++)
        seen[seq].acked_synced = seen[seq].acked_before;
}

/* Cut the power while a log is being worked on. What it had just been asked for may have evicted
 * something. */
static void cut_amid(lab_disk *disk, vev_log *log)
{
    vev_stats stats;
    unsigned fail_one_in = disk->fail_one_in;
    disk->fail_one_in = 0;
    if (vev_log_stats(log, VEV_EVENTS, &stats))
        FAIL("stats amid the work");
    first_seq = stats.first_seq;
    lab_free(cut_power(disk));
    disk->fail_one_in = fail_one_in;
}

static void amid_a_sync(lab_disk *disk)
{
    if (disk != syncing.disk || syncing.next_cut-- > 0)
        return;
    syncing.disk = NULL; /* not amid itself */
    cut_amid(disk, syncing.log);
    syncing.next_cut = lab_random(disk) % 60;
    syncing.disk = disk;
}

/* Before an operation on the copy: the power may be cut here, the process killed, and others
 * work. */
static void amid_a_pass(lab_disk *disk)
{
    vev_log *log = ram.log;
    ram.log = NULL; /* not amid itself */
    if (ram.next_cut-- == 0) {
        cut_amid(disk, log);
        ram.next_cut = lab_random(disk) % 400;
    }
    if (ram.next_work-- == 0) {
        work(disk, log, 1 + (unsigned)(lab_random(disk) % 200), false);
        ram.next_work = lab_random(disk) % 60;
    }
    if (ram.next_kill-- == 0) {
        ram.next_kill = lab_random(disk) % 1500;
        kills++;
        longjmp(ram.killed, 1);
    }
    ram.log = log;
}

static void work(lab_disk *disk, vev_log *log, unsigned steps, bool syncs)
{
    static uint8_t payload[1 << 15];
    bool failing = disk->fail_one_in > 0, sync_refused = false;
    for (unsigned step = 0; step < steps; step++) {
        unsigned choice = (unsigned)(lab_random(disk) % 100);
        vev_status status = VEV_OK;
        if (choice < 80) {
            uint64_t content = ++content_count;
            vev_entry entry = {.kind = (uint32_t)(content % 6),
                               .flags = syncs && choice < 3 ? VEV_APPEND_SYNC : 0};
            size_t size = make_payload(payload, content);
            /* Known before it returns: others append behind it while it waits for the copy. */
            uint64_t expected = ++last_seq;
            seen[expected] = (witness){.content = content};
            status = vev_log_append(log, VEV_EVENTS, payload, size, &entry);
            if (status == VEV_OK ||
                (status > 0 && (entry.flags & VEV_APPEND_SYNC) && entry.seq == expected)) {
                if (entry.seq != expected)
                    FAIL("append gave %llu instead of %llu", LLU(entry.seq), LLU(expected));
                if (last_seq >= WITNESS_MAX - 1000)
                    return;
                sync_refused |= status > 0;
            } else {
                last_seq--;
            }
            if (status == VEV_OK && (entry.flags & VEV_APPEND_SYNC)) {
                if (sync_refused && !ram.on)
                    FAIL("an urgent append succeeded after a failed sync");
                if (vev_log_durable_seq(log, VEV_EVENTS) < entry.seq)
                    FAIL("urgent record %llu is not durable", LLU(entry.seq));
            }
        } else if (choice < 90 && last_seq > 0) {
            uint64_t seqs[8];
            for (int i = 0; i < 8; i++) {
                uint64_t span = last_seq - first_seq + 1;
                seqs[i] = first_seq + lab_random(disk) % (span ? span : 1);
            }
            status = vev_log_mark(log, VEV_EVENTS, seqs, 8, VEV_DELIVERED, NULL);
            for (int i = 0; i < 8; i++)
                if (seqs[i] <= last_seq) {
                    seen[seqs[i]].maybe_acked = true;
                    seen[seqs[i]].acked |= status == VEV_OK;
                }
        } else if (choice < 93 && syncs) {
            uint64_t reached = last_seq;
            note_sync_begins();
            status = vev_log_sync(log, NULL);
            if (status == VEV_OK) {
                if (sync_refused && !ram.on)
                    FAIL("a sync succeeded after one that failed");
                if (vev_log_durable_seq(log, VEV_EVENTS) != reached)
                    FAIL("synced up to %llu of %llu", LLU(vev_log_durable_seq(log, VEV_EVENTS)),
                         LLU(reached));
                note_sync(reached);
            }
        } else {
            lab_write_back(disk, (unsigned)(lab_random(disk) % 60));
        }
        if (status && !failing)
            FAIL("step: %s", vev_strerror(status));
        durable_seq = vev_log_durable_seq(log, VEV_EVENTS);
        if (step % 16 == 15 || step + 1 == steps) {
            vev_stats stats = figures(log);
            if (stats.appended != last_seq || stats.appended != stats.delivered + stats.pending +
                                                                    stats.rejected + stats.evicted +
                                                                    stats.lost)
                FAIL("%llu appended, the log says %llu", LLU(last_seq), LLU(stats.appended));
            laps += stats.first_seq > first_seq;
            first_seq = stats.first_seq;
        }
    }
}

/* The leak checker asks: what a killed process had allocated is gone with it, but not here. */
int __lsan_is_turned_off(void);
int __lsan_is_turned_off(void) { return ram.on; }

/* Work with passes that are cut, disturbed and killed. Returns the log as it is open then. */
static vev_log *work_and_die(lab_disk *disk, vev_log *log, vev_io *io, unsigned steps)
{
    vev_log *volatile open = log;
    if (ram.on && setjmp(ram.killed) != 0) {
        /* What the dead process held is never given back; memory survives it. */
        ram.log = NULL;
        disk->fail_one_in = 0;
        open = open_on(disk, io);
    } else {
        ram.log = ram.on ? open : NULL;
    }
    syncing.disk = ram.on ? NULL : disk;
    syncing.log = open;
    work(disk, open, steps, true);
    syncing.disk = NULL;
    ram.log = NULL;
    return open;
}

int main(int argc, char **argv)
{
    uint64_t wanted = 2000;
    seed = 1;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--states") == 0)
            wanted = strtoull(argv[i + 1], NULL, 10);
        else if (strcmp(argv[i], "--ram-first") == 0)
            ram.on = true;
        else if (strcmp(argv[i], "--seed") == 0)
            seed = strtoull(argv[i + 1], NULL, 10);
    }
    vev__past_max = 3;        /* so that the fifteen laps of a ring are not all named by one */
    vev__checkpoint_step = 1; /* so that every sync leaves one */
    printf("crash_lab: seed %llu%s\n", LLU(seed), ram.on ? ", RAM-first" : "");
    uint64_t runs = 0, failures = 0;
    while (states < wanted) {
        /* A new log every so often; in between, states are worked on after their recovery. */
        lab_disk *disk = lab_create(mix(seed * 1000003 + ++runs));
        vev__laps_ahead = (uint32_t)(runs % 3); /* one ledger counts several segments out */
        last_seq = durable_seq = 0;
        first_seq = 1;
        vev_io io;
        vev_log *log = open_on(disk, &io);
        for (int round = 0; round < 12 && states < wanted && last_seq < WITNESS_MAX / 2; round++) {
            disk->fail_one_in = lab_random(disk) % 3 == 0 ? 150 : 0;
            unsigned steps =
                lab_random(disk) % 4 == 0 ? 3 : 30 + (unsigned)(lab_random(disk) % 900);
            log = work_and_die(disk, log, &io, steps);
            failures += disk->failures;
            failed_ledgers = disk->failures > 0;
            disk->fail_one_in = 0;
            if (lab_random(disk) % 4 == 0) {
                /* Only the process ends. The next one syncs what this one could not. */
                vev_log_close(log);
                log = open_on(disk, &io);
                work(disk, log, 40, true);
            }
            lab_disk *after = cut_power(disk);
            /* The dead process's handle: closing would sync, so it gets a disk that is gone. */
            vev_log_close(log);
            lab_free(disk);
            disk = after;
            log = open_on(disk, &io);
            vev_stats stats;
            if (vev_log_stats(log, VEV_EVENTS, &stats))
                FAIL("stats after a cut");
            read_log(log);
            last_seq = stats.last_seq;
            first_seq = stats.first_seq;
            durable_seq = vev_log_durable_seq(log, VEV_EVENTS);
            for (uint64_t seq = first_seq; seq <= last_seq; seq++) {
                seen[seq].acked = seen[seq].acked_synced = false;
                seen[seq].lost = !present[seq];
            }
        }
        vev_log_close(log);
        lab_free(disk);
    }
    printf("crash_lab: %llu states of %llu power cuts in %llu runs; %llu reclaims seen, %llu "
           "failures injected, %llu passes killed, %llu checkpoints seen; all good\n",
           LLU(states), LLU(cuts), LLU(runs), LLU(laps), LLU(failures), LLU(kills),
           LLU(checkpoints));
    return 0;
}
