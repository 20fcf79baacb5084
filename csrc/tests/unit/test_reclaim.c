/* What was evicted, by kind: right whatever happened, and where a segment had one kind alone without
 * its data being read (INV-15). */
#include "fault_case.h"

enum { EVENTS_MAX = 40000, PAYLOAD = 300 };

/* The kind of each event by its number, and how many segments were mapped to be read. */
static struct {
    uint8_t kinds[EVENTS_MAX];
    unsigned scans;
} seen;

static vev_status map_counting(void *ctx, int fd, uint64_t offset, size_t size, bool writable,
                               uint8_t **base_out)
{
    seen.scans += !writable;
    return vev_io_posix.map(ctx, fd, offset, size, writable, base_out);
}

static const vev_io *counting_io(void)
{
    static vev_io io;
    io = vev_io_posix;
    io.map = map_counting;
    return &io;
}

static const char *new_dir(void)
{
    const char *dir = fresh_dir();
    CHECK(mkdir(dir, 0700) == 0);
    memset(&seen, 0, sizeof seen);
    return dir;
}

static uint64_t generation_of(const vev_ring *ring)
{
    return atomic_load(&ring->live->active) >> 10;
}

static void append_kind(vev_ring *ring, uint32_t kind)
{
    static const uint8_t payload[PAYLOAD];
    vev_entry entry = {.kind = kind};
    OK(vev_ring_append(ring, payload, sizeof payload, &entry));
    CHECK(entry.seq < EVENTS_MAX);
    seen.kinds[entry.seq] = (uint8_t)kind;
}

/* Append to so many segments, of two kinds by turns; they may be the same. */
static void fill(vev_ring *ring, unsigned segments, uint32_t kind, uint32_t other)
{
    for (uint64_t until = generation_of(ring) + segments; generation_of(ring) < until;) {
        append_kind(ring, kind);
        append_kind(ring, other);
    }
}

static void check_evicted(vev_ring *ring)
{
    uint64_t expected[VEV_KIND_COUNT] = {0};
    vev_stats stats;
    OK(vev_ring_stats(ring, &stats));
    check_conserved(&stats);
    CHECK(stats.first_seq > 1 && stats.evicted == stats.first_seq - 1);
    for (uint64_t seq = 1; seq < stats.first_seq; seq++)
        expected[seen.kinds[seq]]++;
    for (int kind = 0; kind < VEV_KIND_COUNT; kind++)
        CHECK(stats.evicted_by_kind[kind] == expected[kind]);
}

/* Change what the head of segment 0 says of kinds, and whether it is sealed. */
static void set_kinds(const char *dir, uint32_t kinds, uint64_t damage, bool sealed)
{
    const uint8_t none[VEV_HEAD_BYTES - VEV_HEAD_SEAL] = {0};
    uint8_t block[VEV_HEADER_BLOCK];
    vev_file_header file = header_of(dir);
    vev_head head;
    read_ring(dir, VEV_HEADER_REGION, block, sizeof block);
    CHECK(vev_head_read(block, file.uuid, &file.geometry, &head));
    uint32_t seed = vev_lap_seed(file.uuid, head.generation, head.salt);
    uint64_t word = vev_kinds_word(seed, kinds) ^ damage;
    overwrite(dir, VEV_HEADER_REGION + VEV_HEAD_KINDS, &word, sizeof word);
    if (!sealed)
        overwrite(dir, VEV_HEADER_REGION + VEV_HEAD_SEAL, none, sizeof none);
}

/* Go on in a log until what was there is evicted, and check. Returns how many segments were read. */
static unsigned evict_all(const char *dir, uint32_t kind, uint32_t other)
{
    vev_ring *ring = open_ring_on(counting_io(), dir);
    fill(ring, 20, kind, other);
    check_evicted(ring);
    vev_ring_close(ring);
    return seen.scans;
}

static void one_kind_is_not_read(void)
{
    vev_ring *ring = open_ring_on(counting_io(), new_dir());
    fill(ring, 40, 3, 3);
    check_evicted(ring);
    CHECK(seen.scans == 0);
    vev_ring_close(ring);
}

/* A segment with two kinds is read, the ones beside it are not. */
static void each_segment_has_its_own(void)
{
    vev_ring *ring = open_ring_on(counting_io(), new_dir());
    uint32_t changes = 8;
    for (uint32_t n = 0; n <= changes; n++)
        fill(ring, 3, n % 2, n % 3 ? n % 2 : 7); /* the last of them begins the next segment */
    fill(ring, 20, 2, 2);
    check_evicted(ring);
    CHECK(seen.scans >= changes && seen.scans < generation_of(ring) - 20);
    vev_ring_close(ring);
}

static void two_processes_and_two_kinds(void)
{
    const char *dir = new_dir();
    vev_ring *ring = open_ring_on(counting_io(), dir), *beside = open_ring(dir);
    for (int n = 0; n < 6000; n++)
        append_kind(n % 7 ? ring : beside, n % 7 ? 1 : 2);
    check_evicted(ring);
    vev_ring_close(beside);
    vev_ring_close(ring);
}

/* Delivered ones are not evicted, whatever their kind. */
static void what_was_delivered_does_not_count(void)
{
    vev_ring *ring = open_ring_on(counting_io(), new_dir());
    for (int n = 0; n < 200; n++)
        append_kind(ring, 4);
    const uint64_t seqs[] = {1, 5, 100};
    size_t changed;
    OK(vev_ring_mark(ring, seqs, 3, VEV_DELIVERED, &changed));
    CHECK(changed == 3);
    fill(ring, 20, 4, 4);
    vev_stats stats;
    OK(vev_ring_stats(ring, &stats));
    check_conserved(&stats);
    CHECK(stats.evicted == stats.first_seq - 1 - 3 && stats.evicted_by_kind[4] == stats.evicted);
    CHECK(seen.scans == 0);
    vev_ring_close(ring);
}

/* All died, but the system did not: what they noted is there. */
static void known_in_the_same_boot(void)
{
    const char *dir = new_dir();
    vev_ring *ring = open_ring(dir);
    for (int n = 0; n < 50; n++)
        append_kind(ring, 3);
    vev_ring_close(ring);
    CHECK(evict_all(dir, 3, 3) == 0);
}

/* After a power cut the head may be of before the second kind came, its records not. */
static void head_older_than_its_records(void)
{
    const char *dir = new_dir();
    vev_ring *ring = open_ring(dir);
    append_kind(ring, 3);
    append_kind(ring, 4);
    vev_ring_close(ring);
    set_kinds(dir, 1u << 3, 0, true);
    boot_again(dir);
    CHECK(evict_all(dir, 3, 3) == 1);
}

/* The same where the lap had been sealed and the next begun. */
static void older_head_beside_a_later_lap(void)
{
    const char *dir = new_dir();
    vev_ring *ring = open_ring(dir);
    fill(ring, 2, 3, 4);
    vev_ring_close(ring);
    set_kinds(dir, VEV_KINDS_ALL | 1u << 3, 0, false);
    boot_again(dir);
    (void)evict_all(dir, 3, 4);
}

/* Of a lap that is sealed all is noted, also after a cut. */
static void sealed_before_the_cut(void)
{
    const char *dir = new_dir();
    vev_ring *ring = open_ring(dir);
    fill(ring, 3, 5, 5);
    vev_ring_close(ring);
    boot_again(dir);
    CHECK(evict_all(dir, 5, 5) == 1); /* of the one that was not */
}

/* A version that notes no kinds went on in a lap of ours, sealed it, and gave the log back. */
static void sealed_by_an_earlier_version(void)
{
    const char *dir = new_dir();
    vev_ring *ring = open_ring(dir);
    fill(ring, 2, 3, 4);
    vev_ring_close(ring);
    set_kinds(dir, 1u << 3, 0, true);
    (void)evict_all(dir, 3, 4);
}

/* A word that says nothing, for it is damaged; that checks but makes no sense. */
static void word_that_says_nothing(void)
{
    const struct {
        uint32_t kinds;
        uint64_t damage;
    } words[] = {{0, 0}, {1u << 1, 1ull << 40}, {1u << 8, 0}, {1u << 30, 0}};
    for (size_t w = 0; w < sizeof words / sizeof *words; w++) {
        const char *dir = new_dir();
        vev_ring *ring = open_ring(dir);
        fill(ring, 2, 1, 2);
        vev_ring_close(ring);
        set_kinds(dir, VEV_KINDS_ALL | words[w].kinds, words[w].damage, true);
        (void)evict_all(dir, 1, 2);
    }
}

int main(void)
{
    begin_tests("reclaim");
    RUN(one_kind_is_not_read);
    RUN(each_segment_has_its_own);
    RUN(two_processes_and_two_kinds);
    RUN(what_was_delivered_does_not_count);
    RUN(known_in_the_same_boot);
    RUN(head_older_than_its_records);
    RUN(older_head_beside_a_later_lap);
    RUN(sealed_before_the_cut);
    RUN(sealed_by_an_earlier_version);
    RUN(word_that_says_nothing);
    end_tests();
    return 0;
}
