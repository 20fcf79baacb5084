/* Linked into the tests for 32-bit ARM under ASan, which takes the top gigabyte for the kernel's:
 * it has no shadow, and an access to it ends in a lock that nobody releases. qemu-user does hand it
 * out, once a test has asked for half a gigabyte in all. So it is taken first, and nobody touches
 * it. */
#include <stdint.h>
#include <sys/mman.h>

__attribute__((constructor)) static void take_the_top_gigabyte(void)
{
    /* With a page below, since ASan looks up the end of what it gives back, too. Behind the end
     * lies the kernel's own page. */
    const uintptr_t begin = 0xbffff000, end = 0xffff0000;
    (void)mmap((void *)begin, end - begin, PROT_NONE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
}
