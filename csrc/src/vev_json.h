/* An event's payload -> the JSON object that the Vision Events API takes.
 *
 * This is the short way for nearly every event of a log: it has no frames in the log, and whoever
 * wrote it kept to the contract. Anything else is left alone, whatever is the matter with it: the
 * long way (src/vevents/codec.py and wire/cloud.py) knows frames, and says what is wrong. Both give
 * the same bytes. */
#ifndef VEV_JSON_H
#define VEV_JSON_H

#include <stddef.h>
#include <stdint.h>

/** What a record holds beside its payload, and what its writer left to the sender. */
typedef struct vev_json_record {
    const uint8_t *id;    /**< 16 bytes: the event's UUID, unless the payload has an id */
    int64_t wall_ns;      /**< nanoseconds since 1970 */
    const char *use_case; /**< for an event that names none: UTF-8; NULL: there is none */
    size_t use_case_size;
} vev_json_record;

/** Write an event as JSON.
 *
 *  The object has no spaces and ends without a newline or NUL. Coordinates and confidences have the
 *  fewest digits that name their float32, and metadata the fewest that name their double.
 *
 *  @param payload   untrusted.
 *  @param size      bytes of `payload`.
 *  @param record    see above.
 *  @param out       written to; its content is undefined when 0 is returned.
 *  @param cap       bytes that `out` has room for; 16 * size + 4096, and 6 for each byte of
 *                   `use_case`, suffice for any event.
 *  @return Bytes written; below 0 the same, if `use_case` had to be taken; 0 if this is no event,
 *          breaks the contract, names a frame of the log, needs a use case and there is none, or
 *          does not fit.
 *
 *  @par Threads  Any.   @par Cost  Linear in size. No allocation. */
int64_t vev_json_event(const void *payload, size_t size, const vev_json_record *record, char *out,
                       size_t cap);

#endif
