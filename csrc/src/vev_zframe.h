/* Writes a record as a zstd frame with the codes of a dictionary: what libzstd could do as well, in
 * a third of the instructions, because the codes are those of the dictionary and never its own, and
 * nothing is prepared for each record. Any reader of zstd that has the dictionary reads it.
 *
 * The frame (RFC 8878, section 3.1.1) has no magic number, content size, checksum or dictionary id;
 * its window holds the whole record, so that the dictionary can be referred to from all of it. */
#ifndef VEV_ZFRAME_H
#define VEV_ZFRAME_H

#include "vev_zmodel.h"

enum { VEV_ZRECORD_MAX = 1 << 28 };

enum { VEV_ZSEQUENCES_MAX = 256, VEV_ZTABLE_SIZE = 4096 };

/* Literals, and behind them a match. */
typedef struct vev_zsequence {
    uint32_t offset; /* 1 to 3: a repeated one; else the distance + 3 */
    uint16_t literals, length;
    uint8_t codes[VEV_ZPART_COUNT];
} vev_zsequence;

/** The working memory of one thread, of zeros at first. */
typedef struct vev_zspace {
    /* By the hash of 5 bytes of a record: where they were seen last, counted on from record to
     * record, so that nothing has to be cleared for the next. */
    uint32_t seen[VEV_ZTABLE_SIZE];
    uint32_t base;                               /* of the next record */
    vev_zsequence sequences[VEV_ZSEQUENCES_MAX]; /* of the present block */
} vev_zspace;

/** The most bytes that vev_zframe_write() may touch for a record of `size` bytes. */
size_t vev_zframe_bound(size_t size);

/** Write a frame.
 *
 *  @param model  of the dictionary that the reader will have.
 *  @param space  used by no other thread during the call.
 *  @param patience  how slowly to give up on what does not compress, 0 to 6.
 *  @param dst    receives the frame: vev_zframe_bound(size) bytes; must not overlap `src`.
 *  @param size   bytes, at most VEV_ZRECORD_MAX.
 *
 *  @return the size of the frame in bytes.
 *
 *  @par Cost  No lock, no allocation, no system call. */
size_t vev_zframe_write(const vev_zmodel *model, vev_zspace *space, uint32_t patience, void *dst,
                        const void *src, size_t size);

#endif
