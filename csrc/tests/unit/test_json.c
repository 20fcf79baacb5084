#include "vev_json.h"

#include <stdlib.h>

#include "vev_base.h"
#include "vev_contract.h"
#include "vev_test.h"
#include "vevents/event.h"

enum { BUFFER_SIZE = 20000 };
static char buffer[BUFFER_SIZE];
static const uint8_t id[16] = {0x5f, 0x0b, 0x7c, 0x1e, 0x3f, 0x6a, 0x4d, 0x52,
                               0x9a, 0x3e, 0x0d, 0x8f, 0x2b, 0x6c, 0x41, 0xaa};
static const vev_json_record record = {id, 1790000000123456789, "uc", 2};

/* Write an event into a heap block of exactly its size, so that a look beyond it is seen. */
static uint8_t *finish(vev_event *ev, size_t *size)
{
    const void *payload;
    CHECK_INT(vev_event_finish(ev, &payload, size, NULL), VEV_OK);
    uint8_t *copy = malloc(*size);
    CHECK(copy != NULL);
    memcpy(copy, payload, *size);
    return copy;
}

static uint8_t *rich_event(size_t *size)
{
    vev_event ev;
    const float points[6] = {1, 2, 3.5f, 4, 5, 6};
    const vev_keypoint skeleton[2] = {{0, 1.5f, 2}, {7, -3, 0.1f}};
    vev_event_begin(&ev, buffer, sizeof buffer, VEV_KIND_SAFETY_ALERT, "line \"7\"\n\x01");
    vev_event_device(&ev, "press-03");
    vev_event_data_str(&ev, "alertType", "no_helmet");
    vev_event_data_str(&ev, "severity", "high");
    vev_event_meta_num(&ev, "temperature", 21.7);
    vev_event_meta_int(&ev, "shift", -2);
    vev_event_meta_bool(&ev, "night", 1);
    vev_event_meta_str(&ev, "who", "J\xc3\xb6rg");
    vev_event_display_image(&ev, 0);
    vev_event_image_begin(&ev, "top");
    vev_event_image_source(&ev, "src1");
    vev_event_detection(&ev, "burr", 812.5, 403, 37.25, 1e-5f, 0.913f);
    vev_event_classification(&ev, "bad", 1);
    vev_event_segmentation(&ev, "hole", 1, 2, 3, 4, 0.5, points, 3);
    vev_event_keypoints(&ev, "person", 1e20f, -0.25, 3, 4, 0.25, skeleton, 2);
    vev_event_image_end(&ev);
    return finish(&ev, size);
}

static void test_event(void)
{
    char out[4096];
    size_t size;
    uint8_t *payload = rich_event(&size);
    int64_t written = vev_json_event(payload, size, &record, out, sizeof out - 1);
    CHECK(written > 0);
    out[written] = '\0';
    CHECK_STR(out,
              "{\"eventId\":\"5f0b7c1e-3f6a-4d52-9a3e-0d8f2b6c41aa\",\"eventType\":"
              "\"safety_alert\",\"useCaseId\":\"line \\\"7\\\"\\n\\u0001\",\"timestamp\":"
              "\"2026-09-21T14:13:20.123456+00:00\",\"deviceId\":\"press-03\",\"images\":[{"
              "\"sourceId\":\"src1\",\"label\":\"top\",\"objectDetections\":[{\"class\":\"burr\","
              "\"x\":812.5,\"y\":403,\"width\":37.25,\"height\":1e-05,\"confidence\":0.913}],"
              "\"classifications\":[{\"class\":\"bad\",\"confidence\":1}],"
              "\"instanceSegmentations\":[{\"class\":\"hole\",\"x\":1,\"y\":2,\"width\":3,"
              "\"height\":4,\"confidence\":0.5,\"points\":[[1,2],[3.5,4],[5,6]]}],"
              "\"keypoints\":[{\"class\":\"person\",\"x\":1e+20,\"y\":-0.25,\"width\":3,"
              "\"height\":4,\"confidence\":0.25,\"keypoints\":[{\"id\":0,\"x\":1.5,\"y\":2},{"
              "\"id\":7,\"x\":-3,\"y\":0.1}]}]}],\"displayImagePosition\":0,\"eventData\":{"
              "\"alertType\":\"no_helmet\",\"severity\":\"high\"},\"customMetadata\":{"
              "\"temperature\":21.7,\"shift\":-2,\"night\":true,\"who\":\"J\xc3\xb6rg\"}}");
    /* It fits, or nothing is said to have been written. */
    CHECK_INT(vev_json_event(payload, size, &record, out, (size_t)written), written);
    CHECK_INT(vev_json_event(payload, size, &record, out, (size_t)written - 1), 0);
    CHECK_INT(vev_json_event(payload, size, &record, NULL, 0), 0);
    free(payload);
}

static void test_default_use_case(void)
{
    char out[1024];
    size_t size;
    vev_event ev;
    vev_event_begin(&ev, buffer, sizeof buffer, VEV_KIND_CUSTOM, NULL);
    vev_event_id(&ev, "evt-1");
    vev_event_data_str(&ev, "value", "v");
    uint8_t *payload = finish(&ev, &size);
    int64_t written = vev_json_event(payload, size, &record, out, sizeof out - 1);
    CHECK(written < 0);
    out[-written] = '\0';
    CHECK_STR(out, "{\"eventId\":\"evt-1\",\"eventType\":\"custom\",\"useCaseId\":\"uc\","
                   "\"timestamp\":\"2026-09-21T14:13:20.123456+00:00\",\"eventData\":{"
                   "\"value\":\"v\"}}");
    const vev_json_record without = {id, 0, NULL, 0};
    CHECK_INT(vev_json_event(payload, size, &without, out, sizeof out), 0);
    free(payload);
}

static void test_frames_are_left_alone(void)
{
    char out[1024];
    size_t size;
    vev_event ev;
    vev_event_begin(&ev, buffer, sizeof buffer, VEV_KIND_CUSTOM, "uc");
    vev_event_data_str(&ev, "value", "v");
    vev_event_image_begin(&ev, NULL);
    vev_event_image_frame(&ev, 1, id, 1000);
    vev_event_image_end(&ev);
    uint8_t *payload = finish(&ev, &size);
    CHECK_INT(vev_json_event(payload, size, &record, out, sizeof out), 0);
    free(payload);
}

/* Nothing is read beyond the payload, and never more written than the header says. */
static void test_damage(void)
{
    size_t size;
    uint8_t *payload = rich_event(&size);
    size_t cap = 16 * size + 4096;
    char *out = malloc(cap);
    CHECK(out != NULL);
    for (size_t cut = 0; cut < size; cut++) {
        uint8_t *part = malloc(cut != 0 ? cut : 1);
        CHECK(part != NULL);
        memcpy(part, payload, cut);
        CHECK_INT(vev_json_event(part, cut, &record, out, cap), 0);
        free(part);
    }
    CHECK_INT(vev_json_event(NULL, 0, &record, out, cap), 0);
    for (size_t at = 0; at < size; at++) {
        uint8_t good = payload[at];
        for (unsigned value = 0; value < 256; value++) {
            payload[at] = (uint8_t)value;
            int64_t written = vev_json_event(payload, size, &record, out, cap);
            CHECK(written <= (int64_t)cap && -written <= (int64_t)cap);
        }
        payload[at] = good;
    }
    free(out);
    free(payload);
}

/* A payload made by hand, which no encoder of ours would make. */
typedef struct made {
    uint8_t bytes[16384];
    size_t size;
} made;

static void put_byte(made *m, unsigned byte) { m->bytes[m->size++] = (uint8_t)byte; }

static void put_str(made *m, const char *text)
{
    size_t size = strlen(text);
    put_byte(m, 0xda);
    put_byte(m, (unsigned)(size >> 8));
    put_byte(m, (unsigned)(size & 255));
    memcpy(m->bytes + m->size, text, size);
    m->size += size;
}

/* An event of so many members, of which those behind the first two are to follow. */
static made custom(unsigned members, const char *value)
{
    made m = {.size = 0};
    put_byte(&m, 0x80 + members);
    put_str(&m, "eventType");
    put_str(&m, "custom");
    put_str(&m, "eventData");
    put_byte(&m, 0x81);
    put_str(&m, "value");
    put_str(&m, value);
    return m;
}

/* An event with a member of this key, whose value is to follow. */
static made custom_with(const char *key)
{
    made m = custom(3, "v");
    put_str(&m, key);
    return m;
}

static bool is_told(const made *m)
{
    static char out[65536];
    uint8_t *exact = test_copy(m->bytes, m->size);
    bool told = vev_json_event(exact, m->size, &record, out, sizeof out) != 0;
    free(exact);
    return told;
}

/* One image with a list of `count` annotations, each of which begins with a class and five
 * numbers; then come the last column's array of `numbers`, if any. */
static made annotations(const char *list, unsigned count, bool array, unsigned numbers)
{
    made m = custom_with("images");
    put_byte(&m, 0x91);
    put_byte(&m, 0x81);
    put_str(&m, list);
    put_byte(&m, 0xdc);
    put_byte(&m, count >> 8);
    put_byte(&m, count & 255);
    for (unsigned i = 0; i < count; i++) {
        put_byte(&m, array ? 0x97 : 0x92);
        put_byte(&m, 0xa0);
        for (int n = 0; n < (array ? 5 : 1); n++)
            put_byte(&m, 1);
        if (array)
            put_byte(&m, 0x90 + numbers);
        for (unsigned n = 0; array && n < numbers; n++)
            put_byte(&m, 1);
    }
    return m;
}

static bool are_told(const char *list, unsigned count, bool array, unsigned numbers)
{
    made m = annotations(list, count, array, numbers);
    return is_told(&m);
}

/* What the API does not take is not made JSON of, whoever wrote it into the log. */
static void test_limits(void)
{
    CHECK(are_told("classifications", 0, false, 0)); /* left out */
    CHECK(are_told("classifications", 1000, false, 0));
    CHECK(!are_told("classifications", 1001, false, 0));
    CHECK(are_told("instanceSegmentations", 1, true, 6));
    CHECK(!are_told("instanceSegmentations", 1, true, 7));
    CHECK(!are_told("instanceSegmentations", 1, true, 4));
    CHECK(are_told("keypoints", 1, true, 6));
    CHECK(!are_told("keypoints", 1, true, 7));
    CHECK(!are_told("objectDetections", 1, true, 6)); /* has six columns */

    made number = custom_with("images");
    put_byte(&number, 0x91);
    put_byte(&number, 0x81);
    put_str(&number, "classifications");
    put_byte(&number, 1);
    CHECK(!is_told(&number));

    char text[10002];
    for (size_t size = 100; size <= 101; size++) {
        made m = custom_with("customMetadata");
        put_byte(&m, 0x81);
        memset(text, 'k', size);
        text[size] = '\0';
        put_str(&m, text);
        put_byte(&m, 1);
        CHECK(is_told(&m) == (size == 100));
    }
    for (unsigned count = 100; count <= 101; count++) {
        made m = custom_with("customMetadata");
        put_byte(&m, 0xde);
        put_byte(&m, 0);
        put_byte(&m, count);
        for (unsigned i = 0; i < count; i++) {
            snprintf(text, sizeof text, "%u", i);
            put_str(&m, text);
            put_byte(&m, 1);
        }
        CHECK(is_told(&m) == (count == 100));
    }
    for (int same = 0; same < 2; same++) {
        made m = custom_with("customMetadata");
        put_byte(&m, 0x82);
        put_str(&m, "one");
        put_byte(&m, 1);
        put_str(&m, same ? "one" : "two");
        put_byte(&m, 2);
        CHECK(is_told(&m) != same);
    }
    for (unsigned position = 0; position < 2; position++) {
        made m = annotations("classifications", 1, false, 0);
        m.bytes[0] = 0x84;
        put_str(&m, "displayImagePosition");
        put_byte(&m, position);
        CHECK(is_told(&m) == (position == 0));
    }

    for (size_t size = 10000; size <= 10001; size++) {
        memset(text, 'v', size);
        text[size] = '\0';
        made m = custom(2, text);
        CHECK(is_told(&m) == (size == 10000));
    }
    made nameless = custom_with("deviceId");
    put_str(&nameless, "");
    CHECK(!is_told(&nameless));

    /* 256 characters, of one byte, of two, or of none that is UTF-8. */
    static const char *const characters[] = {"x", "\xc3\xa9", "\xc3\x28"};
    for (int which = 0; which < 3; which++) {
        for (size_t count = 256; count <= 257; count++) {
            size_t size = strlen(characters[which]);
            for (size_t i = 0; i < count; i++)
                memcpy(text + i * size, characters[which], size);
            text[count * size] = '\0';
            made m = custom_with("deviceId");
            put_str(&m, text);
            CHECK(is_told(&m) == (which < 2 && count == 256));
        }
    }

    made twice = {.size = 0};
    put_byte(&twice, 0x82);
    put_str(&twice, "eventType");
    put_str(&twice, "custom");
    put_str(&twice, "eventData");
    put_byte(&twice, 0x82);
    for (int i = 0; i < 2; i++) {
        put_str(&twice, "value");
        put_str(&twice, "v");
    }
    CHECK(!is_told(&twice));
}

/* A time that RFC 3339 has no four digits for, or of before 1970. */
static void test_times(void)
{
    static const struct {
        int64_t wall_ns;
        bool told;
    } cases[] = {{-1, false}, {0, true}, {VEV_WALL_NS_MAX - 1, true}, {VEV_WALL_NS_MAX, false}};
    char out[1024];
    made m = custom_with("deviceId");
    put_str(&m, "d");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const vev_json_record at = {id, cases[i].wall_ns, "uc", 2};
        CHECK((vev_json_event(m.bytes, m.size, &at, out, sizeof out) != 0) == cases[i].told);
    }
}

int main(void)
{
    RUN(test_event);
    RUN(test_default_use_case);
    RUN(test_frames_are_left_alone);
    RUN(test_damage);
    RUN(test_limits);
    RUN(test_times);
    return 0;
}
