#include "vev_decimal.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "vev_contract.h"

/* A positive number as printf writes it with so many digits. Whatever the locale has for a decimal
 * point, strtod understands it and nobody else looks at it. */
static vev_decimal printed(double value, int precision)
{
    char text[64];
    snprintf(text, sizeof text, "%.*e", precision - 1, value);
    vev_decimal d = {.value = strtod(text, NULL)};
    const char *c = text;
    for (; *c != 'e'; c++) {
        if (*c >= '0' && *c <= '9')
            d.digits = d.digits * 10 + (uint64_t)(*c - '0');
    }
    d.exponent = (int)strtol(c + 1, NULL, 10) - (precision - 1);
    return d;
}

/* The shortest decimal that names a float32 from 2^-13 to 2^20, where nearly all coordinates and
 * confidences are. Up to there no number of 6 digits or fewer lies just between two float32s, so it
 * takes rounding to 6, 7, ... digits until the result is nearer than half the way to the next. */
static bool shortest_everyday(double value, int binary_exponent, vev_decimal *out)
{
    static const double powers[] = {1e0, 1e1, 1e2, 1e3,  1e4,  1e5,  1e6,
                                    1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13};
    /* What is 2^52 or more has no fraction, so adding it rounds, halves to even. */
    const double whole = 4503599627370496.0;
    double half = ldexp(1, binary_exponent - 25);
    int whole_digits = binary_exponent * 19728 >> 16; /* log10(2^exponent), rounded down */
    int places = whole_digits < 5 ? 5 - whole_digits : 0;
    for (int last = places + 4; places <= last; places++) {
        double rounded = value * powers[places] + whole - whole;
        out->value = rounded / powers[places];
        if (fabs(out->value - value) < half) {
            out->digits = (uint64_t)rounded;
            out->exponent = -places;
            return true;
        }
    }
    return false;
}

vev_decimal vev_decimal_of_float(double value)
{
    vev_decimal d;
    int exponent;
    frexp(value, &exponent);
    if (exponent >= -12 && exponent <= 20 && shortest_everyday(value, exponent, &d))
        return d;
    /* Six digits survive the way into a normal float32 and back, so fewer need no try, and nine
     * always suffice. Below the normal range precision fades and fewer digits may do. (A handful of
     * powers of two beyond 2^86 could do with a digit less.) */
    int precision = value >= (double)FLT_MIN ? 6 : 1;
    do
        d = printed(value, precision);
    while ((double)(float)d.value != value && ++precision <= 9);
    return d;
}

vev_decimal vev_decimal_of_double(double value)
{
    vev_decimal d;
    int precision = value >= DBL_MIN ? 15 : 1;
    do
        d = printed(value, precision);
    while (d.value != value && ++precision <= 17);
    return d;
}

static bool is_float(double value)
{
    return fabs(value) <= VEV_COORDINATE_MAX && (double)(float)value == value; /* not NaN */
}

double vev_decimal_shortest(double value)
{
    if (value == 0 || !is_float(value))
        return value;
    return copysign(vev_decimal_of_float(fabs(value)).value, value);
}
