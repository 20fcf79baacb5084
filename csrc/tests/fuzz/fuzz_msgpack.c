/* Fuzzes the msgpack reader: no read beyond the input, and answers that agree with each other.
 * Build with clang -fsanitize=fuzzer,address, or link a driver that calls it with stored inputs. */
#include <stdlib.h>

#include "vev_base.h"
#include "vev_msgpack.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t value_size = vev_msgpack_value_size(data, size);
    VEV_ASSERT(value_size <= size);
    VEV_ASSERT((vev_msgpack_validate(data, size) == VEV_OK) == (size != 0 && value_size == size));
    if (value_size != 0) {
        /* The value is all of itself, and no part of it is a value from its start. */
        VEV_ASSERT(vev_msgpack_validate(data, value_size) == VEV_OK);
        VEV_ASSERT(vev_msgpack_value_size(data, value_size - 1) == 0);

        /* One more array around it is valid, too, unless that is the one too many. */
        uint8_t *nested = malloc(value_size + 1);
        if (nested != NULL) {
            nested[0] = 0x91;
            memcpy(nested + 1, data, value_size);
            size_t nested_size = vev_msgpack_value_size(nested, value_size + 1);
            VEV_ASSERT(nested_size == value_size + 1 || nested_size == 0);
            free(nested);
        }
    }
    size_t chars = 0;
    bool utf8 = vev_msgpack_utf8_check(data, size, &chars);
    VEV_ASSERT(!utf8 || (chars <= size && 4 * chars >= size));
    return 0;
}
