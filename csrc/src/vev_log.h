/* What only our own code calls: tests, whose logs are on disks of their own, and Python. */
#ifndef VEV_LOG_H
#define VEV_LOG_H

#include <stdbool.h>

#include "vev_io.h"

vev_status vev__log_open(const vev_io *io, const char *dir, const vev_options *options,
                         vev_log **log_out);

/* Which ring's file made this thread's last call of the above fail, or -1: none of them did. */
int vev__log_unopened(void);

/* vev_log_restore() on such a disk. */
vev_status vev__log_restore(const vev_io *io, const char *dir, const char *copy_dir,
                            uint32_t interval_ms, int *restored_out);

/* Whether an append of `payload_size` bytes is sure to find room where this process writes now:
 * then it takes no lock and makes no system call. False when that is not known. Sure as long as all
 * processes together append less than 1/64 of a segment until then. */
bool vev__log_has_room(vev_log *log, int stream, size_t payload_size);

#endif
