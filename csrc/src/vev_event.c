/* The fields of an event, within the limits of the contract, and its end; images are in vev_image. */
#include "vevents/event.h"

#include <float.h>

#include "vev_contract.h"
#include "vev_draft.h"

VEV_STATIC_ASSERT(VEV_DATA_RULE_COUNT <= 16, "data_given has a bit for each");

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

static void write_text(vev_draft *d, const char *text)
{
    vev_msgpack_write_str(&d->w, text, strlen(text));
}

void vev_event_begin(vev_event *ev, void *buffer, size_t buffer_size, int kind,
                     const char *use_case_id)
{
    vev_draft *d = vev_draft_of(ev);
    memset(d, 0, sizeof *d);
    vev_msgpack_writer_init(&d->w, buffer, VEV_MIN(buffer_size, (size_t)UINT32_MAX));
    if (kind < VEV_KIND_QUALITY_CHECK || kind > VEV_KIND_OPERATOR_FEEDBACK) {
        vev_draft_fail(d, VEV_E_INVALID,
                       "eventType: must be VEV_KIND_QUALITY_CHECK (1) .. "
                       "VEV_KIND_OPERATOR_FEEDBACK (5), is %d",
                       kind);
        return;
    }
    d->kind = (uint8_t)kind;
    vev_msgpack_write_map(&d->w, 1);
    vev_draft_write_key(d, VEV_DRAFT_TYPE);
    write_text(d, vev_kind_names[kind]);
    vev_draft_settle(d, VEV_DRAFT_TYPE);
    vev_draft_set_text(d, VEV_DRAFT_USE_CASE, use_case_id, 1, VEV_ID_CHARS_MAX);
}

void vev_event_copy(vev_event *ev, void *buffer, size_t buffer_size, const vev_event *from)
{
    const vev_draft *f = (const vev_draft *)(const void *)from;
    vev_draft *d = vev_draft_of(ev);
    memcpy(d, f, sizeof *d);
    vev_msgpack_writer_init(&d->w, buffer, VEV_MIN(buffer_size, (size_t)UINT32_MAX));
    if (d->status == VEV_OK) {
        vev_msgpack_write_raw(&d->w, f->w.data, f->w.size);
        if (d->w.status != VEV_OK)
            vev_draft_fail_too_big(d);
    }
}

void vev_event_id(vev_event *ev, const char *event_id)
{
    vev_draft *d = vev_draft_of(ev);
    if (d->status != VEV_OK || event_id == NULL)
        return;
    if ((d->entry_flags & VEV_APPEND_ID) != 0)
        vev_draft_fail_field(d, VEV_DRAFT_EVENT_ID, NULL, "is given twice");
    else if (d->count[VEV_DRAFT_EVENT_ID] == 0 && uuid_parse(event_id, d->id))
        d->entry_flags |= VEV_APPEND_ID; /* goes into the record's header */
    else
        vev_draft_set_text(d, VEV_DRAFT_EVENT_ID, event_id, 1, VEV_ID_CHARS_MAX);
}

void vev_event_time(vev_event *ev, int64_t wall_ns)
{
    vev_draft *d = vev_draft_of(ev);
    if (wall_ns < 0 || wall_ns >= VEV_WALL_NS_MAX)
        vev_draft_fail(d, VEV_E_INVALID, "timestamp: must lie in 1970 to 2261");
    else if ((d->entry_flags & VEV_APPEND_TIME) != 0)
        vev_draft_fail(d, VEV_E_INVALID, "timestamp: is given twice");
    d->wall_ns = wall_ns;
    d->entry_flags |= VEV_APPEND_TIME;
}

void vev_event_device(vev_event *ev, const char *device_id)
{
    vev_draft_set_text(vev_draft_of(ev), VEV_DRAFT_DEVICE, device_id, 1, VEV_ID_CHARS_MAX);
}

void vev_event_stream(vev_event *ev, const char *stream_id)
{
    vev_draft_set_text(vev_draft_of(ev), VEV_DRAFT_STREAM, stream_id, 1, VEV_ID_CHARS_MAX);
}

void vev_event_workflow(vev_event *ev, const char *workflow_id)
{
    vev_draft_set_text(vev_draft_of(ev), VEV_DRAFT_WORKFLOW, workflow_id, 1, VEV_ID_CHARS_MAX);
}

/* Find the rule for a key of eventData that is given for the first time, or fail. */
static int data_rule_find(vev_draft *d, const char *key)
{
    if (key == NULL) {
        vev_draft_fail_field(d, VEV_DRAFT_DATA, NULL, "a key must not be NULL");
        return -1;
    }
    for (int i = 0; i < VEV_DATA_RULE_COUNT; i++) {
        if ((vev_data_rules[i].kinds & 1u << d->kind) == 0 ||
            strcmp(vev_data_rules[i].key, key) != 0)
            continue;
        if ((d->data_given & 1u << i) == 0)
            return i;
        vev_draft_fail_field(d, VEV_DRAFT_DATA, key, "is given twice");
        return -1;
    }
    vev_draft_fail(
        d, VEV_E_INVALID, "%s: is no key of %s",
        vev_draft_path(d, VEV_DRAFT_DATA, vev_charset_ok(key, strlen(key), "_-") ? key : "?").text,
        vev_kind_names[d->kind]);
    return -1;
}

/* Put the key and the value that have just been written into eventData. */
static void data_settle(vev_draft *d, int rule_index)
{
    if (vev_draft_settle(d, VEV_DRAFT_DATA)) {
        vev_draft_count_up(d, VEV_DRAFT_DATA);
        d->data_given = (uint16_t)(d->data_given | 1u << rule_index);
    }
}

static bool data_text_ok(vev_draft *d, int rule_index, const char *value, size_t *size_out)
{
    const char *key = vev_data_rules[rule_index].key;
    const char *const *choices = vev_data_rules[rule_index].choices;
    *size_out = strlen(value);
    switch (vev_data_rules[rule_index].rule) {
    case VEV_RULE_TEXT:
        return vev_draft_text_ok(d, VEV_DRAFT_DATA, key, value, 0,
                                 vev_data_rules[rule_index].chars_max, size_out);
    case VEV_RULE_ID:
        return vev_draft_text_ok(d, VEV_DRAFT_DATA, key, value, 1, VEV_ID_CHARS_MAX, size_out);
    case VEV_RULE_CHOICE:
        if (vev_is_choice(choices, value, *size_out))
            return true;
        vev_draft_fail(d, VEV_E_INVALID, "eventData.%s: must be one of %s, %s%s%s", key, choices[0],
                       choices[1], choices[2] != NULL ? ", " : "",
                       choices[2] != NULL ? choices[2] : "");
        return false;
    case VEV_RULE_WORD:
        if (vev_charset_ok(value, *size_out, "_-"))
            return true;
        vev_draft_fail_field(d, VEV_DRAFT_DATA, key,
                             "must be letters, digits, '_' and '-', at least one");
        return false;
    case VEV_RULE_INT: break;
    }
    vev_draft_fail_field(d, VEV_DRAFT_DATA, key, "must be an integer, not text");
    return false;
}

void vev_event_data_str(vev_event *ev, const char *key, const char *value)
{
    vev_draft *d = vev_draft_of(ev);
    size_t size;
    if (d->status != VEV_OK || value == NULL)
        return;
    int rule_index = data_rule_find(d, key);
    if (rule_index < 0 || !data_text_ok(d, rule_index, value, &size) ||
        !vev_draft_open_container(d, VEV_DRAFT_DATA))
        return;
    write_text(d, key);
    vev_msgpack_write_str(&d->w, value, size);
    data_settle(d, rule_index);
}

void vev_event_data_int(vev_event *ev, const char *key, int64_t value)
{
    vev_draft *d = vev_draft_of(ev);
    if (d->status != VEV_OK)
        return;
    int rule_index = data_rule_find(d, key);
    if (rule_index < 0)
        return;
    if (vev_data_rules[rule_index].rule != VEV_RULE_INT) {
        vev_draft_fail_field(d, VEV_DRAFT_DATA, key, "must be text, not an integer");
        return;
    }
    if (!vev_draft_open_container(d, VEV_DRAFT_DATA))
        return;
    write_text(d, key);
    vev_msgpack_write_int(&d->w, value);
    data_settle(d, rule_index);
}

/* Check a key of customMetadata and write it behind the last slot. */
static bool meta_begin(vev_draft *d, const char *key)
{
    if (d->status != VEV_OK)
        return false;
    if (key == NULL || !vev_charset_ok(key, strlen(key), "_- ") ||
        strlen(key) > VEV_META_KEY_CHARS_MAX) {
        vev_draft_fail(
            d, VEV_E_INVALID,
            "customMetadata: a key must have 1 to %d letters, digits, '_', '-' or spaces",
            VEV_META_KEY_CHARS_MAX);
        return false;
    }
    if (d->count[VEV_DRAFT_META] == VEV_META_COUNT_MAX) {
        vev_draft_fail(d, VEV_E_INVALID, "customMetadata: must have at most %d keys",
                       VEV_META_COUNT_MAX);
        return false;
    }
    if (!vev_draft_open_container(d, VEV_DRAFT_META))
        return false;
    write_text(d, key);
    return true;
}

/* Is the key that has just been written behind the last slot in customMetadata already? */
static bool meta_has_key(const vev_draft *d, const char *key)
{
    const uint8_t *data = d->w.data;
    const uint8_t *fresh = data + d->end[VEV_DRAFT_SLOT_COUNT - 1];
    size_t fresh_size = strlen(key) + (strlen(key) < 32 ? 1 : 2);
    size_t end = d->end[VEV_DRAFT_META];
    size_t at =
        vev_draft_header_offset(d, VEV_DRAFT_META) + (d->count[VEV_DRAFT_META] < 16 ? 1 : 3);
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
static void meta_settle(vev_draft *d, const char *key)
{
    if (d->w.status == VEV_OK && meta_has_key(d, key))
        vev_draft_fail_field(d, VEV_DRAFT_META, key, "is given twice");
    else if (vev_draft_settle(d, VEV_DRAFT_META))
        vev_draft_count_up(d, VEV_DRAFT_META);
}

void vev_event_meta_str(vev_event *ev, const char *key, const char *value)
{
    vev_draft *d = vev_draft_of(ev);
    size_t size;
    if (value == NULL || !meta_begin(d, key) ||
        !vev_draft_text_ok(d, VEV_DRAFT_META, key, value, 0, VEV_META_TEXT_CHARS_MAX, &size))
        return;
    vev_msgpack_write_str(&d->w, value, size);
    meta_settle(d, key);
}

void vev_event_meta_int(vev_event *ev, const char *key, int64_t value)
{
    vev_draft *d = vev_draft_of(ev);
    if (!meta_begin(d, key))
        return;
    vev_msgpack_write_int(&d->w, value);
    meta_settle(d, key);
}

void vev_event_meta_num(vev_event *ev, const char *key, double value)
{
    vev_draft *d = vev_draft_of(ev);
    if (!meta_begin(d, key) ||
        !vev_draft_number_ok(d, VEV_DRAFT_META, key, value, -DBL_MAX, DBL_MAX, "must be finite"))
        return;
    vev_msgpack_write_float64(&d->w, value);
    meta_settle(d, key);
}

void vev_event_meta_bool(vev_event *ev, const char *key, int value)
{
    vev_draft *d = vev_draft_of(ev);
    if (!meta_begin(d, key))
        return;
    vev_msgpack_write_bool(&d->w, value != 0);
    meta_settle(d, key);
}

void vev_event_display_image(vev_event *ev, uint32_t position)
{
    vev_draft *d = vev_draft_of(ev);
    if (d->status != VEV_OK || !vev_draft_not_given_yet(d, VEV_DRAFT_DISPLAY))
        return;
    d->display_position = position; /* finish knows how many images there are */
    vev_draft_write_key(d, VEV_DRAFT_DISPLAY);
    vev_msgpack_write_uint(&d->w, position);
    vev_draft_settle_value(d, VEV_DRAFT_DISPLAY);
}

/* ---- finish ---- */

static void check_whole(vev_draft *d)
{
    if (d->image_open)
        vev_draft_fail(d, VEV_E_INVALID, "images[%d]: has not been ended",
                       d->count[VEV_DRAFT_IMAGES] - 1);
    for (int i = 0; i < VEV_DATA_RULE_COUNT; i++) {
        if ((vev_data_rules[i].mandatory & 1u << d->kind) != 0 && (d->data_given & 1u << i) == 0)
            vev_draft_fail_field(d, VEV_DRAFT_DATA, vev_data_rules[i].key, "is missing");
    }
    if (d->count[VEV_DRAFT_DISPLAY] != 0 && d->display_position >= d->count[VEV_DRAFT_IMAGES])
        vev_draft_fail(d, VEV_E_INVALID, "displayImagePosition: is %u, but there are %d images",
                       (unsigned)d->display_position, d->count[VEV_DRAFT_IMAGES]);
}

vev_status vev_event_finish(vev_event *ev, const void **payload_out, size_t *size_out,
                            vev_entry *entry)
{
    vev_draft *d = vev_draft_of(ev);
    *payload_out = NULL;
    *size_out = 0;
    if (d->status == VEV_OK)
        check_whole(d);
    if (d->status != VEV_OK)
        return d->status;
    VEV_ASSERT(d->w.size == d->end[VEV_DRAFT_SLOT_COUNT - 1]);
    *payload_out = d->w.data;
    *size_out = d->w.size;
    if (entry != NULL) {
        entry->flags &= ~(uint32_t)(VEV_APPEND_TIME | VEV_APPEND_ID);
        entry->flags |= d->entry_flags;
        entry->kind = d->kind;
        entry->wall_ns = d->wall_ns;
        memcpy(entry->id, d->id, sizeof entry->id);
    }
    return VEV_OK;
}

const char *vev_event_error(const vev_event *ev)
{
    return ((const vev_draft *)(const void *)ev)->error;
}
