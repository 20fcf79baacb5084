/* What Python needs beside the headers. */
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

/* vev_json_event(); `id` is 16 bytes, `use_case` may be NULL. */
int64_t py_event_json(const void *payload, size_t size, const void *id, int64_t wall_ns,
                      const char *use_case, size_t use_case_size, char *out, size_t cap);

/* vev__log_unopened() */
int py_unopened(void);

/* vev_decimal_shortest() */
double py_shortest(double value);

/* cdef-end */

#endif
