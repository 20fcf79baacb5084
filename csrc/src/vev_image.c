/* The images of an event: their frames, and what the model found on them, a row for each. */
#include "vevents/event.h"

#include "vev_blake2b.h"
#include "vev_contract.h"
#include "vev_draft.h"

enum {
    IMAGE_COUNT_MAX = UINT16_MAX, /* the contract has none; the header has 16 bits */
    DIGEST_SIZE = 16
};

/* Up to here every whole number is a float, too. */
#define WHOLE_MAX 16777216

static bool image_is_open(vev_draft *d)
{
    if (!d->image_open)
        vev_draft_fail(d, VEV_E_INVALID, "images: no image has been begun");
    return d->image_open;
}

void vev_event_image_begin(vev_event *ev, const char *label)
{
    vev_draft *d = vev_draft_of(ev);
    if (d->status != VEV_OK)
        return;
    if (d->image_open) {
        vev_draft_fail(d, VEV_E_INVALID, "images[%d]: has not been ended",
                       d->count[VEV_DRAFT_IMAGES] - 1);
        return;
    }
    if (d->count[VEV_DRAFT_IMAGES] == IMAGE_COUNT_MAX) {
        vev_draft_fail(d, VEV_E_INVALID, "images: must have at most %d entries", IMAGE_COUNT_MAX);
        return;
    }
    if (!vev_draft_open_container(d, VEV_DRAFT_IMAGES))
        return;
    vev_msgpack_write_map(&d->w, 0);
    if (!vev_draft_settle(d, VEV_DRAFT_IMAGE))
        return;
    vev_draft_count_up(d, VEV_DRAFT_IMAGES);
    d->image_open = true;
    vev_draft_set_text(d, VEV_DRAFT_LABEL, label, 0, 0);
}

void vev_event_image_end(vev_event *ev)
{
    vev_draft *d = vev_draft_of(ev);
    if (d->status != VEV_OK || !image_is_open(d))
        return;
    d->image_open = false;
    for (vev_draft_slot s = VEV_DRAFT_IMAGES; s < VEV_DRAFT_SLOT_COUNT; s++) {
        d->end[s] = d->end[VEV_DRAFT_SLOT_COUNT - 1];
        if (s != VEV_DRAFT_IMAGES)
            d->count[s] = 0;
    }
}

void vev_frame_digest(const void *data, size_t size, uint8_t digest_out[16])
{
    vev_blake2b_128(digest_out, data, size);
}

static void set_frame(vev_draft *d, vev_draft_slot s, vev_draft_slot excluded, uint64_t seq,
                      const uint8_t *digest, uint64_t size)
{
    if (d->status != VEV_OK || !image_is_open(d) || !vev_draft_not_given_yet(d, s))
        return;
    if (d->count[excluded] != 0) {
        vev_draft_fail_field(d, excluded, NULL, "excludes a frame; give one");
    } else if (seq == 0 || digest == NULL || size == 0) {
        vev_draft_fail_field(d, s, NULL,
                             "must have a sequence number and a size from 1 on, and a digest");
    } else {
        vev_draft_write_key(d, s);
        vev_msgpack_write_array(&d->w, 3);
        vev_msgpack_write_uint(&d->w, seq);
        vev_msgpack_write_bin(&d->w, digest, DIGEST_SIZE);
        vev_msgpack_write_uint(&d->w, size);
        vev_draft_settle_value(d, s);
    }
}

void vev_event_image_frame(vev_event *ev, uint64_t seq, const uint8_t digest[16], uint64_t size)
{
    set_frame(vev_draft_of(ev), VEV_DRAFT_FRAME, VEV_DRAFT_SOURCE, seq, digest, size);
}

void vev_event_image_input_frame(vev_event *ev, uint64_t seq, const uint8_t digest[16],
                                 uint64_t size)
{
    set_frame(vev_draft_of(ev), VEV_DRAFT_INPUT_FRAME, VEV_DRAFT_INPUT_SOURCE, seq, digest, size);
}

static void set_source(vev_draft *d, vev_draft_slot s, vev_draft_slot excluded,
                       const char *source_id)
{
    if (d->status != VEV_OK || source_id == NULL || !image_is_open(d))
        return;
    if (d->count[excluded] != 0)
        vev_draft_fail_field(d, s, NULL, "excludes a frame; give one");
    else
        vev_draft_set_text(d, s, source_id, 1, 0);
}

void vev_event_image_source(vev_event *ev, const char *source_id)
{
    set_source(vev_draft_of(ev), VEV_DRAFT_SOURCE, VEV_DRAFT_FRAME, source_id);
}

void vev_event_image_input_source(vev_event *ev, const char *source_id)
{
    set_source(vev_draft_of(ev), VEV_DRAFT_INPUT_SOURCE, VEV_DRAFT_INPUT_FRAME, source_id);
}

/* ---- rows ---- */

/* A number of a row. A checked one: its conversions are exact or within range. */
static void write_number(vev_draft *d, double v)
{
    if (v >= -WHOLE_MAX && v <= WHOLE_MAX && v == (double)(int32_t)v)
        vev_msgpack_write_int(&d->w, (int32_t)v);
    else
        vev_msgpack_write_float32(&d->w, (float)v);
}

static bool coordinate_ok(vev_draft *d, vev_draft_slot s, const char *member, double v)
{
    return vev_draft_number_ok(d, s, member, v, -VEV_COORDINATE_MAX, VEV_COORDINATE_MAX,
                               "must be a finite float");
}

static bool extent_ok(vev_draft *d, vev_draft_slot s, const char *member, double v)
{
    return vev_draft_number_ok(d, s, member, v, 0, VEV_COORDINATE_MAX,
                               "must be a finite float, 0 or more");
}

/* Check what all annotations have, and write a row's header and class behind the last slot. */
static bool row_begin(vev_draft *d, vev_draft_slot s, const char *class_name, double confidence,
                      uint32_t column_count)
{
    size_t size;
    if (d->status != VEV_OK || !image_is_open(d))
        return false;
    if (d->count[s] == VEV_ANNOTATION_COUNT_MAX) {
        vev_draft_fail(d, VEV_E_INVALID, "images[%d].%s: must have at most %d entries",
                       d->count[VEV_DRAFT_IMAGES] - 1, vev_draft_keys[s].text,
                       VEV_ANNOTATION_COUNT_MAX);
        return false;
    }
    if (class_name == NULL) {
        vev_draft_fail_field(d, s, "class", "must not be NULL");
        return false;
    }
    if (!vev_draft_text_ok(d, s, "class", class_name, 0, 0, &size) ||
        !vev_draft_number_ok(d, s, "confidence", confidence, 0, 1, "must be 0 to 1") ||
        !vev_draft_open_container(d, s))
        return false;
    vev_msgpack_write_array(&d->w, column_count);
    vev_msgpack_write_str(&d->w, class_name, size);
    return true;
}

static void row_settle(vev_draft *d, vev_draft_slot s)
{
    if (vev_draft_settle(d, s))
        vev_draft_count_up(d, s);
}

/* A row up to its confidence: all there is to a detection, the front of the others. */
static bool box_begin(vev_draft *d, vev_draft_slot s, const char *class_name, double x, double y,
                      double width, double height, double confidence, uint32_t column_count)
{
    if (!row_begin(d, s, class_name, confidence, column_count) || !coordinate_ok(d, s, "x", x) ||
        !coordinate_ok(d, s, "y", y) || !extent_ok(d, s, "width", width) ||
        !extent_ok(d, s, "height", height))
        return false;
    write_number(d, x);
    write_number(d, y);
    write_number(d, width);
    write_number(d, height);
    write_number(d, confidence);
    return true;
}

void vev_event_detection(vev_event *ev, const char *class_name, double x, double y, double width,
                         double height, double confidence)
{
    vev_draft *d = vev_draft_of(ev);
    if (box_begin(d, VEV_DRAFT_DETECTIONS, class_name, x, y, width, height, confidence, 6))
        row_settle(d, VEV_DRAFT_DETECTIONS);
}

/* Add the detection in a box given by its corners. */
static void corners(vev_draft *d, const float box[4], float confidence, int64_t class_id,
                    const char *const *class_names, size_t class_count)
{
    vev_draft_slot s = VEV_DRAFT_DETECTIONS;
    if (class_id < 0 || (uint64_t)class_id >= class_count) {
        vev_draft_fail(d, VEV_E_INVALID, "%s: is %lld, but there are %zu names",
                       vev_draft_path(d, s, "class").text, (long long)class_id, class_count);
        return;
    }
    if (class_names[class_id] == NULL) {
        vev_draft_fail(d, VEV_E_INVALID, "%s: is %lld, which has no name",
                       vev_draft_path(d, s, "class").text, (long long)class_id);
        return;
    }
    /* In double, so that the middle of two floats is exact and no sum is infinite. */
    double left = (double)box[0], top = (double)box[1];
    double right = (double)box[2], bottom = (double)box[3];
    if (box_begin(d, s, class_names[class_id], (left + right) / 2, (top + bottom) / 2, right - left,
                  bottom - top, (double)confidence, 6))
        row_settle(d, s);
}

void vev_event_boxes(vev_event *ev, const vev_boxes *boxes)
{
    vev_draft *d = vev_draft_of(ev);
    for (size_t i = 0; i < boxes->count && d->status == VEV_OK; i++)
        corners(d, boxes->xyxy + 4 * i, boxes->confidence[i], boxes->class_id[i],
                boxes->class_names, boxes->class_count);
}

void vev_event_rows(vev_event *ev, const float *rows, size_t count, const char *const *class_names,
                    size_t class_count)
{
    vev_draft *d = vev_draft_of(ev);
    for (size_t i = 0; i < count && d->status == VEV_OK; i++) {
        const float *row = rows + 6 * i;
        if (!(row[5] >= -WHOLE_MAX && row[5] <= WHOLE_MAX) || row[5] != (float)(int32_t)row[5])
            vev_draft_fail_field(d, VEV_DRAFT_DETECTIONS, "class", "must be a whole number");
        else
            corners(d, row, row[4], (int64_t)row[5], class_names, class_count);
    }
}

void vev_event_classification(vev_event *ev, const char *class_name, double confidence)
{
    vev_draft *d = vev_draft_of(ev);
    if (!row_begin(d, VEV_DRAFT_CLASSIFICATIONS, class_name, confidence, 2))
        return;
    write_number(d, confidence);
    row_settle(d, VEV_DRAFT_CLASSIFICATIONS);
}

/* Announce the inner array of a row. Counts beyond what any buffer holds fail as too big. */
static bool inner_array(vev_draft *d, size_t row_count, size_t columns)
{
    if (row_count > d->w.cap / columns) {
        vev_draft_fail_too_big(d);
        return false;
    }
    vev_msgpack_write_array(&d->w, (uint32_t)(row_count * columns));
    return true;
}

void vev_event_segmentation(vev_event *ev, const char *class_name, double x, double y, double width,
                            double height, double confidence, const float *points,
                            size_t point_count)
{
    vev_draft *d = vev_draft_of(ev);
    vev_draft_slot s = VEV_DRAFT_SEGMENTATIONS;
    if (!box_begin(d, s, class_name, x, y, width, height, confidence, 7))
        return;
    if (points == NULL || point_count < VEV_POLYGON_POINT_COUNT_MIN) {
        vev_draft_fail_field(d, s, "points", "must have at least 3 points");
        return;
    }
    if (!inner_array(d, point_count, 2))
        return;
    for (size_t i = 0; i < 2 * point_count && d->w.status == VEV_OK; i++) {
        if (!coordinate_ok(d, s, "points", (double)points[i]))
            return;
        write_number(d, (double)points[i]);
    }
    row_settle(d, s);
}

void vev_event_keypoints(vev_event *ev, const char *class_name, double x, double y, double width,
                         double height, double confidence, const vev_keypoint *keypoints,
                         size_t keypoint_count)
{
    vev_draft *d = vev_draft_of(ev);
    vev_draft_slot s = VEV_DRAFT_KEYPOINTS;
    if (!box_begin(d, s, class_name, x, y, width, height, confidence, 7) ||
        !inner_array(d, keypoint_count, 3))
        return;
    for (size_t i = 0; i < keypoint_count && d->w.status == VEV_OK; i++) {
        if (!coordinate_ok(d, s, "keypoints", (double)keypoints[i].x) ||
            !coordinate_ok(d, s, "keypoints", (double)keypoints[i].y))
            return;
        vev_msgpack_write_int(&d->w, keypoints[i].id);
        write_number(d, (double)keypoints[i].x);
        write_number(d, (double)keypoints[i].y);
    }
    row_settle(d, s);
}
