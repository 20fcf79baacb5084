/* One ring file, open. Shared by the rooms that work on it:
 *
 *     vev_ring.c        contexts, cells, the walk
 *     vev_dictionary.c  what a segment is compressed with
 *     vev_span.c        segments mapped for writing
 *     vev_clear.c       zeros in front of the tail
 *     vev_checkpoint.c  how far the newest lap is known to be good
 *     vev_laps.c        which laps the file holds
 *     vev_step.c        from record to record, by reading
 *     vev_states.c      what became of each record
 *     vev_reclaim.c     the oldest segments counted out
 *     vev_roll.c        from a full segment to the next
 *     vev_sync.c        onto the disk
 *     vev_append.c      compress, reserve, write, commit
 *     vev_ahead.c       what is done before an append needs it
 *     vev_recover.c     rebuild what died
 *     vev_open.c        create, open, join, close
 *     vev_cursor.c      read, verify
 *     vev_stats.c       figures
 *     vev_copy.c        whether a log has a copy on flash, and how that is
 *     vev_persist.c     rings to copy
 *     vev_restore.c     copy to rings
 *     vev_keeper.c      the helper threads
 *
 * None of these functions is public; vev_log.c is their only caller from outside. */
#ifndef VEV_RING_H
#define VEV_RING_H

#include <pthread.h>
#include <stdatomic.h>

#include "vev_base.h"
#include "vev_io.h"
#include "vev_record.h"
#include "vev_segment.h"
#include "vev_zstd.h"

enum { VEV_SPAN_COUNT = 6, VEV_CONTEXT_COUNT = 16, VEV_LEVEL_RAW = 100 };
/* How many damaged files and segments are kept beside a ring. */
enum { VEV_ASIDE_MAX = 8 };

/* Byte offsets of the file locks; far behind any data. */
#define VEV_LOCK_BASE (1ull << 60)
#define VEV_LOCK_ATTACH (VEV_LOCK_BASE + 0)   /* shared by all, exclusive by whoever rebuilds */
#define VEV_LOCK_ROLL (VEV_LOCK_BASE + 1)     /* changing the set of segments */
#define VEV_LOCK_RECLAIM (VEV_LOCK_BASE + 2)  /* counting segments out */
#define VEV_LOCK_SLOT (VEV_LOCK_BASE + 64)    /* + slot: held as long as the process lives */
#define VEV_LOCK_CLEAR (VEV_LOCK_BASE + 4096) /* + segment: clearing it while it is active */

/* A dictionary as found in a segment, or the one for new segments. Counted: spans, the reader and
 * the ring hold it. Members but `refs` and `next` never change. */
typedef struct vev_dictionary {
    struct vev_dictionary *next;
    uint32_t refs;
    uint32_t crc, size;
    uint64_t id; /* unique in the process, where an address may come back */
    vev_zdict *digested;
    uint8_t bytes[];
} vev_dictionary;

/* Payloads appended lately. They are put behind the dictionary of the next segment, so that the
 * names that this device uses all the time cost next to nothing. */
enum { VEV_SAMPLE_COUNT = 8, VEV_SAMPLE_SIZE = 512, VEV_SAMPLE_EVERY = 16 };
typedef struct vev_samples {
    _Atomic bool busy; /* whoever finds it set goes without */
    uint32_t next;
    uint16_t sizes[VEV_SAMPLE_COUNT];
    uint8_t bytes[VEV_SAMPLE_COUNT][VEV_SAMPLE_SIZE];
} vev_samples;

/* Bytes between what one thread writes at every append and what others read: two cache lines,
 * because some CPUs fetch them in pairs. */
enum { VEV_APART = 128 };

/* A segment mapped for writing. The structs are reused but never freed while the ring is open, so a
 * late reader of a stale pointer sees a wrong generation, not freed memory. */
typedef struct vev_span {
    _Atomic uint64_t generation; /* 0: unused */
    uint32_t segment;
    _Atomic uint32_t touched; /* offset up to which page faults were taken ahead */
    _Atomic uint32_t cleared; /* how far this process knows it to be cleared (INV-10) */
    _Atomic uint32_t kinds;   /* of which this process knows that the head has them (INV-15) */
    uint8_t *base, *data;
    vev_lap lap;
    vev_dictionary *dictionary; /* NULL: none; held */
    uint8_t apart[VEV_APART];
    _Atomic uint64_t tail; /* index << 32 | offset / 8: how far this process has seen */
    uint8_t apart_from_next[VEV_APART];
} vev_span;

/* Compression contexts, shared by the rings of a log. */
typedef struct vev_context {
    _Atomic bool busy;
    vev_zctx *zctx;
    uint8_t *scratch;
    size_t scratch_size;
    uint8_t apart[VEV_APART];
} vev_context;

typedef struct vev_pool {
    vev_context contexts[VEV_CONTEXT_COUNT];
} vev_pool;

/* A live segment as known from its head. */
typedef struct vev_listed {
    uint32_t segment;
    vev_head head;
    uint64_t end_seq;    /* one behind its last; for the active segment, as far as the head knows */
    uint32_t checkpoint; /* as its block has it; 0: none */
    uint32_t lost,
        unfinished; /* how many are lost, when last asked; how many of those unfinished */
    bool no_tally;  /* likewise: its counts cannot be told in one (INV-14) */
} vev_listed;

typedef struct vev_ring {
    const vev_io *io;
    vev_pool *pool;
    char *path;
    int fd;
    uint64_t identity; /* of the file; 0: not known */
    bool named;        /* the file is to have a name: without it the ring is of no use */
    uint32_t stream;
    bool readonly;
    bool created;   /* by this open */
    bool set_aside; /* likewise: an unusable file made room for it */
    int full_policy, level;
    vev_file_header file;
    uint8_t *region; /* the mapped header region; on a read-only ring a copy */
    vev_live *live;
    uint32_t slot, owner;            /* owner: slot << 24 | epoch, as it stands in reserved words */
    vev_dictionary *dictionaries;    /* all that are held */
    vev_dictionary *own_dictionary;  /* as given to open; NULL: none */
    vev_dictionary *next_dictionary; /* for the next segment; NULL: own_dictionary */
    uint64_t kept_generation;        /* the damaged one that was kept last; reclaim_mutex */
    _Atomic int32_t degraded;        /* errno; appends stop */

    _Atomic(vev_span *) current;
    vev_span spans[VEV_SPAN_COUNT];
    vev_span *ready;                /* mapped ahead, without a generation; NULL: none; roll_mutex */
    uint64_t ready_after;           /* the generation that was active then */
    _Atomic uint32_t ready_for;     /* 1 + its segment, for who has no lock; 0: none */
    _Atomic bool at_speed;          /* segments are full as soon as they are begun */
    _Atomic uint32_t clear_left;    /* an append that leaves less cleared clears more; 0: none */
    _Atomic uint32_t laps_ahead;    /* how many segments are to be free beside the next one */
    _Atomic uint64_t ledger_ns;     /* the longest that one took of late to be on the disk */
    _Atomic uint32_t failed_clears; /* laps in a row with a place that could not be cleared */
    _Atomic uint64_t failed_lap;    /* the last of them; 0: none */
    _Atomic uint32_t waiting;       /* who want to go on to the next segment, or are about to */
    _Atomic uint64_t held_up_ns;    /* how long those took who did, since the helper asked */
    bool took_none; /* when a segment was last looked for, since the disk failed; roll_mutex */

    /* Taken in this order: sync, roll (then VEV_LOCK_ROLL), reclaim (then VEV_LOCK_RECLAIM), read,
     * dictionary. Alone: clear (then VEV_LOCK_CLEAR). */
    pthread_mutex_t clear_mutex;
    uint64_t cleared_ns;              /* when an append last cleared something; clear_mutex */
    uint64_t burst_size;              /* how much they have cleared since a pause; likewise */
    pthread_mutex_t dictionary_mutex; /* dictionaries */
    pthread_mutex_t roll_mutex;       /* spans and the set of segments */
    pthread_mutex_t sync_mutex;       /* the six below */
    uint64_t walk_generation, walk_index;
    uint32_t walk_offset, synced_offset;
    uint32_t walk_checkpoint; /* the last record walked over that may be one (INV-13) */
    bool walked_dead;         /* a word of a dead writer, so that no later one may be */
    _Atomic bool marks_dirty;

    pthread_mutex_t reclaim_mutex;
    /* A list, window and map for reclaiming, under reclaim_mutex: an append that needs a segment
     * must not wait for a reader, who may be going through a gigabyte. Only those members of it are
     * used. */
    struct vev_ring *reclaimer;

    pthread_mutex_t read_mutex; /* everything below */
    vev_listed listed[VEV_SEGMENT_MAX_COUNT];
    uint32_t listed_count;
    vev_ledger listed_ledger;                 /* as of when they were listed */
    vev_listed cached[VEV_SEGMENT_MAX_COUNT]; /* what was learned of each segment, last */
    uint64_t unreadable_since_ns;             /* 0: all that was read could be */
    uint64_t unreadable_at;                   /* the place in the file that showed it */
    uint8_t *window;                          /* bytes of the data area being read */
    size_t window_capacity;
    uint64_t window_generation;
    uint32_t window_offset, window_size;
    uint64_t read_generation, read_index; /* where the last read ended */
    uint32_t read_offset;
    vev_dictionary *read_dictionary; /* of the segment below */
    uint64_t dictionary_generation;
    uint8_t *map; /* a segment's state map */
    uint8_t *mark_base;
    _Atomic uint64_t *volatile mark_cell; /* held while marking; NULL else */
    uint64_t mark_generation;
    uint32_t mark_segment;

    vev_samples samples; /* last, because appends write to it and read what stands further up */
} vev_ring;

typedef struct vev_ring_options {
    uint32_t stream;
    uint64_t size;
    uint32_t segment_size;
    uint32_t dictionary_capacity;
    uint32_t record_size_min;
    int full_policy, level;
    bool readonly;
    const void *dictionary;
    size_t dictionary_size;
} vev_ring_options;

/* Whether a segment holds a lap that has not been reclaimed, by the live area. */
static inline bool vev_ring_is_living(const vev_ring *ring, uint32_t segment)
{
    uint64_t generation = atomic_load(&ring->live->generations[segment]);
    return generation != 0 && !(generation & VEV_GENERATION_RECLAIMED);
}
/* Whether the live area is of this very file, and not of one that it is a copy of: that was copied
 * while it was in use, perhaps, and its state maps later than this. */
static inline bool vev_ring_is_at_home(const vev_ring *ring)
{
    return ring->identity != 0 && ring->live->home == ring->identity;
}

/* `dir`/events.ring and so on, or with another suffix; for the caller to free. NULL: no memory. */
char *vev_ring_path(const char *dir, uint32_t stream, const char *suffix);
/* In which the rings of a log come onto the disk: frames before the events that name them. */
extern const uint32_t vev_ring_order[VEV_STREAM_COUNT];

uint64_t vev_ring_max_payload(const vev_ring *ring);
/* NULL when every context is in use or memory is short: the record is then stored as it is. */
vev_context *vev_pool_take(vev_pool *pool, size_t scratch_size);
void vev_pool_give(vev_context *context);

/* Announce that a lap is being written to: its bytes are not reused until the cell is released. */
_Atomic uint64_t *vev_ring_claim(vev_ring *ring, uint64_t generation);
void vev_ring_release(_Atomic uint64_t *cell);
/* The same for a cell that may itself be on a page that is gone. NULL is allowed. */
void vev_ring_release_guarded(_Atomic uint64_t *cell);
/* Whether a living process may still be at work on a lap in [first, last]. */
bool vev_ring_is_pinned(const vev_ring *ring, uint64_t first, uint64_t last);
/* Whether a reserved word belongs to a writer that can still commit it. */
bool vev_ring_owner_alive(const vev_ring *ring, uint32_t owner);
/* Run `body` on the current span, held and guarded. EIO when a page under it is gone, after which
 * the ring is degraded, or when there is no span because it is. */
vev_status vev_ring_on_current(vev_ring *ring,
                               vev_status (*body)(vev_ring *ring, vev_span *span, void *argument),
                               void *argument);
/* No more appends: the disk failed, or the file is gone. */
void vev_ring_degrade(vev_ring *ring, int error);
/* See that the ring's descriptor leads to its file, and that this has a name. Otherwise what is
 * written is found by nobody, or stands in somebody else's file: a program may have closed all
 * descriptors and opened others. Degrades the ring then: EBADF, or ENOENT for a deleted file. */
vev_status vev_ring_examine_file(vev_ring *ring, uint64_t *size_out);
/* EBADF when the descriptor is another file's. A deleted one can be read and marked to its end. */
vev_status vev_ring_check_descriptor(vev_ring *ring);
/* Every failed sync of any part of the file counts (INV-9): the kernel reports a failed write-back
 * once per open file, to whoever syncs next, whatever pages it was for. Returns `status`. */
vev_status vev_ring_synced(vev_ring *ring, vev_status status);

static inline void vev_ring_touch(const vev_ring *ring, void *start, size_t size)
{
    ring->io->touch(ring->io->ctx, start, size);
}

static inline _Atomic uint64_t *vev_word_at(const vev_span *span, uint32_t offset)
{
    return (_Atomic uint64_t *)(void *)(span->data + offset);
}

/* The word of the head with the kinds of the lap. */
static inline _Atomic uint64_t *vev_span_kinds(const vev_span *span)
{
    return (_Atomic uint64_t *)(void *)(span->base + VEV_HEAD_KINDS);
}

/* A tail: up to where a lap is taken, and by how many records. */
static inline uint64_t vev_tail_make(uint64_t index, uint32_t offset)
{
    return index << 32 | offset / 8;
}
static inline uint32_t vev_tail_offset(uint64_t tail) { return (uint32_t)tail * 8u; }
static inline uint32_t vev_tail_index(uint64_t tail) { return (uint32_t)(tail >> 32); }

typedef enum { VEV_WALK_FREE, VEV_WALK_END, VEV_WALK_BROKEN } vev_walk_end;
/* Step from `tail` to the first word that is no record. */
vev_walk_end vev_ring_walk(const vev_ring *ring, const vev_span *span, uint64_t *tail);
/* How many records the current segment holds right now, those being written included. False when
 * this process writes to another generation. */
bool vev_ring_tail_index(vev_ring *ring, uint64_t generation, uint32_t *index_out);

static inline void vev_ring_advance_tail(vev_span *span, uint64_t tail)
{
    uint64_t seen = atomic_load_explicit(&span->tail, memory_order_relaxed);
    while ((uint32_t)seen < (uint32_t)tail &&
           !atomic_compare_exchange_weak_explicit(&span->tail, &seen, tail, memory_order_relaxed,
                                                  memory_order_relaxed)) {
    }
}

/* A word of the live area that is an offset in a lap, by the lap's generation. */
enum { VEV_PLACE_BITS = 24 };
VEV_STATIC_ASSERT(VEV_SEGMENT_SIZE_MAX / 8 <= 1u << VEV_PLACE_BITS, "every offset can be said");

static inline uint64_t vev_place_make(uint64_t generation, uint32_t offset)
{
    return generation << VEV_PLACE_BITS | offset / 8;
}
/* False when the place is in another lap. */
static inline bool vev_ring_read_place(const vev_ring *ring, const _Atomic uint64_t *word,
                                       uint64_t generation, uint32_t *offset_out)
{
    uint64_t there = atomic_load(word);
    uint32_t offset = (uint32_t)(there & ((1u << VEV_PLACE_BITS) - 1)) * 8u;
    *offset_out = VEV_MIN(offset, ring->file.geometry.data_size);
    return there >> VEV_PLACE_BITS == (generation & UINT64_MAX >> VEV_PLACE_BITS);
}

#endif
