/* A test program is a main() that calls functions full of checks; the first check that fails says
 * where and ends the program. Checks stay on whatever the build type. */
#ifndef VEV_TEST_H
#define VEV_TEST_H

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: %s: failed: %s\n", __FILE__, __LINE__, __func__, #cond);       \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

/* Two integers; both are printed. */
#define CHECK_INT(actual, expected)                                                                \
    do {                                                                                           \
        intmax_t check_a = (intmax_t)(actual), check_e = (intmax_t)(expected);                     \
        if (check_a != check_e) {                                                                  \
            fprintf(stderr, "%s:%d: %s: %s is %jd (0x%jx), expected %jd (0x%jx)\n", __FILE__,      \
                    __LINE__, __func__, #actual, check_a, (uintmax_t)check_a, check_e,             \
                    (uintmax_t)check_e);                                                           \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

#define CHECK_STR(actual, expected)                                                                \
    do {                                                                                           \
        const char *check_a = (actual), *check_e = (expected);                                     \
        if (strcmp(check_a, check_e) != 0) {                                                       \
            fprintf(stderr, "%s:%d: %s: %s is\n  \"%s\", expected\n  \"%s\"\n", __FILE__,          \
                    __LINE__, __func__, #actual, check_a, check_e);                                \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

/* Two runs of bytes, printed in hex. */
#define CHECK_BYTES(actual, actual_size, expected, expected_size)                                  \
    test_check_bytes(__FILE__, __LINE__, #actual, (actual), (actual_size), (expected),             \
                     (expected_size))

#define RUN(test)                                                                                  \
    do {                                                                                           \
        printf("%s\n", #test);                                                                     \
        fflush(stdout);                                                                            \
        test();                                                                                    \
    } while (0)

__attribute__((unused)) static void test_print_hex(const char *name, const void *data, size_t size)
{
    fprintf(stderr, "  %s (%zu):", name, size);
    for (size_t i = 0; i < size; i++)
        fprintf(stderr, " %02x", ((const uint8_t *)data)[i]);
    fprintf(stderr, "\n");
}

__attribute__((unused)) static void test_check_bytes(const char *file, int line, const char *what,
                                                     const void *a, size_t a_size, const void *e,
                                                     size_t e_size)
{
    if (a_size == e_size && (a_size == 0 || memcmp(a, e, a_size) == 0))
        return;
    fprintf(stderr, "%s:%d: %s differs\n", file, line, what);
    test_print_hex("actual  ", a, a_size);
    test_print_hex("expected", e, e_size);
    exit(1);
}

/* A copy of exactly this size on the heap, so that a read beyond it is seen by ASan. free() it. */
__attribute__((unused)) static void *test_copy(const void *data, size_t size)
{
    void *copy = malloc(size != 0 ? size : 1);
    CHECK(copy != NULL);
    if (size != 0)
        memcpy(copy, data, size);
    return copy;
}

/* Pseudo-random numbers (splitmix64), the same in every run. */
__attribute__((unused)) static uint64_t test_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

/* One of 0 .. below - 1. */
__attribute__((unused)) static size_t test_random_below(uint64_t *state, size_t below)
{
    return (size_t)(test_random(state) % below);
}

__attribute__((unused)) static void test_random_fill(uint64_t *state, void *out, size_t size)
{
    for (size_t i = 0; i < size; i++)
        ((uint8_t *)out)[i] = (uint8_t)test_random(state);
}

#endif
