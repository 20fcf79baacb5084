/* From the copy on flash to the rings of a RAM-first log. */
#ifndef VEV_RESTORE_H
#define VEV_RESTORE_H

#include "vev_copy.h"

/* Make `dir` RAM-first, and take its rings from the copy when it has none. The caller holds the
 * lock of no directory. `restored_out` is set to whether rings were taken from the copy. */
vev_status vev_restore(const vev_io *io, const char *dir, const char *copy_dir,
                       uint32_t interval_ms, bool *restored_out);

#endif
