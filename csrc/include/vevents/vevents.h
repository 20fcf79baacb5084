/** vevents: an embedded, crash-safe, bounded event log for computer vision.
 *
 *  A log is a directory with three rings, one file each:
 *
 *      events.ring    what was seen: one small msgpack map per event, compressed
 *      media.ring     the frames that events refer to, stored as they come (JPEG, PNG, ...)
 *      delivery.ring  the flusher's notes: uploaded images, refusals with their reasons
 *
 *  Any number of threads and processes append to one log at once; there is no daemon. A ring never
 *  grows: when it is full, its oldest segment is reclaimed whole and what was still undelivered in
 *  it is counted as evicted. At any moment, for every ring,
 *
 *      appended = delivered + pending + rejected + evicted + lost
 *
 *  Caveats, in the order in which they bite:
 *    - The directory must be on a local file system (ext4, f2fs, xfs, btrfs, tmpfs, vfat). Network
 *      file systems do not keep shared mappings coherent.
 *    - After append returned OK the event survives the death of the process. It survives a power
 *      cut once vev_log_durable_seq() has reached it: by itself after the sync interval, at once
 *      with VEV_APPEND_SYNC or vev_log_sync().
 *    - A child of fork() may go on using the log: it attaches anew at its first call.
 *    - No function here may be called from a signal handler.
 *
 *  Bytes on disk: docs/format.md. Promises and how they are tested: docs/durability.md.
 */
#ifndef VEVENTS_VEVENTS_H
#define VEVENTS_VEVENTS_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define VEV_API __attribute__((visibility("default")))
#define VEV_MUST_CHECK __attribute__((warn_unused_result))
#else
#define VEV_API
#define VEV_MUST_CHECK
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* cdef-begin: everything from here to cdef-end is also read by cffi (tools/gen_cdef.py) */

/** Outcome of every call that can fail.
 *  0 is success; a negative value is ours; a positive value is an errno, passed on unchanged.
 *  The numbers are ABI: a new code takes a free number of its group, none is ever reused. */
typedef int vev_status;
enum {
    VEV_OK = 0,
    VEV_E_INVALID =
        -10, /**< caller: argument out of range, or an event field breaks the contract */
    VEV_E_TOO_BIG = -11,  /**< caller: larger than the ring, or the event's buffer, takes */
    VEV_E_BUFFER = -12,   /**< caller: the buffer is too small for the next record */
    VEV_E_READONLY = -13, /**< caller: the log was opened read-only */
    VEV_E_FULL = -20,     /**< log: no room and the policy is to refuse */
    VEV_E_BUSY = -21,     /**< log: more processes than writer slots, or every segment is pinned */
    VEV_E_DEGRADED = -22, /**< log: an I/O error, or the files are gone; no more appends */
    VEV_E_VERSION = -30,  /**< disk: written by a format this library does not know */
    VEV_E_CORRUPT = -31,  /**< disk: no ring in this file, or broken beyond use */
    VEV_E_FOREIGN = -32,  /**< disk: the copy is of another log, or the log has another copy */
    VEV_E_NOMEM = -40     /**< host: out of memory */
};

/** The three rings of a log. */
enum { VEV_EVENTS = 0, VEV_MEDIA = 1, VEV_DELIVERY = 2, VEV_STREAM_COUNT = 3 };

/** Delivery state of one record. */
enum {
    VEV_PENDING = 0,   /**< appended, not yet handed over */
    VEV_DELIVERED = 1, /**< accepted by the server */
    VEV_REJECTED = 2,  /**< refused for good; the reason is in delivery.ring */
    VEV_LOST = 3       /**< damaged on disk, or never finished by a writer that died */
};

/** What a record is. For events the contract's event types, for media the image format. */
enum {
    VEV_KIND_NONE = 0,
    VEV_KIND_QUALITY_CHECK = 1,
    VEV_KIND_INVENTORY_COUNT = 2,
    VEV_KIND_SAFETY_ALERT = 3,
    VEV_KIND_CUSTOM = 4,
    VEV_KIND_OPERATOR_FEEDBACK = 5,
    VEV_KIND_COUNT = 8 /**< kinds are 0 .. 7, so that they can be counted one by one */
};

/** Likewise for frames in media.ring. */
enum {
    VEV_IMAGE_OTHER = 0, /**< AVIF among them */
    VEV_IMAGE_JPEG = 1,
    VEV_IMAGE_PNG = 2,
    VEV_IMAGE_WEBP = 3,
    VEV_IMAGE_GIF = 4,
    VEV_IMAGE_TIFF = 5,
    VEV_IMAGE_BMP = 6,
    VEV_IMAGE_HEIC = 7
};

enum { VEV_FULL_DROP_OLDEST = 0, VEV_FULL_REFUSE = 1 };

enum {
    VEV_OPEN_READONLY = 1,  /**< write nothing, repair nothing; the log must exist */
    VEV_OPEN_NO_THREAD = 2, /**< no helper threads: no background sync, nothing made
                                 ready ahead, so that an append makes system calls */
    VEV_OPEN_NO_GUARD = 4   /**< leave SIGBUS alone: a failing disk then kills the process */
};

/** Settings of vev_log_open(). Fill with vev_options_init(), then change what differs. */
typedef struct vev_options {
    size_t struct_size;        /**< set by vev_options_init() */
    uint64_t events_size;      /**< bytes on disk for events; default 64 MiB, at least 1 MiB */
    uint64_t media_size;       /**< bytes on disk for frames; default 256 MiB, at least 1 MiB */
    uint64_t delivery_size;    /**< bytes on disk for delivery notes; default 4 MiB */
    uint32_t segment_size;     /**< bytes of events reclaimed at once, a multiple of 64 KiB;
                                     0 chooses by ring size, as for the other rings */
    uint32_t sync_interval_ms; /**< background sync; default 5000; 0 turns it off */
    int full_policy;           /**< VEV_FULL_DROP_OLDEST or VEV_FULL_REFUSE */
    int level;                 /**< zstd level, -7 .. 9, default -2; 100 stores uncompressed */
    unsigned flags;            /**< VEV_OPEN_... */
    const void *dictionary;    /**< zstd dictionary for new segments; NULL uses the built-in one */
    size_t dictionary_size;    /**< bytes, at most 16 KiB */
} vev_options;

typedef struct vev_log vev_log;

enum {
    VEV_APPEND_SYNC = 1, /**< return only when the record would survive a power cut */
    VEV_APPEND_TIME =
        2,             /**< entry->wall_ns is the time of the frame; else the log takes the clock */
    VEV_APPEND_ID = 4, /**< entry->id is given; else the log makes a random UUID (version 4) */
    VEV_APPEND_RAW = 8 /**< do not compress (it is compressed already) */
};

/** What goes with a payload on append, and what the log made of it. */
typedef struct vev_entry {
    uint32_t flags;  /**< in: VEV_APPEND_... */
    uint32_t kind;   /**< in: VEV_KIND_..., or an image format for media */
    int64_t wall_ns; /**< in with VEV_APPEND_TIME, else out: nanoseconds since 1970, UTC; not
                          checked, so that seconds are a moment of 1970 */
    uint64_t seq;    /**< out: sequence number in its ring; the first is 1, without gaps */
    uint8_t id[16];  /**< in with VEV_APPEND_ID, else out: the event's UUID, or a frame's digest */
} vev_entry;

/** One record as read back. */
typedef struct vev_record {
    uint64_t seq;
    int64_t wall_ns;  /**< nanoseconds since 1970, UTC, as the clock stood or as given */
    uint64_t mono_ns; /**< nanoseconds since boot, suspend included */
    uint32_t boot;    /**< tag of the boot in which it was appended */
    uint32_t kind;    /**< VEV_KIND_... */
    uint32_t state;   /**< VEV_PENDING .. VEV_LOST */
    uint32_t flags;   /**< VEV_APPEND_TIME if the time was given by the caller */
    uint8_t id[16];
    uint64_t offset;      /**< of the payload in the caller's buffer */
    uint32_t size;        /**< bytes of the payload */
    uint32_t stored_size; /**< bytes on disk, header and padding included */
} vev_record;

/** What bringing a copy up to date took; see vev_log_persist(). */
typedef struct vev_persist_report {
    uint64_t bytes_written; /**< to the copy's files, by this pass */
    uint64_t write_count;   /**< in so many writes */
    uint64_t sync_count;    /**< and syncs */
    uint64_t durable_seq;   /**< of the events: up to here the copy holds everything */
} vev_persist_report;

/** The copy of a RAM-first log, as the last pass of any process left it; see vev_log_restore(). */
enum { VEV_COPY_DIR_SIZE = 3984 };
typedef struct vev_copy_info {
    int64_t age_ms;         /**< since a pass succeeded; -1: none has, since the log was restored */
    uint32_t interval_ms;   /**< longest time until the next; 0: only when asked */
    int32_t error;          /**< how the last one ended: VEV_OK, a status or an errno */
    int64_t since_ms;       /**< since the log was restored: the time of the two below */
    uint64_t pass_count;    /**< how often it was brought up to date */
    uint64_t bytes_written; /**< by them to the copy's files */
    char dir[3984];         /**< where it is; ends with a NUL */
} vev_copy_info;

/** Figures of one ring. The first six obey the conservation law above. */
typedef struct vev_stats {
    uint64_t appended, delivered, pending, rejected, evicted, lost;
    uint64_t evicted_by_kind[8];
    uint64_t lost_unfinished; /**< of the lost: their writers died inside append */
    uint64_t lost_damaged;    /**< of the lost: their bytes are not what was written */
    uint64_t lost_missing;    /**< of the lost: they were in whole segments that are gone */
    uint64_t first_seq;       /**< oldest still readable; last_seq + 1 when there is none */
    uint64_t last_seq;        /**< newest appended; 0 when there is none */
    uint64_t durable_seq;     /**< up to here a power cut loses nothing */
    uint64_t bytes_on_disk;   /**< size of the ring's file */
    uint64_t bytes_used;      /**< of it: records not yet reclaimed, with their headers */
    uint64_t max_payload;     /**< bytes; the largest payload this ring takes */
    uint32_t segment_size;
    uint32_t segment_count;
    int32_t degraded;   /**< 0, or the errno that stopped appends or syncs */
    uint32_t set_aside; /**< 1 if this open found an unusable file and set it aside */
} vev_stats;

/** Version of the library, "major.minor.patch". Never NULL; not to be freed. */
VEV_API const char *vev_version(void);

/** A sentence for a status: ours, or the system's for a positive one. Never NULL, not to be freed.
 *  @par Threads  Any; the sentence for an errno lives in thread-local storage until the next call. */
VEV_API const char *vev_strerror(vev_status status);

/** Fill `options` with the defaults. */
VEV_API void vev_options_init(vev_options *options);

/** Open a log, creating it when there is none, repairing it when its writers died.
 *
 *  A damaged ring opens: what is lost is counted (vev_log_stats()), what is good stays. A file that
 *  holds no ring at all is renamed to `<ring>.damaged-<n>` and a new one takes its place.
 *  Sizes apply to new files; an existing ring keeps its own.
 *
 *  @param dir      directory, created with mode 0700 if absent (its parent must exist).
 *  @param options  from vev_options_init(), or NULL for the defaults.
 *  @param log_out  set to the log on VEV_OK, else to NULL.
 *
 *  @retval VEV_OK         ready.
 *  @retval VEV_E_INVALID  an option is out of range; nothing was made.
 *  @retval VEV_E_VERSION  written by a newer vevents; nothing was touched.
 *  @retval VEV_E_BUSY     more than 64 processes have it open, or a stopped one holds its opening.
 *  @retval VEV_E_NOMEM    out of memory.
 *  @retval >0             errno (ENOSPC, EACCES, ENOENT, EROFS, ...); no half-made file is left.
 *                         EAGAIN: no thread can be made; VEV_OPEN_NO_THREAD needs none.
 *
 *  @par Ownership  Close with vev_log_close(). The strings and the dictionary are copied.
 *  @par Cost       Of each ring one block for 95 segments, and of the newest segment what came since
 *                  a checkpoint; after a power cut the rest of that segment as well.
 */
VEV_API VEV_MUST_CHECK vev_status vev_log_open(const char *dir, const vev_options *options,
                                               vev_log **log_out);

/** Sync, stop the helper threads, free everything. NULL is allowed.
 *  @par Threads  No other thread may be inside a call on this log. */
VEV_API void vev_log_close(vev_log *log);

/** Append one record.
 *
 *  @param log      from vev_log_open().
 *  @param stream   VEV_EVENTS, VEV_MEDIA or VEV_DELIVERY.
 *  @param payload  for events one msgpack map, docs/format.md section 6; copied.
 *  @param size     bytes, 1 .. max_payload of the ring (vev_stats).
 *  @param entry    in and out, see vev_entry; NULL means no flags, kind 0.
 *
 *  @retval VEV_OK          stored, safe against death of the process.
 *  @retval VEV_E_INVALID   stream or kind out of range, or size 0; nothing stored.
 *  @retval VEV_E_TOO_BIG   nothing stored.
 *  @retval VEV_E_FULL      nothing stored; only under VEV_FULL_REFUSE.
 *  @retval VEV_E_BUSY      nothing stored; a stopped process holds the change of segments, or every
 *                          other segment.
 *  @retval VEV_E_READONLY  nothing stored.
 *  @retval VEV_E_DEGRADED  nothing stored; vev_stats.degraded has the errno: ENOENT when the files
 *                          were deleted, EBADF when the program closed their descriptors.
 *  @retval >0              errno of a failing disk. With VEV_APPEND_SYNC entry->seq tells: 0, nothing
 *                          is stored; else the record is, but is not known to be durable.
 *
 *  @par Ownership  The caller keeps `payload` and `entry` and may reuse them at once.
 *  @par Threads    Any thread of any process, concurrently.
 *  @par Cost       No allocation and no system call, except when a segment is rolled, the helper thread
 *                  has not cleared ahead in time (or there is none), a context is made on a thread's
 *                  first call, or VEV_APPEND_SYNC is set.
 */
VEV_API VEV_MUST_CHECK vev_status vev_log_append(vev_log *log, int stream, const void *payload,
                                                 size_t size, vev_entry *entry);

/** Read records in sequence order.
 *
 *  Records that are damaged are skipped (and counted as lost); a record that another writer is just
 *  writing is skipped and can be read later.
 *
 *  @param log         from vev_log_open().
 *  @param stream      which ring.
 *  @param from_seq    first sequence number wanted; older than the oldest starts at the oldest.
 *  @param state_mask  bits (1 << VEV_PENDING) ...; records in other states are passed over.
 *  @param records     array of `record_cap` entries.
 *  @param record_cap  1 .. 65536.
 *  @param buffer      receives the payloads, one after the other.
 *  @param buffer_size bytes.
 *  @param count_out   set to the number of records read; 0 with VEV_OK means: nothing more.
 *  @param next_out    set to the sequence number from which to go on.
 *
 *  @retval VEV_OK         see count_out.
 *  @retval VEV_E_BUFFER   not even the first record fits: records[0].size says how much it needs.
 *  @retval VEV_E_INVALID  an argument is out of range.
 *  @retval VEV_E_NOMEM    out of memory.
 *  @retval >0             errno of a failing disk.
 *
 *  @par Threads  Any; readers of one log take turns.
 */
VEV_API VEV_MUST_CHECK vev_status vev_log_read(vev_log *log, int stream, uint64_t from_seq,
                                               unsigned state_mask, vev_record *records,
                                               size_t record_cap, void *buffer, size_t buffer_size,
                                               size_t *count_out, uint64_t *next_out);

/** Set the delivery state of records, e.g. acknowledge what the server accepted.
 *
 *  Survives the death of the process at once and a power cut after the next sync of the process that
 *  set it; until then a power cut makes the records pending again, never the other way round.
 *
 *  @param log          from vev_log_open().
 *  @param stream       which ring.
 *  @param seqs         sequence numbers, any order; ones reclaimed already, or not appended
 *                     yet, are passed over.
 *  @param seq_count    how many.
 *  @param state        VEV_PENDING, VEV_DELIVERED, VEV_REJECTED or VEV_LOST.
 *  @param changed_out  set to how many changed their state; may be NULL.
 *
 *  @retval VEV_OK  done.   @retval VEV_E_INVALID, VEV_E_READONLY, VEV_E_DEGRADED, >0 (errno).
 *  @par Threads  Any thread of any process.
 */
VEV_API VEV_MUST_CHECK vev_status vev_log_mark(vev_log *log, int stream, const uint64_t *seqs,
                                               size_t seq_count, int state, size_t *changed_out);

/** Make everything appended so far survive a power cut: media first, then events, then notes.
 *
 *  @param durable_out  set to the durable sequence number of the events ring on VEV_OK; may be NULL.
 *
 *  @retval VEV_OK      done. Of a log that was opened read-only: there was nothing to do.
 *  @retval VEV_E_BUSY  a stopped process holds the change of segments.
 *  @retval >0          errno of a failed sync; nothing is counted as durable by it.
 *  For a RAM-first log also what vev_log_persist() returns.
 *
 *  @par Threads  Any; callers who come while a sync runs share the next one.
 */
VEV_API VEV_MUST_CHECK vev_status vev_log_sync(vev_log *log, uint64_t *durable_out);

/** The sequence number up to which this ring survives a power cut; 0: none, or no such stream.
 *  @par Threads  Any.   @par Cost  Cheap; on a read-only log that of vev_log_stats(). */
VEV_API uint64_t vev_log_durable_seq(vev_log *log, int stream);

/** Figures of one ring, as of now. Reads the delivery states of all segments (half a percent of
 *  the ring's size). @retval VEV_OK  filled.  @retval VEV_E_INVALID, >0 (errno). */
VEV_API VEV_MUST_CHECK vev_status vev_log_stats(vev_log *log, int stream, vev_stats *stats_out);

/** Bytes of a ring that hold something else than they should. */
typedef struct vev_damage {
    uint64_t offset;    /**< in the ring's file */
    uint64_t size;      /**< bytes */
    uint64_t first_seq; /**< sequence number of the first record lost by it */
    uint64_t count;     /**< how many records; 0 for a repaired or unused place */
} vev_damage;

/** Read every record of a ring, decompress it, and name the ranges that are damaged.
 *
 *  Changes nothing, not even the delivery state of what is lost; works on a read-only log and beside
 *  writers. Records that are being written are not damage.
 *
 *  @param ranges       receives the first `range_cap` damaged ranges, oldest first.
 *  @param count_out    set to how many there are, which may be more than `range_cap`.
 *  @param checked_out  set to the number of good records.
 *  @retval VEV_OK  the whole ring was read.  @retval VEV_E_INVALID, VEV_E_NOMEM, >0 (errno).
 *  @par Cost  Reads the whole ring.  @par Threads  Any; takes turns with readers. */
VEV_API VEV_MUST_CHECK vev_status vev_log_verify(vev_log *log, int stream, vev_damage *ranges,
                                                 size_t range_cap, size_t *count_out,
                                                 uint64_t *checked_out);

/** RAM-first: let a log live in memory, with a copy of it on flash.
 *
 *  `dir` is on a tmpfs (/run, /dev/shm). From this call on, every process that opens the log in it finds
 *  the copy by itself, and what a power cut leaves is the copy: vev_log_sync() and VEV_APPEND_SYNC
 *  return when it is up to date, the background sync brings it there every `interval_ms` (the
 *  sync_interval_ms of the openers does not count), closing does, and durable_seq says how far it goes.
 *  Only pages that changed are written.
 *
 *  When `dir` has no log, the one in the copy is put there first. So call it before every open, or
 *  once after each boot before anybody opens the log (`vevents restore`); when it has been called
 *  already it does nothing.
 *
 *  @param dir           directory of the log; created with mode 0700 if absent (its parent must exist).
 *  @param copy_dir      directory of the copy, an absolute path on flash; likewise.
 *  @param interval_ms   longest time until an event is in the copy; 0: only when asked.
 *  @param restored_out  set to 1 when the log was taken from the copy; may be NULL.
 *
 *  @retval VEV_OK         the log can be opened.
 *  @retval VEV_E_INVALID  `copy_dir` is not absolute, too long, or `dir` itself.
 *  @retval VEV_E_FOREIGN  the copy is of another log, or the log has another copy; nothing was
 *                         changed. One of the two has to be moved away.
 *  @retval VEV_E_VERSION  written by a newer vevents; nothing was changed.
 *  @retval VEV_E_BUSY     another process is restoring, or writing the copy, and does not end.
 *  @retval VEV_E_NOMEM    out of memory.
 *  @retval >0             errno; ENOSPC: the log does not fit into the memory. No half of it is left.
 *
 *  @par Cost  Reads the copy, when there is something to restore. */
VEV_API VEV_MUST_CHECK vev_status vev_log_restore(const char *dir, const char *copy_dir,
                                                  uint32_t interval_ms, int *restored_out);

/** vev_log_sync() of a RAM-first log, with figures.
 *
 *  @param report_out  filled, also when it fails halfway; may be NULL.
 *  @retval VEV_OK          everything appended before the call is in the copy.
 *  @retval VEV_E_INVALID   the log is not RAM-first.
 *  @retval VEV_E_READONLY  the log was opened read-only.
 *  @retval VEV_E_FOREIGN   the copy is of another log, or was restored elsewhere since; nothing was
 *                          written.
 *  @retval VEV_E_VERSION   the copy was written by a newer vevents; nothing was written.
 *  @retval VEV_E_BUSY      another process writes the copy, and does not end; or as vev_log_sync().
 *  @retval VEV_E_NOMEM     out of memory.
 *  @retval >0              errno (ENOENT: the flash is not mounted). The copy opens all the same, and
 *                          holds at least what it held before.
 *  @par Threads  Any; passes of all processes take turns.
 *  @par Cost     Compares the heads and delivery states of all segments, and those segments that are
 *                not known to be in the copy. Writes the pages that differ, with two to six syncs. */
VEV_API VEV_MUST_CHECK vev_status vev_log_persist(vev_log *log, vev_persist_report *report_out);

/** How the copy of a RAM-first log is.
 *  @retval VEV_OK  filled.  @retval VEV_E_INVALID  the log is not RAM-first.  @par Threads  Any. */
VEV_API VEV_MUST_CHECK vev_status vev_log_copy_info(vev_log *log, vev_copy_info *info_out);

/** What records are stamped with. */
typedef struct vev_moment {
    int64_t wall_ns;  /**< ns since 1970, UTC, as the device's clock stands */
    uint64_t mono_ns; /**< ns since boot, time in suspend included */
    uint32_t boot;    /**< tag of this boot; never 0 */
    uint32_t
        synced; /**< 1 when the kernel says that its clock follows a reference (NTP, PTP, ...) */
} vev_moment;

/** The moment as a record appended now would be stamped with it. A system call; any thread. */
VEV_API void vev_now(vev_moment *now_out);

/** Stop the clocks of this process at a moment, for simulations and tests; every log in the process
 *  then lives in that time and that boot. They stand still until they are set again.
 *
 *  @param moment  where they stand from now on; NULL gives back the system's.
 *  @par Threads  None may be inside a call of this library. Background syncs go by the real time. */
VEV_API void vev_set_clock(const vev_moment *moment);

/* cdef-end */

#ifdef __cplusplus
}
#endif
#endif
