#include "vev_zstd.h"

#include <pthread.h>

#include "zstd_case.h"

enum { TEXT_SIZE = 4096 };

/* Bytes like those of events: words that come again, with numbers between. Returns the size. */
static size_t make_record(uint64_t *state, uint8_t *out, size_t size)
{
    static const char *const words[] = {
        "eventType", "quality_check", "objectDetections",     "customMetadata", "images",
        "burr",      "scratch",       "displayImagePosition", "useCaseId",      "label",
    };
    size_t at = 0;
    while (at < size) {
        const char *word = words[test_random_below(state, sizeof words / sizeof words[0])];
        for (; *word != '\0' && at < size; word++)
            out[at++] = (uint8_t)*word;
        for (int i = 0; i < 4 && at < size; i++)
            out[at++] = (uint8_t)test_random(state);
    }
    return size;
}

/* A dictionary of raw content: what records are made of. */
static vev_zdict *make_dict(uint64_t seed, int level)
{
    uint8_t text[TEXT_SIZE];
    make_record(&seed, text, sizeof text);
    vev_zdict *dict;
    CHECK_INT(vev_zdict_create(text, sizeof text, level, &dict), VEV_OK);
    CHECK(dict != NULL);
    return dict;
}

/* A dictionary trained by zstd on such records; it has an id, which must not get into frames. */
static const uint8_t trained[] = {
    0x37, 0xa4, 0x30, 0xec, 0x6d, 0x64, 0x6b, 0x51, 0x2a, 0x10, 0x48, 0x5c, 0x07, 0x74, 0x96, 0x60,
    0xca, 0x90, 0x5a, 0x5f, 0x4b, 0x99, 0x99, 0x94, 0x4e, 0x52, 0x01, 0x0a, 0x3d, 0x3a, 0xcc, 0x23,
    0xf9, 0x0f, 0x58, 0xdb, 0x77, 0xe4, 0x28, 0x28, 0x61, 0xad, 0x41, 0x1d, 0x75, 0x8c, 0x6e, 0xcf,
    0xa1, 0xee, 0x08, 0x53, 0x01, 0x00, 0x1c, 0x2c, 0x23, 0x5b, 0xcf, 0x55, 0x00, 0x00, 0x00, 0x04,
    0xa0, 0x00, 0x0e, 0x95, 0xa4, 0x8a, 0xa6, 0x02, 0x00, 0x70, 0x83, 0x1b, 0xd0, 0x00, 0x00, 0x30,
    0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0xf4, 0x02, 0x00, 0x60, 0x61, 0x34, 0x00, 0x00, 0xc0, 0x30, 0x00, 0xe5, 0x52, 0x00, 0x72, 0x08,
    0x04, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x04, 0x00, 0x00, 0x00, 0x08, 0x00,
    0x00, 0x00, 0x8e, 0x73, 0x63, 0x72, 0x61, 0x74, 0x63, 0x68, 0xee, 0x60, 0x60, 0xf7, 0x71, 0x75,
    0x61, 0x6c, 0x69, 0x74, 0x79, 0x5f, 0x6c, 0x18, 0xee, 0x9e, 0x6c, 0x73, 0x63, 0x72, 0x61, 0x74,
    0x63, 0x68, 0x38, 0xe3, 0xc6, 0xda, 0x73, 0x63, 0x72, 0x61, 0x74, 0x63, 0x68, 0x75, 0xf5, 0x21,
    0xca, 0x75, 0x73, 0x65, 0x43, 0x61, 0x73, 0x65, 0x49, 0x64, 0x35, 0x95, 0xf6, 0x46, 0x75, 0x73,
    0x65, 0x43, 0x61, 0x73, 0x65, 0x49, 0x64, 0x1f, 0x6f, 0x73, 0x69, 0x74, 0x69, 0x6f, 0x6e, 0x13,
    0x70, 0x5c, 0x67, 0x75, 0x73, 0x65, 0x43, 0x61, 0x73, 0x65, 0x49, 0x64, 0x10, 0x4d, 0xd4, 0xa6,
    0x73, 0x63, 0x72, 0x61, 0x74, 0x63, 0x68, 0x65, 0x8c, 0x97, 0x33, 0x63, 0x75, 0x73, 0x74, 0x6f,
    0x6d, 0x4d, 0x65, 0x74, 0x61, 0x64, 0x61, 0x74, 0x61, 0x1e, 0x74, 0x69, 0x6f, 0x6e, 0xf7, 0x09,
    0x00, 0x2b, 0x73, 0x63, 0x72, 0x61, 0x74, 0x63, 0x68, 0xd0, 0xaf, 0xe8, 0x1e, 0x73, 0x63, 0x72,
    0x61, 0x74, 0x63, 0x68, 0x5a, 0x19, 0x2a, 0xad, 0x65, 0x76, 0x65, 0x6e, 0x74, 0x54, 0x79, 0x70,
    0x65, 0x51, 0x11, 0x2a, 0x48, 0x65, 0x76, 0x65, 0x6e, 0x74, 0x54, 0x79, 0x6e, 0x73, 0x4f, 0x1b,
    0x29, 0xca, 0x65, 0x76, 0x65, 0x6e, 0x74, 0x54, 0x79, 0x70, 0x65, 0x43, 0x5e, 0x54, 0x59, 0x73,
    0x63, 0x72, 0x61, 0x74, 0x63, 0x68, 0xa8, 0xbd, 0xc8, 0xf0, 0x65, 0x76, 0x65, 0x6e, 0x74, 0x54,
    0x79, 0x70, 0x65, 0x14, 0x70, 0x66, 0xa7, 0x75, 0x73, 0x65, 0x43, 0x61, 0x73, 0x65, 0x65, 0x43,
    0x61, 0x73, 0x65, 0x49, 0x64, 0x90, 0x7c, 0xb7, 0xc7, 0x73, 0x63, 0x72, 0x61, 0x74, 0x63, 0x68,
    0x53, 0x0d, 0xcb, 0x2c, 0x75, 0x73, 0x65, 0x43, 0x61, 0x73, 0x65, 0x49, 0x64, 0x49, 0x62, 0x57,
    0xb9, 0x65, 0x76, 0x65, 0x6e, 0x74, 0x54, 0x79, 0x70, 0x65, 0xe3, 0xbd, 0x09, 0x3f, 0x75, 0x73,
    0x68, 0x65, 0x63, 0x6b, 0x15, 0x57, 0x54, 0xcc, 0x73, 0x63, 0x72, 0x61, 0x74, 0x63, 0x68, 0x46,
    0x85, 0x99, 0xff, 0x65,
};

/* Compress into exactly sized memory and decompress into exactly sized memory. */
static size_t check_round_trip(vev_zctx *ctx, const vev_zdict *dict, int level, const void *data,
                               size_t size)
{
    void *src = test_copy(data, size);
    size_t cap = vev_zstd_bound(size), frame_size = 12345;
    uint8_t *frame = malloc(cap);
    CHECK(frame != NULL);
    CHECK_INT(vev_zstd_compress(ctx, dict, level, frame, cap, src, size, &frame_size), VEV_OK);
    CHECK(frame_size > 0 && frame_size <= cap);
    check_reads_back(ctx, dict, frame, frame_size, data, size);
    free(src);
    free(frame);
    return frame_size;
}

static void round_trips(void)
{
    static const size_t sizes[] = {0, 1, 2, 7, 64, 500, 4096, 16384, 16385, 65536, 70000, 300000};
    static const int levels[] = {-7, -3, -1, 0, 1, 2, 3, 6, 9};
    uint8_t *data = malloc(300000);
    vev_zctx *ctx = vev_zctx_create();
    CHECK(data != NULL && ctx != NULL);
    uint64_t state = 1;
    for (size_t l = 0; l < sizeof levels / sizeof levels[0]; l++) {
        vev_zdict *dict = make_dict(99, levels[l]);
        for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
            make_record(&state, data, sizes[s]);
            check_round_trip(ctx, NULL, levels[l], data, sizes[s]);
            check_round_trip(ctx, dict, levels[l], data, sizes[s]);
            test_random_fill(&state, data, sizes[s]); /* cannot be compressed */
            check_round_trip(ctx, dict, levels[l], data, sizes[s]);
        }
        vev_zdict_free(dict);
    }
    vev_zctx_free(ctx);
    free(data);
}

static void a_dictionary_helps(void)
{
    uint8_t data[500];
    uint64_t state = 2;
    make_record(&state, data, sizeof data);
    vev_zctx *ctx = vev_zctx_create();
    vev_zdict *dict = make_dict(99, 1);
    size_t without = check_round_trip(ctx, NULL, 1, data, sizeof data);
    size_t with = check_round_trip(ctx, dict, 1, data, sizeof data);
    CHECK(with < without);
    CHECK(vev_zdict_memory(dict) > TEXT_SIZE);
    vev_zdict_free(dict);
    vev_zctx_free(ctx);
}

static void a_trained_dictionary(void)
{
    uint8_t data[500], frame[1000];
    uint64_t state = 16;
    size_t size;
    make_record(&state, data, sizeof data);
    vev_zctx *ctx = vev_zctx_create();
    vev_zdict *dict;
    CHECK_INT(vev_zdict_create(trained, sizeof trained, 1, &dict), VEV_OK);
    CHECK(dict != NULL);
    CHECK(check_round_trip(ctx, dict, 1, data, sizeof data) <
          check_round_trip(ctx, NULL, 1, data, sizeof data));
    CHECK_INT(vev_zstd_compress(ctx, dict, 1, frame, sizeof frame, data, sizeof data, &size),
              VEV_OK);
    CHECK_INT(frame[0], 0); /* the descriptor announces neither id nor size nor checksum */
    vev_zdict_free(dict);
    vev_zctx_free(ctx);
}

/* A dictionary of no bytes is none: the level of the call counts. */
static void an_empty_dictionary_is_none(void)
{
    uint8_t data[3000], plain[4000], empty[4000];
    size_t plain_size, empty_size;
    uint64_t state = 3;
    make_record(&state, data, sizeof data);
    vev_zctx *ctx = vev_zctx_create();
    vev_zdict *dict;
    CHECK_INT(vev_zdict_create(NULL, 0, 1, &dict), VEV_OK);
    CHECK(dict != NULL);
    for (int level = -5; level <= 3; level++) {
        CHECK_INT(vev_zstd_compress(ctx, NULL, level, plain, sizeof plain, data, sizeof data,
                                    &plain_size),
                  VEV_OK);
        CHECK_INT(vev_zstd_compress(ctx, dict, level, empty, sizeof empty, data, sizeof data,
                                    &empty_size),
                  VEV_OK);
        CHECK_BYTES(plain, plain_size, empty, empty_size);
    }
    vev_zdict_free(dict);
    vev_zdict_free(NULL);
    vev_zctx_free(ctx);
    vev_zctx_free(NULL);
}

/* Frame header of two bytes: nothing in the descriptor, then the window. One raw block. */
static void frames_carry_nothing_needless(void)
{
    vev_zctx *ctx = vev_zctx_create();
    uint8_t frame[64];
    size_t size;
    CHECK_INT(vev_zstd_compress(ctx, NULL, 1, frame, sizeof frame, "\x01\x02\x03", 3, &size),
              VEV_OK);
    static const uint8_t expected_block[] = {3 << 3 | 1, 0, 0, 1, 2, 3}; /* raw, last, 3 bytes */
    CHECK_INT(frame[0], 0);
    CHECK_BYTES(frame + 2, size - 2, expected_block, sizeof expected_block);
    vev_zctx_free(ctx);
}

static void too_small_a_buffer(void)
{
    uint8_t data[600], frame[1000];
    uint64_t state = 4;
    make_record(&state, data, sizeof data);
    vev_zctx *ctx = vev_zctx_create();
    vev_zdict *dict = make_dict(99, 1);
    size_t size, got;
    CHECK_INT(vev_zstd_compress(ctx, dict, 1, frame, sizeof frame, data, sizeof data, &size),
              VEV_OK);
    for (size_t cap = 0; cap < size; cap++) {
        uint8_t *exact = test_copy(frame, cap);
        got = 12345;
        CHECK_INT(vev_zstd_compress(ctx, dict, 1, exact, cap, data, sizeof data, &got),
                  VEV_E_BUFFER);
        CHECK_INT(got, 0);
        free(exact);
    }
    /* The context is none the worse for it. */
    check_round_trip(ctx, dict, 1, data, sizeof data);
    vev_zdict_free(dict);
    vev_zctx_free(ctx);
}

/* One record, compressed, for the tests that break it. */
typedef struct {
    vev_zctx *ctx;
    vev_zdict *dict;
    uint8_t data[700], frame[1000], back[2000];
    size_t size;
} sample;

static void sample_make(sample *s)
{
    uint64_t state = 5;
    make_record(&state, s->data, sizeof s->data);
    s->ctx = vev_zctx_create();
    s->dict = make_dict(99, 1);
    CHECK_INT(vev_zstd_compress(s->ctx, s->dict, 1, s->frame, sizeof s->frame, s->data,
                                sizeof s->data, &s->size),
              VEV_OK);
    CHECK(s->size < sizeof s->data);
}

static void sample_free(sample *s)
{
    vev_zdict_free(s->dict);
    vev_zctx_free(s->ctx);
}

static void another_size_is_corrupt(void)
{
    sample s;
    sample_make(&s);
    for (size_t n = 0; n < 2 * sizeof s.data; n++) {
        void *exact = malloc(n != 0 ? n : 1);
        CHECK_INT(vev_zstd_decompress(s.ctx, s.dict, exact, n, s.frame, s.size),
                  n == sizeof s.data ? VEV_OK : VEV_E_CORRUPT);
        free(exact);
    }
    sample_free(&s);
}

static void truncated_anywhere(void)
{
    sample s;
    sample_make(&s);
    for (size_t n = 0; n < s.size; n++) {
        void *exact = test_copy(s.frame, n);
        CHECK_INT(vev_zstd_decompress(s.ctx, s.dict, s.back, sizeof s.data, exact, n),
                  VEV_E_CORRUPT);
        free(exact);
    }
    s.frame[s.size] = 0; /* one byte too many */
    CHECK_INT(vev_zstd_decompress(s.ctx, s.dict, s.back, sizeof s.data, s.frame, s.size + 1),
              VEV_E_CORRUPT);
    sample_free(&s);
}

/* The frame has no checksum of its own (the record has): a flipped bit may go unnoticed here, but
 * reads and writes stay within bounds, and the context works on. */
static void damaged_anywhere(void)
{
    sample s;
    sample_make(&s);
    uint8_t *out = malloc(sizeof s.data);
    unsigned noticed = 0;
    for (size_t bit = 0; bit < 8 * s.size; bit++) {
        uint8_t *exact = test_copy(s.frame, s.size);
        exact[bit / 8] ^= (uint8_t)(1u << bit % 8);
        vev_status status = vev_zstd_decompress(s.ctx, s.dict, out, sizeof s.data, exact, s.size);
        CHECK(status == VEV_OK || status == VEV_E_CORRUPT);
        noticed += status == VEV_E_CORRUPT;
        free(exact);
    }
    CHECK(noticed > 0);
    CHECK_INT(vev_zstd_decompress(s.ctx, s.dict, out, sizeof s.data, s.frame, s.size), VEV_OK);
    CHECK(memcmp(out, s.data, sizeof s.data) == 0);
    free(out);
    sample_free(&s);
}

static void random_bytes_are_no_frames(void)
{
    vev_zctx *ctx = vev_zctx_create();
    vev_zdict *dict = make_dict(99, 1);
    uint64_t state = 6;
    for (int round = 0; round < 20000; round++) {
        uint8_t data[100], out[300];
        size_t size = test_random_below(&state, sizeof data);
        test_random_fill(&state, data, size);
        if (size > 4) {
            data[0] = 0; /* get past the header more often */
            data[1] = 0x40;
        }
        void *exact = test_copy(data, size);
        vev_status status = vev_zstd_decompress(ctx, dict, out, sizeof out, exact, size);
        CHECK(status == VEV_OK || status == VEV_E_CORRUPT);
        free(exact);
    }
    vev_zdict_free(dict);
    vev_zctx_free(ctx);
}

/* Small frames that claim to be large: neither memory nor time nor the buffer follows the claim. */
static void bombs(void)
{
    vev_zctx *ctx = vev_zctx_create();
    uint8_t out[1000];
    check_round_trip(ctx, NULL, 1, "x", 1);
    size_t memory = vev_zctx_memory(ctx);

    /* A single segment of 2^40 bytes. */
    static const uint8_t content[] = {0xe0, 0, 0, 0, 0, 0, 1, 0, 0, 3, 0, 0, 0};
    CHECK_INT(vev_zstd_decompress(ctx, NULL, out, sizeof out, content, sizeof content),
              VEV_E_CORRUPT);
    /* The largest window there is. */
    static const uint8_t window[] = {0, 0xff, 1 << 3 | 1, 0, 0, 'x'};
    vev_status status = vev_zstd_decompress(ctx, NULL, out, 1, window, sizeof window);
    CHECK(status == VEV_OK || status == VEV_E_CORRUPT);
    /* 1000 blocks that repeat one byte 128 KiB times each. */
    uint8_t repeats[2 + 1000 * 4] = {0, 0x88};
    for (size_t i = 0; i < 1000; i++) {
        uint32_t head = 131072u << 3 | 1u << 1 | (i == 999);
        memcpy(repeats + 2 + 4 * i, &head, 3);
        repeats[2 + 4 * i + 3] = 'x';
    }
    CHECK_INT(vev_zstd_decompress(ctx, NULL, out, sizeof out, repeats, sizeof repeats),
              VEV_E_CORRUPT);
    /* A dictionary id that nobody knows. */
    static const uint8_t foreign[] = {3, 0x40, 0x78, 0x56, 0x34, 0x12, 1 << 3 | 1, 0, 0, 'x'};
    CHECK_INT(vev_zstd_decompress(ctx, NULL, out, 1, foreign, sizeof foreign), VEV_E_CORRUPT);

    CHECK_INT(vev_zctx_memory(ctx), memory);
    vev_zctx_free(ctx);
}

static void the_wrong_dictionary_gives_nothing_right(void)
{
    sample s;
    sample_make(&s);
    vev_zdict *other = make_dict(7, 1);
    const vev_zdict *wrong[] = {NULL, other};
    for (int i = 0; i < 2; i++) {
        vev_status status =
            vev_zstd_decompress(s.ctx, wrong[i], s.back, sizeof s.data, s.frame, s.size);
        CHECK(status == VEV_E_CORRUPT ||
              (status == VEV_OK && memcmp(s.back, s.data, sizeof s.data) != 0));
    }
    CHECK_INT(vev_zstd_decompress(s.ctx, s.dict, s.back, sizeof s.data, s.frame, s.size), VEV_OK);
    vev_zdict_free(other);
    sample_free(&s);
}

static void a_broken_trained_dictionary_is_refused(void)
{
    uint8_t bytes[256];
    uint64_t state = 8;
    test_random_fill(&state, bytes, sizeof bytes);
    memcpy(bytes, "\x37\xa4\x30\xec", 4); /* how a trained one begins */
    memset(bytes + 8, 0xff, 64);
    vev_zdict *dict;
    CHECK_INT(vev_zdict_create(bytes, sizeof bytes, 1, &dict), VEV_E_CORRUPT);
    CHECK(dict == NULL);
}

/* A context takes whatever comes next, and gives the same bytes as a fresh one. */
static void one_context_for_everything(void)
{
    enum { DICTS = 3 };
    vev_zdict *dicts[DICTS + 1] = {NULL, make_dict(10, 1), make_dict(11, -3), make_dict(12, 3)};
    vev_zctx *ctx = vev_zctx_create();
    uint8_t *data = malloc(40000), *ours = malloc(50000), *fresh = malloc(50000);
    uint64_t state = 9;
    for (int round = 0; round < 400; round++) {
        const vev_zdict *dict = dicts[test_random_below(&state, DICTS + 1)];
        int level = (int)test_random_below(&state, 17) - 7;
        size_t size = test_random_below(&state, round % 4 == 0 ? 40000 : 800), n, m;
        make_record(&state, data, size);
        vev_zctx *other = vev_zctx_create();
        CHECK_INT(vev_zstd_compress(ctx, dict, level, ours, 50000, data, size, &n), VEV_OK);
        CHECK_INT(vev_zstd_compress(other, dict, level, fresh, 50000, data, size, &m), VEV_OK);
        CHECK_BYTES(ours, n, fresh, m);
        vev_zctx_free(other);
        check_round_trip(ctx, dict, level, data, size);
    }
    free(data);
    free(ours);
    free(fresh);
    vev_zctx_free(ctx);
    for (int i = 0; i <= DICTS; i++)
        vev_zdict_free(dicts[i]);
}

/* The allocator gives a new dictionary the address of one just freed; a context that knew the old
 * one must not take it for that. Sizes vary, so that the tables behind the handle move. */
static void a_new_dictionary_at_an_old_address(void)
{
    static uint8_t text[16384];
    uint8_t data[500], frame[1000], back[500];
    uint64_t state = 10;
    vev_zctx *ctx = vev_zctx_create();
    make_record(&state, data, sizeof data);
    for (int round = 0; round < 100; round++) {
        size_t size;
        make_record(&state, text, sizeof text);
        vev_zdict *dict;
        CHECK_INT(vev_zdict_create(text, 1000 + test_random_below(&state, 15000), 1, &dict),
                  VEV_OK);
        CHECK_INT(vev_zstd_compress(ctx, dict, 1, frame, sizeof frame, data, sizeof data, &size),
                  VEV_OK);
        CHECK_INT(vev_zstd_decompress(ctx, dict, back, sizeof back, frame, size), VEV_OK);
        CHECK(memcmp(back, data, sizeof data) == 0);
        vev_zdict_free(dict);
    }
    check_round_trip(ctx, NULL, 1, data, sizeof data); /* lets go of the last one */
    vev_zctx_free(ctx);
}

static void levels_differ(void)
{
    uint8_t *data = malloc(20000), *frame = malloc(30000);
    uint64_t state = 17;
    vev_zctx *ctx = vev_zctx_create();
    make_record(&state, data, 20000);
    const int levels[] = {-7, 1, 3};
    for (int with = 0; with < 2; with++) {
        size_t last = SIZE_MAX;
        for (int l = 0; l < 3; l++) {
            vev_zdict *dict = with ? make_dict(99, levels[l]) : NULL;
            size_t size;
            /* With a dictionary its level counts, not that of the call. */
            CHECK_INT(vev_zstd_compress(ctx, dict, with ? 9 : levels[l], frame, 30000, data, 20000,
                                        &size),
                      VEV_OK);
            CHECK(size < last);
            last = size;
            vev_zdict_free(dict);
        }
    }
    vev_zctx_free(ctx);
    free(data);
    free(frame);
}

/* Fill a context with the largest record of a class, then compress long runs of others: runs are
 * what makes zstd give memory back. Every allocation of zstd changes the memory that is in use. */
static void check_memory_stays(int level, const vev_zdict *dict, size_t size_min, size_t size_max)
{
    vev_zctx *ctx = vev_zctx_create();
    uint8_t *data = malloc(size_max), *frame = malloc(vev_zstd_bound(size_max));
    uint64_t state = 11;
    make_record(&state, data, size_max);
    size_t size, memory = 0;
    for (size_t run = 0; run < 4; run++) {
        size_t run_size = run % 2 == 0 ? size_max : size_min;
        for (size_t n = 0; n < 200; n++) {
            CHECK_INT(vev_zstd_compress(ctx, dict, level, frame, vev_zstd_bound(size_max), data,
                                        run_size, &size),
                      VEV_OK);
            memory = memory == 0 ? vev_zctx_memory(ctx) : memory;
            CHECK_INT(vev_zctx_memory(ctx), memory);
        }
    }
    if (level == -2 || level == 9)
        printf("  level %d, up to %zu bytes, %s dictionary: %zu KiB\n", level, size_max,
               dict != NULL ? "with a" : "without a", memory >> 10);
    vev_zctx_free(ctx);
    free(data);
    free(frame);
}

static void memory_stays_as_it_is(void)
{
    for (int level = -7; level <= 9; level++) {
        static uint8_t text[16384];
        uint64_t state = 15;
        make_record(&state, text, sizeof text);
        vev_zdict *dict = make_dict(99, level);
        vev_zdict *large_dict;
        CHECK_INT(vev_zdict_create(text, sizeof text, level, &large_dict), VEV_OK);
        const vev_zdict *dicts[] = {NULL, dict, large_dict};
        for (int i = 0; i < 3; i++) {
            check_memory_stays(level, dicts[i], 1, 500);
            check_memory_stays(level, dicts[i], 1, 2048);
            if (level < 0 && dicts[i] != NULL)
                check_memory_stays(level, dicts[i], 2049, 300000);
        }
        vev_zdict_free(dict);
        vev_zdict_free(large_dict);
    }
}

/* What a thread holds for compressing at the library's level fits a small device, whatever the
 * records. */
static void memory_is_small(void)
{
    vev_zctx *ctx = vev_zctx_create();
    vev_zdict *dict;
    CHECK_INT(vev_zdict_create(trained, sizeof trained, -2, &dict), VEV_OK);
    uint8_t *data = malloc(300000), *frame = malloc(vev_zstd_bound(300000));
    uint64_t state = 14;
    make_record(&state, data, 300000);
    for (size_t size = 1; size <= 300000; size *= 2) {
        size_t frame_size;
        CHECK_INT(
            vev_zstd_compress(ctx, dict, -2, frame, vev_zstd_bound(size), data, size, &frame_size),
            VEV_OK);
    }
    printf("  %zu KiB, and %zu KiB for the dictionary\n", vev_zctx_memory(ctx) >> 10,
           vev_zdict_memory(dict) >> 10);
    CHECK(vev_zctx_memory(ctx) < 128 << 10);
    free(frame);
    free(data);
    vev_zdict_free(dict);
    vev_zctx_free(ctx);
}

static void large_inputs(void)
{
    size_t size = 32u << 20;
    uint8_t *data = malloc(size);
    CHECK(data != NULL);
    uint64_t state = 12;
    for (size_t at = 0; at < size; at += 65536)
        make_record(&state, data + at, 65536);
    vev_zctx *ctx = vev_zctx_create();
    vev_zdict *dict = make_dict(99, 1);
    check_round_trip(ctx, NULL, 1, data, size);
    check_round_trip(ctx, dict, 1, data, size);
    check_round_trip(ctx, dict, 1, data, 500);
    vev_zdict_free(dict);
    vev_zctx_free(ctx);
    free(data);
}

static void *compress_many(void *arg)
{
    const vev_zdict *dict = arg;
    vev_zctx *ctx = vev_zctx_create();
    uint64_t state = 13;
    for (int i = 0; i < 300; i++) {
        uint8_t data[600];
        make_record(&state, data, sizeof data);
        check_round_trip(ctx, dict, 1, data, sizeof data);
    }
    vev_zctx_free(ctx);
    return NULL;
}

static void threads_share_a_dictionary(void)
{
    vev_zdict *dict = make_dict(99, 1);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        CHECK_INT(pthread_create(&threads[i], NULL, compress_many, dict), 0);
    for (int i = 0; i < 4; i++)
        CHECK_INT(pthread_join(threads[i], NULL), 0);
    vev_zdict_free(dict);
}

int main(void)
{
    RUN(round_trips);
    RUN(a_dictionary_helps);
    RUN(a_trained_dictionary);
    RUN(an_empty_dictionary_is_none);
    RUN(frames_carry_nothing_needless);
    RUN(too_small_a_buffer);
    RUN(another_size_is_corrupt);
    RUN(truncated_anywhere);
    RUN(damaged_anywhere);
    RUN(random_bytes_are_no_frames);
    RUN(bombs);
    RUN(the_wrong_dictionary_gives_nothing_right);
    RUN(a_broken_trained_dictionary_is_refused);
    RUN(one_context_for_everything);
    RUN(a_new_dictionary_at_an_old_address);
    RUN(levels_differ);
    RUN(memory_stays_as_it_is);
    RUN(memory_is_small);
    RUN(large_inputs);
    RUN(threads_share_a_dictionary);
    return 0;
}
