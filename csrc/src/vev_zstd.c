/* zstd contexts and dictionaries.
 *
 * Magicless frames are an "experimental" parameter of zstd: the name ZSTD_c_format stands in the
 * section of zstd.h that must not be used with a shared library, but the parameter behind it,
 * experimentalParam2, and every function used here belong to the stable part and have been in every
 * libzstd since 1.4.5. The value is checked to have taken effect when a context is made.
 *
 * A context has a compressor for small records and one for large ones. zstd sizes its workspace by
 * the input, and when 128 inputs in a row needed less than a third of it, it gives memory back, to
 * take it again for the next larger input. Small records are so much alike that no two differ that
 * much, and for large ones the window is small, which bounds the memory and is rarely exceeded: a
 * workspace that was made for the largest of its class stays. Parameters stick to a compressor;
 * only a change of dictionary or level touches them. */
#include "vev_zstd.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "vev_base.h"
#include "vev_zframe.h"

VEV_STATIC_ASSERT(ZSTD_VERSION_NUMBER >= 10405, "libzstd 1.4.5 or later is needed");

#define COMPRESS_FORMAT ZSTD_c_experimentalParam2
#define DECOMPRESS_FORMAT ZSTD_d_experimentalParam1
#define FORMAT_MAGICLESS 1
/* Likewise: what is left between the matches is Huffman-coded at every level. zstd itself leaves it
 * as it is at levels below 0, which are for speed; with the tables of a dictionary at hand that
 * saves little time and costs a tenth of the bytes. */
#define LITERAL_MODE ZSTD_c_experimentalParam5
#define LITERALS_CODED 1

/* The largest of the small records. */
enum { SMALL_SIZE = 2048 };

/* Powers of two: bytes of history, and entries of a match table without a dictionary. */
#define WINDOW_LOG 12
#define TABLE_LOG 13

struct vev_zdict {
    uint64_t id; /* unique in the process: an address may come back after free, this not */
    int level;
    vev_zmodel *model; /* NULL: libzstd compresses */
    ZSTD_CDict *cdict; /* NULL: no dictionary, or there is a model */
    ZSTD_DDict *ddict;
};

/* A compressor and what it is set to at present. */
typedef struct {
    ZSTD_CCtx *cctx;
    uint64_t dict_id; /* 0: none */
    int level;
} compressor;

struct vev_zctx {
    vev_zspace *space; /* for dictionaries with a model */
    compressor small, large;
    ZSTD_DCtx *dctx;
};

vev_status vev_zdict_create(const void *dict, size_t size, int level, vev_zdict **out)
{
    static _Atomic uint64_t last_id;
    *out = NULL;
    vev_zdict *d = calloc(1, sizeof *d);
    if (d == NULL)
        return VEV_E_NOMEM;
    if (size == 0) {
        *out = d;
        return VEV_OK;
    }
    /* Relaxed: only that no two get the same number matters. */
    d->id = atomic_fetch_add_explicit(&last_id, 1, memory_order_relaxed) + 1;
    d->level = level;
    vev_status status = level < 0 ? vev_zmodel_create(dict, size, &d->model) : VEV_OK;
    if (status != VEV_OK) {
        vev_zdict_free(d);
        return status;
    }
    errno = 0; /* zstd says only that it failed; malloc says when it was memory */
    if (d->model == NULL)
        d->cdict = ZSTD_createCDict(dict, size, level);
    d->ddict = ZSTD_createDDict(dict, size);
    if ((d->model == NULL && d->cdict == NULL) || d->ddict == NULL) {
        status = errno == ENOMEM ? VEV_E_NOMEM : VEV_E_CORRUPT;
        vev_zdict_free(d);
        return status;
    }
    *out = d;
    return VEV_OK;
}

void vev_zdict_free(vev_zdict *dict)
{
    if (dict == NULL)
        return;
    free(dict->model);
    ZSTD_freeCDict(dict->cdict);
    ZSTD_freeDDict(dict->ddict);
    free(dict);
}

size_t vev_zdict_memory(const vev_zdict *dict)
{
    return sizeof *dict + vev_zmodel_memory(dict->model) + ZSTD_sizeof_CDict(dict->cdict) +
           ZSTD_sizeof_DDict(dict->ddict);
}

vev_zctx *vev_zctx_create(void) { return calloc(1, sizeof(vev_zctx)); }

void vev_zctx_free(vev_zctx *ctx)
{
    if (ctx == NULL)
        return;
    free(ctx->space);
    ZSTD_freeCCtx(ctx->small.cctx);
    ZSTD_freeCCtx(ctx->large.cctx);
    ZSTD_freeDCtx(ctx->dctx);
    free(ctx);
}

size_t vev_zctx_memory(const vev_zctx *ctx)
{
    return sizeof *ctx + (ctx->space != NULL ? sizeof *ctx->space : 0) +
           ZSTD_sizeof_DCtx(ctx->dctx) + ZSTD_sizeof_CCtx(ctx->small.cctx) +
           ZSTD_sizeof_CCtx(ctx->large.cctx);
}

size_t vev_zstd_bound(size_t src_size)
{
    return VEV_MAX(ZSTD_compressBound(src_size), vev_zframe_bound(src_size));
}

/* A setting that can only fail if this file is wrong about libzstd. */
static void must(size_t zstd_result) { VEV_ASSERT(!ZSTD_isError(zstd_result)); }

static vev_status compressor_open(compressor *c)
{
    ZSTD_CCtx *cctx = ZSTD_createCCtx();
    if (cctx == NULL)
        return VEV_E_NOMEM;
    must(ZSTD_CCtx_setParameter(cctx, COMPRESS_FORMAT, FORMAT_MAGICLESS));
    must(ZSTD_CCtx_setParameter(cctx, ZSTD_c_contentSizeFlag, 0));
    must(ZSTD_CCtx_setParameter(cctx, ZSTD_c_checksumFlag, 0));
    must(ZSTD_CCtx_setParameter(cctx, ZSTD_c_dictIDFlag, 0));
    must(ZSTD_CCtx_setParameter(cctx, LITERAL_MODE, LITERALS_CODED));
    must(ZSTD_CCtx_setParameter(cctx, ZSTD_c_windowLog, WINDOW_LOG));
    must(ZSTD_CCtx_setParameter(cctx, ZSTD_c_hashLog, TABLE_LOG));
    must(ZSTD_CCtx_setParameter(cctx, ZSTD_c_chainLog, TABLE_LOG));
    c->cctx = cctx;
    c->dict_id = 0;
    c->level = ZSTD_CLEVEL_DEFAULT;
    return VEV_OK;
}

static void compressor_set(compressor *c, const vev_zdict *dict, int level)
{
    uint64_t dict_id = dict != NULL ? dict->id : 0;
    if (dict_id != 0)
        level = dict->level; /* libzstd 1.4.5 takes parts of it from the context all the same */
    if (dict_id != c->dict_id) {
        must(ZSTD_CCtx_refCDict(c->cctx, dict_id != 0 ? dict->cdict : NULL));
        c->dict_id = dict_id;
    }
    if (level == 0)
        level = ZSTD_CLEVEL_DEFAULT; /* what 0 means; 1.4.5 would leave the level as it was */
    if (level != c->level) {
        must(ZSTD_CCtx_setParameter(c->cctx, ZSTD_c_compressionLevel, level));
        c->level = level;
    }
}

/* Let libzstd take the memory now that the largest record needs, so that no later one makes it take
 * more. With a dictionary the tables grow until four times the window. Best effort. */
static void compressor_warm(compressor *c, size_t size)
{
    size_t bound = ZSTD_compressBound(size);
    uint8_t *memory = calloc(1, size + bound);
    if (memory != NULL)
        (void)ZSTD_compress2(c->cctx, memory + size, bound, memory, size);
    free(memory);
}

/* With the codes of a dictionary. */
static vev_status compress_by_model(vev_zctx *ctx, const vev_zdict *dict, void *dst, size_t dst_cap,
                                    const void *src, size_t src_size, size_t *out)
{
    if (VEV_UNLIKELY(ctx->space == NULL) && (ctx->space = calloc(1, sizeof *ctx->space)) == NULL)
        return VEV_E_NOMEM;
    if (dst_cap < vev_zframe_bound(src_size))
        return VEV_E_BUFFER;
    uint32_t patience = (uint32_t)(dict->level + 7);
    *out = vev_zframe_write(dict->model, ctx->space, patience, dst, src, src_size);
    return VEV_OK;
}

vev_status vev_zstd_compress(vev_zctx *ctx, const vev_zdict *dict, int level, void *dst,
                             size_t dst_cap, const void *src, size_t src_size, size_t *out)
{
    *out = 0;
    if (dict != NULL && dict->model != NULL)
        return compress_by_model(ctx, dict, dst, dst_cap, src, src_size, out);
    bool small = src_size <= SMALL_SIZE;
    compressor *c = small ? &ctx->small : &ctx->large;
    bool fresh = c->cctx == NULL;
    if (VEV_UNLIKELY(fresh)) {
        vev_status status = compressor_open(c);
        if (status != VEV_OK)
            return status;
    }
    compressor_set(c, dict, level);
    if (VEV_UNLIKELY(fresh))
        compressor_warm(c, small ? SMALL_SIZE : (size_t)4 << WINDOW_LOG);
    size_t size = ZSTD_compress2(c->cctx, dst, dst_cap, src, src_size);
    if (VEV_UNLIKELY(ZSTD_isError(size))) {
        ZSTD_ErrorCode code = ZSTD_getErrorCode(size);
        VEV_ASSERT(code == ZSTD_error_dstSize_tooSmall || code == ZSTD_error_memory_allocation);
        return code == ZSTD_error_dstSize_tooSmall ? VEV_E_BUFFER : VEV_E_NOMEM;
    }
    *out = size;
    return VEV_OK;
}

vev_status vev_zstd_decompress(vev_zctx *ctx, const vev_zdict *dict, void *dst, size_t dst_size,
                               const void *src, size_t src_size)
{
    if (VEV_UNLIKELY(ctx->dctx == NULL)) {
        ctx->dctx = ZSTD_createDCtx();
        if (ctx->dctx == NULL)
            return VEV_E_NOMEM;
        must(ZSTD_DCtx_setParameter(ctx->dctx, DECOMPRESS_FORMAT, FORMAT_MAGICLESS));
    }
    size_t size = ZSTD_decompress_usingDDict(ctx->dctx, dst, dst_size, src, src_size,
                                             dict != NULL ? dict->ddict : NULL);
    if (ZSTD_isError(size)) {
        bool nomem = ZSTD_getErrorCode(size) == ZSTD_error_memory_allocation;
        return nomem ? VEV_E_NOMEM : VEV_E_CORRUPT;
    }
    return size == dst_size ? VEV_OK : VEV_E_CORRUPT;
}
