#include "_core.h"

#include "vev_decimal.h"
#include "vev_json.h"
#include "vev_log.h"

int64_t py_event_json(const void *payload, size_t size, const void *id, int64_t wall_ns,
                      const char *use_case, size_t use_case_size, char *out, size_t cap)
{
    vev_json_record record = {id, wall_ns, use_case, use_case_size};
    return vev_json_event(payload, size, &record, out, cap);
}

int py_unopened(void) { return vev__log_unopened(); }

double py_shortest(double value) { return vev_decimal_shortest(value); }
