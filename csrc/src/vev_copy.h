/* RAM-first: a log whose rings live in memory (tmpfs), and a copy of it on flash.
 *
 * That a log is RAM-first is a property of its directory, not of a process: restore leaves a file
 * `persist.state` in it, and every process that opens the log finds there where the copy is. A sync
 * of such a log brings the copy up to date, and durable_seq is what the copy holds. The file is as
 * short-lived as the rings beside it.
 *
 *     vev_copy      the file, and what an open log knows of its copy: this room
 *     vev_persist   rings -> copy
 *     vev_restore   copy -> rings
 *
 * The copy of a ring is a file `<ring>.copy`, made under another name, so that it is whole or not
 * there. Its names are not those of a log's files, so that nobody opens it as a log: the next pass
 * would undo what was appended to it. */
#ifndef VEV_COPY_H
#define VEV_COPY_H

#include <pthread.h>

#include "vev_ring.h"

enum {
    VEV_COPY_PAGE = 4096,        /* what is compared and written */
    VEV_COPY_PIECE = 256 * 1024, /* what is read at once */
    /* Whose the copy is (`session` below): in its header region, where a ring keeps its live area. */
    VEV_COPY_AT_SESSION = VEV_HEADER_REGION - VEV_COPY_PAGE,
};

/* What `persist.state` holds. Written under the lock of the copy's directory. */
typedef struct vev_copy_state {
    uint32_t magic, version;
    uint32_t boot; /* everything but `copy_dir` is of this boot */
    uint32_t interval_ms;
    uint32_t unsure; /* a pass began and did not end well */
    int32_t error;   /* how the last one ended */
    uint64_t restored_ns, persisted_ns;
    uint64_t durable_seq[VEV_STREAM_COUNT];
    uint64_t session;                    /* drawn by whoever restored the log; never 0 */
    uint64_t previous[VEV_STREAM_COUNT]; /* the copies' sessions, as they were restored */
    uint64_t pass_count, bytes_written;
    char copy_dir[VEV_COPY_DIR_SIZE];
    /* By segment: the salt of the lap whose records are all in the copy and will not change
     * (INV-12). */
    uint64_t whole[VEV_STREAM_COUNT][VEV_SEGMENT_MAX_COUNT];
} vev_copy_state;
VEV_STATIC_ASSERT(offsetof(vev_copy_state, whole) == VEV_COPY_PAGE, "whole pages");

/* The copy, as an open log has it. */
typedef struct vev_copy {
    const vev_io *io;
    int fd; /* of persist.state */
    uint32_t interval_ms;
    pthread_mutex_t lock_mutex; /* `lock`; never held for long */
    int lock;                   /* of the copy's directory, during a pass; -1 else */
    char copy_dir[VEV_COPY_DIR_SIZE];
} vev_copy;

/* Begin one, of a log that is being restored now, with no copy yet. */
void vev_copy_state_init(vev_copy_state *s);
/* Open the log's persist.state; ENOENT: it is not RAM-first. */
vev_status vev_copy_state_open(const vev_io *io, const char *dir, int mode, int *fd_out);
/* Read it. One of another boot comes back with nothing in it that this boot can rely on. */
vev_status vev_copy_state_read(const vev_io *io, int fd, vev_copy_state *s);
vev_status vev_copy_state_write(const vev_io *io, int fd, const vev_copy_state *s);
/* Put a new one in its place. */
vev_status vev_copy_state_create(const vev_io *io, const char *dir, const vev_copy_state *s);

/* Whose a copy is, by its own file; 0: nobody's, or it cannot be read. */
uint64_t vev_copy_session(const vev_io *io, int fd);

/* Find out whether the log in `dir` is RAM-first. `copy_out` is NULL with VEV_OK when it is not. */
vev_status vev_copy_attach(const vev_io *io, const char *dir, bool readonly, vev_copy **copy_out);
/* NULL is allowed. */
void vev_copy_detach(vev_copy *copy);

/* Take the lock of the copy's directory, for a pass; VEV_E_BUSY when whoever has it does not end. */
vev_status vev_copy_lock(vev_copy *copy);
void vev_copy_unlock(vev_copy *copy);

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
