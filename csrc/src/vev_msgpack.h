/* msgpack as bytes: a writer that remembers its first error, and a reader that trusts nothing.
 *
 * Written form: always the shortest that holds the value (an unsigned form for integers from 0
 * on), so that equal values have equal bytes. Read form: anything the msgpack specification
 * allows, with three tightenings: strings are UTF-8, containers nest at most 16 deep, and the
 * byte 0xc1, which the specification never uses, is an error. */
#ifndef VEV_MSGPACK_H
#define VEV_MSGPACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vevents/vevents.h"

enum { VEV_MSGPACK_DEPTH_MAX = 16 };

/** Writes into a buffer lent by the caller.
 *
 *  The first call that does not fit sets `status` to VEV_E_TOO_BIG and writes nothing; from then
 *  on every call does nothing. So a sequence of calls needs one check, at its end. Whether arrays
 *  and maps get as many elements as announced is for the caller to know.
 *
 *  @par Threads  One at a time.   @par Cost  No allocation. */
typedef struct vev_msgpack_writer {
    uint8_t *data;
    size_t size;       /**< bytes written so far */
    size_t cap;        /**< bytes that `data` has room for */
    vev_status status; /**< VEV_OK, or why `data` is incomplete */
} vev_msgpack_writer;

/** Start writing at `buffer`; nothing is written by this call. */
void vev_msgpack_writer_init(vev_msgpack_writer *w, void *buffer, size_t cap);

void vev_msgpack_write_nil(vev_msgpack_writer *w);
void vev_msgpack_write_bool(vev_msgpack_writer *w, bool value);
void vev_msgpack_write_int(vev_msgpack_writer *w, int64_t value);
void vev_msgpack_write_uint(vev_msgpack_writer *w, uint64_t value);
void vev_msgpack_write_float32(vev_msgpack_writer *w, float value);
void vev_msgpack_write_float64(vev_msgpack_writer *w, double value);

/** A string of `size` bytes. That they are UTF-8 is for the caller to know. */
void vev_msgpack_write_str(vev_msgpack_writer *w, const char *text, size_t size);
void vev_msgpack_write_bin(vev_msgpack_writer *w, const void *data, size_t size);

/** Announce an array of `count` elements, which the caller writes next. */
void vev_msgpack_write_array(vev_msgpack_writer *w, uint32_t count);

/** Announce a map of `count` pairs: key, value, key, value, ... */
void vev_msgpack_write_map(vev_msgpack_writer *w, uint32_t count);

/** Bytes that are msgpack already, or parts of it. */
void vev_msgpack_write_raw(vev_msgpack_writer *w, const void *data, size_t size);

/** Size of the first value in `data`.
 *
 *  @param data  untrusted; may be NULL when size is 0.
 *  @param size  bytes that may be looked at.
 *  @return Bytes that the value takes with all its elements, 1 .. size; 0 if there is no complete
 *          and well-formed value.
 *
 *  @par Threads  Any.   @par Cost  Linear in the result, whatever the counts in it claim. No
 *                recursion, no allocation. */
size_t vev_msgpack_value_size(const void *data, size_t size);

typedef enum {
    VEV_MSGPACK_BAD,  /**< incomplete or not well-formed */
    VEV_MSGPACK_BOOL, /**< `u` is 0 or 1 */
    VEV_MSGPACK_UINT, /**< `u`: every integer from 0 on */
    VEV_MSGPACK_INT,  /**< `i`, below 0 */
    VEV_MSGPACK_FLOAT32,
    VEV_MSGPACK_FLOAT64,
    VEV_MSGPACK_STR,   /**< `count` bytes at `text`, which are UTF-8 */
    VEV_MSGPACK_ARRAY, /**< `count` values follow */
    VEV_MSGPACK_MAP,   /**< `count` pairs follow */
    VEV_MSGPACK_OTHER  /**< nil, bytes, an extension */
} vev_msgpack_type;

/** One value as it was read, without the elements of a container. */
typedef struct vev_msgpack_item {
    vev_msgpack_type type;
    uint32_t count;
    const char *text; /**< points into the data */
    union {
        uint64_t u;
        int64_t i;
        double real; /**< of both kinds of float */
    };
} vev_msgpack_item;

/** Read the first value in `data`; of an array or a map its header only.
 *
 *  @param data  untrusted; may be NULL when size is 0.
 *  @param size  bytes that may be looked at.
 *  @param out   what was read; VEV_MSGPACK_BAD if nothing was.
 *  @return Bytes to go on by; 0 if there is no well-formed value.
 *
 *  @par Threads  Any.   @par Cost  No allocation. */
size_t vev_msgpack_read(const void *data, size_t size, vev_msgpack_item *out);

/** Are these bytes exactly one well-formed value, with nothing behind it?
 *  @retval VEV_OK         they are.
 *  @retval VEV_E_INVALID  they are not. */
VEV_MUST_CHECK vev_status vev_msgpack_validate(const void *data, size_t size);

/** Is this UTF-8 (no overlong forms, no surrogates, nothing above U+10FFFF)?
 *  @param chars_out  set to the number of code points if it is; may be NULL. */
bool vev_msgpack_utf8_check(const void *text, size_t size, size_t *chars_out);

#endif
