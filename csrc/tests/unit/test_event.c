#include "vevents/event.h"

#include <math.h>

#include "vev_msgpack.h"
#include "vev_test.h"

enum { BUFFER_SIZE = 200000 };
static char buffer[BUFFER_SIZE];

static const uint8_t digest[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

/* An event that is complete but for what a test adds. */
static void begin_custom(vev_event *ev)
{
    vev_event_begin(ev, buffer, sizeof buffer, VEV_KIND_CUSTOM, NULL);
    vev_event_data_str(ev, "value", "v");
}

static void check_good(vev_event *ev)
{
    const void *payload;
    size_t size;
    if (vev_event_finish(ev, &payload, &size, NULL) != VEV_OK) {
        fprintf(stderr, "refused: %s\n", vev_event_error(ev));
        exit(1);
    }
    CHECK_STR(vev_event_error(ev), "");
    CHECK_INT(vev_msgpack_validate(payload, size), VEV_OK);
}

/* The event is refused with this sentence; what comes later changes nothing. */
static void check_bad(vev_event *ev, const char *sentence)
{
    const void *payload = "";
    size_t size = 1;
    vev_entry entry = {.flags = VEV_APPEND_SYNC, .kind = 77};
    CHECK_INT(vev_event_finish(ev, &payload, &size, &entry), VEV_E_INVALID);
    CHECK_STR(vev_event_error(ev), sentence);
    CHECK(payload == NULL && size == 0);
    CHECK(entry.flags == VEV_APPEND_SYNC && entry.kind == 77);
    vev_event_device(ev, "");
    vev_event_data_str(ev, "nonsense", "x");
    vev_event_data_int(ev, "nonsense", 1);
    vev_event_meta_num(ev, "?", NAN);
    vev_event_time(ev, -1);
    vev_event_display_image(ev, 7);
    vev_event_image_end(ev);
    vev_event_image_begin(ev, "\xff");
    vev_event_detection(ev, NULL, NAN, NAN, NAN, NAN, NAN);
    CHECK_STR(vev_event_error(ev), sentence);
    CHECK_INT(vev_event_finish(ev, &payload, &size, NULL), VEV_E_INVALID);
}

/* A text of `count` times `unit`. free() it. */
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

/* An event with every sort of field once. Its bytes were made by vevents.codec.encode(). */
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
    "739197a464656e7401020304ca3f00000096ca3f000000010203ca4b800000fba96b6579"
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

/* The calls behind it. The steps of one group keep their order, the groups may come in any. */
enum { FULL_GROUP_COUNT = 8 };
static void full_group(vev_event *ev, int group)
{
    static const float points[] = {0.5f, 1, 2, 3, 16777217.0f * 1.0f, -5};
    static const vev_keypoint keypoints[] = {{-1, 0.25f, 8}};
    float past_whole = nextafterf(16777216.0f, INFINITY);
    float outline[6];
    memcpy(outline, points, sizeof points);
    outline[4] = 16777216.0f; /* 2^24: whole, but see below */
    (void)past_whole;
    switch (group) {
    case 0:
        vev_event_id(ev, "evt-1");
        break;
    case 1:
        vev_event_device(ev, "cam-1");
        break;
    case 2:
        vev_event_stream(ev, "s");
        break;
    case 3:
        vev_event_workflow(ev, "w");
        break;
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
    case 6:
        vev_event_display_image(ev, 0);
        break;
    default:
        vev_event_image_begin(ev, "top");
        vev_event_image_frame(ev, 7, digest, 70000);
        vev_event_image_input_source(ev, "ve-9");
        vev_event_detection(ev, "burr", 812.5, 403, 37, 22, 0.913);
        vev_event_classification(ev, "bad", 1);
        vev_event_segmentation(ev, "dent", 1, 2, 3, 4, 0.5, points, 3);
        vev_event_keypoints(ev, "arm", 1, 2, 3, 4, 0, keypoints, 1);
        vev_event_image_end(ev);
    }
}
