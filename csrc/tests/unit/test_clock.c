#include "vev_clock.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdbool.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "vev_crc32c.h"
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

/* From now on a system call of this process fails with an errno. */
static bool forbid(long call, unsigned error)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)call, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof filter[0], filter};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) == 0;
}

/* Run in a child of its own, because what is forbidden stays forbidden. */
static void in_a_child(void (*body)(void))
{
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        body();
        fflush(stdout);
        _exit(0);
    }
    int wait_status;
    CHECK(waitpid(child, &wait_status, 0) == child);
    CHECK(WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == 0);
}

static void body_without_getrandom(void)
{
    if (!forbid(SYS_getrandom, ENOSYS)) {
        printf("  skipped: this kernel has no seccomp filters\n");
        return;
    }
    random_bytes_differ();
    random_bytes_fill_all();
}

static void an_old_kernel_has_random_bytes(void) { in_a_child(body_without_getrandom); }

/* When the system says that it booted, in seconds since 1970; 0 if it does not. */
static unsigned long long btime_s(void)
{
    FILE *stat = fopen("/proc/stat", "re");
    unsigned long long s = 0;
    char line[4096];
    while (stat && s == 0 && fgets(line, sizeof line, stat))
        (void)sscanf(line, "btime %llu", &s);
    if (stat)
        fclose(stat);
    return s;
}

static void body_without_files(void)
{
    unsigned long long booted_s = btime_s();
    bool forbidden = forbid(SYS_getrandom, ENOSYS) && forbid(SYS_openat, EACCES);
#ifdef SYS_open
    forbidden = forbidden && forbid(SYS_open, EACCES);
#endif
    if (!forbidden) {
        printf("  skipped: this kernel has no seccomp filters\n");
        return;
    }
    uint8_t bytes[16];
    CHECK_INT(vev_random_bytes(bytes, sizeof bytes), EACCES);
    /* Boots differ all the same: what one learns of the clock is not true of another's records. */
    if (booted_s > 0)
        CHECK_INT(vev_clock_boot_tag(), vev_crc32c(0, &booted_s, sizeof booted_s));
    CHECK(vev_clock_boot_tag() != 0);
}

static void without_proc_and_dev(void) { in_a_child(body_without_files); }

static void stopped_clocks_stand_still(void)
{
    vev_moment set = {.wall_ns = 86400000000000, .mono_ns = 5, .boot = 77, .synced = 1}, now;
    vev_set_clock(&set);
    vev_now(&now);
    CHECK_INT(now.wall_ns, set.wall_ns);
    CHECK_INT(now.mono_ns, set.mono_ns);
    CHECK_INT(now.boot, set.boot);
    CHECK_INT(now.synced, 1);
    set.synced = 0;
    vev_set_clock(&set);
    vev_now(&now);
    CHECK_INT(now.synced, 0);
    vev_set_clock(NULL);
    vev_now(&now);
    CHECK(now.wall_ns / 1000000000 >= time(NULL) - 2);
    CHECK(now.mono_ns != set.mono_ns);
    CHECK_INT(now.boot, vev_clock_boot_tag());
}

int main(void)
{
    RUN(without_proc_and_dev); /* first, while no tag is known to this process */
    RUN(every_process_has_the_same_boot_tag);
    RUN(wall_time_is_the_systems);
    RUN(boot_time_never_goes_back);
    RUN(random_bytes_differ);
    RUN(random_bytes_fill_all);
    RUN(an_old_kernel_has_random_bytes);
    RUN(stopped_clocks_stand_still);
    return 0;
}
