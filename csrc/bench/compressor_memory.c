/* What the compressor of a thread holds after events of a size, and a dictionary: a table in
 * KiB. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vev_base.h"
#include "vev_events_zdict.h"
#include "vev_zstd.h"

static const size_t sizes[] = {2u << 10, 8u << 10, 32u << 10, 64u << 10};
static const int levels[] = {-7, -2, 1, 3, 9};

static size_t after(const vev_zdict *dict, int level, size_t size)
{
    size_t bound = vev_zstd_bound(size), out;
    uint8_t *memory = calloc(1, size + bound);
    vev_zctx *ctx = vev_zctx_create();
    if (!memory || !ctx ||
        vev_zstd_compress(ctx, dict, level, memory + size, bound, memory, size, &out) != VEV_OK)
        abort();
    size_t held = vev_zctx_memory(ctx);
    vev_zctx_free(ctx);
    free(memory);
    return held;
}

int main(void)
{
    printf("level  dictionary");
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++)
        printf("  %3zu KiB", sizes[s] >> 10);
    for (size_t l = 0; l < sizeof levels / sizeof levels[0]; l++) {
        vev_zdict *dict;
        if (vev_zdict_create(vev_events_zdict, sizeof vev_events_zdict, levels[l], &dict) != VEV_OK)
            abort();
        printf("\n%5d  %10zu", levels[l], vev_zdict_memory(dict) >> 10);
        for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++)
            printf("  %7zu", after(dict, levels[l], sizes[s]) >> 10);
        vev_zdict_free(dict);
    }
    printf("\n");
    return 0;
}
