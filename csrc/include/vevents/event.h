/** vevents: build one event, in a buffer of yours, without allocating.
 *
 *      char buffer[4096];
 *      vev_event event;
 *      vev_event_begin(&event, buffer, sizeof buffer, VEV_KIND_QUALITY_CHECK, "press-line");
 *      vev_event_device(&event, "press-03");
 *      vev_event_data_str(&event, "result", "fail");
 *      vev_event_image_begin(&event, "top camera");
 *      vev_event_detection(&event, "burr", 812.5, 403, 37, 22, 0.913);
 *      vev_event_image_end(&event);
 *      vev_entry entry = {0};
 *      vev_status status = vev_log_append_event(log, &event, &entry);
 *      if (status != VEV_OK)
 *          fprintf(stderr, "%s %s\n", vev_strerror(status), vev_event_error(&event));
 *
 *  No call between begin and finish needs a check: the first error sticks to the event, the calls
 *  after it do nothing, and vev_event_finish() returns it. vev_event_error() names the field and
 *  the limit. The limits are those of the Vision Events API; an event that breaks one is refused
 *  here, because the server would keep it and silently drop its images.
 *
 *  Calls may come in any order, only that what belongs to an image stands between its
 *  vev_event_image_begin() and vev_event_image_end(). The order given here, top to bottom, is the
 *  cheapest: it is that of the payload, so nothing needs to be moved.
 *
 *  Every string is UTF-8, ends with a NUL byte, and is copied by the call that takes it. NULL for
 *  a value leaves that field out.
 *
 *  All functions here:
 *
 *  @par Threads  One event is built by one thread at a time; any number of events side by side.
 *  @par Cost     No allocation, no system call; tens of nanoseconds.
 */
#ifndef VEVENTS_EVENT_H
#define VEVENTS_EVENT_H

#include "vevents/vevents.h"

#ifdef __cplusplus
extern "C" {
#endif

/* cdef-begin: as in vevents.h */

/** An event being built. Lives where the caller puts it, needs no clean-up, and may be used again
 *  with vev_event_begin(). Its contents are nobody's business; its size is ABI. */
typedef struct vev_event {
    uint64_t opaque[64];
} vev_event;

/** One point of a skeleton. */
typedef struct vev_keypoint {
    int64_t id; /**< its number in the model's skeleton */
    float x, y; /**< absolute pixels, finite */
} vev_keypoint;

/** Begin an event.
 *
 *  @param event        any memory; what it held is forgotten.
 *  @param buffer       receives the payload; belongs to the event until the last use of it.
 *  @param buffer_size  bytes; an event with 8 detections takes about 500, each further one about
 *                      30. At most 4 GiB of it are used.
 *  @param kind         VEV_KIND_QUALITY_CHECK .. VEV_KIND_OPERATOR_FEEDBACK.
 *  @param use_case_id  1 to 256 characters, or NULL: the flusher supplies it.
 */
VEV_API void vev_event_begin(vev_event *event, void *buffer, size_t buffer_size, int kind,
                             const char *use_case_id);

/** Go on from an event that has been begun elsewhere: what an event has in common with the ones before
 *  it is built once, copied for each, and completed. An open image stays open.
 *
 *  @param event        any memory; what it held is forgotten.
 *  @param buffer       as for vev_event_begin(); not that of `from`.
 *  @param buffer_size  bytes.
 *  @param from         is only read, so that any number of threads can copy it at once. Its error,
 *                      if it has one, is copied, too. */
VEV_API void vev_event_copy(vev_event *event, void *buffer, size_t buffer_size,
                            const vev_event *from);

/** Give the event an id, 1 to 256 characters. Without it the log makes a random UUID. */
VEV_API void vev_event_id(vev_event *event, const char *event_id);

/** Say when it was seen: nanoseconds since 1970, UTC, up to the end of 2261. Without it the log
 *  takes the time of the append. Seconds, as time() has them, are taken too: as a moment of 1970. */
VEV_API void vev_event_time(vev_event *event, int64_t wall_ns);

/** Say where it was seen: 1 to 256 characters each. */
VEV_API void vev_event_device(vev_event *event, const char *device_id);
VEV_API void vev_event_stream(vev_event *event, const char *stream_id);
VEV_API void vev_event_workflow(vev_event *event, const char *workflow_id);

/** Set a field of the event's type. Which there are, those with * must be given:
 *
 *      quality check      result* (pass, fail), externalId
 *      inventory count    itemCount* (integer), location, itemType, externalId
 *      safety alert       alertType* (letters, digits, _ and -), severity (low, medium, high),
 *                         description (at most 10000 characters), externalId
 *      custom             value* (at most 10000 characters), externalId
 *      operator feedback  relatedEventId* (1 to 256 characters),
 *                         feedback* (correct, incorrect, inconclusive)
 *
 *  externalId has at most 1000 characters. */
VEV_API void vev_event_data_str(vev_event *event, const char *key, const char *value);
VEV_API void vev_event_data_int(vev_event *event, const char *key, int64_t value);

/** Add metadata: at most 100 entries with different keys; a key has 1 to 100 letters, digits,
 *  '_', '-' or spaces. Text has at most 1000 characters, a number is finite and keeps its full
 *  precision. */
VEV_API void vev_event_meta_str(vev_event *event, const char *key, const char *value);
VEV_API void vev_event_meta_int(vev_event *event, const char *key, int64_t value);
VEV_API void vev_event_meta_num(vev_event *event, const char *key, double value);
VEV_API void vev_event_meta_bool(vev_event *event, const char *key, int value);

/** Say which image is to be shown first; 0 is the first one begun. */
VEV_API void vev_event_display_image(vev_event *event, uint32_t position);

/** Begin an image: one moment, with the frame to show, the frame that the model saw, and what it
 *  found. @param label  free text, for example the camera's name, or NULL. */
VEV_API void vev_event_image_begin(vev_event *event, const char *label);

/** The frame to show, and the one that the model saw: refer to a record of the media ring.
 *
 *  @param seq     its sequence number there, from 1 on (vev_entry.seq).
 *  @param digest  vev_frame_digest() of its bytes, also its id there (vev_entry.id).
 *  @param size    bytes of the encoded image, from 1 on. */
VEV_API void vev_event_image_frame(vev_event *event, uint64_t seq, const uint8_t digest[16],
                                   uint64_t size);
VEV_API void vev_event_image_input_frame(vev_event *event, uint64_t seq, const uint8_t digest[16],
                                         uint64_t size);

/** In place of a frame: the id that the server gave to an image uploaded earlier. Not empty. */
VEV_API void vev_event_image_source(vev_event *event, const char *source_id);
VEV_API void vev_event_image_input_source(vev_event *event, const char *source_id);

/** Add what the model found; at most 1000 of each of the four sorts per image.
 *
 *  @param x, y           center of the box, absolute pixels.
 *  @param width, height  full size of the box, absolute pixels, not negative.
 *  @param confidence     0 to 1.
 *  @param points         outline, absolute pixels: x0, y0, x1, y1, ...
 *  @param point_count    pairs in `points`, at least 3.
 *
 *  Coordinates are finite and are kept as float, whole numbers up to 2^24 exactly. */
VEV_API void vev_event_detection(vev_event *event, const char *class_name, double x, double y,
                                 double width, double height, double confidence);
VEV_API void vev_event_classification(vev_event *event, const char *class_name, double confidence);
VEV_API void vev_event_segmentation(vev_event *event, const char *class_name, double x, double y,
                                    double width, double height, double confidence,
                                    const float *points, size_t point_count);
VEV_API void vev_event_keypoints(vev_event *event, const char *class_name, double x, double y,
                                 double width, double height, double confidence,
                                 const vev_keypoint *keypoints, size_t keypoint_count);

/** Detections as a detector leaves them: arrays, one row for each. */
typedef struct vev_boxes {
    const float *xyxy;              /**< 4 a row: left, top, right, bottom, absolute pixels */
    const float *confidence;        /**< 1 a row, 0 to 1 */
    const int64_t *class_id;        /**< 1 a row: which of `class_names` */
    size_t count;                   /**< rows */
    const char *const *class_names; /**< UTF-8, each ends with a NUL byte */
    size_t class_count;
} vev_boxes;

/** Add all of them: what vev_event_detection() does for each, in one call.
 *
 *  Right and bottom are not less than left and top; a class_id is from 0 to class_count - 1. */
VEV_API void vev_event_boxes(vev_event *event, const vev_boxes *boxes);

/** Add detections from the one array that models with suppression inside put out: six floats a row, left,
 *  top, right, bottom in absolute pixels, confidence, class id.
 *
 *  @param rows         6 * count floats.
 *  @param count        rows. Pad rows, as models with a fixed size of output add them, are to be cut off.
 *  @param class_names  UTF-8, each ends with a NUL byte; a class id is a whole number from 0 to
 *                      class_count - 1. */
VEV_API void vev_event_rows(vev_event *event, const float *rows, size_t count,
                            const char *const *class_names, size_t class_count);

/** End the image. */
VEV_API void vev_event_image_end(vev_event *event);

/** Check the event as a whole and hand out its payload.
 *
 *  @param payload_out  set to the payload inside the event's buffer; on failure to NULL.
 *  @param size_out     set to its size in bytes; on failure to 0.
 *  @param entry        what vev_log_append() needs besides: kind, time and id are set with their
 *                      flags, other flags stay as they are. May be NULL.
 *
 *  @retval VEV_OK         complete. More may be added, then finish again.
 *  @retval VEV_E_INVALID  a field breaks the contract or is missing; see vev_event_error().
 *  @retval VEV_E_TOO_BIG  the buffer is too small.
 */
VEV_API VEV_MUST_CHECK vev_status vev_event_finish(vev_event *event, const void **payload_out,
                                                   size_t *size_out, vev_entry *entry);

/** What is wrong with the event: the field as the API spells it, and the limit it breaks, like
 *  "images[0].objectDetections[2].confidence: must be 0 to 1". Empty if nothing is. Never NULL;
 *  belongs to the event. */
VEV_API const char *vev_event_error(const vev_event *event);

/** The digest by which frames are told apart: BLAKE2b of the encoded image, 16 bytes.
 *  @par Cost  About 1 ns a byte. */
VEV_API void vev_frame_digest(const void *data, size_t size, uint8_t digest_out[16]);

/* cdef-end */

/** Finish an event and append it: vev_event_finish(), then vev_log_append().
 *  @param entry  as in vev_log_append(), but only VEV_APPEND_SYNC counts on the way in. May be
 *                NULL. */
VEV_MUST_CHECK static inline vev_status vev_log_append_event(vev_log *log, vev_event *event,
                                                             vev_entry *entry)
{
    vev_entry unused_entry;
    const void *payload;
    size_t size;
    vev_status status;
    if (!entry) {
        unused_entry.flags = 0;
        entry = &unused_entry;
    }
    entry->flags &= VEV_APPEND_SYNC;
    status = vev_event_finish(event, &payload, &size, entry);
    if (status != VEV_OK)
        return status;
    return vev_log_append(log, VEV_EVENTS, payload, size, entry);
}

#ifdef __cplusplus
}
#endif
#endif
