/* What a trained zstd dictionary says about records, in the form that writing a frame needs: codes
 * for literals and for sequences, and an index of its content. Read-only once made, so that all
 * threads share it. The format of a dictionary and of its tables is that of RFC 8878. */
#ifndef VEV_ZMODEL_H
#define VEV_ZMODEL_H

#include "vev_base.h"

enum {
    VEV_ZFSE_LOG_MAX = 9,
    VEV_ZFSE_SYMBOL_COUNT = 53,
    VEV_ZHUF_BITS_MAX = 11,
    VEV_ZMODEL_CONTENT_MAX = 65536 - 8,
    /* For the 12,000 places of a segment's dictionary, the later ones first. */
    VEV_ZINDEX_SIZE = 4096,
    /* What is looked at at once, in the content and in a record; behind the content there is as
     * much again, so that it can be read at every place. */
    VEV_ZMODEL_MARGIN = 8,
};

/* An entropy code of one of the three parts of sequences. */
typedef struct vev_zfse {
    struct {
        uint32_t bits;  /* (state + bits) >> 16 is how many bits of the state go out */
        int32_t states; /* where its states begin, less the smallest that is looked up */
    } symbols[VEV_ZFSE_SYMBOL_COUNT];
    uint16_t states[1 << VEV_ZFSE_LOG_MAX];
    uint64_t known; /* the symbols that have a code */
    uint32_t log;   /* bits of a state */
} vev_zfse;

typedef struct vev_zhuf {
    uint16_t code;
    uint16_t bits;
} vev_zhuf;

/* The three parts of a sequence, in the order of their tables in a dictionary. */
enum { VEV_ZOFFSETS, VEV_ZLENGTHS, VEV_ZLITERALS, VEV_ZPART_COUNT };

typedef struct vev_zmodel {
    vev_zhuf literals[256];
    vev_zfse trained[VEV_ZPART_COUNT];
    vev_zfse predefined[VEV_ZPART_COUNT]; /* those of the format, which know every symbol */
    uint32_t repeats[3];                  /* offsets that a frame begins with */
    /* By the hash of 5 bytes: the last place in the content that has them, and above it the upper
     * half of the hash. */
    uint32_t places[VEV_ZINDEX_SIZE];
    uint32_t content_size;
    uint8_t content[];
} vev_zmodel;

/* Of the first 5 of 8 bytes. */
static inline uint32_t vev_zhash(uint64_t bytes)
{
    return (uint32_t)(((bytes << 24) * 0x9e3779b185ebca87u) >> 32);
}

/* Whether the first 5 of 8 bytes are the same. */
static inline bool vev_zsame(uint64_t a, uint64_t b) { return (a ^ b) << 24 == 0; }

/** Make the model of a dictionary.
 *
 *  @param dict  copied; nothing in it is trusted.
 *  @param size  bytes.
 *  @param out   set to the model, or to NULL where `dict` has no tables, not a code for every
 *               literal, or more than VEV_ZMODEL_CONTENT_MAX bytes of content.
 *
 *  @retval VEV_OK       `out` says whether there is a model.
 *  @retval VEV_E_NOMEM  out of memory.
 *
 *  @par Ownership  Free with free().
 */
VEV_MUST_CHECK vev_status vev_zmodel_create(const void *dict, size_t size, vev_zmodel **out);

/** Bytes of memory that a model holds; 0 for NULL. */
size_t vev_zmodel_memory(const vev_zmodel *model);

#endif
