/* From the rings of a RAM-first log into its copy. */
#ifndef VEV_PERSIST_H
#define VEV_PERSIST_H

#include "vev_copy.h"

/* Bring the copy up to date with the rings: frames first, then events, then notes. Everything that
 * was committed when the call began is in it when it returns VEV_OK. Any thread, any process; those
 * who come meanwhile wait. `report` may be NULL. */
vev_status vev_persist(vev_copy *copy, vev_ring *const *rings, vev_persist_report *report);

#endif
