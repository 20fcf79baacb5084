#include "vev_decimal.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "vev_base.h"
#include "vev_contract.h"
#include "vev_test.h"

static void known_values(void)
{
    CHECK(vev_decimal_shortest((double)0.913f) == 0.913);
    CHECK(vev_decimal_shortest((double)-0.1f) == -0.1);
    CHECK(vev_decimal_shortest((double)FLT_MAX) == VEV_COORDINATE_MAX);
    CHECK(vev_decimal_shortest((double)1e-45f) == 1e-45);
    CHECK(vev_decimal_shortest(16777216) == 16777216);
    CHECK(signbit(vev_decimal_shortest(-0.0)));
    /* No float32: as they are. */
    CHECK(vev_decimal_shortest(0.913) == 0.913);
    CHECK(vev_decimal_shortest(1e300) == 1e300);
    CHECK(vev_decimal_shortest((double)INFINITY) == (double)INFINITY);
    CHECK(isnan(vev_decimal_shortest((double)NAN)));
}

/* Floats from all over their range: the decimal names the float, and no shorter one does. */
static void no_shorter_one(void)
{
    for (uint32_t bits = 1; bits < 0x7f800000u; bits += 65521) {
        float value;
        memcpy(&value, &bits, sizeof value);
        vev_decimal d = vev_decimal_of_float((double)value);
        char text[64];
        snprintf(text, sizeof text, "%llue%d", (unsigned long long)d.digits, d.exponent);
        CHECK(strtod(text, NULL) == d.value);
        CHECK((float)d.value == value);
        while (d.digits % 10 == 0)
            d.digits /= 10;
        int count = snprintf(text, sizeof text, "%llu", (unsigned long long)d.digits);
        if (count == 1 || value > 0x1p86f) /* a handful of those could do with a digit less */
            continue;
        snprintf(text, sizeof text, "%.*e", count - 2, (double)value);
        CHECK(strtof(text, NULL) != value);
    }
}

int main(void)
{
    RUN(known_values);
    RUN(no_shorter_one);
    return 0;
}
