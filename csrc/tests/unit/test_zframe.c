#include "vev_zframe.h"

#include "vev_events_zdict.h"
#include "zstd_case.h"

/* What is written is read by libzstd, which shares nothing with the writer. */
typedef struct pair {
    vev_zmodel *model;
    vev_zdict *reader;
    vev_zctx *ctx;
    vev_zspace space;
} pair;

static pair *make_pair(const void *dict, size_t size)
{
    pair *p = calloc(1, sizeof *p);
    CHECK(p != NULL);
    CHECK_INT(vev_zmodel_create(dict, size, &p->model), VEV_OK);
    CHECK(p->model != NULL);
    CHECK_INT(vev_zdict_create(dict, size, 1, &p->reader), VEV_OK);
    p->ctx = vev_zctx_create();
    return p;
}

static pair *shipped(void) { return make_pair(vev_events_zdict, sizeof vev_events_zdict); }

static void free_pair(pair *p)
{
    vev_zctx_free(p->ctx);
    vev_zdict_free(p->reader);
    free(p->model);
    free(p);
}

/* From exactly sized memory and back into such. Returns the size of the frame. */
static size_t check(pair *p, uint32_t patience, const void *data, size_t size)
{
    uint8_t *src = test_copy(data, size), *frame = malloc(vev_zframe_bound(size));
    CHECK(frame != NULL);
    size_t frame_size = vev_zframe_write(p->model, &p->space, patience, frame, src, size);
    CHECK(frame_size <= vev_zframe_bound(size));
    check_reads_back(p->ctx, p->reader, frame, frame_size, data, size);
    free(src);
    free(frame);
    return frame_size;
}

/* Literals, pieces of the content, and what was written before, by every way a match can be
 * said. */
static void make_record(const pair *p, uint64_t *state, uint8_t *out, size_t size,
                        uint32_t literals_max, uint32_t length_max)
{
    size_t at = 0, distance = 1;
    const size_t content_size = p->model->content_size;
    while (at < size) {
        size_t count = test_random_below(state, literals_max);
        bool letters = test_random_below(state, 2) == 0;
        for (; count > 0 && at < size; count--)
            out[at++] = (uint8_t)(letters ? 'a' + test_random_below(state, 4) : test_random(state));
        count = 3 + test_random_below(state, length_max);
        uint64_t kind = test_random_below(state, 8);
        if (kind < 3) { /* sometimes over the content's end into the record */
            size_t from = test_random_below(state, content_size);
            if (kind == 0)
                from = content_size - 1 - test_random_below(state, 20);
            distance = at + content_size - from;
        } else if (kind < 6 && at > 0) {
            distance = 1 + test_random_below(state, kind == 3 ? VEV_MIN(at, 64u) : at);
        } /* else the same distance again */
        for (; count > 0 && at < size; count--, at++)
            out[at] = at >= distance ? out[at - distance]
                                     : p->model->content[content_size + at - distance];
    }
}

static void every_small_size(void)
{
    static uint8_t data[3000];
    uint64_t state = 1;
    pair *p = shipped();
    for (size_t size = 0; size <= sizeof data; size++) {
        make_record(p, &state, data, size, 30, 30);
        check(p, 5, data, size);
    }
    free_pair(p);
}

static void records_of_all_kinds(void)
{
    static uint8_t data[6000];
    static const uint32_t literals[] = {1, 2, 10, 100, 2000}, lengths[] = {1, 4, 20, 300, 3000};
    uint64_t state = 2;
    pair *p = shipped();
    for (int round = 0; round < 6000; round++) {
        size_t size = test_random_below(&state, sizeof data);
        make_record(p, &state, data, size, literals[round % 5], lengths[round / 5 % 5]);
        check(p, (uint32_t)(round % 7), data, size);
    }
    free_pair(p);
}

/* INV-Z2: around the most literals that a block takes, with nothing to find and with a match in the
 * end. */
static void blocks_of_literals(void)
{
    static uint8_t data[4200];
    uint64_t state = 3;
    pair *p = shipped();
    for (size_t size = 1000; size < sizeof data;
         size += size % 1023 > 1000 || size % 1023 < 20 ? 1 : 97) {
        test_random_fill(&state, data, size);
        size_t frame_size = check(p, 0, data, size);
        CHECK(frame_size <= 2 + size + 3 * (1 + size / 1023 + 1));
        for (size_t i = 0; i < size; i++)
            data[i] = (uint8_t)"aeiou0123"[data[i] % 9];
        CHECK(check(p, 0, data, size) < size);
        memcpy(data + size - 20, p->model->content + 100, 20);
        check(p, 6, data, size);
    }
    free_pair(p);
}

static void large_records(void)
{
    const size_t size = (size_t)3 << 20;
    uint8_t *data = calloc(1, size);
    CHECK(data != NULL);
    uint64_t state = 4;
    pair *p = shipped();
    CHECK(check(p, 5, data, size) < size / 1000); /* matches longer than one can be */
    make_record(p, &state, data, size, 2, 3);     /* more sequences than a block can have */
    check(p, 5, data, size);
    make_record(p, &state, data, size, 3000, 40000);
    check(p, 5, data, size);
    test_random_fill(&state, data, size);
    check(p, 0, data, size);
    free(data);
    free_pair(p);
}

/* Positions are counted on over records; where they wrap, nothing old is taken for new. */
static void positions_that_wrap(void)
{
    static uint8_t data[500];
    uint64_t state = 5;
    pair *p = shipped();
    for (int round = 0; round < 200; round++) {
        if (round % 20 == 0)
            p->space.base = UINT32_MAX - 3000;
        make_record(p, &state, data, sizeof data, 10, 20);
        check(p, 5, data, sizeof data);
    }
    CHECK(p->space.base < 20 * sizeof data);
    free_pair(p);
}

/* The shipped dictionary with other distances to begin with. Returns where its content begins. */
static size_t with_repeats(uint8_t *dict, uint32_t first, uint32_t second, uint32_t third)
{
    memcpy(dict, vev_events_zdict, sizeof vev_events_zdict);
    pair *p = shipped();
    size_t begin = sizeof vev_events_zdict - p->model->content_size;
    free_pair(p);
    vev_store32(dict + begin - 12, first);
    vev_store32(dict + begin - 8, second);
    vev_store32(dict + begin - 4, third);
    return begin;
}

/* A distance that refers to the last bytes of the content takes nothing from behind it. */
static void distances_into_the_contents_end(void)
{
    static uint8_t dict[sizeof vev_events_zdict];
    for (uint32_t distance = 1; distance <= 8; distance++) {
        with_repeats(dict, distance, distance, distance);
        pair *p = make_pair(dict, sizeof dict);
        for (uint32_t known = 0; known <= 8; known++) {
            uint8_t data[64] = {0};
            memcpy(data, dict + sizeof dict - distance, VEV_MIN(known, distance));
            check(p, 5, data, sizeof data);
        }
        free_pair(p);
    }
}

/* INV-Z1: a block that is stored as it is leaves the codes as they were, also where it would have
 * taken those of the format, for a distance that the dictionary's cannot say. */
static void a_raw_block_changes_no_code(void)
{
    enum { NEAR = 1000, FAR = 600000, SIZE = FAR + 6000 };
    uint8_t *data = calloc(1, SIZE);
    CHECK(data != NULL);
    uint64_t state = 8;
    pair *p = shipped();
    uint32_t unknown = 0;
    while (p->model->trained[VEV_ZOFFSETS].known >> unknown & 1)
        unknown++;
    CHECK(1u << unknown < FAR);
    test_random_fill(&state, data, NEAR);
    make_record(p, &state, data + FAR + 3000, SIZE - FAR - 3000, 20, 20);
    for (uint32_t round = 0; round < 200; round++) {
        test_random_fill(&state, data + FAR, 3000);
        memcpy(data + FAR + 1100 + round % 17, data + 500, 7 + round % 5);
        check(p, 6, data, SIZE);
    }
    free(data);
    free_pair(p);
}

/* With the content of a segment's dictionary: samples behind what was trained. */
static void samples_behind_the_content(void)
{
    static uint8_t dict[16384], data[2000];
    uint64_t state = 6;
    memcpy(dict, vev_events_zdict, sizeof vev_events_zdict);
    pair *p = shipped();
    make_record(p, &state, dict + sizeof vev_events_zdict, sizeof dict - sizeof vev_events_zdict,
                30, 10);
    free_pair(p);
    p = make_pair(dict, sizeof dict);
    for (int round = 0; round < 1000; round++) {
        make_record(p, &state, data, sizeof data, 20, 50);
        check(p, 5, data, sizeof data);
    }
    /* What was seen last is found first, and costs next to nothing. */
    CHECK(check(p, 5, dict + sizeof dict - 400, 400) < 30);
    free_pair(p);
}

static void no_model(const void *dict, size_t size)
{
    vev_zmodel *model;
    CHECK_INT(vev_zmodel_create(dict, size, &model), VEV_OK);
    CHECK(model == NULL);
}

/* Where there are no tables, or too few codes, libzstd does the work. */
static void dictionaries_without_a_model(void)
{
    static uint8_t dict[1 << 17];
    size_t begin = with_repeats(dict, 1, 2, 3);
    no_model(dict + 1, 4000);
    no_model(dict, sizeof dict); /* more content than places can say */
    /* Wherever it is cut there is none, unless eight bytes of content are left. */
    for (size_t size = 0; size < begin + 100; size++) {
        uint8_t *cut = test_copy(dict, size);
        vev_zmodel *model;
        CHECK_INT(vev_zmodel_create(cut, size, &model), VEV_OK);
        CHECK((model != NULL) == (size >= begin + 8));
        free(model);
        free(cut);
    }
    vev_store32(dict + begin - 4, 101); /* further away than there is content */
    no_model(dict, begin + 100);
    vev_store32(dict + begin - 4, 0);
    no_model(dict, begin + 100);
}

/* Tables from disk are not trusted. Whatever passes both readers of them must mean the same to
 * both. */
static void damaged_dictionaries(void)
{
    static uint8_t dict[sizeof vev_events_zdict], data[1500];
    uint64_t state = 7;
    pair *whole = shipped();
    int models = 0;
    for (int round = 0; round < 4000; round++) {
        memcpy(dict, vev_events_zdict, sizeof dict);
        for (uint64_t n = 1 + test_random_below(&state, 3); n > 0; n--)
            dict[8 + test_random_below(&state, 180)] ^=
                (uint8_t)(1u << test_random_below(&state, 8));
        vev_zmodel *model;
        CHECK_INT(vev_zmodel_create(dict, sizeof dict, &model), VEV_OK);
        vev_zdict *reader;
        bool readable = vev_zdict_create(dict, sizeof dict, 1, &reader) == VEV_OK;
        vev_zdict_free(reader);
        if (model != NULL && readable) {
            models++;
            pair *p = make_pair(dict, sizeof dict);
            make_record(whole, &state, data, sizeof data, 30, 20);
            check(p, 5, data, sizeof data);
            free_pair(p);
        }
        free(model);
    }
    free_pair(whole);
    CHECK(models > 100);
}

int main(void)
{
    RUN(every_small_size);
    RUN(records_of_all_kinds);
    RUN(blocks_of_literals);
    RUN(large_records);
    RUN(positions_that_wrap);
    RUN(distances_into_the_contents_end);
    RUN(a_raw_block_changes_no_code);
    RUN(samples_behind_the_content);
    RUN(dictionaries_without_a_model);
    RUN(damaged_dictionaries);
    return 0;
}
