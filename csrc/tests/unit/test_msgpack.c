#include "vev_msgpack.h"

#include "vev_test.h"

/* ---- writer ---- */

/* Check what one call wrote, then that it writes all or nothing into every smaller buffer. */
#define CHECK_WRITES(call, ...)                                                                    \
    do {                                                                                           \
        static const uint8_t expected[] = {__VA_ARGS__};                                           \
        for (size_t cap = 0; cap <= sizeof expected; cap++) {                                      \
            uint8_t *buffer = test_copy("................", cap);                                  \
            vev_msgpack_writer writer, *w = &writer;                                               \
            vev_msgpack_writer_init(w, buffer, cap);                                               \
            call;                                                                                  \
            if (cap == sizeof expected) {                                                          \
                CHECK_INT(w->status, VEV_OK);                                                      \
                CHECK_BYTES(w->data, w->size, expected, sizeof expected);                          \
                CHECK_INT(vev_msgpack_value_size(w->data, w->size), cap);                          \
            } else {                                                                               \
                CHECK_INT(w->status, VEV_E_TOO_BIG);                                               \
                CHECK(w->size <= cap);                                                             \
            }                                                                                      \
            free(buffer);                                                                          \
        }                                                                                          \
    } while (0)

static void scalars(void)
{
    CHECK_WRITES(vev_msgpack_write_nil(w), 0xc0);
    CHECK_WRITES(vev_msgpack_write_bool(w, false), 0xc2);
    CHECK_WRITES(vev_msgpack_write_bool(w, true), 0xc3);
    CHECK_WRITES(vev_msgpack_write_float32(w, 1.5f), 0xca, 0x3f, 0xc0, 0, 0);
    CHECK_WRITES(vev_msgpack_write_float32(w, -0.0f), 0xca, 0x80, 0, 0, 0);
    CHECK_WRITES(vev_msgpack_write_float64(w, 0.1), 0xcb, 0x3f, 0xb9, 0x99, 0x99, 0x99, 0x99, 0x99,
                 0x9a);
}

static void integers_take_the_shortest_form(void)
{
    CHECK_WRITES(vev_msgpack_write_uint(w, 0), 0);
    CHECK_WRITES(vev_msgpack_write_uint(w, 127), 0x7f);
    CHECK_WRITES(vev_msgpack_write_uint(w, 128), 0xcc, 0x80);
    CHECK_WRITES(vev_msgpack_write_uint(w, 255), 0xcc, 0xff);
    CHECK_WRITES(vev_msgpack_write_uint(w, 256), 0xcd, 0x01, 0x00);
    CHECK_WRITES(vev_msgpack_write_uint(w, 65535), 0xcd, 0xff, 0xff);
    CHECK_WRITES(vev_msgpack_write_uint(w, 65536), 0xce, 0, 1, 0, 0);
    CHECK_WRITES(vev_msgpack_write_uint(w, UINT32_MAX), 0xce, 0xff, 0xff, 0xff, 0xff);
    CHECK_WRITES(vev_msgpack_write_uint(w, (uint64_t)UINT32_MAX + 1), 0xcf, 0, 0, 0, 1, 0, 0, 0, 0);
    CHECK_WRITES(vev_msgpack_write_uint(w, UINT64_MAX), 0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                 0xff, 0xff);
    CHECK_WRITES(vev_msgpack_write_int(w, 200), 0xcc, 200);
    CHECK_WRITES(vev_msgpack_write_int(w, INT64_MAX), 0xcf, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff,
                 0xff, 0xff);
    CHECK_WRITES(vev_msgpack_write_int(w, -1), 0xff);
    CHECK_WRITES(vev_msgpack_write_int(w, -32), 0xe0);
    CHECK_WRITES(vev_msgpack_write_int(w, -33), 0xd0, 0xdf);
    CHECK_WRITES(vev_msgpack_write_int(w, -128), 0xd0, 0x80);
    CHECK_WRITES(vev_msgpack_write_int(w, -129), 0xd1, 0xff, 0x7f);
    CHECK_WRITES(vev_msgpack_write_int(w, -32768), 0xd1, 0x80, 0x00);
    CHECK_WRITES(vev_msgpack_write_int(w, -32769), 0xd2, 0xff, 0xff, 0x7f, 0xff);
    CHECK_WRITES(vev_msgpack_write_int(w, INT32_MIN), 0xd2, 0x80, 0, 0, 0);
    CHECK_WRITES(vev_msgpack_write_int(w, (int64_t)INT32_MIN - 1), 0xd3, 0xff, 0xff, 0xff, 0xff,
                 0x7f, 0xff, 0xff, 0xff);
    CHECK_WRITES(vev_msgpack_write_int(w, INT64_MIN), 0xd3, 0x80, 0, 0, 0, 0, 0, 0, 0);
}

static void headers_take_the_shortest_form(void)
{
    static const struct {
        char what; /* s, b: str, bin of `size` bytes; a, m: array, map of `size` nils (pairs) */
        size_t size;
        uint8_t head[5];
        size_t head_size;
    } cases[] = {
        {'s', 0, {0xa0}, 1},
        {'s', 31, {0xbf}, 1},
        {'s', 32, {0xd9, 32}, 2},
        {'s', 255, {0xd9, 255}, 2},
        {'s', 256, {0xda, 1, 0}, 3},
        {'s', 65535, {0xda, 255, 255}, 3},
        {'s', 65536, {0xdb, 0, 1, 0, 0}, 5},
        {'b', 0, {0xc4, 0}, 2},
        {'b', 255, {0xc4, 255}, 2},
        {'b', 256, {0xc5, 1, 0}, 3},
        {'b', 65535, {0xc5, 255, 255}, 3},
        {'b', 65536, {0xc6, 0, 1, 0, 0}, 5},
        {'a', 0, {0x90}, 1},
        {'a', 15, {0x9f}, 1},
        {'a', 16, {0xdc, 0, 16}, 3},
        {'a', 65535, {0xdc, 255, 255}, 3},
        {'a', 65536, {0xdd, 0, 1, 0, 0}, 5},
        {'m', 0, {0x80}, 1},
        {'m', 15, {0x8f}, 1},
        {'m', 16, {0xde, 0, 16}, 3},
        {'m', 65535, {0xde, 255, 255}, 3},
        {'m', 65536, {0xdf, 0, 1, 0, 0}, 5},
    };
    size_t cap = 5 + 2 * 65536;
    uint8_t *buffer = malloc(cap);
    char *text = calloc(1, 65536);
    CHECK(buffer != NULL && text != NULL);
    memset(text, 'x', 65536);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        size_t size = cases[i].size;
        vev_msgpack_writer w;
        vev_msgpack_writer_init(&w, buffer, cap);
        switch (cases[i].what) {
        case 's': vev_msgpack_write_str(&w, text, size); break;
        case 'b': vev_msgpack_write_bin(&w, text, size); break;
        case 'a':
            vev_msgpack_write_array(&w, (uint32_t)size);
            for (size_t n = 0; n < size; n++)
                vev_msgpack_write_nil(&w);
            break;
        default:
            vev_msgpack_write_map(&w, (uint32_t)size);
            for (size_t n = 0; n < 2 * size; n++)
                vev_msgpack_write_nil(&w);
        }
        CHECK_INT(w.status, VEV_OK);
        CHECK_BYTES(w.data, cases[i].head_size, cases[i].head, cases[i].head_size);
        CHECK_INT(vev_msgpack_validate(w.data, w.size), VEV_OK);
        CHECK_INT(vev_msgpack_value_size(w.data, cap), w.size);
        CHECK_INT(vev_msgpack_validate(w.data, w.size - 1), VEV_E_INVALID);
    }
    free(buffer);
    free(text);
}

static void first_error_sticks(void)
{
    uint8_t buffer[8] = {0};
    vev_msgpack_writer w;
    vev_msgpack_writer_init(&w, buffer, 4);
    vev_msgpack_write_uint(&w, 1);
    vev_msgpack_write_str(&w, "longer", 6);
    CHECK_INT(w.status, VEV_E_TOO_BIG);
    size_t size = w.size;
    vev_msgpack_write_nil(&w); /* would fit, but the value before it is missing */
    vev_msgpack_write_raw(&w, "", 0);
    CHECK_INT(w.size, size);
    CHECK_INT(w.status, VEV_E_TOO_BIG);
    CHECK_BYTES(buffer + 4, 4, "\0\0\0\0", 4);
}

static void no_buffer_at_all(void)
{
    vev_msgpack_writer w;
    vev_msgpack_writer_init(&w, NULL, 0);
    vev_msgpack_write_raw(&w, NULL, 0);
    CHECK_INT(w.status, VEV_OK);
    vev_msgpack_write_nil(&w);
    CHECK_INT(w.status, VEV_E_TOO_BIG);
}

#if SIZE_MAX > UINT32_MAX
static void sizes_beyond_32_bits_are_refused(void)
{
    char buffer[64];
    vev_msgpack_writer w;
    vev_msgpack_writer_init(&w, buffer, SIZE_MAX / 2); /* never touched: refused before */
    vev_msgpack_write_str(&w, buffer, (size_t)UINT32_MAX + 1);
    CHECK_INT(w.status, VEV_E_TOO_BIG);
    CHECK_INT(w.size, 0);
    vev_msgpack_writer_init(&w, buffer, SIZE_MAX / 2);
    vev_msgpack_write_bin(&w, buffer, (size_t)UINT32_MAX + 1);
    CHECK_INT(w.status, VEV_E_TOO_BIG);
    CHECK_INT(w.size, 0);
}
#endif

/* ---- reader ---- */

static vev_status validate_exact(const void *data, size_t size)
{
    void *copy = test_copy(data, size);
    vev_status status = vev_msgpack_validate(copy, size);
    free(copy);
    return status;
}

#define VALID(bytes) CHECK_INT(validate_exact(bytes, sizeof(bytes) - 1), VEV_OK)
#define BROKEN(bytes) CHECK_INT(validate_exact(bytes, sizeof(bytes) - 1), VEV_E_INVALID)

static void every_form_is_read(void)
{
    VALID("\x00");
    VALID("\x7f");
    VALID("\xe0");
    VALID("\xff");
    VALID("\xc0");
    VALID("\xc2");
    VALID("\xc3");
    VALID("\xcc\1");
    VALID("\xcd\1\2");
    VALID("\xce\1\2\3\4");
    VALID("\xcf\1\2\3\4\5\6\7\x8");
    VALID("\xd0\1");
    VALID("\xd1\1\2");
    VALID("\xd2\1\2\3\4");
    VALID("\xd3\1\2\3\4\5\6\7\x8");
    VALID("\xca\1\2\3\4");
    VALID("\xcb\1\2\3\4\5\6\7\x8");
    VALID("\xa0");
    VALID("\xa2xy");
    VALID("\xd9\1x");
    VALID("\xda\0\1x");
    VALID("\xdb\0\0\0\1x");
    VALID("\xc4\0");
    VALID("\xc4\1\xff");
    VALID("\xc5\0\1\xff");
    VALID("\xc6\0\0\0\1\xff");
    VALID("\xc7\0\5");
    VALID("\xc7\1\5\xff");
    VALID("\xc8\0\1\5\xff");
    VALID("\xc9\0\0\0\1\5\xff");
    VALID("\xd4\5\1");
    VALID("\xd5\5\1\2");
    VALID("\xd6\5\1\2\3\4");
    VALID("\xd7\5\1\2\3\4\5\6\7\x8");
    VALID("\xd8\5\1\2\3\4\5\6\7\x8\1\2\3\4\5\6\7\x8");
    VALID("\x90");
    VALID("\x91\0");
    VALID("\xdc\0\1\0");
    VALID("\xdd\0\0\0\1\0");
    VALID("\x80");
    VALID("\x81\0\0");
    VALID("\xde\0\1\0\0");
    VALID("\xdf\0\0\0\1\0\0");
    VALID("\x92\x91\1\x81\xa1k\x90"); /* [[1], {"k": []}] */
}

static void what_is_no_value_is_refused(void)
{
    BROKEN("");
    BROKEN("\xc1");
    BROKEN("\x91\xc1");
    BROKEN("\x01\x01"); /* something behind the value */
    BROKEN("\x92\1\2\3");
    BROKEN("\x82\1\2\3"); /* a key without a value */
    BROKEN("\xa3xy");
    BROKEN("\xd9\2x");
    BROKEN("\xc7\1\5"); /* ext: type, but no data */
    BROKEN("\xd4\5");
    CHECK_INT(vev_msgpack_value_size("\x01\x01", 2), 1);
    CHECK_INT(vev_msgpack_value_size(NULL, 0), 0);
}

static void counts_that_lie_are_refused(void)
{
    BROKEN("\xdd\xff\xff\xff\xff");
    BROKEN("\xdf\xff\xff\xff\xff");
    BROKEN("\xdf\x80\0\0\0\0"); /* twice the count does not fit into 32 bits */
    BROKEN("\xdb\xff\xff\xff\xff");
    BROKEN("\xc6\xff\xff\xff\xff");
    BROKEN("\xc9\xff\xff\xff\xff\5"); /* size + 1 does not fit into 32 bits */
    BROKEN("\xdc\0\3\1\2");
    BROKEN("\xde\0\2\1\2\3");
}

static void nesting_is_bounded(void)
{
    uint8_t data[VEV_MSGPACK_DEPTH_MAX + 2];
    memset(data, 0x91, sizeof data);
    data[VEV_MSGPACK_DEPTH_MAX] = 1; /* 16 arrays around a number */
    CHECK_INT(validate_exact(data, VEV_MSGPACK_DEPTH_MAX + 1), VEV_OK);
    data[VEV_MSGPACK_DEPTH_MAX] = 0x90; /* a 17th */
    CHECK_INT(validate_exact(data, VEV_MSGPACK_DEPTH_MAX + 1), VEV_E_INVALID);
    data[VEV_MSGPACK_DEPTH_MAX] = 0x80;
    CHECK_INT(validate_exact(data, VEV_MSGPACK_DEPTH_MAX + 1), VEV_E_INVALID);

    uint8_t deep[100000];
    memset(deep, 0x91, sizeof deep);
    CHECK_INT(vev_msgpack_validate(deep, sizeof deep), VEV_E_INVALID);
    /* Depth is not used up by what has been left again. */
    uint8_t wide[1 + 15 * 3];
    wide[0] = 0x9f;
    for (size_t i = 0; i < 15; i++)
        memcpy(wide + 1 + 3 * i, "\x91\x91\x90", 3);
    CHECK_INT(validate_exact(wide, sizeof wide), VEV_OK);
}

/* A value with every form in it, cut at every size: never valid, never read beyond. */
static void truncated_anywhere(void)
{
    static const char whole[] =
        "\xdc\0\x0b\xc0\xcc\1\xd3\1\2\3\4\5\6\7\x8\xcb\1\2\3\4\5\6\7\x8\xa3xyz"
        "\xd9\4\xf0\x9f\x90\x9b"
        "\xc4\2\xff\xff\xc7\2\7\1\2\xd5\7\1\2\x82\xa1k\x91\xc3\1\xc2\xde\0\1\xa0\xdd\0\0\0\1\x05";
    size_t size = sizeof whole - 1;
    CHECK_INT(validate_exact(whole, size), VEV_OK);
    for (size_t n = 0; n < size; n++)
        CHECK_INT(validate_exact(whole, n), VEV_E_INVALID);
}

/* Whatever the bytes: no read beyond them, and the answers agree with each other. */
static void random_bytes(void)
{
    uint64_t state = 5;
    unsigned valid_count = 0;
    for (int round = 0; round < 200000; round++) {
        uint8_t data[24];
        size_t size = test_random_below(&state, sizeof data + 1);
        test_random_fill(&state, data, size);
        if (round % 2 == 0 && size > 0)
            data[0] = (uint8_t)(0x80 | (data[0] & 0x1f)); /* more containers */
        uint8_t *copy = test_copy(data, size);
        size_t value_size = vev_msgpack_value_size(copy, size);
        CHECK(value_size <= size);
        CHECK_INT(vev_msgpack_validate(copy, size),
                  size != 0 && value_size == size ? VEV_OK : VEV_E_INVALID);
        if (value_size != 0) {
            valid_count++;
            CHECK_INT(vev_msgpack_validate(copy, value_size), VEV_OK);
            CHECK_INT(vev_msgpack_validate(copy, value_size - 1), VEV_E_INVALID);
        }
        free(copy);
    }
    CHECK(valid_count > 1000);
}

/* ---- UTF-8 ---- */

static void check_utf8(const char *text, size_t size, bool good, size_t chars)
{
    char *copy = test_copy(text, size);
    size_t counted = 12345;
    CHECK_INT(vev_msgpack_utf8_check(copy, size, &counted), good);
    CHECK_INT(counted, good ? chars : 12345);
    CHECK_INT(vev_msgpack_utf8_check(copy, size, NULL), good);
    free(copy);
}
#define GOOD(text, chars) check_utf8(text, sizeof(text) - 1, true, chars)
#define BAD(text) check_utf8(text, sizeof(text) - 1, false, 0)

static void utf8_edges(void)
{
    GOOD("", 0);
    GOOD("plain ASCII, longer than eight bytes", 36);
    GOOD("\0\x7f", 2);
    GOOD("\xc2\x80", 1);
    GOOD("\xdf\xbf", 1); /* U+0080, U+07FF */
    GOOD("\xe0\xa0\x80", 1);
    GOOD("\xef\xbf\xbf", 1); /* U+0800, U+FFFF */
    GOOD("\xed\x9f\xbf", 1);
    GOOD("\xee\x80\x80", 1); /* either side of the surrogates */
    GOOD("\xf0\x90\x80\x80", 1);
    GOOD("\xf4\x8f\xbf\xbf", 1); /* U+10000, U+10FFFF */
    GOOD("1234567\xc3\xa4"
         "12345678\xf0\x9f\x90\x9b",
         17);
    BAD("\x80");
    BAD("\xbf");
    BAD("\xff");
    BAD("\xfe");
    BAD("\xc0\x80");
    BAD("\xc1\xbf");
    BAD("\xe0\x9f\xbf");
    BAD("\xf0\x8f\xbf\xbf"); /* overlong */
    BAD("\xed\xa0\x80");
    BAD("\xed\xbf\xbf"); /* surrogates */
    BAD("\xf4\x90\x80\x80");
    BAD("\xf5\x80\x80\x80"); /* above U+10FFFF */
    BAD("\xc3");
    BAD("\xe2\x82");
    BAD("\xf0\x9f\x90"); /* cut off */
    BAD("\xc3x");
    BAD("\xe2\x82x");
    BAD("\xf0\x9f\x90x");
    BAD("\xe2x\x82");
    BAD("12345678\x80");
    BAD("1234567\x80");
    BROKEN("\xa1\xff");
    BROKEN("\x81\xa1\xff\1");
    VALID("\xc4\1\xff"); /* in a binary it is nobody's business */
}

/* Encode every code point by definition; exactly the non-surrogates must pass. */
static void utf8_every_code_point(void)
{
    for (uint32_t c = 0; c <= 0x110000; c++) {
        char text[4];
        size_t size;
        if (c < 0x80) {
            text[0] = (char)c, size = 1;
        } else if (c < 0x800) {
            text[0] = (char)(0xc0 | c >> 6), size = 2;
        } else if (c < 0x10000) {
            text[0] = (char)(0xe0 | c >> 12), size = 3;
        } else {
            text[0] = (char)(0xf0 | c >> 18), size = 4;
        }
        for (size_t i = 1; i < size; i++)
            text[i] = (char)(0x80 | (c >> 6 * (size - 1 - i) & 0x3f));
        size_t chars = 0;
        bool good = vev_msgpack_utf8_check(text, size, &chars);
        CHECK_INT(good, (c < 0xd800 || c > 0xdfff) && c < 0x110000);
        CHECK(!good || chars == 1);
    }
}

int main(void)
{
    RUN(scalars);
    RUN(integers_take_the_shortest_form);
    RUN(headers_take_the_shortest_form);
    RUN(first_error_sticks);
    RUN(no_buffer_at_all);
#if SIZE_MAX > UINT32_MAX
    RUN(sizes_beyond_32_bits_are_refused);
#endif
    RUN(every_form_is_read);
    RUN(what_is_no_value_is_refused);
    RUN(counts_that_lie_are_refused);
    RUN(nesting_is_bounded);
    RUN(truncated_anywhere);
    RUN(random_bytes);
    RUN(utf8_edges);
    RUN(utf8_every_code_point);
    return 0;
}
