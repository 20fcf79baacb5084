/* For tests: a log on a disk of their own. */
#ifndef VEV_LOG_H
#define VEV_LOG_H

#include "vev_io.h"

vev_status vev__log_open(const vev_io *io, const char *dir, const vev_options *options,
                         vev_log **log_out);

/* vev_log_restore() on such a disk. */
vev_status vev__log_restore(const vev_io *io, const char *dir, const char *copy_dir,
                            uint32_t interval_ms, int *restored_out);

#endif
