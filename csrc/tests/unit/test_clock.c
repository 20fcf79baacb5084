#include "vev_clock.h"

#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "vev_test.h"

static void wall_time_is_the_systems(void)
{
    int64_t before_s = time(NULL);
    int64_t wall_s = vev_clock_wall_ns() / 1000000000;
    int64_t after_s = time(NULL);
    /* time() may lag behind by a tick. */
    CHECK(wall_s >= before_s && wall_s <= after_s + 1);
}

static void boot_time_never_goes_back(void)
{
    uint64_t last = vev_clock_boot_ns();
    CHECK(last > 0);
    for (int i = 0; i < 10000; i++) {
        uint64_t now = vev_clock_boot_ns();
        CHECK(now >= last);
        last = now;
    }
}

static void every_process_has_the_same_boot_tag(void)
{
    int ends[2];
    CHECK(pipe(ends) == 0);
    pid_t child = fork(); /* before the first call here, so that the child finds out by itself */
    CHECK(child >= 0);
    if (child == 0) {
        uint32_t tag = vev_clock_boot_tag();
        _exit(write(ends[1], &tag, sizeof tag) == sizeof tag ? 0 : 1);
    }
    uint32_t theirs = 0;
    CHECK(read(ends[0], &theirs, sizeof theirs) == sizeof theirs);
    int wait_status;
    CHECK(waitpid(child, &wait_status, 0) == child && wait_status == 0);
    CHECK_INT(vev_clock_boot_tag(), theirs);
    CHECK_INT(vev_clock_boot_tag(), theirs);
    CHECK(theirs != 0);
    close(ends[0]);
    close(ends[1]);
}

static void random_bytes_differ(void)
{
    uint8_t draws[64][16];
    for (int i = 0; i < 64; i++) {
        CHECK_INT(vev_random_bytes(draws[i], sizeof draws[i]), VEV_OK);
        for (int j = 0; j < i; j++)
            CHECK(memcmp(draws[i], draws[j], sizeof draws[i]) != 0);
    }
    CHECK_INT(vev_random_bytes(NULL, 0), VEV_OK);
}

/* Larger than what getrandom() gives in one go when a signal comes: every part gets filled. */
static void random_bytes_fill_all(void)
{
    enum { SIZE = 1 << 20, PART = 64 };
    uint8_t *data = calloc(1, SIZE);
    CHECK(data != NULL);
    CHECK_INT(vev_random_bytes(data, SIZE), VEV_OK);
    static const uint8_t zeros[PART];
    for (size_t at = 0; at < SIZE; at += PART)
        CHECK(memcmp(data + at, zeros, PART) != 0);
    free(data);
}

int main(void)
{
    RUN(every_process_has_the_same_boot_tag);
    RUN(wall_time_is_the_systems);
    RUN(boot_time_never_goes_back);
    RUN(random_bytes_differ);
    RUN(random_bytes_fill_all);
    return 0;
}
