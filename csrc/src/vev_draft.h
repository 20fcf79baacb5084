/* An event that is being built: its payload, and the first thing that is wrong with it.
 *
 * The payload has a fixed order of keys and the shortest form of every header, whatever order the
 * calls come in; so the same event has the same bytes, from C and from Python. To get there
 * without a second buffer, the payload is kept as a row of slots, one for each key:
 *
 *     eventType | useCaseId | ... | images | open image | label | frame | ... | keypoints
 *     ^0        ^end[0]                    ^end[IMAGES]                                 ^w.size
 *
 * A slot is empty, or holds a key with its value. The slots behind IMAGES belong to the image that
 * is open; vev_event_image_end() moves their bytes into IMAGES, and the next image starts with
 * empty ones.
 *
 * Invariants between two calls, while no error has struck:
 *   1. end[] never falls, and end[VEV_DRAFT_SLOT_COUNT - 1] == w.size.
 *   2. buffer[0 .. w.size) is one well-formed payload of what has been given so far: the counts
 *      in the headers are right. So finish has nothing to write.
 *   3. count[slot] is 0 for an empty slot; else the number of elements, 1 for a plain value.
 *
 * Adding a thing writes it at the end, then settles it into its slot. In the natural order all
 * slots behind are empty and settling is a comparison; otherwise the bytes behind move up. A
 * header that outgrows its byte at the 16th element gets two more in the same way.
 *
 *     vev_event    the fields of the event itself
 *     vev_image    the fields of its images, and what was found on them */
#ifndef VEV_DRAFT_H
#define VEV_DRAFT_H

#include "vev_base.h"
#include "vev_msgpack.h"
#include "vevents/event.h"

typedef enum {
    VEV_DRAFT_TYPE, /* the payload's map header, and eventType */
    VEV_DRAFT_USE_CASE,
    VEV_DRAFT_EVENT_ID,
    VEV_DRAFT_DEVICE,
    VEV_DRAFT_STREAM,
    VEV_DRAFT_WORKFLOW,
    VEV_DRAFT_DATA,
    VEV_DRAFT_META,
    VEV_DRAFT_DISPLAY,
    VEV_DRAFT_IMAGES, /* key, array header, and all images that have been ended */
    VEV_DRAFT_IMAGE,  /* the open image's map header */
    VEV_DRAFT_LABEL,
    VEV_DRAFT_FRAME,
    VEV_DRAFT_INPUT_FRAME,
    VEV_DRAFT_SOURCE,
    VEV_DRAFT_INPUT_SOURCE,
    VEV_DRAFT_DETECTIONS,
    VEV_DRAFT_CLASSIFICATIONS,
    VEV_DRAFT_SEGMENTATIONS,
    VEV_DRAFT_KEYPOINTS,
    VEV_DRAFT_SLOT_COUNT
} vev_draft_slot;

/* The keys of the slots, as they stand in the payload; VEV_DRAFT_IMAGE has none. */
typedef struct vev_draft_key {
    const char *text;
    size_t size;
} vev_draft_key;
extern const vev_draft_key vev_draft_keys[VEV_DRAFT_SLOT_COUNT];

/* What is inside a vev_event. */
typedef struct vev_draft {
    vev_msgpack_writer w;
    int64_t wall_ns;
    uint32_t end[VEV_DRAFT_SLOT_COUNT];
    uint16_t count[VEV_DRAFT_SLOT_COUNT];
    uint16_t data_given; /* bit i: vev_data_rules[i] */
    uint8_t kind;
    bool image_open;
    uint32_t entry_flags;
    uint32_t display_position;
    uint8_t id[16];
    vev_status status;
    char error[192];
} vev_draft;
VEV_STATIC_ASSERT(sizeof(vev_draft) <= sizeof(vev_event), "the size of vev_event is ABI");
VEV_STATIC_ASSERT(_Alignof(vev_draft) <= _Alignof(vev_event), "and so is its alignment");

/* The library is built without strict aliasing, which is what allows this. */
static inline vev_draft *vev_draft_of(vev_event *ev) { return (vev_draft *)(void *)ev; }

/* ---- errors ---- */

/* Remember an error, unless there is one. */
__attribute__((format(printf, 3, 4))) void vev_draft_fail(vev_draft *d, vev_status status,
                                                          const char *format, ...);
/* One that a field has. `member` is a key in its container, or a column of the row that is being
 * written; NULL: the field itself. */
void vev_draft_fail_field(vev_draft *d, vev_draft_slot s, const char *member, const char *reason);
void vev_draft_fail_too_big(vev_draft *d);

/* The path of such a field as the API spells it. */
typedef struct vev_field_path {
    char text[112];
} vev_field_path;
vev_field_path vev_draft_path(const vev_draft *d, vev_draft_slot s, const char *member);

/* ---- checks: false, and the draft has an error, where they do not hold ---- */

/* A slot is filled once. */
bool vev_draft_not_given_yet(vev_draft *d, vev_draft_slot s);

/* A text is UTF-8 and of this length; `chars_max` 0: any. Its size comes in *size_out. */
bool vev_draft_text_ok(vev_draft *d, vev_draft_slot s, const char *member, const char *text,
                       size_t chars_min, size_t chars_max, size_t *size_out);

/* A number is not NaN, and within the limits. */
static inline bool vev_draft_number_ok(vev_draft *d, vev_draft_slot s, const char *member, double v,
                                       double low, double high, const char *reason)
{
    if (VEV_LIKELY(v >= low && v <= high))
        return true;
    vev_draft_fail_field(d, s, member, reason);
    return false;
}

/* ---- writing: behind the last slot, then into its own ---- */

void vev_draft_write_key(vev_draft *d, vev_draft_slot s);

/* Make what has been written behind the last slot the last of slot `s`. False: the draft has an
 * error. */
bool vev_draft_settle(vev_draft *d, vev_draft_slot s);
/* The same for a plain value with its key, which fill their slot. */
void vev_draft_settle_value(vev_draft *d, vev_draft_slot s);
/* A text that is a key of the event or of the open image, whole. NULL: nothing. */
void vev_draft_set_text(vev_draft *d, vev_draft_slot s, const char *text, size_t chars_min,
                        size_t chars_max);

/* Give a slot its key and an empty container, unless it has them. False: the draft has an error. */
bool vev_draft_open_container(vev_draft *d, vev_draft_slot s);
/* Where the header of a slot's container is: behind its key. */
size_t vev_draft_header_offset(const vev_draft *d, vev_draft_slot s);
/* One element more in the container of a slot. */
void vev_draft_count_up(vev_draft *d, vev_draft_slot s);

#endif
