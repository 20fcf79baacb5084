/* What tests of compression share. */
#ifndef ZSTD_CASE_H
#define ZSTD_CASE_H

#include "vev_test.h"
#include "vev_zstd.h"

/* A frame yields the record again, from exactly sized memory into such. */
static inline void check_reads_back(vev_zctx *ctx, const vev_zdict *dict, const void *frame,
                                    size_t frame_size, const void *data, size_t size)
{
    uint8_t *exact = test_copy(frame, frame_size), *back = malloc(size != 0 ? size : 1);
    CHECK(back != NULL);
    CHECK_INT(vev_zstd_decompress(ctx, dict, back, size, exact, frame_size), VEV_OK);
    CHECK(memcmp(back, data, size) == 0);
    free(exact);
    free(back);
}

#endif
