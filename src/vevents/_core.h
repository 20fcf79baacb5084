/* What Python needs to be one call, because each call costs it as much as all the rest: see
 * detections.py. */
#ifndef VEVENTS_CORE_H
#define VEVENTS_CORE_H

#include "vevents/event.h"

/* cdef-begin */

/* What the events of one writer have in common. */
typedef struct py_writer {
    vev_event *base; /* begun, with an image open; only read */
    const char **class_names;
    size_t class_count;
} py_writer;

/* What a thread builds its events in. */
typedef struct py_scratch {
    vev_event event;
    void *buffer;
    size_t buffer_size;
} py_scratch;

/* Complete an event with detections and a frame (frame_seq 0: without), and append it. Whatever is
 * wrong with the event stands in vev_event_error(&scratch->event). */
vev_status py_append_boxes(vev_log *log, const py_writer *writer, py_scratch *scratch,
                           const float *xyxy, const float *confidence, const int64_t *class_id,
                           size_t count, uint64_t frame_seq, const uint8_t *frame_digest,
                           uint64_t frame_size, vev_entry *entry);

/* cdef-end */

#endif
