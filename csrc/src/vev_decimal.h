/* The decimal with the fewest digits that still names a floating-point number: what is stored as
 * 0.91299998760223388671875 is read back, and delivered, as 0.913. */
#ifndef VEV_DECIMAL_H
#define VEV_DECIMAL_H

#include <stdint.h>

/** digits * 10^exponent, and the double nearest to it. */
typedef struct vev_decimal {
    uint64_t digits;
    int exponent;
    double value;
} vev_decimal;

/** Of a float32 above 0. */
vev_decimal vev_decimal_of_float(double value);

/** Of a double above 0. */
vev_decimal vev_decimal_of_double(double value);

/** The double nearest to the shortest decimal that names a float32; what is no finite float32 comes
 *  back as it is. So the float32 nearest to 0.913 gives 0.913. */
double vev_decimal_shortest(double value);

#endif
