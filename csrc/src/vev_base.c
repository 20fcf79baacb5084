/* What happens when an invariant does not hold. */
#include "vev_base.h"

#include <stdio.h>
#include <stdlib.h>

_Noreturn void vev__assert_fail(const char *expr, const char *file, int line)
{
    fprintf(stderr, "vevents: assertion failed: %s (%s:%d)\n", expr, file, line);
    abort();
}
