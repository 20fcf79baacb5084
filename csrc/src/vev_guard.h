/* Surviving SIGBUS: a mapped file that a failing or truncated disk cannot back any more raises it
 * on plain loads and stores. A guarded section turns it into EIO for the caller.
 *
 *     vev_guard guard;
 *     vev_guard_enter(&guard);
 *     if (sigsetjmp(guard.jump, 0) == 0) {
 *         ... touch the mappings ...
 *         vev_guard_leave(&guard);
 *     } else {
 *         ... came here through SIGBUS; the section is left already ...
 *     }
 *
 * A local that changes inside the section and is read behind it must be volatile: what others hold
 * after a jump is undefined, and compilers differ in it.
 *
 * Only faults inside mappings made known by vev_guard_remember() are caught; all others go to
 * whoever handled SIGBUS before. Sections may nest. */
#ifndef VEV_GUARD_H
#define VEV_GUARD_H

#include <setjmp.h>

#include "vev_base.h"

typedef struct vev_guard {
    sigjmp_buf jump;
    struct vev_guard *outer;
} vev_guard;

/* Put our handler in front of the present one; once per process, later calls do nothing. */
vev_status vev_guard_install(void);

void vev_guard_enter(vev_guard *guard);
void vev_guard_leave(vev_guard *guard);

/* Mappings of ours. When the table is full, faults in the rest are not caught. */
void vev_guard_remember(const void *base, size_t size);
void vev_guard_forget(const void *base);

#endif
