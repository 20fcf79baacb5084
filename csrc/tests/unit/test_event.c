#include "vevents/event.h"

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#include "vev_base.h"
#include "vev_msgpack.h"
#include "vev_test.h"

enum { BUFFER_SIZE = 200000 };
static char buffer[BUFFER_SIZE];

static const uint8_t digest[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

/* An event that lacks nothing, for a test to add to. */
static void begin_custom(vev_event *ev)
{
    vev_event_begin(ev, buffer, sizeof buffer, VEV_KIND_CUSTOM, NULL);
    vev_event_data_str(ev, "value", "v");
}

static size_t check_good(vev_event *ev)
{
    const void *payload;
    size_t size;
    if (vev_event_finish(ev, &payload, &size, NULL) != VEV_OK) {
        fprintf(stderr, "refused: %s\n", vev_event_error(ev));
        exit(1);
    }
    CHECK_STR(vev_event_error(ev), "");
    CHECK_INT(vev_msgpack_validate(payload, size), VEV_OK);
    return size;
}

/* The event is refused with this sentence, and whatever comes later changes nothing. */
static void check_bad(vev_event *ev, const char *sentence)
{
    const void *payload = "";
    size_t size = 1;
    vev_entry entry = {.flags = VEV_APPEND_SYNC, .kind = 77};
    CHECK_INT(vev_event_finish(ev, &payload, &size, &entry), VEV_E_INVALID);
    CHECK_STR(vev_event_error(ev), sentence);
    CHECK(payload == NULL && size == 0);
    CHECK(entry.flags == VEV_APPEND_SYNC && entry.kind == 77);
    vev_event_id(ev, "");
    vev_event_time(ev, -1);
    vev_event_device(ev, "");
    vev_event_data_str(ev, "nonsense", "x");
    vev_event_data_int(ev, "nonsense", 1);
    vev_event_meta_str(ev, "?", "x");
    vev_event_meta_int(ev, "?", 1);
    vev_event_meta_num(ev, "?", NAN);
    vev_event_meta_bool(ev, "?", 1);
    vev_event_display_image(ev, 7);
    vev_event_image_begin(ev, "\xff");
    vev_event_image_frame(ev, 0, NULL, 0);
    vev_event_image_input_frame(ev, 0, NULL, 0);
    vev_event_image_source(ev, "");
    vev_event_image_input_source(ev, "");
    vev_event_detection(ev, NULL, NAN, NAN, NAN, NAN, NAN);
    vev_event_classification(ev, NULL, NAN);
    vev_event_segmentation(ev, NULL, NAN, NAN, NAN, NAN, NAN, NULL, 0);
    vev_event_keypoints(ev, NULL, NAN, NAN, NAN, NAN, NAN, NULL, 0);
    vev_event_image_end(ev);
    CHECK_STR(vev_event_error(ev), sentence);
    CHECK_INT(vev_event_finish(ev, &payload, &size, NULL), VEV_E_INVALID);
}

/* `unit`, `count` times. free() it. */
static char *repeat(const char *unit, size_t count)
{
    size_t unit_size = strlen(unit);
    char *text = malloc(unit_size * count + 1);
    CHECK(text != NULL);
    for (size_t i = 0; i < count; i++)
        memcpy(text + i * unit_size, unit, unit_size);
    text[unit_size * count] = '\0';
    return text;
}

/* ---- bytes ---- */

/* An event with every sort of field. Its bytes were made by vevents.codec.encode(). */
static const char full_hex[] =
    "8aa96576656e7454797065ad7175616c6974795f636865636ba9757365436173654964aa"
    "70726573732d6c696e65a76576656e744964a56576742d31a86465766963654964a56361"
    "6d2d31a873747265616d4964a173aa776f726b666c6f774964a177a96576656e74446174"
    "6182a6726573756c74a46661696caa65787465726e616c4964a56c6f742d37ae63757374"
    "6f6d4d6574616461746184a46c696e65a25033a3726f77fca477656172cb3fd7ae147ae1"
    "47aea26f6bc3b4646973706c6179496d616765506f736974696f6e00a6696d6167657391"
    "87a56c6162656ca3746f70a56672616d659307c410000102030405060708090a0b0c0d0e"
    "0fce00011170ad696e707574536f757263654964a476652d39b06f626a65637444657465"
    "6374696f6e739196a462757272ca444b2000cd01932516ca3f69ba5eaf636c6173736966"
    "69636174696f6e739192a362616401b5696e7374616e63655365676d656e746174696f6e"
    "739197a464656e7401020304ca3f00000096ca3f000000010203ca4b800001fba96b6579"
    "706f696e74739197a361726d010203040093ffca3e80000008";
enum { FULL_SIZE = (sizeof full_hex - 1) / 2 };

static const uint8_t *full_bytes(void)
{
    static uint8_t bytes[FULL_SIZE];
    for (size_t i = 0; i < FULL_SIZE; i++) {
        char digits[3] = {full_hex[2 * i], full_hex[2 * i + 1], '\0'};
        bytes[i] = (uint8_t)strtoul(digits, NULL, 16);
    }
    return bytes;
}

/* The calls behind it, as steps that need no order among themselves. */
enum { EVENT_STEP_COUNT = 7, IMAGE_STEP_COUNT = 6 };

static void event_step(vev_event *ev, size_t step)
{
    switch (step) {
    case 0: vev_event_id(ev, "evt-1"); break;
    case 1: vev_event_device(ev, "cam-1"); break;
    case 2: vev_event_stream(ev, "s"); break;
    case 3: vev_event_workflow(ev, "w"); break;
    case 4:
        vev_event_data_str(ev, "result", "fail");
        vev_event_data_str(ev, "externalId", "lot-7");
        break;
    case 5:
        vev_event_meta_str(ev, "line", "P3");
        vev_event_meta_int(ev, "row", -4);
        vev_event_meta_num(ev, "wear", 0.37);
        vev_event_meta_bool(ev, "ok", 1);
        break;
    default: vev_event_display_image(ev, 0);
    }
}

static void image_step(vev_event *ev, size_t step)
{
    static const float points[] = {0.5f, 1, 2, 3, 16777218, -5};
    static const vev_keypoint keypoints[] = {{-1, 0.25f, 8}};
    switch (step) {
    case 0: vev_event_image_frame(ev, 7, digest, 70000); break;
    case 1: vev_event_image_input_source(ev, "ve-9"); break;
    case 2: vev_event_detection(ev, "burr", 812.5, 403, 37, 22, 0.913); break;
    case 3: vev_event_classification(ev, "bad", 1); break;
    case 4: vev_event_segmentation(ev, "dent", 1, 2, 3, 4, 0.5, points, 3); break;
    default: vev_event_keypoints(ev, "arm", 1, 2, 3, 4, 0, keypoints, 1);
    }
}

static void build_full(vev_event *ev, void *out, size_t out_size)
{
    vev_event_begin(ev, out, out_size, VEV_KIND_QUALITY_CHECK, "press-line");
    for (size_t i = 0; i < EVENT_STEP_COUNT; i++)
        event_step(ev, i);
    vev_event_image_begin(ev, "top");
    for (size_t i = 0; i < IMAGE_STEP_COUNT; i++)
        image_step(ev, i);
    vev_event_image_end(ev);
}

static void bytes_are_those_of_the_format(void)
{
    vev_event ev;
    const void *payload;
    size_t size;
    build_full(&ev, buffer, sizeof buffer);
    CHECK_INT(vev_event_finish(&ev, &payload, &size, NULL), VEV_OK);
    CHECK(payload == buffer);
    CHECK_BYTES(payload, size, full_bytes(), FULL_SIZE);
}

static void shuffle(uint64_t *state, size_t *items, size_t count)
{
    for (size_t i = 0; i < count; i++)
        items[i] = i;
    for (size_t i = count; i > 1; i--) {
        size_t j = test_random_below(state, i), item = items[j];
        items[j] = items[i - 1];
        items[i - 1] = item;
    }
}

/* Whatever the order of the calls, the bytes are the same: also when the event is told more about
 * itself in the middle of an image. */
static void order_of_calls_does_not_show(void)
{
    uint64_t state = 1;
    for (int round = 0; round < 2000; round++) {
        size_t events[EVENT_STEP_COUNT], images[IMAGE_STEP_COUNT];
        shuffle(&state, events, EVENT_STEP_COUNT);
        shuffle(&state, images, IMAGE_STEP_COUNT);
        size_t e = 0, i = 0; /* i counts begin, the steps of the image, and end */
        vev_event ev;
        vev_event_begin(&ev, buffer, sizeof buffer, VEV_KIND_QUALITY_CHECK, "press-line");
        while (e < EVENT_STEP_COUNT || i < IMAGE_STEP_COUNT + 2) {
            bool event_next = i == IMAGE_STEP_COUNT + 2 ||
                              (e < EVENT_STEP_COUNT && test_random_below(&state, 2) == 0);
            if (event_next)
                event_step(&ev, events[e++]);
            else if (i == 0)
                vev_event_image_begin(&ev, "top"), i++;
            else if (i == IMAGE_STEP_COUNT + 1)
                vev_event_image_end(&ev), i++;
            else
                image_step(&ev, images[i++ - 1]);
        }
        const void *payload;
        size_t size;
        CHECK_INT(vev_event_finish(&ev, &payload, &size, NULL), VEV_OK);
        CHECK_BYTES(payload, size, full_bytes(), FULL_SIZE);
    }
}

/* Into a buffer of any smaller size: too big, nothing behind the buffer touched. */
static void too_small_a_buffer(void)
{
    for (size_t cap = 0; cap <= FULL_SIZE; cap++) {
        char *exact = malloc(cap != 0 ? cap : 1);
        vev_event ev;
        const void *payload;
        size_t size;
        build_full(&ev, exact, cap);
        vev_status status = vev_event_finish(&ev, &payload, &size, NULL);
        if (cap == FULL_SIZE) {
            CHECK_INT(status, VEV_OK);
            CHECK_BYTES(payload, size, full_bytes(), FULL_SIZE);
        } else {
            char sentence[80];
            snprintf(sentence, sizeof sentence, "event: does not fit into the buffer of %zu bytes",
                     cap);
            CHECK_INT(status, VEV_E_TOO_BIG);
            CHECK_STR(vev_event_error(&ev), sentence);
            CHECK(payload == NULL && size == 0);
        }
        free(exact);
    }
    vev_event ev;
    vev_event_begin(&ev, NULL, 0, VEV_KIND_CUSTOM, NULL);
    CHECK(*vev_event_error(&ev) != '\0');
}

/* The same where headers grow, and out of order, so that bytes move. */
static void too_small_a_buffer_for_lists(void)
{
    size_t whole = 0;
    for (size_t cap = 2000; cap-- > 0;) {
        char *exact = malloc(cap != 0 ? cap : 1);
        vev_event ev;
        const void *payload;
        size_t size;
        vev_event_begin(&ev, exact, cap, VEV_KIND_CUSTOM, NULL);
        for (int i = 0; i < 17; i++) {
            char key[16];
            vev_event_image_begin(&ev, NULL);
            for (int n = 0; n < 17 && i == 16; n++)
                vev_event_detection(&ev, "c", n, 0, 0.5, 0, 0);
            vev_event_classification(&ev, "c", 1);
            vev_event_image_end(&ev);
            snprintf(key, sizeof key, "k%d", i);
            vev_event_meta_int(&ev, key, i);
        }
        vev_event_data_str(&ev, "value", "v");
        vev_status status = vev_event_finish(&ev, &payload, &size, NULL);
        if (status == VEV_OK)
            whole = size;
        else
            CHECK_INT(status, VEV_E_TOO_BIG);
        CHECK((status == VEV_OK) == (cap >= whole));
        free(exact);
    }
    CHECK(whole > 500);
}

/* The smallest event, and that a struct can be used again after anything. */
static void a_struct_is_used_again(void)
{
    static const char smallest[] = "\x82\xa9"
                                   "eventType\xa6"
                                   "custom\xa9"
                                   "eventData\x81\xa5"
                                   "value\xa0";
    vev_event ev;
    const void *payload;
    size_t size;
    memset(&ev, 0xab, sizeof ev);
    for (int round = 0; round < 3; round++) {
        vev_event_begin(&ev, buffer, sizeof buffer, VEV_KIND_CUSTOM, NULL);
        vev_event_data_str(&ev, "value", "");
        CHECK_INT(vev_event_finish(&ev, &payload, &size, NULL), VEV_OK);
        CHECK_BYTES(payload, size, smallest, sizeof smallest - 1);
        vev_event_data_str(&ev, "value", "again");
        check_bad(&ev, "eventData.value: is given twice");
        build_full(&ev, buffer, sizeof buffer);
        CHECK_INT(check_good(&ev), FULL_SIZE);
    }
}

static void more_can_be_added_after_finish(void)
{
    vev_event once, twice;
    const void *payload;
    size_t size;
    static char other[1000];
    begin_custom(&twice);
    check_good(&twice);
    vev_event_stream(&twice, "s");
    vev_event_begin(&once, other, sizeof other, VEV_KIND_CUSTOM, NULL);
    vev_event_stream(&once, "s");
    vev_event_data_str(&once, "value", "v");
    CHECK_INT(vev_event_finish(&once, &payload, &size, NULL), VEV_OK);
    CHECK_INT(check_good(&twice), size);
    CHECK_BYTES(buffer, size, payload, size);
}

/* NULL for a value is the same as no call. */
static void null_leaves_a_field_out(void)
{
    static char other[1000];
    vev_event ev, plain;
    begin_custom(&ev);
    vev_event_id(&ev, NULL);
    vev_event_device(&ev, NULL);
    vev_event_stream(&ev, NULL);
    vev_event_workflow(&ev, NULL);
    vev_event_data_str(&ev, "externalId", NULL);
    vev_event_meta_str(&ev, "key", NULL);
    vev_event_image_begin(&ev, NULL);
    vev_event_image_source(&ev, NULL);
    vev_event_image_input_source(&ev, NULL);
    vev_event_image_end(&ev);
    size_t size = check_good(&ev);
    vev_event_begin(&plain, other, sizeof other, VEV_KIND_CUSTOM, NULL);
    vev_event_data_str(&plain, "value", "v");
    vev_event_image_begin(&plain, NULL);
    vev_event_image_end(&plain);
    CHECK_INT(check_good(&plain), size);
    CHECK_BYTES(buffer, size, other, size);
}

/* ---- numbers ---- */

/* How a number is written: as the x of the last detection, between its class and four numbers. */
static void check_number(double v, const void *expected, size_t expected_size)
{
    vev_event ev;
    begin_custom(&ev);
    vev_event_image_begin(&ev, NULL);
    vev_event_detection(&ev, "c", v, 1, 0, 0, 0);
    vev_event_image_end(&ev);
    size_t size = check_good(&ev);
    static const uint8_t tail[] = {1, 0, 0, 0};
    CHECK(size > expected_size + sizeof tail + 2);
    CHECK_BYTES(buffer + size - sizeof tail, sizeof tail, tail, sizeof tail);
    CHECK_BYTES(buffer + size - sizeof tail - expected_size, expected_size, expected,
                expected_size);
    CHECK_BYTES(buffer + size - sizeof tail - expected_size - 2, 2,
                "\xa1"
                "c",
                2);
}
#define NUMBER(v, bytes) check_number(v, bytes, sizeof(bytes) - 1)

static void numbers_are_integers_or_floats(void)
{
    NUMBER(0, "\0");
    NUMBER(-0.0, "\0");
    NUMBER(127, "\x7f");
    NUMBER(128, "\xcc\x80");
    NUMBER(-32, "\xe0");
    NUMBER(-33, "\xd0\xdf");
    NUMBER(16777216, "\xce\1\0\0\0");
    NUMBER(-16777216, "\xd2\xff\0\0\0");
    NUMBER(16777217, "\xca\x4b\x80\0\0"); /* rounds to even */
    NUMBER(16777218, "\xca\x4b\x80\0\1");
    NUMBER(0.5, "\xca\x3f\0\0\0");
    NUMBER(0.1, "\xca\x3d\xcc\xcc\xcd");
    NUMBER(0.99999999999, "\xca\x3f\x80\0\0");
    NUMBER(1e-50, "\xca\0\0\0\0");
    NUMBER(-1e-50, "\xca\x80\0\0\0");
    NUMBER(3.4028234663852886e38, "\xca\x7f\x7f\xff\xff");
    NUMBER(-3.4028235e38, "\xca\xff\x7f\xff\xff");
    NUMBER((double)0.913f, "\xca\x3f\x69\xba\x5e");
    NUMBER(0.913, "\xca\x3f\x69\xba\x5e");
}

/* ---- headers that grow ---- */

/* Any number of annotations, given first or last: a header of one byte becomes one of three. */
static void lists_of_any_length(void)
{
    static const unsigned counts[] = {1, 14, 15, 16, 17, 255, 256, 999, 1000};
    static char other[BUFFER_SIZE];
    for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
        vev_event ev, late;
        begin_custom(&ev);
        vev_event_image_begin(&ev, "l");
        for (unsigned i = 0; i < counts[c]; i++)
            vev_event_detection(&ev, "class", i, 2 * i, 3, 4, 0.25);
        for (unsigned i = 0; i < counts[c]; i++)
            vev_event_classification(&ev, "other", 0.5);
        vev_event_image_end(&ev);
        size_t size = check_good(&ev);
        const uint8_t fix[] = {(uint8_t)(0x90 | counts[c])};
        const uint8_t wide[] = {0xdc, (uint8_t)(counts[c] >> 8), (uint8_t)counts[c]};
        const char *list = memmem(buffer, size, "objectDetections", 16);
        CHECK(list != NULL);
        if (counts[c] < 16)
            CHECK_BYTES(list + 16, 1, fix, 1);
        else
            CHECK_BYTES(list + 16, 3, wide, 3);

        vev_event_begin(&late, other, sizeof other, VEV_KIND_CUSTOM, NULL);
        vev_event_image_begin(&late, "l");
        for (unsigned i = 0; i < counts[c]; i++) {
            vev_event_classification(&late, "other", 0.5);
            vev_event_detection(&late, "class", i, 2 * i, 3, 4, 0.25);
        }
        vev_event_image_end(&late);
        vev_event_data_str(&late, "value", "v");
        CHECK_INT(check_good(&late), size);
        CHECK_BYTES(other, size, buffer, size);
    }
}

static void images_of_any_number(void)
{
    static char other[BUFFER_SIZE];
    vev_event ev, late;
    const void *payload;
    for (unsigned count = 1; count <= 40; count++) {
        begin_custom(&ev);
        vev_event_display_image(&ev, count - 1);
        vev_event_begin(&late, other, sizeof other, VEV_KIND_CUSTOM, NULL);
        for (unsigned i = 0; i < count; i++) {
            vev_event_image_begin(&ev, "label");
            vev_event_detection(&ev, "c", i, 0, 0, 0, 0);
            vev_event_image_end(&ev);
            vev_event_image_begin(&late, "label");
            vev_event_detection(&late, "c", i, 0, 0, 0, 0);
            vev_event_image_end(&late);
        }
        vev_event_display_image(&late, count - 1);
        vev_event_data_str(&late, "value", "v");
        size_t size, late_size;
        CHECK_INT(vev_event_finish(&ev, &payload, &size, NULL), VEV_OK);
        CHECK_INT(vev_event_finish(&late, &payload, &late_size, NULL), VEV_OK);
        CHECK_BYTES(other, late_size, buffer, size);
        CHECK_INT(vev_msgpack_validate(buffer, size), VEV_OK);
    }
}

static void images_up_to_what_the_header_counts(void)
{
    static char large[400000];
    vev_event ev;
    vev_event_begin(&ev, large, sizeof large, VEV_KIND_CUSTOM, NULL);
    vev_event_data_str(&ev, "value", "v");
    for (unsigned i = 0; i < 65535; i++) {
        vev_event_image_begin(&ev, NULL);
        vev_event_image_end(&ev);
    }
    check_good(&ev);
    vev_event_image_begin(&ev, NULL);
    check_bad(&ev, "images: must have at most 65535 entries");
}

static void metadata_up_to_its_limit(void)
{
    vev_event ev;
    char key[16];
    begin_custom(&ev);
    for (int i = 0; i < 100; i++) {
        snprintf(key, sizeof key, "key %d", i);
        vev_event_meta_int(&ev, key, i);
        check_good(&ev);
    }
    vev_event_meta_int(&ev, "one more", 1);
    check_bad(&ev, "customMetadata: must have at most 100 keys");
}

static void metadata_keys_differ(void)
{
    vev_event ev;
    char *long_key = repeat("k", 100);
    for (int fill = 0; fill < 40; fill++) { /* the same with every width of the header */
        begin_custom(&ev);
        for (int i = 0; i < fill; i++) {
            char key[16];
            snprintf(key, sizeof key, "f%d", i);
            vev_event_meta_num(&ev, key, i);
        }
        vev_event_meta_str(&ev, "a", "b"); /* a value is no key */
        vev_event_meta_str(&ev, "b", "a");
        vev_event_meta_str(&ev, "ab", "a");
        vev_event_meta_bool(&ev, long_key, 0);
        check_good(&ev);
        vev_event again = ev;
        vev_event_meta_int(&again, "b", 1);
        check_bad(&again, "customMetadata.b: is given twice");
        vev_event_meta_int(&ev, long_key, 1);
        CHECK(strstr(vev_event_error(&ev), "kkk: is given twice") != NULL);
    }
    free(long_key);
}

/* ---- limits ---- */

/* An id: 1 to 256 characters, which are not bytes. */
static void check_id(void (*set)(vev_event *, const char *), const char *field)
{
    static const char *const units[] = {"x", "\xc3\xa4", "\xf0\x9f\x90\x9b"};
    char sentence[100];
    vev_event ev;
    for (size_t u = 0; u < 3; u++) {
        char *fits = repeat(units[u], 256), *too_long = repeat(units[u], 257);
        begin_custom(&ev);
        set(&ev, fits);
        check_good(&ev);
        set(&ev, "x");
        snprintf(sentence, sizeof sentence, "%s: is given twice", field);
        check_bad(&ev, sentence);
        begin_custom(&ev);
        set(&ev, too_long);
        snprintf(sentence, sizeof sentence, "%s: must have at most 256 characters, has 257", field);
        check_bad(&ev, sentence);
        free(fits);
        free(too_long);
    }
    begin_custom(&ev);
    set(&ev, "");
    snprintf(sentence, sizeof sentence, "%s: must not be empty", field);
    check_bad(&ev, sentence);
    begin_custom(&ev);
    set(&ev, "a\xff");
    snprintf(sentence, sizeof sentence, "%s: must be UTF-8", field);
    check_bad(&ev, sentence);
}

static void ids(void)
{
    check_id(vev_event_id, "eventId");
    check_id(vev_event_device, "deviceId");
    check_id(vev_event_stream, "streamId");
    check_id(vev_event_workflow, "workflowId");
    vev_event ev;
    vev_event_begin(&ev, buffer, sizeof buffer, VEV_KIND_CUSTOM, "");
    check_bad(&ev, "useCaseId: must not be empty");
    char *too_long = repeat("u", 257);
    vev_event_begin(&ev, buffer, sizeof buffer, VEV_KIND_CUSTOM, too_long);
    check_bad(&ev, "useCaseId: must have at most 256 characters, has 257");
    free(too_long);
}

static void kinds(void)
{
    vev_event ev;
    for (int kind = 1; kind <= 5; kind++) {
        vev_event_begin(&ev, buffer, sizeof buffer, kind, NULL);
        CHECK_STR(vev_event_error(&ev), "");
    }
    vev_event_begin(&ev, buffer, sizeof buffer, 0, NULL);
    check_bad(&ev, "eventType: must be VEV_KIND_QUALITY_CHECK (1) .. "
                   "VEV_KIND_OPERATOR_FEEDBACK (5), is 0");
    vev_event_begin(&ev, buffer, sizeof buffer, 6, NULL);
    CHECK(*vev_event_error(&ev) != '\0');
    vev_event_begin(&ev, buffer, sizeof buffer, -1, NULL);
    CHECK(*vev_event_error(&ev) != '\0');
}

/* Each field of eventData: a value that is accepted (NULL: the integer 1), one that is not, why. */
static void event_data(void)
{
    enum { QC = 1, IC = 2, SA = 3, CU = 4, OF = 5 };
    char *text_1000 = repeat("\xc3\xa4", 1000), *text_1001 = repeat("\xc3\xa4", 1001);
    char *text_10000 = repeat("\xc3\xa4", 10000), *text_10001 = repeat("\xc3\xa4", 10001);
    char *id_256 = repeat("i", 256), *id_257 = repeat("i", 257);
    const struct {
        int kind;
        const char *key, *good, *bad, *reason;
    } cases[] = {
        {QC, "result", "pass", "Pass", "must be one of pass, fail"},
        {QC, "result", "fail", "", "must be one of pass, fail"},
        {QC, "externalId", text_1000, text_1001, "must have at most 1000 characters, has 1001"},
        {IC, "location", text_10001, "\xff", "must be UTF-8"},
        {IC, "itemType", "", "\xc3", "must be UTF-8"},
        {IC, "itemCount", NULL, "17", "must be an integer, not text"},
        {IC, "externalId", "", text_1001, "must have at most 1000 characters, has 1001"},
        {SA, "alertType", "no_hard-Hat9", "", "must be letters, digits, '_' and '-', at least one"},
        {SA, "alertType", "-", "no hat", "must be letters, digits, '_' and '-', at least one"},
        {SA, "alertType", "z", "\xc3\xa4", "must be letters, digits, '_' and '-', at least one"},
        {SA, "severity", "low", "severe", "must be one of low, medium, high"},
        {SA, "severity", "high", "", "must be one of low, medium, high"},
        {SA, "description", text_10000, text_10001,
         "must have at most 10000 characters, has 10001"},
        {SA, "externalId", "x", "\x80", "must be UTF-8"},
        {CU, "value", text_10000, text_10001, "must have at most 10000 characters, has 10001"},
        {CU, "externalId", "x", text_1001, "must have at most 1000 characters, has 1001"},
        {OF, "relatedEventId", id_256, id_257, "must have at most 256 characters, has 257"},
        {OF, "relatedEventId", "x", "", "must not be empty"},
        {OF, "feedback", "correct", "wrong", "must be one of correct, incorrect, inconclusive"},
        {OF, "feedback", "inconclusive", "", "must be one of correct, incorrect, inconclusive"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        vev_event ev;
        char sentence[160];
        vev_event_begin(&ev, buffer, sizeof buffer, cases[i].kind, NULL);
        if (cases[i].good != NULL)
            vev_event_data_str(&ev, cases[i].key, cases[i].good);
        else
            vev_event_data_int(&ev, cases[i].key, 1);
        CHECK_STR(vev_event_error(&ev), "");
        vev_event again = ev;
        vev_event_data_str(&again, cases[i].key, "x");
        snprintf(sentence, sizeof sentence, "eventData.%s: is given twice", cases[i].key);
        check_bad(&again, sentence);

        vev_event_begin(&ev, buffer, sizeof buffer, cases[i].kind, NULL);
        vev_event_data_str(&ev, cases[i].key, cases[i].bad);
        snprintf(sentence, sizeof sentence, "eventData.%s: %s", cases[i].key, cases[i].reason);
        check_bad(&ev, sentence);

        if (cases[i].good != NULL) {
            vev_event_begin(&ev, buffer, sizeof buffer, cases[i].kind, NULL);
            vev_event_data_int(&ev, cases[i].key, 1);
            snprintf(sentence, sizeof sentence, "eventData.%s: must be text, not an integer",
                     cases[i].key);
            check_bad(&ev, sentence);
        }
        vev_event_begin(&ev, buffer, sizeof buffer, cases[i].kind % 5 + 1, NULL);
        vev_event_data_str(&ev, cases[i].key, cases[i].good != NULL ? cases[i].good : "x");
        if (strcmp(cases[i].key, "externalId") != 0)
            CHECK(strstr(vev_event_error(&ev), ": is no key of ") != NULL);
    }
    free(text_1000), free(text_1001), free(text_10000), free(text_10001);
    free(id_256), free(id_257);
}

static void event_data_of_other_types(void)
{
    vev_event ev;
    vev_event_begin(&ev, buffer, sizeof buffer, VEV_KIND_OPERATOR_FEEDBACK, NULL);
    vev_event_data_str(&ev, "externalId", "x");
    check_bad(&ev, "eventData.externalId: is no key of operator_feedback");
    begin_custom(&ev);
    vev_event_data_str(&ev, "", "x");
    check_bad(&ev, "eventData.?: is no key of custom");
    begin_custom(&ev);
    vev_event_data_str(&ev, NULL, "x");
    check_bad(&ev, "eventData: a key must not be NULL");
    begin_custom(&ev);
    vev_event_data_int(&ev, "itemCount", 1);
    check_bad(&ev, "eventData.itemCount: is no key of custom");
}

static void what_a_type_needs(void)
{
    static const char *const missing[] = {
        [VEV_KIND_QUALITY_CHECK] = "eventData.result: is missing",
        [VEV_KIND_INVENTORY_COUNT] = "eventData.itemCount: is missing",
        [VEV_KIND_SAFETY_ALERT] = "eventData.alertType: is missing",
        [VEV_KIND_CUSTOM] = "eventData.value: is missing",
        [VEV_KIND_OPERATOR_FEEDBACK] = "eventData.relatedEventId: is missing",
    };
    vev_event ev;
    for (int kind = 1; kind <= 5; kind++) {
        vev_event_begin(&ev, buffer, sizeof buffer, kind, "u");
        check_bad(&ev, missing[kind]);
    }
    vev_event_begin(&ev, buffer, sizeof buffer, VEV_KIND_OPERATOR_FEEDBACK, NULL);
    vev_event_data_str(&ev, "relatedEventId", "x");
    check_bad(&ev, "eventData.feedback: is missing");
    vev_event_begin(&ev, buffer, sizeof buffer, VEV_KIND_INVENTORY_COUNT, NULL);
    vev_event_data_int(&ev, "itemCount", INT64_MIN);
    check_good(&ev);
}

static void metadata(void)
{
    static const char key_rule[] =
        "customMetadata: a key must have 1 to 100 letters, digits, '_', '-' or spaces";
    static const char *const bad_keys[] = {"", "a.b", "\xc3\xa4", "a/b", "a\n", NULL};
    char *key_100 = repeat("Z", 100), *key_101 = repeat("Z", 101);
    char *text_1000 = repeat("\xe2\x82\xac", 1000), *text_1001 = repeat("\xe2\x82\xac", 1001);
    vev_event ev;
    for (size_t i = 0; i < sizeof bad_keys / sizeof bad_keys[0]; i++) {
        begin_custom(&ev);
        vev_event_meta_int(&ev, bad_keys[i], 1);
        check_bad(&ev, key_rule);
    }
    begin_custom(&ev);
    vev_event_meta_bool(&ev, key_101, 1);
    check_bad(&ev, key_rule);

    begin_custom(&ev);
    vev_event_meta_str(&ev, key_100, text_1000);
    vev_event_meta_str(&ev, " ", "");
    vev_event_meta_int(&ev, "a Z_9-", INT64_MIN);
    vev_event_meta_num(&ev, "n", -1.7976931348623157e308);
    check_good(&ev);
    vev_event_meta_str(&ev, "long", text_1001);
    check_bad(&ev, "customMetadata.long: must have at most 1000 characters, has 1001");

    const double not_finite[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++) {
        begin_custom(&ev);
        vev_event_meta_num(&ev, "n", not_finite[i]);
        check_bad(&ev, "customMetadata.n: must be finite");
    }
    begin_custom(&ev);
    vev_event_meta_str(&ev, "t", "\xed\xa0\x80");
    check_bad(&ev, "customMetadata.t: must be UTF-8");
    free(key_100), free(key_101), free(text_1000), free(text_1001);
}

/* ---- images ---- */

static void begin_image(vev_event *ev)
{
    begin_custom(ev);
    vev_event_image_begin(ev, NULL);
}

static void image_calls_need_an_image(void)
{
    vev_event ev;
    for (size_t step = 0; step < IMAGE_STEP_COUNT; step++) {
        begin_custom(&ev);
        image_step(&ev, step);
        check_bad(&ev, "images: no image has been begun");
        begin_custom(&ev);
        vev_event_image_begin(&ev, NULL);
        vev_event_image_end(&ev);
        image_step(&ev, step);
        check_bad(&ev, "images: no image has been begun");
    }
    begin_custom(&ev);
    vev_event_image_end(&ev);
    check_bad(&ev, "images: no image has been begun");
    begin_image(&ev);
    vev_event_image_begin(&ev, NULL);
    check_bad(&ev, "images[0]: has not been ended");
    begin_image(&ev);
    vev_event_image_end(&ev);
    vev_event_image_begin(&ev, NULL);
    check_bad(&ev, "images[1]: has not been ended");
}

static void display_position(void)
{
    vev_event ev;
    begin_custom(&ev);
    vev_event_display_image(&ev, 0);
    check_bad(&ev, "displayImagePosition: is 0, but there are 0 images");
    begin_image(&ev);
    vev_event_image_end(&ev);
    vev_event_display_image(&ev, 1);
    check_bad(&ev, "displayImagePosition: is 1, but there are 1 images");
    begin_image(&ev);
    vev_event_image_end(&ev);
    vev_event_display_image(&ev, 0);
    check_good(&ev);
    vev_event_display_image(&ev, 0);
    check_bad(&ev, "displayImagePosition: is given twice");
}

static void frames_and_sources(void)
{
    vev_event ev;
    begin_image(&ev);
    vev_event_image_frame(&ev, UINT64_MAX, digest, UINT64_MAX);
    vev_event_image_input_frame(&ev, 1, digest, 1);
    vev_event_image_end(&ev);
    check_good(&ev);

    static const char rule[] =
        "images[0].frame: must have a sequence number and a size from 1 on, and a digest";
    begin_image(&ev);
    vev_event_image_frame(&ev, 0, digest, 1);
    check_bad(&ev, rule);
    begin_image(&ev);
    vev_event_image_frame(&ev, 1, digest, 0);
    check_bad(&ev, rule);
    begin_image(&ev);
    vev_event_image_frame(&ev, 1, NULL, 1);
    check_bad(&ev, rule);
    begin_image(&ev);
    vev_event_image_frame(&ev, 1, digest, 1);
    vev_event_image_frame(&ev, 1, digest, 1);
    check_bad(&ev, "images[0].frame: is given twice");
    begin_image(&ev);
    vev_event_image_source(&ev, "");
    check_bad(&ev, "images[0].sourceId: must not be empty");
    begin_image(&ev);
    vev_event_image_frame(&ev, 1, digest, 1);
    vev_event_image_source(&ev, "s");
    check_bad(&ev, "images[0].sourceId: excludes a frame; give one");
    begin_image(&ev);
    vev_event_image_input_source(&ev, "s");
    vev_event_image_input_frame(&ev, 1, digest, 1);
    check_bad(&ev, "images[0].inputSourceId: excludes a frame; give one");
    begin_image(&ev);
    vev_event_image_source(&ev, "s");
    vev_event_image_input_frame(&ev, 1, digest, 1);
    vev_event_image_end(&ev);
    vev_event_image_begin(&ev, "\xff");
    check_bad(&ev, "images[1].label: must be UTF-8");
}

static void annotations(void)
{
    static const float square[] = {0, 0, 1, 0, 1, 1, 0, 1};
    static const float open_square[] = {0, 0, 1, (float)NAN, 1, 1};
    static const vev_keypoint far_away[] = {{INT64_MIN, 0, 0}, {INT64_MAX, 0, (float)INFINITY}};
    static const double too_far[] = {NAN, INFINITY, -INFINITY, 3.4028236e38, -3.4028236e38};
    vev_event ev;
    for (size_t i = 0; i < sizeof too_far / sizeof too_far[0]; i++) {
        begin_image(&ev);
        vev_event_detection(&ev, "c", 0, 0, 0, 0, 0);
        vev_event_detection(&ev, "c", too_far[i], 0, 0, 0, 0);
        check_bad(&ev, "images[0].objectDetections[1].x: must be a finite float");
        begin_image(&ev);
        vev_event_segmentation(&ev, "c", 0, too_far[i], 0, 0, 0, square, 4);
        check_bad(&ev, "images[0].instanceSegmentations[0].y: must be a finite float");
        begin_image(&ev);
        vev_event_keypoints(&ev, "c", 0, 0, too_far[i], 0, 0, NULL, 0);
        check_bad(&ev, "images[0].keypoints[0].width: must be a finite float, 0 or more");
        begin_image(&ev);
        vev_event_detection(&ev, "c", 0, 0, 0, too_far[i], 0);
        check_bad(&ev, "images[0].objectDetections[0].height: must be a finite float, 0 or more");
        begin_image(&ev);
        vev_event_classification(&ev, "c", too_far[i]);
        check_bad(&ev, "images[0].classifications[0].confidence: must be 0 to 1");
    }
    begin_image(&ev);
    vev_event_detection(&ev, "c", 0, 0, -0.001, 0, 0);
    check_bad(&ev, "images[0].objectDetections[0].width: must be a finite float, 0 or more");
    begin_image(&ev);
    vev_event_detection(&ev, "c", 0, 0, 0, 0, 1.0000001);
    check_bad(&ev, "images[0].objectDetections[0].confidence: must be 0 to 1");
    begin_image(&ev);
    vev_event_detection(&ev, "c", 0, 0, 0, 0, -1e-300);
    check_bad(&ev, "images[0].objectDetections[0].confidence: must be 0 to 1");
    begin_image(&ev);
    vev_event_detection(&ev, "\x80", 0, 0, 0, 0, 0);
    check_bad(&ev, "images[0].objectDetections[0].class: must be UTF-8");
    begin_image(&ev);
    vev_event_classification(&ev, NULL, 0);
    check_bad(&ev, "images[0].classifications[0].class: must not be NULL");
    begin_image(&ev);
    vev_event_segmentation(&ev, "c", 0, 0, 0, 0, 0, square, 2);
    check_bad(&ev, "images[0].instanceSegmentations[0].points: must have at least 3 points");
    begin_image(&ev);
    vev_event_segmentation(&ev, "c", 0, 0, 0, 0, 0, open_square, 3);
    check_bad(&ev, "images[0].instanceSegmentations[0].points: must be a finite float");
    begin_image(&ev);
    vev_event_keypoints(&ev, "c", 0, 0, 0, 0, 0, far_away, 2);
    check_bad(&ev, "images[0].keypoints[0].keypoints: must be a finite float");
    begin_image(&ev);
    vev_event_segmentation(&ev, "c", 0, 0, 0, 0, 0, square, 3);
    vev_event_keypoints(&ev, "c", 0, 0, 0, 0, 0, far_away, 1);
    vev_event_keypoints(&ev, "c", 0, 0, 0, 0, 0, NULL, 0);
    vev_event_detection(&ev, "", -3.4e38, 0, 3.4e38, 0, 1);
    vev_event_image_end(&ev);
    check_good(&ev);
}

/* Arrays give the bytes of the same boxes one by one, also behind others, and from a copy. */
static void boxes_are_detections(void)
{
    enum { COUNT = 40 };
    static const char *const names[] = {"a", "forklift", ""};
    float xyxy[4 * COUNT], confidence[COUNT];
    int64_t class_id[COUNT];
    for (int i = 0; i < COUNT; i++) {
        xyxy[4 * i] = 1.25f * (float)i;
        xyxy[4 * i + 1] = 0.1f * (float)i;
        xyxy[4 * i + 2] = 1.25f * (float)i + 3;
        xyxy[4 * i + 3] = 0.7f * (float)i + 0.5f;
        confidence[i] = (float)i / COUNT;
        class_id[i] = i % 3;
    }
    for (size_t behind = 0; behind < 20; behind += 3) {
        for (size_t count = 0; count <= COUNT; count++) {
            static char one[BUFFER_SIZE], base_buffer[1000];
            vev_event ev, base, copy;
            vev_event_begin(&ev, one, sizeof one, VEV_KIND_CUSTOM, "uc");
            vev_event_data_str(&ev, "value", "v");
            vev_event_image_begin(&ev, "cam");
            for (size_t i = 0; i < count; i++) {
                double left = (double)xyxy[4 * i], top = (double)xyxy[4 * i + 1];
                double right = (double)xyxy[4 * i + 2], bottom = (double)xyxy[4 * i + 3];
                vev_event_detection(&ev, names[class_id[i]], (left + right) / 2, (top + bottom) / 2,
                                    right - left, bottom - top, (double)confidence[i]);
            }
            vev_event_image_end(&ev);
            const void *expected, *actual;
            size_t expected_size, actual_size;
            CHECK_INT(vev_event_finish(&ev, &expected, &expected_size, NULL), VEV_OK);

            vev_event_begin(&base, base_buffer, sizeof base_buffer, VEV_KIND_CUSTOM, "uc");
            vev_event_data_str(&base, "value", "v");
            vev_event_image_begin(&base, "cam");
            vev_event_copy(&copy, buffer, sizeof buffer, &base);
            memset(&base, 0xee, sizeof base);
            memset(base_buffer, 0xee, sizeof base_buffer);
            size_t first = VEV_MIN(behind, count);
            vev_boxes boxes = {xyxy, confidence, class_id, first, names, 3};
            vev_event_boxes(&copy, &boxes);
            boxes = (vev_boxes){
                xyxy + 4 * first, confidence + first, class_id + first, count - first, names, 3};
            vev_event_boxes(&copy, &boxes);
            vev_event_image_end(&copy);
            CHECK_INT(vev_event_finish(&copy, &actual, &actual_size, NULL), VEV_OK);
            CHECK_BYTES(actual, actual_size, expected, expected_size);

            float rows[6 * COUNT];
            for (size_t i = 0; i < count; i++) {
                memcpy(rows + 6 * i, xyxy + 4 * i, 4 * sizeof *rows);
                rows[6 * i + 4] = confidence[i];
                rows[6 * i + 5] = (float)class_id[i];
            }
            vev_event_begin(&ev, buffer, sizeof buffer, VEV_KIND_CUSTOM, "uc");
            vev_event_data_str(&ev, "value", "v");
            vev_event_image_begin(&ev, "cam");
            vev_event_rows(&ev, rows, first, names, 3);
            vev_event_rows(&ev, rows + 6 * first, count - first, names, 3);
            vev_event_image_end(&ev);
            CHECK_INT(vev_event_finish(&ev, &actual, &actual_size, NULL), VEV_OK);
            CHECK_BYTES(actual, actual_size, expected, expected_size);
        }
    }
    vev_event ev;
    begin_custom(&ev);
    vev_boxes boxes = {xyxy, confidence, class_id, 3, names, 2};
    vev_event_boxes(&ev, &boxes);
    check_bad(&ev, "images: no image has been begun");
    begin_custom(&ev);
    vev_event_image_begin(&ev, NULL);
    vev_event_boxes(&ev, &boxes);
    check_bad(&ev, "images[0].objectDetections[2].class: is 2, but there are 2 names");
    static const float no_classes[] = {0.5f, -1, 2, 3e30f, INFINITY, NAN};
    static const char *const reasons[] = {
        "must be a whole number", "is -1, but there are 2 names", "is 2, but there are 2 names",
        "must be a whole number", "must be a whole number",       "must be a whole number"};
    for (size_t i = 0; i < 6; i++) {
        float rows[] = {1, 2, 3, 4, 0.5f, 1, 1, 2, 3, 4, 0.5f, no_classes[i]};
        char expected[100];
        snprintf(expected, sizeof expected, "images[0].objectDetections[1].class: %s", reasons[i]);
        begin_custom(&ev);
        vev_event_image_begin(&ev, NULL);
        vev_event_rows(&ev, rows, 2, names, 2);
        check_bad(&ev, expected);
    }
    class_id[1] = INT64_MIN;
    begin_custom(&ev);
    vev_event_image_begin(&ev, NULL);
    vev_event_boxes(&ev, &boxes);
    check_bad(&ev, "images[0].objectDetections[1].class: is -9223372036854775808, but there are 2 "
                   "names");
    /* A copy of an event with an error, and one into too small a buffer. */
    vev_event copy;
    char small[20];
    vev_event_copy(&copy, small, sizeof small, &ev);
    CHECK_STR(vev_event_error(&copy), vev_event_error(&ev));
    begin_custom(&ev);
    vev_event_copy(&copy, small, sizeof small, &ev);
    CHECK_STR(vev_event_error(&copy), "event: does not fit into the buffer of 20 bytes");
}

static void annotation_lists_have_a_limit(void)
{
    static const char *const names[] = {"objectDetections", "classifications",
                                        "instanceSegmentations", "keypoints"};
    for (size_t list = 0; list < 4; list++) {
        vev_event ev;
        char sentence[100];
        begin_image(&ev);
        for (int i = 0; i <= 1000; i++) {
            if (i == 1000)
                CHECK_STR(vev_event_error(&ev), "");
            image_step(&ev, 2 + list);
        }
        snprintf(sentence, sizeof sentence, "images[0].%s: must have at most 1000 entries",
                 names[list]);
        check_bad(&ev, sentence);
    }
}

/* Counts that no buffer can hold are refused before anything behind the first is read. */
static void absurd_counts(void)
{
    static const size_t counts[] = {SIZE_MAX,   SIZE_MAX / 2 + 1,   SIZE_MAX / 3 + 1,
                                    UINT32_MAX, UINT32_MAX / 2 + 1, UINT32_MAX / 3 + 1,
                                    BUFFER_SIZE};
    static const float points[6];
    static const vev_keypoint keypoints[1];
    const void *payload;
    size_t size;
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        vev_event ev;
        begin_image(&ev);
        vev_event_segmentation(&ev, "c", 0, 0, 0, 0, 0, points, counts[i]);
        CHECK_INT(vev_event_finish(&ev, &payload, &size, NULL), VEV_E_TOO_BIG);
        begin_image(&ev);
        vev_event_keypoints(&ev, "c", 0, 0, 0, 0, 0, keypoints, counts[i]);
        CHECK_INT(vev_event_finish(&ev, &payload, &size, NULL), VEV_E_TOO_BIG);
    }
}

static void a_thousand_points(void)
{
    static float points[2 * 30000];
    vev_event ev;
    for (size_t count = 3; count <= 30000; count = count * 2 + 1) {
        begin_image(&ev);
        vev_event_segmentation(&ev, "c", 0, 0, 0, 0, 0, points, count);
        vev_event_image_end(&ev);
        check_good(&ev);
    }
}

/* ---- what goes with the payload ---- */

static void entry_of(vev_event *ev, vev_entry *entry)
{
    const void *payload;
    size_t size;
    CHECK_INT(vev_event_finish(ev, &payload, &size, entry), VEV_OK);
}

static void an_id_goes_where_it_fits(void)
{
    static const uint8_t uuid[16] = {0x5f, 0x0b, 0x7c, 0x1e, 0x3f, 0x6a, 0x4d, 0x52,
                                     0x9a, 0x3e, 0x0d, 0x8f, 0x2b, 0x6c, 0x41, 0xaa};
    vev_event ev;
    vev_entry entry = {.flags = VEV_APPEND_ID | VEV_APPEND_TIME | VEV_APPEND_SYNC};
    begin_custom(&ev);
    size_t plain_size = check_good(&ev);
    entry_of(&ev, &entry);
    CHECK_INT(entry.flags, VEV_APPEND_SYNC); /* flags of an earlier use are taken back */
    CHECK_INT(entry.kind, VEV_KIND_CUSTOM);

    vev_event_id(&ev, "5f0b7c1e-3f6a-4d52-9a3e-0d8f2b6c41aa");
    CHECK_INT(check_good(&ev), plain_size);
    entry_of(&ev, &entry);
    CHECK_INT(entry.flags, VEV_APPEND_SYNC | VEV_APPEND_ID);
    CHECK_BYTES(entry.id, 16, uuid, 16);
    vev_event_id(&ev, "other");
    check_bad(&ev, "eventId: is given twice");

    static const char *const others[] = {
        "5F0B7C1E-3F6A-4D52-9A3E-0D8F2B6C41AA",  "5f0b7c1e3f6a4d529a3e0d8f2b6c41aa",
        "5f0b7c1e-3f6a-4d52-9a3e-0d8f2b6c41a",   "5f0b7c1e-3f6a-4d52-9a3e-0d8f2b6c41aaa",
        "5f0b7c1e-3f6a-4d52-9a3e-0d8f2b6c41ag",  "5f0b7c1e-3f6a-4d52-9a3e_0d8f2b6c41aa",
        "{5f0b7c1e-3f6a-4d52-9a3e-0d8f2b6c41aa", "evt-001",
    };
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        char *exact = test_copy(others[i], strlen(others[i]) + 1);
        begin_custom(&ev);
        vev_event_id(&ev, exact);
        CHECK_INT(check_good(&ev), plain_size + 8 + strlen(exact) + (strlen(exact) < 32 ? 1 : 2));
        entry_of(&ev, &entry);
        CHECK_INT(entry.flags & VEV_APPEND_ID, 0);
        vev_event_id(&ev, "5f0b7c1e-3f6a-4d52-9a3e-0d8f2b6c41aa");
        check_bad(&ev, "eventId: is given twice");
        free(exact);
    }
}

static void time_of_the_event(void)
{
    vev_event ev;
    vev_entry entry = {0};
    static const int64_t good[] = {0, 1, 1790835249482000000, 9214646399999999999};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        begin_custom(&ev);
        vev_event_time(&ev, good[i]);
        entry_of(&ev, &entry);
        CHECK_INT(entry.flags, VEV_APPEND_TIME);
        CHECK_INT(entry.wall_ns, good[i]);
    }
    vev_event_time(&ev, 1);
    check_bad(&ev, "timestamp: is given twice");
    static const int64_t bad[] = {-1, INT64_MIN, INT64_MAX, 9214646400000000000};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        begin_custom(&ev);
        vev_event_time(&ev, bad[i]);
        check_bad(&ev, "timestamp: must lie in 1970 to 2261");
    }
}

static void frame_digest(void)
{
    static const uint8_t expected[16] = {0xcf, 0x4a, 0xb7, 0x91, 0xc6, 0x2b, 0x8d, 0x2b,
                                         0x21, 0x09, 0xc9, 0x02, 0x75, 0x28, 0x78, 0x16};
    uint8_t got[16];
    vev_frame_digest("abc", 3, got);
    CHECK_BYTES(got, 16, expected, 16);
}

/* Into a real log and back. */
static void appended_and_read_back(void)
{
    char dir[] = "/tmp/vevents-test-event-XXXXXX", log_dir[64];
    CHECK(mkdtemp(dir) != NULL);
    snprintf(log_dir, sizeof log_dir, "%s/log", dir);
    vev_options options;
    vev_options_init(&options);
    options.events_size = options.media_size = options.delivery_size = 1 << 20;
    vev_log *log;
    CHECK_INT(vev_log_open(log_dir, &options, &log), VEV_OK);

    vev_event ev;
    vev_entry entry = {.flags = VEV_APPEND_SYNC | VEV_APPEND_RAW | VEV_APPEND_ID};
    build_full(&ev, buffer, sizeof buffer);
    vev_event_time(&ev, 1790835249482000000);
    CHECK_INT(vev_log_append_event(log, &ev, &entry), VEV_OK);
    CHECK_INT(entry.seq, 1);
    CHECK_INT(vev_log_durable_seq(log, VEV_EVENTS), 1);
    build_full(&ev, buffer, sizeof buffer);
    CHECK_INT(vev_log_append_event(log, &ev, NULL), VEV_OK);
    vev_event_device(&ev, "again");
    CHECK_INT(vev_log_append_event(log, &ev, &entry), VEV_E_INVALID);
    CHECK_STR(vev_event_error(&ev), "deviceId: is given twice");

    vev_record records[4];
    static char back[4096];
    size_t count;
    uint64_t next;
    CHECK_INT(vev_log_read(log, VEV_EVENTS, 0, ~0u, records, 4, back, sizeof back, &count, &next),
              VEV_OK);
    CHECK_INT(count, 2);
    for (size_t i = 0; i < 2; i++) {
        CHECK_INT(records[i].kind, VEV_KIND_QUALITY_CHECK);
        CHECK_BYTES(back + records[i].offset, records[i].size, full_bytes(), FULL_SIZE);
    }
    CHECK_INT(records[0].wall_ns, 1790835249482000000);
    CHECK(records[0].stored_size < FULL_SIZE + 64); /* RAW was not for us to set */
    CHECK(memcmp(records[0].id, records[1].id, 16) != 0);
    vev_log_close(log);

    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    CHECK_INT(system(command), 0);
}

int main(void)
{
    RUN(bytes_are_those_of_the_format);
    RUN(order_of_calls_does_not_show);
    RUN(too_small_a_buffer);
    RUN(too_small_a_buffer_for_lists);
    RUN(a_struct_is_used_again);
    RUN(more_can_be_added_after_finish);
    RUN(null_leaves_a_field_out);
    RUN(numbers_are_integers_or_floats);
    RUN(lists_of_any_length);
    RUN(images_of_any_number);
    RUN(images_up_to_what_the_header_counts);
    RUN(metadata_up_to_its_limit);
    RUN(metadata_keys_differ);
    RUN(ids);
    RUN(kinds);
    RUN(event_data);
    RUN(event_data_of_other_types);
    RUN(what_a_type_needs);
    RUN(metadata);
    RUN(image_calls_need_an_image);
    RUN(display_position);
    RUN(frames_and_sources);
    RUN(annotations);
    RUN(boxes_are_detections);
    RUN(annotation_lists_have_a_limit);
    RUN(absurd_counts);
    RUN(a_thousand_points);
    RUN(an_id_goes_where_it_fits);
    RUN(time_of_the_event);
    RUN(frame_digest);
    RUN(appended_and_read_back);
    return 0;
}
