#include "vev_draft.h"

#include <stdarg.h>
#include <stdio.h>

/* All shorter than 32 bytes, so that the header of a key takes one byte. */
#define KEY(text) {text, sizeof text - 1}
const vev_draft_key vev_draft_keys[VEV_DRAFT_SLOT_COUNT] = {
    [VEV_DRAFT_TYPE] = KEY("eventType"),
    [VEV_DRAFT_USE_CASE] = KEY("useCaseId"),
    [VEV_DRAFT_EVENT_ID] = KEY("eventId"),
    [VEV_DRAFT_DEVICE] = KEY("deviceId"),
    [VEV_DRAFT_STREAM] = KEY("streamId"),
    [VEV_DRAFT_WORKFLOW] = KEY("workflowId"),
    [VEV_DRAFT_DATA] = KEY("eventData"),
    [VEV_DRAFT_META] = KEY("customMetadata"),
    [VEV_DRAFT_DISPLAY] = KEY("displayImagePosition"),
    [VEV_DRAFT_IMAGES] = KEY("images"),
    [VEV_DRAFT_LABEL] = KEY("label"),
    [VEV_DRAFT_FRAME] = KEY("frame"),
    [VEV_DRAFT_INPUT_FRAME] = KEY("inputFrame"),
    [VEV_DRAFT_SOURCE] = KEY("sourceId"),
    [VEV_DRAFT_INPUT_SOURCE] = KEY("inputSourceId"),
    [VEV_DRAFT_DETECTIONS] = KEY("objectDetections"),
    [VEV_DRAFT_CLASSIFICATIONS] = KEY("classifications"),
    [VEV_DRAFT_SEGMENTATIONS] = KEY("instanceSegmentations"),
    [VEV_DRAFT_KEYPOINTS] = KEY("keypoints"),
};

/* ---- errors ---- */

void vev_draft_fail(vev_draft *d, vev_status status, const char *format, ...)
{
    if (d->status != VEV_OK)
        return;
    d->status = status;
    va_list args;
    va_start(args, format);
    vsnprintf(d->error, sizeof d->error, format, args);
    va_end(args);
}

vev_field_path vev_draft_path(const vev_draft *d, vev_draft_slot s, const char *member)
{
    vev_field_path p;
    unsigned image = d->count[VEV_DRAFT_IMAGES] - 1u; /* used only while one is open */
    const char *dot = member != NULL ? "." : "";
    const char *name = member != NULL ? member : "";
    if (s < VEV_DRAFT_IMAGE)
        snprintf(p.text, sizeof p.text, "%s%s%.60s", vev_draft_keys[s].text, dot, name);
    else if (s < VEV_DRAFT_DETECTIONS)
        snprintf(p.text, sizeof p.text, "images[%u].%s%s%s", image, vev_draft_keys[s].text, dot,
                 name);
    else
        snprintf(p.text, sizeof p.text, "images[%u].%s[%u]%s%s", image, vev_draft_keys[s].text,
                 (unsigned)d->count[s], dot, name);
    return p;
}

void vev_draft_fail_field(vev_draft *d, vev_draft_slot s, const char *member, const char *reason)
{
    vev_draft_fail(d, VEV_E_INVALID, "%s: %s", vev_draft_path(d, s, member).text, reason);
}

void vev_draft_fail_too_big(vev_draft *d)
{
    vev_draft_fail(d, VEV_E_TOO_BIG, "event: does not fit into the buffer of %zu bytes", d->w.cap);
}

/* ---- layout ---- */

static size_t slot_start(const vev_draft *d, vev_draft_slot s)
{
    return s == 0 ? 0 : d->end[s - 1];
}

size_t vev_draft_header_offset(const vev_draft *d, vev_draft_slot s)
{
    return slot_start(d, s) + 1 + vev_draft_keys[s].size;
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
static bool settle_at(vev_draft *d, vev_draft_slot s, size_t at)
{
    size_t total = d->end[VEV_DRAFT_SLOT_COUNT - 1];
    if (VEV_UNLIKELY(d->w.status != VEV_OK)) {
        vev_draft_fail_too_big(d);
        return false;
    }
    VEV_ASSERT(at >= slot_start(d, s) && at <= d->end[s] && d->w.size >= total);
    uint32_t added = (uint32_t)(d->w.size - total);
    if (at != total)
        rotate(d->w.data, at, total, added);
    for (vev_draft_slot i = s; i < VEV_DRAFT_SLOT_COUNT; i++)
        d->end[i] += added;
    return true;
}

bool vev_draft_settle(vev_draft *d, vev_draft_slot s) { return settle_at(d, s, d->end[s]); }

void vev_draft_count_up(vev_draft *d, vev_draft_slot s)
{
    size_t header = vev_draft_header_offset(d, s);
    unsigned count = d->count[s] + 1u;
    if (count == 16) {
        vev_msgpack_write_raw(&d->w, "\0\0", 2);
        if (!settle_at(d, s, header + 1))
            return;
        uint8_t *type = d->w.data + header;
        VEV_ASSERT(*type == 0x8f || *type == 0x9f);
        *type = *type == 0x8f ? 0xde : 0xdc;
    }
    d->count[s] = (uint16_t)count;
    if (count < 16) {
        d->w.data[header]++;
    } else {
        d->w.data[header + 1] = (uint8_t)(count >> 8);
        d->w.data[header + 2] = (uint8_t)count;
    }
}

void vev_draft_write_key(vev_draft *d, vev_draft_slot s)
{
    vev_msgpack_write_str(&d->w, vev_draft_keys[s].text, vev_draft_keys[s].size);
}

/* A slot has got its first bytes: one key more in the map that it is part of. Neither map has 16
 * keys, so the count stays in the header's byte. */
static void slot_filled(vev_draft *d, vev_draft_slot s)
{
    d->w.data[s < VEV_DRAFT_IMAGE ? 0 : slot_start(d, VEV_DRAFT_IMAGE)]++;
}

void vev_draft_settle_value(vev_draft *d, vev_draft_slot s)
{
    if (vev_draft_settle(d, s)) {
        d->count[s] = 1;
        slot_filled(d, s);
    }
}

bool vev_draft_open_container(vev_draft *d, vev_draft_slot s)
{
    if (d->count[s] != 0)
        return true;
    vev_draft_write_key(d, s);
    if (s == VEV_DRAFT_DATA || s == VEV_DRAFT_META)
        vev_msgpack_write_map(&d->w, 0);
    else
        vev_msgpack_write_array(&d->w, 0);
    if (!vev_draft_settle(d, s))
        return false;
    slot_filled(d, s);
    return true;
}

/* ---- checks ---- */

bool vev_draft_not_given_yet(vev_draft *d, vev_draft_slot s)
{
    if (d->count[s] == 0)
        return true;
    vev_draft_fail_field(d, s, NULL, "is given twice");
    return false;
}

bool vev_draft_text_ok(vev_draft *d, vev_draft_slot s, const char *member, const char *text,
                       size_t chars_min, size_t chars_max, size_t *size_out)
{
    size_t size = strlen(text), chars;
    *size_out = size;
    if (!vev_msgpack_utf8_check(text, size, &chars)) {
        vev_draft_fail_field(d, s, member, "must be UTF-8");
        return false;
    }
    if (chars >= chars_min && (chars_max == 0 || chars <= chars_max))
        return true;
    vev_field_path p = vev_draft_path(d, s, member);
    if (chars < chars_min)
        vev_draft_fail(d, VEV_E_INVALID, "%s: must not be empty", p.text);
    else
        vev_draft_fail(d, VEV_E_INVALID, "%s: must have at most %zu characters, has %zu", p.text,
                       chars_max, chars);
    return false;
}

/* ---- a whole field ---- */

void vev_draft_set_text(vev_draft *d, vev_draft_slot s, const char *text, size_t chars_min,
                        size_t chars_max)
{
    size_t size;
    if (d->status != VEV_OK || text == NULL)
        return;
    if (!vev_draft_not_given_yet(d, s) ||
        !vev_draft_text_ok(d, s, NULL, text, chars_min, chars_max, &size))
        return;
    vev_draft_write_key(d, s);
    vev_msgpack_write_str(&d->w, text, size);
    vev_draft_settle_value(d, s);
}
