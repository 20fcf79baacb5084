/* Fuzzes the way from a payload to JSON: no read beyond the input, never more written than the
 * header promises, and nothing but a well-formed payload becomes JSON. */
#include <stdlib.h>

#include "vev_base.h"
#include "vev_json.h"
#include "vev_msgpack.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t id[16] = {1};
    const vev_json_record record = {id, 1790000000123456789, "default", 7};
    size_t cap = 16 * size + 6 * record.use_case_size + 4096;
    char *out = malloc(cap);
    if (out == NULL)
        return 0;
    int64_t answer = vev_json_event(data, size, &record, out, cap);
    size_t written = (size_t)(answer < 0 ? -answer : answer);
    VEV_ASSERT(written <= cap);
    if (written != 0) {
        VEV_ASSERT(vev_msgpack_validate(data, size) == VEV_OK);
        VEV_ASSERT(vev_msgpack_utf8_check(out, written, NULL));
        VEV_ASSERT(out[0] == '{' && out[written - 1] == '}');
        for (size_t i = 0; i < written; i++)
            VEV_ASSERT((unsigned char)out[i] >= 0x20);
    }
    free(out);
    return 0;
}
