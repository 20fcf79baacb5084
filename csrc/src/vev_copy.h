/* RAM-first: a log whose rings live in memory (tmpfs), and a copy of it on flash.
 *
 * That a log is RAM-first is a property of its directory, not of a process: restore leaves a file
 * `persist.state` in it, and every process that opens the log finds there where the copy is. A sync
 * of such a log brings the copy up to date, and durable_seq is what the copy holds. The file is as
 * short-lived as the rings beside it. */
#ifndef VEV_COPY_H
#define VEV_COPY_H

#include "vev_ring.h"

typedef struct vev_copy vev_copy;

/* Find out whether the log in `dir` is RAM-first. `copy_out` is NULL with VEV_OK when it is not. */
vev_status vev_copy_attach(const vev_io *io, const char *dir, bool readonly, vev_copy **copy_out);
/* NULL is allowed. */
void vev_copy_detach(vev_copy *copy);

/* Make `dir` RAM-first, and take its rings from the copy when it has none. The caller holds the
 * lock of no directory. `restored_out` is set to whether rings were taken from the copy. */
vev_status vev_copy_restore(const vev_io *io, const char *dir, const char *copy_dir,
                            uint32_t interval_ms, bool *restored_out);

/* Bring the copy up to date with the rings: frames first, then events, then notes. Everything that
 * was committed when the call began is in it when it returns VEV_OK. Any thread, any process; those
 * who come meanwhile wait. */
vev_status vev_copy_persist(vev_copy *copy, vev_ring *const *rings, vev_persist_report *report);

/* Around fork(), as pthread_atfork() has it: a child must not keep the lock of the copy's directory
 * that a thread of its parent holds during a pass. NULL is allowed. */
void vev_copy_before_fork(vev_copy *copy);
void vev_copy_after_fork_in_parent(vev_copy *copy);
void vev_copy_after_fork_in_child(vev_copy *copy);

/* What the copy holds for sure of a ring. */
uint64_t vev_copy_durable_seq(const vev_copy *copy, uint32_t stream);
/* How the copy is, as the last pass of any process left it. */
void vev_copy_look(const vev_copy *copy, vev_copy_info *info);
/* When the copy was last brought up to date, on vev_clock_ticks_ns(); 0: not yet. */
uint64_t vev_copy_persisted_ns(const vev_copy *copy);
/* How often it is to be, in milliseconds; 0: only when asked. */
uint32_t vev_copy_interval_ms(const vev_copy *copy);

#endif
