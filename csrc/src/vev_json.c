/* msgpack in, JSON out, in one pass over each value; see the header for what is left to others.
 *
 * A map of the payload is first laid out as one cursor for each key that it may have, since the
 * JSON has its keys in another order; then the values are read and written one after another.
 * Every function returns whether all is well; the first that does not ends the whole. The writer
 * remembers that something did not fit, and is asked once, at the end.
 */
#include "vev_json.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "vev_base.h"
#include "vev_contract.h"
#include "vev_decimal.h"
#include "vev_msgpack.h"

/* --------------------------------------------------------------------------------- writing */

typedef struct {
    char *data;
    size_t size, cap;
    bool full;
} json;

static void put(json *j, const char *bytes, size_t size)
{
    j->full = j->full || size > j->cap - j->size;
    if (j->full)
        return;
    memcpy(j->data + j->size, bytes, size);
    j->size += size;
}

static void put_char(json *j, char c) { put(j, &c, 1); }

static void put_text(json *j, const char *text) { put(j, text, strlen(text)); }

/* A member's key. Commas stand before keys, so the first one of an object brings its brace. */
static void put_key(json *j, char before, const char *key, size_t size)
{
    put_char(j, before);
    put_char(j, '"');
    put(j, key, size);
    put(j, "\":", 2);
}

static void put_string(json *j, const char *text, size_t size)
{
    static const char named[] = "\"\"\\\\\bb\ff\nn\rr\tt"; /* a character, and its letter */
    size_t from = 0;
    put_char(j, '"');
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)text[i];
        if (VEV_LIKELY(c >= 0x20 && c != '"' && c != '\\'))
            continue;
        put(j, text + from, i - from);
        from = i + 1;
        char escape[8] = "\\u0000";
        size_t k = 0;
        while (k < sizeof named - 1 && named[k] != (char)c)
            k += 2;
        if (k < sizeof named - 1) {
            escape[1] = named[k + 1];
            put(j, escape, 2);
        } else {
            escape[4] = (char)('0' + (c >> 4));
            escape[5] = "0123456789abcdef"[c & 15];
            put(j, escape, 6);
        }
    }
    put(j, text + from, size - from);
    put_char(j, '"');
}

/* The digits of a number, at least `width` of them. */
static size_t digits_of(uint64_t value, unsigned width, char out[20])
{
    char reversed[20];
    size_t count = 0;
    do {
        reversed[count++] = (char)('0' + value % 10);
        value /= 10;
    } while (value != 0 || count < width);
    for (size_t i = 0; i < count; i++)
        out[i] = reversed[count - 1 - i];
    return count;
}

static void put_padded(json *j, uint64_t value, unsigned width)
{
    char digits[20];
    put(j, digits, digits_of(value, width, digits));
}

/* Write a decimal as Python does: a point and a digit at least, an exponent for what is below
 * 0.0001 or has more than 16 digits before the point. */
static void put_decimal(json *j, bool negative, vev_decimal d)
{
    char digits[20];
    size_t count = digits_of(d.digits, 1, digits);
    int point = (int)count + d.exponent; /* it stands behind so many digits */
    while (count > 1 && digits[count - 1] == '0')
        count--;
    if (negative)
        put_char(j, '-');
    if (point <= -4 || point > 16) {
        put_char(j, digits[0]);
        if (count > 1) {
            put_char(j, '.');
            put(j, digits + 1, count - 1);
        }
        put(j, point > 0 ? "e+" : "e-", 2);
        put_padded(j, (uint64_t)abs(point - 1), 2);
    } else if (point <= 0) {
        put(j, "0.000", (size_t)(2 - point));
        put(j, digits, count);
    } else if ((size_t)point < count) {
        put(j, digits, (size_t)point);
        put_char(j, '.');
        put(j, digits + point, count - (size_t)point);
    } else {
        put(j, digits, count);
        put(j, "000000000000000", (size_t)point - count);
        put(j, ".0", 2);
    }
}

/* -------------------------------------------------------------------------------- reading */

/* What is left to read of the payload. */
typedef struct {
    const uint8_t *at; /* NULL: there is no such value */
    size_t size;
} cursor;

static vev_msgpack_item next(cursor *c)
{
    vev_msgpack_item item;
    size_t size = vev_msgpack_read(c->at, c->size, &item);
    if (size != 0) { /* else there may be nothing at all */
        c->at += size;
        c->size -= size;
    }
    return item;
}

static bool next_array(cursor *c, uint32_t *count)
{
    vev_msgpack_item item = next(c);
    *count = item.count;
    return item.type == VEV_MSGPACK_ARRAY;
}

/* Lay out a map: one cursor for each key, which the caller has zeroed. Keys that are not among them
 * or come twice are an error. */
static bool lay_out(cursor *c, const char *const keys[], size_t key_count, cursor values[])
{
    vev_msgpack_item map = next(c);
    if (map.type != VEV_MSGPACK_MAP)
        return false;
    for (uint32_t i = 0; i < map.count; i++) {
        vev_msgpack_item key = next(c);
        size_t k = 0;
        if (key.type != VEV_MSGPACK_STR)
            return false;
        while (k < key_count && !vev_is_word(keys[k], key.text, key.count))
            k++;
        if (k == key_count || values[k].at != NULL)
            return false;
        size_t size = vev_msgpack_value_size(c->at, c->size);
        if (size == 0)
            return false;
        values[k] = (cursor){c->at, size};
        c->at += size;
        c->size -= size;
    }
    return true;
}

static bool chars_ok(const vev_msgpack_item *item, size_t chars_min, size_t chars_max)
{
    size_t chars = item->count;
    if (item->type != VEV_MSGPACK_STR || item->count < chars_min)
        return false;
    if (chars_max == 0 || chars <= chars_max)
        return true; /* a character takes a byte at least */
    return vev_msgpack_utf8_check(item->text, item->count, &chars) && chars <= chars_max;
}

static bool text(json *j, cursor *c, size_t chars_min, size_t chars_max)
{
    vev_msgpack_item item = next(c);
    if (!chars_ok(&item, chars_min, chars_max))
        return false;
    put_string(j, item.text, item.count);
    return true;
}

/* A key with a text that may be absent. */
static bool text_member(json *j, char *before, const char *key, cursor *c, size_t chars_min,
                        size_t chars_max)
{
    if (c->at == NULL)
        return true;
    put_key(j, *before, key, strlen(key));
    *before = ',';
    return text(j, c, chars_min, chars_max);
}

static bool put_integer(json *j, const vev_msgpack_item *item)
{
    if (item->type == VEV_MSGPACK_INT)
        put_char(j, '-');
    else if (item->type != VEV_MSGPACK_UINT)
        return false;
    put_padded(j, item->type == VEV_MSGPACK_INT ? -(uint64_t)item->i : item->u, 1);
    return true;
}

static bool integer(json *j, cursor *c)
{
    vev_msgpack_item item = next(c);
    return put_integer(j, &item);
}

/* A coordinate or a confidence. */
static bool number(json *j, cursor *c, double low, double high)
{
    vev_msgpack_item item = next(c);
    double value;
    switch (item.type) {
    case VEV_MSGPACK_UINT: value = (double)item.u; break;
    case VEV_MSGPACK_INT: value = (double)item.i; break;
    case VEV_MSGPACK_FLOAT32: value = item.real; break;
    default: return false;
    }
    if (!(value >= low && value <= high)) /* NaN, too */
        return false;
    if (item.type != VEV_MSGPACK_FLOAT32)
        return put_integer(j, &item);
    vev_decimal d = {0};
    if (value != 0)
        d = vev_decimal_of_float(fabs(value));
    put_decimal(j, signbit(value), d);
    return true;
}

/* A coordinate, and what stands before it. */
static bool coordinate(json *j, const char *before, cursor *c)
{
    put_text(j, before);
    return number(j, c, -VEV_COORDINATE_MAX, VEV_COORDINATE_MAX);
}

static bool extent(json *j, const char *before, cursor *c)
{
    put_text(j, before);
    return number(j, c, 0, VEV_COORDINATE_MAX);
}

static bool confidence(json *j, cursor *c)
{
    put_text(j, ",\"confidence\":");
    return number(j, c, 0, 1);
}

/* ------------------------------------------------------------------------------- the image */

static bool class_name(json *j, cursor *row)
{
    put_text(j, "{\"class\":");
    return text(j, row, 0, 0);
}

static bool detection(json *j, cursor *row)
{
    return class_name(j, row) && coordinate(j, ",\"x\":", row) && coordinate(j, ",\"y\":", row) &&
           extent(j, ",\"width\":", row) && extent(j, ",\"height\":", row) && confidence(j, row);
}

static bool classification(json *j, cursor *row)
{
    return class_name(j, row) && confidence(j, row);
}

static bool segmentation(json *j, cursor *row)
{
    uint32_t count;
    if (!detection(j, row) || !next_array(row, &count) || count % 2 != 0 ||
        count < 2 * VEV_POLYGON_POINT_COUNT_MIN)
        return false;
    put_text(j, ",\"points\":");
    for (uint32_t i = 0; i < count; i += 2) {
        if (!coordinate(j, i == 0 ? "[[" : ",[", row) || !coordinate(j, ",", row))
            return false;
        put_char(j, ']');
    }
    put_char(j, ']');
    return true;
}

static bool skeleton(json *j, cursor *row)
{
    uint32_t count;
    if (!detection(j, row) || !next_array(row, &count) || count % 3 != 0)
        return false;
    put_text(j, ",\"keypoints\":[");
    for (uint32_t i = 0; i < count; i += 3) {
        put_text(j, i == 0 ? "{\"id\":" : ",{\"id\":");
        if (!integer(j, row) || !coordinate(j, ",\"x\":", row) || !coordinate(j, ",\"y\":", row))
            return false;
        put_char(j, '}');
    }
    put_char(j, ']');
    return true;
}

typedef enum {
    IMAGE_SOURCE,
    IMAGE_INPUT_SOURCE,
    IMAGE_LABEL,
    IMAGE_LISTS,
    IMAGE_KEY_COUNT = IMAGE_LISTS + 4
} image_key;

/* In the order of the JSON. A frame of the log is no key here. */
static const char *const image_keys[IMAGE_KEY_COUNT] = {
    "sourceId",        "inputSourceId",         "label",     "objectDetections",
    "classifications", "instanceSegmentations", "keypoints",
};

static const struct {
    bool (*write)(json *j, cursor *row);
    uint32_t columns;
} lists[] = {{detection, 6}, {classification, 2}, {segmentation, 7}, {skeleton, 7}};

/* One list of annotations; an empty one is left out. */
static bool list(json *j, char *before, unsigned which, cursor *c)
{
    const char *key = image_keys[IMAGE_LISTS + which];
    uint32_t count, columns;
    if (c->at == NULL)
        return true;
    if (!next_array(c, &count) || count > VEV_ANNOTATION_COUNT_MAX)
        return false;
    if (count == 0)
        return true;
    put_key(j, *before, key, strlen(key));
    *before = ',';
    for (uint32_t i = 0; i < count; i++) {
        put_char(j, i == 0 ? '[' : ',');
        if (!next_array(c, &columns) || columns != lists[which].columns ||
            !lists[which].write(j, c))
            return false;
        put_char(j, '}');
    }
    put_char(j, ']');
    return true;
}

static bool image(json *j, cursor *c)
{
    cursor values[IMAGE_KEY_COUNT] = {{0}};
    char before = '{';
    if (!lay_out(c, image_keys, IMAGE_KEY_COUNT, values))
        return false;
    for (image_key k = IMAGE_SOURCE; k < IMAGE_LISTS; k++) {
        if (!text_member(j, &before, image_keys[k], &values[k], k != IMAGE_LABEL, 0))
            return false;
    }
    for (unsigned which = 0; which < IMAGE_KEY_COUNT - IMAGE_LISTS; which++) {
        if (!list(j, &before, which, &values[IMAGE_LISTS + which]))
            return false;
    }
    put_text(j, before == '{' ? "{}" : "}");
    return true;
}

/* The images, and which of them to show first; both may be absent. */
static bool images(json *j, cursor *c, cursor *position)
{
    uint32_t count = 0;
    if (c->at != NULL && !next_array(c, &count))
        return false;
    for (uint32_t i = 0; i < count; i++) {
        put_text(j, i == 0 ? ",\"images\":[" : ",");
        if (!image(j, c))
            return false;
    }
    if (count != 0)
        put_char(j, ']');
    if (position->at == NULL)
        return true;
    vev_msgpack_item item = next(position);
    put_text(j, ",\"displayImagePosition\":");
    return item.type == VEV_MSGPACK_UINT && item.u < count && put_integer(j, &item);
}

/* ------------------------------------------------------------------------------- the event */

static bool data_value(json *j, cursor *c, const vev_data_rule *rule)
{
    if (rule->rule == VEV_RULE_INT)
        return integer(j, c);
    vev_msgpack_item item = next(c);
    bool ok = item.type == VEV_MSGPACK_STR;
    if (ok && rule->rule == VEV_RULE_CHOICE)
        ok = vev_is_choice(rule->choices, item.text, item.count);
    else if (ok && rule->rule == VEV_RULE_WORD)
        ok = vev_charset_ok(item.text, item.count, "_-");
    else if (ok && rule->rule == VEV_RULE_ID)
        ok = chars_ok(&item, 1, VEV_ID_CHARS_MAX);
    else
        ok = ok && chars_ok(&item, 0, rule->chars_max);
    if (ok)
        put_string(j, item.text, item.count);
    return ok;
}

static bool event_data(json *j, cursor *c, unsigned kind_bit)
{
    unsigned given = 0;
    vev_msgpack_item map = {.type = VEV_MSGPACK_MAP};
    put_text(j, ",\"eventData\":");
    if (c->at != NULL)
        map = next(c);
    if (map.type != VEV_MSGPACK_MAP)
        return false;
    for (uint32_t i = 0; i < map.count; i++) {
        vev_msgpack_item key = next(c);
        unsigned r = 0;
        if (key.type != VEV_MSGPACK_STR)
            return false;
        while (r < VEV_DATA_RULE_COUNT &&
               ((vev_data_rules[r].kinds & kind_bit) == 0 ||
                !vev_is_word(vev_data_rules[r].key, key.text, key.count)))
            r++;
        if (r == VEV_DATA_RULE_COUNT || (given & 1u << r) != 0)
            return false;
        given |= 1u << r;
        put_key(j, i == 0 ? '{' : ',', key.text, key.count);
        if (!data_value(j, c, &vev_data_rules[r]))
            return false;
    }
    put_text(j, map.count == 0 ? "{}" : "}");
    for (unsigned r = 0; r < VEV_DATA_RULE_COUNT; r++) {
        if ((vev_data_rules[r].mandatory & kind_bit) != 0 && (given & 1u << r) == 0)
            return false;
    }
    return true;
}

static bool metadata_value(json *j, cursor *c)
{
    vev_msgpack_item item = next(c);
    switch (item.type) {
    case VEV_MSGPACK_BOOL: put_text(j, item.u != 0 ? "true" : "false"); return true;
    case VEV_MSGPACK_UINT:
    case VEV_MSGPACK_INT: return put_integer(j, &item);
    case VEV_MSGPACK_FLOAT64: {
        vev_decimal d = {0};
        if (!isfinite(item.real))
            return false;
        if (item.real != 0)
            d = vev_decimal_of_double(fabs(item.real));
        put_decimal(j, signbit(item.real), d);
        return true;
    }
    default:
        if (!chars_ok(&item, 0, VEV_META_TEXT_CHARS_MAX))
            return false;
        put_string(j, item.text, item.count);
        return true;
    }
}

static bool metadata(json *j, cursor *c)
{
    vev_msgpack_item keys[VEV_META_COUNT_MAX];
    if (c->at == NULL)
        return true;
    vev_msgpack_item map = next(c);
    if (map.type != VEV_MSGPACK_MAP || map.count > VEV_META_COUNT_MAX)
        return false;
    if (map.count == 0)
        return true;
    put_text(j, ",\"customMetadata\":");
    for (uint32_t i = 0; i < map.count; i++) {
        keys[i] = next(c);
        if (keys[i].type != VEV_MSGPACK_STR || keys[i].count > VEV_META_KEY_CHARS_MAX ||
            !vev_charset_ok(keys[i].text, keys[i].count, "_- "))
            return false;
        for (uint32_t k = 0; k < i; k++) {
            if (keys[k].count == keys[i].count &&
                memcmp(keys[k].text, keys[i].text, keys[i].count) == 0)
                return false;
        }
        put_key(j, i == 0 ? '{' : ',', keys[i].text, keys[i].count);
        if (!metadata_value(j, c))
            return false;
    }
    put_char(j, '}');
    return true;
}

static void put_uuid(json *j, const uint8_t id[16])
{
    char digits[36];
    size_t at = 0;
    for (unsigned i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            digits[at++] = '-';
        digits[at++] = "0123456789abcdef"[id[i] >> 4];
        digits[at++] = "0123456789abcdef"[id[i] & 15];
    }
    put_char(j, '"');
    put(j, digits, sizeof digits);
    put_char(j, '"');
}

/* UTC, cut to microseconds, with a numeric offset. */
static bool timestamp(json *j, int64_t wall_ns)
{
    if (wall_ns < 0 || wall_ns >= VEV_WALL_NS_MAX)
        return false;
    time_t seconds = (time_t)(wall_ns / 1000000000);
    struct tm t;
    if (gmtime_r(&seconds, &t) == NULL)
        return false;
    put_padded(j, (uint64_t)t.tm_year + 1900, 4);
    put_char(j, '-');
    put_padded(j, (uint64_t)t.tm_mon + 1, 2);
    put_char(j, '-');
    put_padded(j, (uint64_t)t.tm_mday, 2);
    put_char(j, 'T');
    put_padded(j, (uint64_t)t.tm_hour, 2);
    put_char(j, ':');
    put_padded(j, (uint64_t)t.tm_min, 2);
    put_char(j, ':');
    put_padded(j, (uint64_t)t.tm_sec, 2);
    put_char(j, '.');
    put_padded(j, (uint64_t)(wall_ns % 1000000000 / 1000), 6);
    put_text(j, "+00:00");
    return true;
}

typedef enum {
    KEY_ID,
    KEY_TYPE,
    KEY_USE_CASE,
    KEY_DEVICE,
    KEY_STREAM,
    KEY_WORKFLOW,
    KEY_IMAGES,
    KEY_POSITION,
    KEY_DATA,
    KEY_METADATA,
    KEY_COUNT
} event_key;

/* In the order of the JSON, in which the timestamp follows the use case. */
static const char *const event_keys[KEY_COUNT] = {
    "eventId",   "eventType",      "useCaseId", "deviceId",
    "streamId",  "workflowId",     "images",    "displayImagePosition",
    "eventData", "customMetadata",
};

/* Read the type of an event. Returns its number, or 0. */
static unsigned kind(cursor *c)
{
    vev_msgpack_item item = next(c);
    for (unsigned k = 1; item.type == VEV_MSGPACK_STR && k < VEV_KIND_NAME_COUNT; k++) {
        if (vev_is_word(vev_kind_names[k], item.text, item.count))
            return k;
    }
    return 0;
}

static bool event(json *j, cursor values[KEY_COUNT], const vev_json_record *record)
{
    char before = '{';
    if (values[KEY_ID].at == NULL) {
        put_text(j, "{\"eventId\":");
        put_uuid(j, record->id);
        before = ',';
    } else if (!text_member(j, &before, "eventId", &values[KEY_ID], 1, VEV_ID_CHARS_MAX)) {
        return false;
    }
    unsigned number_of_kind = kind(&values[KEY_TYPE]);
    if (number_of_kind == 0)
        return false;
    put_text(j, ",\"eventType\":\"");
    put_text(j, vev_kind_names[number_of_kind]);
    put_char(j, '"');
    if (values[KEY_USE_CASE].at == NULL) {
        if (record->use_case == NULL)
            return false;
        put_text(j, ",\"useCaseId\":");
        put_string(j, record->use_case, record->use_case_size);
    } else if (!text_member(j, &before, "useCaseId", &values[KEY_USE_CASE], 1, VEV_ID_CHARS_MAX)) {
        return false;
    }
    put_text(j, ",\"timestamp\":\"");
    if (!timestamp(j, record->wall_ns))
        return false;
    put_char(j, '"');
    for (event_key k = KEY_DEVICE; k <= KEY_WORKFLOW; k++) {
        if (!text_member(j, &before, event_keys[k], &values[k], 1, VEV_ID_CHARS_MAX))
            return false;
    }
    if (!images(j, &values[KEY_IMAGES], &values[KEY_POSITION]) ||
        !event_data(j, &values[KEY_DATA], 1u << number_of_kind) ||
        !metadata(j, &values[KEY_METADATA]))
        return false;
    put_char(j, '}');
    return true;
}

int64_t vev_json_event(const void *payload, size_t size, const vev_json_record *record, char *out,
                       size_t cap)
{
    cursor whole = {payload, size}, values[KEY_COUNT] = {{0}};
    json j = {.data = out, .cap = cap};
    if (!lay_out(&whole, event_keys, KEY_COUNT, values) || whole.size != 0 ||
        values[KEY_TYPE].at == NULL || !event(&j, values, record) || j.full)
        return 0;
    return values[KEY_USE_CASE].at != NULL ? (int64_t)j.size : -(int64_t)j.size;
}
