/* The encoder: fields and detections -> one msgpack map, within the limits of the contract.
 *
 * The payload has a fixed order of keys and the shortest form of every header, whatever order the
 * calls come in; so the same event has the same bytes, from C and from Python. To get there
 * without a second buffer, the payload is kept as a row of slots, one for each key:
 *
 *     eventType | useCaseId | ... | images | open image | label | frame | ... | keypoints
 *     ^0        ^end[0]                    ^end[IMAGES]                                 ^w.size
 *
 * A slot is empty, or holds a key with its value. The slots behind IMAGES belong to the image that
 * is open; image_end moves their bytes into IMAGES, and the next image starts with empty ones.
 *
 * Invariants between two calls, while no error has struck:
 *   1. end[] never falls, and end[SLOT_COUNT - 1] == w.size.
 *   2. buffer[0 .. w.size) is one well-formed payload of what has been given so far: the counts
 *      in the headers are right. So finish has nothing to write.
 *   3. count[slot] is 0 for an empty slot; else the number of elements, 1 for a plain value.
 *
 * Adding a thing writes it at the end, then settles it into its slot. In the natural order all
 * slots behind are empty and settling is a comparison; otherwise the bytes behind move up. A
 * header that outgrows its byte at the 16th element gets two more in the same way.
 */
#include "vev_base.h"

#include <float.h>
#include <stdarg.h>
#include <stdio.h>

#include "vev_blake2b.h"
#include "vev_contract.h"
#include "vev_msgpack.h"
#include "vevents/event.h"

enum {
    IMAGE_COUNT_MAX = UINT16_MAX, /* the contract has none; the header has 16 bits */
    DIGEST_SIZE = 16
};

/* Up to here every whole number is a float, too. */
#define WHOLE_MAX 16777216

typedef enum {
    SLOT_TYPE, /* the payload's map header, and eventType */
    SLOT_USE_CASE,
    SLOT_EVENT_ID,
    SLOT_DEVICE,
    SLOT_STREAM,
    SLOT_WORKFLOW,
    SLOT_DATA,
    SLOT_META,
    SLOT_DISPLAY,
    SLOT_IMAGES, /* key, array header, and all images that have been ended */
    SLOT_IMAGE,  /* the open image's map header */
    SLOT_LABEL,
    SLOT_FRAME,
    SLOT_INPUT_FRAME,
    SLOT_SOURCE,
    SLOT_INPUT_SOURCE,
    SLOT_DETECTIONS,
    SLOT_CLASSIFICATIONS,
    SLOT_SEGMENTATIONS,
    SLOT_KEYPOINTS,
    SLOT_COUNT
} slot;

/* All shorter than 32 bytes, so that the header of a key takes one byte. */
static const char *const slot_keys[SLOT_COUNT] = {
    [SLOT_TYPE] = "eventType",
    [SLOT_USE_CASE] = "useCaseId",
    [SLOT_EVENT_ID] = "eventId",
    [SLOT_DEVICE] = "deviceId",
    [SLOT_STREAM] = "streamId",
    [SLOT_WORKFLOW] = "workflowId",
    [SLOT_DATA] = "eventData",
    [SLOT_META] = "customMetadata",
    [SLOT_DISPLAY] = "displayImagePosition",
    [SLOT_IMAGES] = "images",
    [SLOT_IMAGE] = NULL,
    [SLOT_LABEL] = "label",
    [SLOT_FRAME] = "frame",
    [SLOT_INPUT_FRAME] = "inputFrame",
    [SLOT_SOURCE] = "sourceId",
    [SLOT_INPUT_SOURCE] = "inputSourceId",
    [SLOT_DETECTIONS] = "objectDetections",
    [SLOT_CLASSIFICATIONS] = "classifications",
    [SLOT_SEGMENTATIONS] = "instanceSegmentations",
    [SLOT_KEYPOINTS] = "keypoints",
};

/* What is inside a vev_event. */
typedef struct {
    vev_msgpack_writer w;
    int64_t wall_ns;
    uint32_t end[SLOT_COUNT];
    uint16_t count[SLOT_COUNT];
    uint16_t data_given; /* bit i: vev_data_rules[i] */
    uint8_t kind;
    bool image_open;
    uint32_t entry_flags;
    uint32_t display_position;
    uint8_t id[16];
    vev_status status;
    char error[192];
} event;
VEV_STATIC_ASSERT(sizeof(event) <= sizeof(vev_event), "the size of vev_event is ABI");
VEV_STATIC_ASSERT(_Alignof(event) <= _Alignof(vev_event), "and so is its alignment");
VEV_STATIC_ASSERT(VEV_DATA_RULE_COUNT <= 16, "data_given has a bit for each");

/* The library is built without strict aliasing, which is what allows this. */
static event *inside(vev_event *ev) { return (event *)(void *)ev; }

/* ---------------------------------------------------------------------------------- errors */

/* Remember an error, unless there is one. */
__attribute__((format(printf, 3, 4))) static void fail(event *e, vev_status status,
                                                       const char *format, ...)
{
    if (e->status != VEV_OK)
        return;
    e->status = status;
    va_list args;
    va_start(args, format);
    vsnprintf(e->error, sizeof e->error, format, args);
    va_end(args);
}

/* The path of a field as the API spells it. `member` may be NULL. */
typedef struct {
    char text[112];
} path;

static path field_path(const event *e, slot s, const char *member)
{
    path p;
    unsigned image = e->count[SLOT_IMAGES] - 1u; /* used only while one is open */
    const char *dot = member != NULL ? "." : "";
    const char *name = member != NULL ? member : "";
    if (s < SLOT_IMAGE)
        snprintf(p.text, sizeof p.text, "%s%s%.60s", slot_keys[s], dot, name);
    else if (s < SLOT_DETECTIONS)
        snprintf(p.text, sizeof p.text, "images[%u].%s%s%s", image, slot_keys[s], dot, name);
    else
        snprintf(p.text, sizeof p.text, "images[%u].%s[%u]%s%s", image, slot_keys[s],
                 (unsigned)e->count[s], dot, name);
    return p;
}

static void fail_field(event *e, slot s, const char *member, const char *reason)
{
    fail(e, VEV_E_INVALID, "%s: %s", field_path(e, s, member).text, reason);
}

/* --------------------------------------------------------------------------------- layout */

static size_t slot_start(const event *e, slot s) { return s == 0 ? 0 : e->end[s - 1]; }

/* Where the header of a slot's container is: behind its key. */
static size_t header_offset(const event *e, slot s)
{
    return slot_start(e, s) + 1 + strlen(slot_keys[s]);
}

/* Move data[from .. from + size) down to `to`, and what was between up behind it. */
static void rotate(uint8_t *data, size_t to, size_t from, size_t size)
{
    uint8_t part[256];
    while (size != 0) {
        size_t n = VEV_MIN(size, sizeof part);
        memcpy(part, data + from, n);
        memmove(data + to + n, data + to, from - to);
        memcpy(data + to, part, n);
        to += n;
        from += n;
        size -= n;
    }
}

/* Make what has been written behind the last slot part of slot `s`, at offset `at` within it.
 * Returns false if the event has an error. */
static bool settle_at(event *e, slot s, size_t at)
{
    size_t total = e->end[SLOT_COUNT - 1];
    if (VEV_UNLIKELY(e->w.status != VEV_OK)) {
        fail(e, VEV_E_TOO_BIG, "event: does not fit into the buffer of %zu bytes", e->w.cap);
        return false;
    }
    VEV_ASSERT(at >= slot_start(e, s) && at <= e->end[s] && e->w.size >= total);
    uint32_t added = (uint32_t)(e->w.size - total);
    if (at != total)
        rotate(e->w.data, at, total, added);
    for (slot i = s; i < SLOT_COUNT; i++)
        e->end[i] += added;
    return true;
}

static bool settle(event *e, slot s) { return settle_at(e, s, e->end[s]); }

/* One element more in the container of a slot. */
static void count_up(event *e, slot s)
{
    size_t header = header_offset(e, s);
    unsigned count = e->count[s] + 1u;
    if (count == 16) {
        vev_msgpack_write_raw(&e->w, "\0\0", 2);
        if (!settle_at(e, s, header + 1))
            return;
        uint8_t *type = e->w.data + header;
        VEV_ASSERT(*type == 0x8f || *type == 0x9f);
        *type = *type == 0x8f ? 0xde : 0xdc;
    }
    e->count[s] = (uint16_t)count;
    if (count < 16) {
        e->w.data[header]++;
    } else {
        e->w.data[header + 1] = (uint8_t)(count >> 8);
        e->w.data[header + 2] = (uint8_t)count;
    }
}

static void write_key(event *e, const char *key) { vev_msgpack_write_str(&e->w, key, strlen(key)); }

/* A slot has got its first bytes: one key more in the map that it is part of. Neither map has 16
 * keys, so the count stays in the header's byte. */
static void slot_filled(event *e, slot s)
{
    e->w.data[s < SLOT_IMAGE ? 0 : slot_start(e, SLOT_IMAGE)]++;
}

/* Put a plain value, just written with its key, into its slot. */
static void settle_value(event *e, slot s)
{
    if (settle(e, s)) {
        e->count[s] = 1;
        slot_filled(e, s);
    }
}

/* Give a slot its key and an empty container, unless it has them. */
static bool container_open(event *e, slot s)
{
    if (e->count[s] != 0)
        return true;
    write_key(e, slot_keys[s]);
    if (s == SLOT_DATA || s == SLOT_META)
        vev_msgpack_write_map(&e->w, 0);
    else
        vev_msgpack_write_array(&e->w, 0);
    if (!settle(e, s))
        return false;
    slot_filled(e, s);
    return true;
}

/* --------------------------------------------------------------------------------- checks */

static bool not_given_yet(event *e, slot s)
{
    if (e->count[s] == 0)
        return true;
    fail_field(e, s, NULL, "is given twice");
    return false;
}

static bool image_is_open(event *e)
{
    if (!e->image_open)
        fail(e, VEV_E_INVALID, "images: no image has been begun");
    return e->image_open;
}

/* Check a text for UTF-8 and length; `chars_max` 0 means: any. Its size comes in *size_out. */
static bool text_ok(event *e, slot s, const char *member, const char *text, size_t chars_min,
                    size_t chars_max, size_t *size_out)
{
    size_t size = strlen(text), chars;
    *size_out = size;
    if (!vev_msgpack_utf8_check(text, size, &chars)) {
        fail_field(e, s, member, "must be UTF-8");
        return false;
    }
    if (chars >= chars_min && (chars_max == 0 || chars <= chars_max))
        return true;
    path p = field_path(e, s, member);
    if (chars < chars_min)
        fail(e, VEV_E_INVALID, "%s: must not be empty", p.text);
    else
        fail(e, VEV_E_INVALID, "%s: must have at most %zu characters, has %zu", p.text, chars_max,
             chars);
    return false;
}

/* Not NaN, within the limits. */
static bool number_ok(event *e, slot s, const char *member, double v, double low, double high,
                      const char *reason)
{
    if (VEV_LIKELY(v >= low && v <= high))
        return true;
    fail_field(e, s, member, reason);
    return false;
}

static bool coordinate_ok(event *e, slot s, const char *member, double v)
{
    return number_ok(e, s, member, v, -VEV_COORDINATE_MAX, VEV_COORDINATE_MAX,
                     "must be a finite float");
}

static bool extent_ok(event *e, slot s, const char *member, double v)
{
    return number_ok(e, s, member, v, 0, VEV_COORDINATE_MAX, "must be a finite float, 0 or more");
}

/* Read a UUID in its canonical form: lower case, 8-4-4-4-12 digits, nothing else. */
static bool uuid_parse(const char *text, uint8_t id[16])
{
    static const char form[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
    unsigned digit_count = 0;
    uint8_t parsed[16] = {0};
    for (size_t i = 0; i < sizeof form; i++) {
        char c = text[i];
        if (form[i] == 'x') {
            unsigned digit;
            if (c >= '0' && c <= '9')
                digit = (unsigned)(c - '0');
            else if (c >= 'a' && c <= 'f')
                digit = (unsigned)(c - 'a') + 10;
            else
                return false;
            parsed[digit_count / 2] = (uint8_t)(parsed[digit_count / 2] * 16u + digit);
            digit_count++;
        } else if (c != form[i]) { /* a hyphen, or the end */
            return false;
        }
    }
    memcpy(id, parsed, sizeof parsed);
    return true;
}

/* ----------------------------------------------------------------------------- event level */

/* A text that is a key of the event or of the open image. */
static void set_text(event *e, slot s, const char *text, size_t chars_min, size_t chars_max)
{
    size_t size;
    if (e->status != VEV_OK || text == NULL)
        return;
    if (!not_given_yet(e, s) || !text_ok(e, s, NULL, text, chars_min, chars_max, &size))
        return;
    write_key(e, slot_keys[s]);
    vev_msgpack_write_str(&e->w, text, size);
    settle_value(e, s);
}

void vev_event_begin(vev_event *ev, void *buffer, size_t buffer_size, int kind,
                     const char *use_case_id)
{
    event *e = inside(ev);
    memset(e, 0, sizeof *e);
    vev_msgpack_writer_init(&e->w, buffer, VEV_MIN(buffer_size, (size_t)UINT32_MAX));
    if (kind < VEV_KIND_QUALITY_CHECK || kind > VEV_KIND_OPERATOR_FEEDBACK) {
        fail(e, VEV_E_INVALID,
             "eventType: must be VEV_KIND_QUALITY_CHECK (1) .. "
             "VEV_KIND_OPERATOR_FEEDBACK (5), is %d",
             kind);
        return;
    }
    e->kind = (uint8_t)kind;
    vev_msgpack_write_map(&e->w, 1);
    write_key(e, slot_keys[SLOT_TYPE]);
    write_key(e, vev_kind_names[kind]);
    settle(e, SLOT_TYPE);
    set_text(e, SLOT_USE_CASE, use_case_id, 1, VEV_ID_CHARS_MAX);
}

void vev_event_copy(vev_event *ev, void *buffer, size_t buffer_size, const vev_event *from)
{
    const event *f = (const event *)(const void *)from;
    event *e = inside(ev);
    memcpy(e, f, sizeof *e);
    vev_msgpack_writer_init(&e->w, buffer, VEV_MIN(buffer_size, (size_t)UINT32_MAX));
    if (e->status == VEV_OK) {
        vev_msgpack_write_raw(&e->w, f->w.data, f->w.size);
        if (e->w.status != VEV_OK)
            fail(e, VEV_E_TOO_BIG, "event: does not fit into the buffer of %zu bytes", e->w.cap);
    }
}

void vev_event_id(vev_event *ev, const char *event_id)
{
    event *e = inside(ev);
    if (e->status != VEV_OK || event_id == NULL)
        return;
    if ((e->entry_flags & VEV_APPEND_ID) != 0)
        fail_field(e, SLOT_EVENT_ID, NULL, "is given twice");
    else if (e->count[SLOT_EVENT_ID] == 0 && uuid_parse(event_id, e->id))
        e->entry_flags |= VEV_APPEND_ID; /* goes into the record's header */
    else
        set_text(e, SLOT_EVENT_ID, event_id, 1, VEV_ID_CHARS_MAX);
}

void vev_event_time(vev_event *ev, int64_t wall_ns)
{
    event *e = inside(ev);
    if (wall_ns < 0 || wall_ns >= VEV_WALL_NS_MAX)
        fail(e, VEV_E_INVALID, "timestamp: must lie in 1970 to 2261");
    else if ((e->entry_flags & VEV_APPEND_TIME) != 0)
        fail(e, VEV_E_INVALID, "timestamp: is given twice");
    e->wall_ns = wall_ns;
    e->entry_flags |= VEV_APPEND_TIME;
}

void vev_event_device(vev_event *ev, const char *device_id)
{
    set_text(inside(ev), SLOT_DEVICE, device_id, 1, VEV_ID_CHARS_MAX);
}

void vev_event_stream(vev_event *ev, const char *stream_id)
{
    set_text(inside(ev), SLOT_STREAM, stream_id, 1, VEV_ID_CHARS_MAX);
}

void vev_event_workflow(vev_event *ev, const char *workflow_id)
{
    set_text(inside(ev), SLOT_WORKFLOW, workflow_id, 1, VEV_ID_CHARS_MAX);
}

/* Find the rule for a key of eventData that is given for the first time, or fail. */
static int data_rule_find(event *e, const char *key)
{
    if (key == NULL) {
        fail_field(e, SLOT_DATA, NULL, "a key must not be NULL");
        return -1;
    }
    for (int i = 0; i < VEV_DATA_RULE_COUNT; i++) {
        if ((vev_data_rules[i].kinds & 1u << e->kind) == 0 ||
            strcmp(vev_data_rules[i].key, key) != 0)
            continue;
        if ((e->data_given & 1u << i) == 0)
            return i;
        fail_field(e, SLOT_DATA, key, "is given twice");
        return -1;
    }
    fail(e, VEV_E_INVALID, "%s: is no key of %s",
         field_path(e, SLOT_DATA, vev_charset_ok(key, strlen(key), "_-") ? key : "?").text,
         vev_kind_names[e->kind]);
    return -1;
}

/* Put the key and the value that have just been written into eventData. */
static void data_settle(event *e, int rule_index)
{
    if (settle(e, SLOT_DATA)) {
        count_up(e, SLOT_DATA);
        e->data_given = (uint16_t)(e->data_given | 1u << rule_index);
    }
}

static bool data_text_ok(event *e, int rule_index, const char *value, size_t *size_out)
{
    const char *key = vev_data_rules[rule_index].key;
    const char *const *choices = vev_data_rules[rule_index].choices;
    *size_out = strlen(value);
    switch (vev_data_rules[rule_index].rule) {
    case VEV_RULE_TEXT:
        return text_ok(e, SLOT_DATA, key, value, 0, vev_data_rules[rule_index].chars_max, size_out);
    case VEV_RULE_ID: return text_ok(e, SLOT_DATA, key, value, 1, VEV_ID_CHARS_MAX, size_out);
    case VEV_RULE_CHOICE:
        if (vev_is_choice(choices, value, *size_out))
            return true;
        fail(e, VEV_E_INVALID, "eventData.%s: must be one of %s, %s%s%s", key, choices[0],
             choices[1], choices[2] != NULL ? ", " : "", choices[2] != NULL ? choices[2] : "");
        return false;
    case VEV_RULE_WORD:
        if (vev_charset_ok(value, *size_out, "_-"))
            return true;
        fail_field(e, SLOT_DATA, key, "must be letters, digits, '_' and '-', at least one");
        return false;
    case VEV_RULE_INT: break;
    }
    fail_field(e, SLOT_DATA, key, "must be an integer, not text");
    return false;
}

void vev_event_data_str(vev_event *ev, const char *key, const char *value)
{
    event *e = inside(ev);
    size_t size;
    if (e->status != VEV_OK || value == NULL)
        return;
    int rule_index = data_rule_find(e, key);
    if (rule_index < 0 || !data_text_ok(e, rule_index, value, &size) ||
        !container_open(e, SLOT_DATA))
        return;
    write_key(e, key);
    vev_msgpack_write_str(&e->w, value, size);
    data_settle(e, rule_index);
}

void vev_event_data_int(vev_event *ev, const char *key, int64_t value)
{
    event *e = inside(ev);
    if (e->status != VEV_OK)
        return;
    int rule_index = data_rule_find(e, key);
    if (rule_index < 0)
        return;
    if (vev_data_rules[rule_index].rule != VEV_RULE_INT) {
        fail_field(e, SLOT_DATA, key, "must be text, not an integer");
        return;
    }
    if (!container_open(e, SLOT_DATA))
        return;
    write_key(e, key);
    vev_msgpack_write_int(&e->w, value);
    data_settle(e, rule_index);
}

/* Check a key of customMetadata and write it behind the last slot. */
static bool meta_begin(event *e, const char *key)
{
    if (e->status != VEV_OK)
        return false;
    if (key == NULL || !vev_charset_ok(key, strlen(key), "_- ") ||
        strlen(key) > VEV_META_KEY_CHARS_MAX) {
        fail(e, VEV_E_INVALID,
             "customMetadata: a key must have 1 to %d letters, digits, '_', '-' or spaces",
             VEV_META_KEY_CHARS_MAX);
        return false;
    }
    if (e->count[SLOT_META] == VEV_META_COUNT_MAX) {
        fail(e, VEV_E_INVALID, "customMetadata: must have at most %d keys", VEV_META_COUNT_MAX);
        return false;
    }
    if (!container_open(e, SLOT_META))
        return false;
    write_key(e, key);
    return true;
}

/* Is the key that has just been written behind the last slot in customMetadata already? */
static bool meta_has_key(const event *e, const char *key)
{
    const uint8_t *data = e->w.data;
    const uint8_t *fresh = data + e->end[SLOT_COUNT - 1];
    size_t fresh_size = strlen(key) + (strlen(key) < 32 ? 1 : 2);
    size_t end = e->end[SLOT_META];
    size_t at = header_offset(e, SLOT_META) + (e->count[SLOT_META] < 16 ? 1 : 3);
    while (at < end) {
        size_t size = vev_msgpack_value_size(data + at, end - at);
        if (size == fresh_size && memcmp(data + at, fresh, size) == 0)
            return true;
        at += size;
        at += vev_msgpack_value_size(data + at, end - at);
    }
    VEV_ASSERT(at == end);
    return false;
}

/* Put the key and the value that have just been written into customMetadata. */
static void meta_settle(event *e, const char *key)
{
    if (e->w.status == VEV_OK && meta_has_key(e, key))
        fail_field(e, SLOT_META, key, "is given twice");
    else if (settle(e, SLOT_META))
        count_up(e, SLOT_META);
}

void vev_event_meta_str(vev_event *ev, const char *key, const char *value)
{
    event *e = inside(ev);
    size_t size;
    if (value == NULL || !meta_begin(e, key) ||
        !text_ok(e, SLOT_META, key, value, 0, VEV_META_TEXT_CHARS_MAX, &size))
        return;
    vev_msgpack_write_str(&e->w, value, size);
    meta_settle(e, key);
}

void vev_event_meta_int(vev_event *ev, const char *key, int64_t value)
{
    event *e = inside(ev);
    if (!meta_begin(e, key))
        return;
    vev_msgpack_write_int(&e->w, value);
    meta_settle(e, key);
}

void vev_event_meta_num(vev_event *ev, const char *key, double value)
{
    event *e = inside(ev);
    if (!meta_begin(e, key) ||
        !number_ok(e, SLOT_META, key, value, -DBL_MAX, DBL_MAX, "must be finite"))
        return;
    vev_msgpack_write_float64(&e->w, value);
    meta_settle(e, key);
}

void vev_event_meta_bool(vev_event *ev, const char *key, int value)
{
    event *e = inside(ev);
    if (!meta_begin(e, key))
        return;
    vev_msgpack_write_bool(&e->w, value != 0);
    meta_settle(e, key);
}

void vev_event_display_image(vev_event *ev, uint32_t position)
{
    event *e = inside(ev);
    if (e->status != VEV_OK || !not_given_yet(e, SLOT_DISPLAY))
        return;
    e->display_position = position; /* finish knows how many images there are */
    write_key(e, slot_keys[SLOT_DISPLAY]);
    vev_msgpack_write_uint(&e->w, position);
    settle_value(e, SLOT_DISPLAY);
}

/* ----------------------------------------------------------------------------- image level */

void vev_event_image_begin(vev_event *ev, const char *label)
{
    event *e = inside(ev);
    if (e->status != VEV_OK)
        return;
    if (e->image_open) {
        fail(e, VEV_E_INVALID, "images[%d]: has not been ended", e->count[SLOT_IMAGES] - 1);
        return;
    }
    if (e->count[SLOT_IMAGES] == IMAGE_COUNT_MAX) {
        fail(e, VEV_E_INVALID, "images: must have at most %d entries", IMAGE_COUNT_MAX);
        return;
    }
    if (!container_open(e, SLOT_IMAGES))
        return;
    vev_msgpack_write_map(&e->w, 0);
    if (!settle(e, SLOT_IMAGE))
        return;
    count_up(e, SLOT_IMAGES);
    e->image_open = true;
    set_text(e, SLOT_LABEL, label, 0, 0);
}

void vev_event_image_end(vev_event *ev)
{
    event *e = inside(ev);
    if (e->status != VEV_OK || !image_is_open(e))
        return;
    e->image_open = false;
    for (slot s = SLOT_IMAGES; s < SLOT_COUNT; s++) {
        e->end[s] = e->end[SLOT_COUNT - 1];
        if (s != SLOT_IMAGES)
            e->count[s] = 0;
    }
}

static void set_frame(event *e, slot s, slot excluded, uint64_t seq, const uint8_t *digest,
                      uint64_t size)
{
    if (e->status != VEV_OK || !image_is_open(e) || !not_given_yet(e, s))
        return;
    if (e->count[excluded] != 0) {
        fail_field(e, excluded, NULL, "excludes a frame; give one");
    } else if (seq == 0 || digest == NULL || size == 0) {
        fail_field(e, s, NULL, "must have a sequence number and a size from 1 on, and a digest");
    } else {
        write_key(e, slot_keys[s]);
        vev_msgpack_write_array(&e->w, 3);
        vev_msgpack_write_uint(&e->w, seq);
        vev_msgpack_write_bin(&e->w, digest, DIGEST_SIZE);
        vev_msgpack_write_uint(&e->w, size);
        settle_value(e, s);
    }
}

void vev_event_image_frame(vev_event *ev, uint64_t seq, const uint8_t digest[16], uint64_t size)
{
    set_frame(inside(ev), SLOT_FRAME, SLOT_SOURCE, seq, digest, size);
}

void vev_event_image_input_frame(vev_event *ev, uint64_t seq, const uint8_t digest[16],
                                 uint64_t size)
{
    set_frame(inside(ev), SLOT_INPUT_FRAME, SLOT_INPUT_SOURCE, seq, digest, size);
}

static void set_source(event *e, slot s, slot excluded, const char *source_id)
{
    if (e->status != VEV_OK || source_id == NULL || !image_is_open(e))
        return;
    if (e->count[excluded] != 0)
        fail_field(e, s, NULL, "excludes a frame; give one");
    else
        set_text(e, s, source_id, 1, 0);
}

void vev_event_image_source(vev_event *ev, const char *source_id)
{
    set_source(inside(ev), SLOT_SOURCE, SLOT_FRAME, source_id);
}

void vev_event_image_input_source(vev_event *ev, const char *source_id)
{
    set_source(inside(ev), SLOT_INPUT_SOURCE, SLOT_INPUT_FRAME, source_id);
}

/* A number of a row. A checked one: its conversions are exact or within range. */
static void write_number(event *e, double v)
{
    if (v >= -WHOLE_MAX && v <= WHOLE_MAX && v == (double)(int32_t)v)
        vev_msgpack_write_int(&e->w, (int32_t)v);
    else
        vev_msgpack_write_float32(&e->w, (float)v);
}

/* Check what all annotations have, and write a row's header and class behind the last slot. */
static bool row_begin(event *e, slot s, const char *class_name, double confidence,
                      uint32_t column_count)
{
    size_t size;
    if (e->status != VEV_OK || !image_is_open(e))
        return false;
    if (e->count[s] == VEV_ANNOTATION_COUNT_MAX) {
        fail(e, VEV_E_INVALID, "images[%d].%s: must have at most %d entries",
             e->count[SLOT_IMAGES] - 1, slot_keys[s], VEV_ANNOTATION_COUNT_MAX);
        return false;
    }
    if (class_name == NULL) {
        fail_field(e, s, "class", "must not be NULL");
        return false;
    }
    if (!text_ok(e, s, "class", class_name, 0, 0, &size) ||
        !number_ok(e, s, "confidence", confidence, 0, 1, "must be 0 to 1") || !container_open(e, s))
        return false;
    vev_msgpack_write_array(&e->w, column_count);
    vev_msgpack_write_str(&e->w, class_name, size);
    return true;
}

static void row_settle(event *e, slot s)
{
    if (settle(e, s))
        count_up(e, s);
}

/* A row up to its confidence: all there is to a detection, the front of the others. */
static bool box_begin(event *e, slot s, const char *class_name, double x, double y, double width,
                      double height, double confidence, uint32_t column_count)
{
    if (!row_begin(e, s, class_name, confidence, column_count) || !coordinate_ok(e, s, "x", x) ||
        !coordinate_ok(e, s, "y", y) || !extent_ok(e, s, "width", width) ||
        !extent_ok(e, s, "height", height))
        return false;
    write_number(e, x);
    write_number(e, y);
    write_number(e, width);
    write_number(e, height);
    write_number(e, confidence);
    return true;
}

void vev_event_detection(vev_event *ev, const char *class_name, double x, double y, double width,
                         double height, double confidence)
{
    event *e = inside(ev);
    if (box_begin(e, SLOT_DETECTIONS, class_name, x, y, width, height, confidence, 6))
        row_settle(e, SLOT_DETECTIONS);
}

/* Add the detection in a box given by its corners. */
static void corners(event *e, const float box[4], float confidence, int64_t class_id,
                    const char *const *class_names, size_t class_count)
{
    slot s = SLOT_DETECTIONS;
    if (class_id < 0 || (uint64_t)class_id >= class_count) {
        fail(e, VEV_E_INVALID, "%s: is %lld, but there are %zu names",
             field_path(e, s, "class").text, (long long)class_id, class_count);
        return;
    }
    if (class_names[class_id] == NULL) {
        fail(e, VEV_E_INVALID, "%s: is %lld, which has no name", field_path(e, s, "class").text,
             (long long)class_id);
        return;
    }
    /* In double, so that the middle of two floats is exact and no sum is infinite. */
    double left = (double)box[0], top = (double)box[1];
    double right = (double)box[2], bottom = (double)box[3];
    if (box_begin(e, s, class_names[class_id], (left + right) / 2, (top + bottom) / 2, right - left,
                  bottom - top, (double)confidence, 6))
        row_settle(e, s);
}

void vev_event_boxes(vev_event *ev, const vev_boxes *boxes)
{
    event *e = inside(ev);
    for (size_t i = 0; i < boxes->count && e->status == VEV_OK; i++)
        corners(e, boxes->xyxy + 4 * i, boxes->confidence[i], boxes->class_id[i],
                boxes->class_names, boxes->class_count);
}

void vev_event_rows(vev_event *ev, const float *rows, size_t count, const char *const *class_names,
                    size_t class_count)
{
    event *e = inside(ev);
    for (size_t i = 0; i < count && e->status == VEV_OK; i++) {
        const float *row = rows + 6 * i;
        if (!(row[5] >= -WHOLE_MAX && row[5] <= WHOLE_MAX) || row[5] != (float)(int32_t)row[5])
            fail_field(e, SLOT_DETECTIONS, "class", "must be a whole number");
        else
            corners(e, row, row[4], (int64_t)row[5], class_names, class_count);
    }
}

void vev_event_classification(vev_event *ev, const char *class_name, double confidence)
{
    event *e = inside(ev);
    if (!row_begin(e, SLOT_CLASSIFICATIONS, class_name, confidence, 2))
        return;
    write_number(e, confidence);
    row_settle(e, SLOT_CLASSIFICATIONS);
}

/* Announce the inner array of a row. Counts beyond what any buffer holds fail as too big. */
static bool inner_array(event *e, size_t row_count, size_t columns)
{
    if (row_count > e->w.cap / columns) {
        fail(e, VEV_E_TOO_BIG, "event: does not fit into the buffer of %zu bytes", e->w.cap);
        return false;
    }
    vev_msgpack_write_array(&e->w, (uint32_t)(row_count * columns));
    return true;
}

void vev_event_segmentation(vev_event *ev, const char *class_name, double x, double y, double width,
                            double height, double confidence, const float *points,
                            size_t point_count)
{
    event *e = inside(ev);
    slot s = SLOT_SEGMENTATIONS;
    if (!box_begin(e, s, class_name, x, y, width, height, confidence, 7))
        return;
    if (points == NULL || point_count < VEV_POLYGON_POINT_COUNT_MIN) {
        fail_field(e, s, "points", "must have at least 3 points");
        return;
    }
    if (!inner_array(e, point_count, 2))
        return;
    for (size_t i = 0; i < 2 * point_count && e->w.status == VEV_OK; i++) {
        if (!coordinate_ok(e, s, "points", (double)points[i]))
            return;
        write_number(e, (double)points[i]);
    }
    row_settle(e, s);
}

void vev_event_keypoints(vev_event *ev, const char *class_name, double x, double y, double width,
                         double height, double confidence, const vev_keypoint *keypoints,
                         size_t keypoint_count)
{
    event *e = inside(ev);
    slot s = SLOT_KEYPOINTS;
    if (!box_begin(e, s, class_name, x, y, width, height, confidence, 7) ||
        !inner_array(e, keypoint_count, 3))
        return;
    for (size_t i = 0; i < keypoint_count && e->w.status == VEV_OK; i++) {
        if (!coordinate_ok(e, s, "keypoints", (double)keypoints[i].x) ||
            !coordinate_ok(e, s, "keypoints", (double)keypoints[i].y))
            return;
        vev_msgpack_write_int(&e->w, keypoints[i].id);
        write_number(e, (double)keypoints[i].x);
        write_number(e, (double)keypoints[i].y);
    }
    row_settle(e, s);
}

/* ---------------------------------------------------------------------------------- finish */

static void check_whole(event *e)
{
    if (e->image_open)
        fail(e, VEV_E_INVALID, "images[%d]: has not been ended", e->count[SLOT_IMAGES] - 1);
    for (int i = 0; i < VEV_DATA_RULE_COUNT; i++) {
        if ((vev_data_rules[i].mandatory & 1u << e->kind) != 0 && (e->data_given & 1u << i) == 0)
            fail_field(e, SLOT_DATA, vev_data_rules[i].key, "is missing");
    }
    if (e->count[SLOT_DISPLAY] != 0 && e->display_position >= e->count[SLOT_IMAGES])
        fail(e, VEV_E_INVALID, "displayImagePosition: is %u, but there are %d images",
             (unsigned)e->display_position, e->count[SLOT_IMAGES]);
}

vev_status vev_event_finish(vev_event *ev, const void **payload_out, size_t *size_out,
                            vev_entry *entry)
{
    event *e = inside(ev);
    *payload_out = NULL;
    *size_out = 0;
    if (e->status == VEV_OK)
        check_whole(e);
    if (e->status != VEV_OK)
        return e->status;
    VEV_ASSERT(e->w.size == e->end[SLOT_COUNT - 1]);
    *payload_out = e->w.data;
    *size_out = e->w.size;
    if (entry != NULL) {
        entry->flags &= ~(uint32_t)(VEV_APPEND_TIME | VEV_APPEND_ID);
        entry->flags |= e->entry_flags;
        entry->kind = e->kind;
        entry->wall_ns = e->wall_ns;
        memcpy(entry->id, e->id, sizeof entry->id);
    }
    return VEV_OK;
}

const char *vev_event_error(const vev_event *ev)
{
    return ((const event *)(const void *)ev)->error;
}

void vev_frame_digest(const void *data, size_t size, uint8_t digest_out[16])
{
    vev_blake2b_128(digest_out, data, size);
}
