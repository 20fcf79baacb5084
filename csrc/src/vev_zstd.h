/* Compression of single records: the only room that includes zstd.h. Below level 0, and with a
 * dictionary that was trained, vev_zframe.h writes the frames; libzstd does the rest.
 *
 * A compressed record is one zstd frame without magic number, content size, checksum and
 * dictionary id: the record's header knows the size and has a CRC of the stored bytes, and the
 * segment knows its dictionary. What remains is 5 bytes around the data. */
#ifndef VEV_ZSTD_H
#define VEV_ZSTD_H

#include <stddef.h>
#include <stdint.h>

#include "vevents/vevents.h"

/** A dictionary, digested for compression and decompression. */
typedef struct vev_zdict vev_zdict;

/** The working memory of one thread. */
typedef struct vev_zctx vev_zctx;

/** Digest a dictionary.
 *
 *  @param dict   trained by zstd, or any bytes that records resemble; copied.
 *  @param size   bytes; with 0 the result stands for "no dictionary".
 *  @param level  zstd level, -7 .. 9, at which records are compressed with it.
 *  @param out    set to the result on VEV_OK, else to NULL.
 *
 *  @retval VEV_OK         digested.
 *  @retval VEV_E_CORRUPT  `dict` begins like a trained one and is broken.
 *  @retval VEV_E_NOMEM    out of memory.
 *
 *  @par Ownership  Free with vev_zdict_free() when no call uses it; a context that used it before
 *                  need not be told.
 *  @par Threads    Any number of contexts may use one dictionary at the same time.
 *  @par Cost       vev_zdict_memory() bytes; milliseconds on a small CPU.
 */
VEV_MUST_CHECK vev_status vev_zdict_create(const void *dict, size_t size, int level,
                                           vev_zdict **out);

/** Free a dictionary. NULL is allowed. */
void vev_zdict_free(vev_zdict *dict);

/** Bytes of memory that a dictionary holds. */
size_t vev_zdict_memory(const vev_zdict *dict);

/** Make a context. @return NULL when out of memory.
 *  @par Ownership  Free with vev_zctx_free().
 *  @par Cost       Nearly nothing: the parts for compression and decompression are made when they
 *                  are first used. */
vev_zctx *vev_zctx_create(void);

/** Free a context. NULL is allowed. */
void vev_zctx_free(vev_zctx *ctx);

/** Bytes of memory that a context holds. */
size_t vev_zctx_memory(const vev_zctx *ctx);

/** The most bytes that compressing `src_size` bytes can yield. */
size_t vev_zstd_bound(size_t src_size);

/** Compress one record.
 *
 *  @param ctx       used by no other thread during the call.
 *  @param dict      NULL for none.
 *  @param level     zstd level, -7 .. 9; with a dictionary its own level counts instead.
 *  @param dst       receives the frame; must not overlap `src`.
 *  @param dst_cap   bytes; vev_zstd_bound(src_size) is always enough.
 *  @param src_size  bytes.
 *  @param out       set to the size of the frame in bytes on VEV_OK, else to 0.
 *
 *  @retval VEV_OK        compressed.
 *  @retval VEV_E_BUFFER  `dst_cap` is too small; what `dst` holds is undefined.
 *  @retval VEV_E_NOMEM   out of memory; the context stays usable.
 *
 *  @par Threads  One call per context at a time.
 *  @par Cost     No lock. Where vev_zframe.h writes: no allocation after a context's first call,
 *                and 19 KiB of memory. Where libzstd does: none once the context has compressed a
 *                record of the same class (up to 2 KiB, or larger), except that for larger records
 *                without a dictionary, or at levels from 0 on, it may take memory anew, at most
 *                once in 128 calls; up to 60 and 420 KiB.
 */
VEV_MUST_CHECK vev_status vev_zstd_compress(vev_zctx *ctx, const vev_zdict *dict, int level,
                                            void *dst, size_t dst_cap, const void *src,
                                            size_t src_size, size_t *out);

/** Decompress one record whose size is known.
 *
 *  The memory used does not depend on what the frame claims: output goes straight to `dst` and
 *  never beyond it. A frame made with another dictionary need not be noticed: that the dictionary
 *  is the right one is for the caller to know.
 *
 *  @param dst       receives the bytes; must not overlap `src`. Undefined unless VEV_OK.
 *  @param dst_size  bytes that the frame must yield, no more and no fewer.
 *
 *  @retval VEV_OK         `dst_size` bytes written.
 *  @retval VEV_E_CORRUPT  not a frame, a broken one, or one that yields another size.
 *  @retval VEV_E_NOMEM    out of memory; the context stays usable.
 *
 *  @par Threads  One call per context at a time.
 *  @par Cost     No allocation after a context's first call. 100 to 160 KiB of memory. No lock.
 */
VEV_MUST_CHECK vev_status vev_zstd_decompress(vev_zctx *ctx, const vev_zdict *dict, void *dst,
                                              size_t dst_size, const void *src, size_t src_size);

#endif
