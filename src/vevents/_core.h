/* What Python needs to be one call, because each call costs it as much as all the rest: see
 * detections.py. */
#ifndef VEVENTS_CORE_H
#define VEVENTS_CORE_H

#include "vevents/event.h"

/* cdef-begin */

/* The answer of an append, in one number: the sequence number, or below 0 why nothing was stored. */
vev_status py_status(int64_t answer);

/* Append one encoded event. */
int64_t py_append(vev_log *log, const void *payload, size_t size, uint32_t flags, uint32_t kind);

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

/* A record of the media ring. */
typedef struct py_frame {
    uint64_t seq;
    uint8_t digest[16];
    uint64_t size;
} py_frame;

/* Complete an event with detections and a frame (NULL: without), and append it. The arrays are those
 * of vev_boxes: 4 * count and count floats, count int64_t; VEV_E_BUFFER when one is not aligned.
 * Whatever is wrong with the event stands in vev_event_error(&scratch->event). */
int64_t py_append_boxes(vev_log *log, const py_writer *writer, py_scratch *scratch,
                        const void *xyxy, const void *confidence, const void *class_id,
                        size_t count, const py_frame *frame, uint32_t flags);

/* The same with the array of vev_event_rows: 6 * count floats. */
int64_t py_append_rows(vev_log *log, const py_writer *writer, py_scratch *scratch, const void *rows,
                       size_t count, const py_frame *frame, uint32_t flags);

/* vev_json_event(); `id` is 16 bytes, `use_case` may be NULL. */
int64_t py_event_json(const void *payload, size_t size, const void *id, int64_t wall_ns,
                      const char *use_case, size_t use_case_size, char *out, size_t cap);

/* vev_json_shortest() */
double py_shortest(double value);

/* cdef-end */

#endif
