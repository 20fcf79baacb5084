/* See vev_keeper.h.
 *
 * The looker polls, so that an append need not wake anybody (a system call). It looks often while
 * there is traffic and seldom when there is none. */
#include "vev_keeper.h"

#include <signal.h>
#include <stdlib.h>
#include <time.h>

#include "vev_ahead.h"
#include "vev_clock.h"
#include "vev_persist.h"
#include "vev_reclaim.h"
#include "vev_sync.h"

enum { TICK_FASTEST_US = 500, TICK_FAST_US = 1000, TICK_MOVING_US = 10000, TICK_MAX_US = 320000 };

struct vev_keeper {
    pthread_t looker, syncer, reclaimer;
    pthread_mutex_t mutex; /* the members up to `moving` */
    pthread_cond_t wake, unsynced, lacking;
    bool stop, lacks_free;
    bool syncs, reclaims;          /* there is a syncer, a reclaimer */
    bool dirty[VEV_STREAM_COUNT];  /* has what is not on the disk */
    bool moving[VEV_STREAM_COUNT]; /* when it was last looked at */
    uint32_t sync_interval_ms;
    vev_copy *copy; /* NULL: the log is not RAM-first */
    vev_ring *rings[VEV_STREAM_COUNT];
    vev_watch seen[VEV_STREAM_COUNT]; /* the looker's */
};

static uint32_t next_tick_us(uint32_t tick_us, vev_pace pace)
{
    switch (pace) {
    case VEV_PACE_FASTEST: return TICK_FASTEST_US;
    case VEV_PACE_FAST: return VEV_MAX(VEV_MIN(tick_us, TICK_MOVING_US) / 2, TICK_FAST_US);
    case VEV_PACE_MOVING: return VEV_MIN(tick_us * 2, TICK_MOVING_US);
    default: return VEV_MIN(tick_us * 2, TICK_MAX_US);
    }
}

static struct timespec time_in_us(uint64_t us)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (time_t)(us / 1000000);
    until.tv_nsec += (long)(us % 1000000) * 1000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    return until;
}

/* Sync what is dirty, failures being in vev_stats.degraded, and leave in `dirty` what is left to
 * do. */
static void bring_to_flash(vev_keeper *keeper, const bool moving[VEV_STREAM_COUNT],
                           bool dirty[VEV_STREAM_COUNT])
{
    bool failed = false;
    if (keeper->copy) {
        failed = vev_persist(keeper->copy, keeper->rings, NULL) != VEV_OK;
    } else {
        for (int i = 0; i < VEV_STREAM_COUNT; i++) {
            uint32_t s = vev_ring_order[i];
            if (dirty[s])
                (void)vev_ring_sync(keeper->rings[s], 0);
            if (moving[s])
                vev_ring_rewarm(keeper->rings[s]);
        }
    }
    /* A record that was being written may have held the mark back. */
    for (int s = 0; s < VEV_STREAM_COUNT; s++)
        dirty[s] = dirty[s] && (failed || !vev_ring_is_durable(keeper->rings[s]));
}

static bool is_any(const bool of[VEV_STREAM_COUNT])
{
    return of[VEV_EVENTS] || of[VEV_MEDIA] || of[VEV_DELIVERY];
}

/* The second thread: it waits for the disk with the syncs. */
static void *sync_when_due(void *argument)
{
    vev_keeper *keeper = argument;
    const uint64_t interval_ns = keeper->sync_interval_ms * UINT64_C(1000000);
    uint64_t synced_ns = vev_clock_ticks_ns();
    pthread_mutex_lock(&keeper->mutex);
    while (!keeper->stop) {
        if (!is_any(keeper->dirty)) {
            pthread_cond_wait(&keeper->unsynced, &keeper->mutex);
            continue;
        }
        /* Another process may have written the copy just now, with what we have in it. */
        uint64_t copied_ns = keeper->copy ? vev_copy_persisted_ns(keeper->copy) : 0;
        uint64_t now_ns = vev_clock_ticks_ns();
        if (copied_ns > synced_ns && copied_ns <= now_ns)
            synced_ns = copied_ns;
        if (now_ns - synced_ns < interval_ns) {
            struct timespec until = time_in_us((interval_ns - (now_ns - synced_ns)) / 1000 + 1);
            pthread_cond_timedwait(&keeper->unsynced, &keeper->mutex, &until);
            continue;
        }
        bool dirty[VEV_STREAM_COUNT], moving[VEV_STREAM_COUNT];
        memcpy(dirty, keeper->dirty, sizeof dirty);
        memcpy(moving, keeper->moving, sizeof moving);
        memset(keeper->dirty, 0, sizeof keeper->dirty);
        pthread_mutex_unlock(&keeper->mutex);
        bring_to_flash(keeper, moving, dirty);
        synced_ns = vev_clock_ticks_ns();
        pthread_mutex_lock(&keeper->mutex);
        for (int s = 0; s < VEV_STREAM_COUNT; s++)
            keeper->dirty[s] |= dirty[s];
    }
    pthread_mutex_unlock(&keeper->mutex);
    return NULL;
}

/* The third thread: it waits for the disk with every ledger. */
static void *reclaim_ahead(void *argument)
{
    vev_keeper *keeper = argument;
    pthread_mutex_lock(&keeper->mutex);
    while (!keeper->stop) {
        if (!keeper->lacks_free) {
            pthread_cond_wait(&keeper->lacking, &keeper->mutex);
            continue;
        }
        keeper->lacks_free = false;
        pthread_mutex_unlock(&keeper->mutex);
        for (int s = 0; s < VEV_STREAM_COUNT; s++)
            vev_ring_reclaim_ahead(keeper->rings[s]);
        pthread_mutex_lock(&keeper->mutex);
    }
    pthread_mutex_unlock(&keeper->mutex);
    return NULL;
}

/* Without a thread for it, what is lacking is counted out by appends. With the mutex. */
static void have_reclaimed(vev_keeper *keeper)
{
    if (!keeper->reclaims) /* with the signals that are blocked here */
        keeper->reclaims = pthread_create(&keeper->reclaimer, NULL, reclaim_ahead, keeper) == 0;
    keeper->lacks_free = true;
    pthread_cond_signal(&keeper->lacking);
}

/* The first thread. It waits for nothing but for others who look after the same ring. */
static void *look(void *argument)
{
    vev_keeper *keeper = argument;
    uint32_t tick_us = TICK_MOVING_US;
    pthread_mutex_lock(&keeper->mutex);
    while (!keeper->stop) {
        pthread_mutex_unlock(&keeper->mutex);
        vev_pace paces[VEV_STREAM_COUNT], pace = VEV_PACE_IDLE;
        bool lacks_free = false, was_dirty;
        for (int s = 0; s < VEV_STREAM_COUNT; s++) {
            paces[s] = vev_ring_keep(keeper->rings[s], &keeper->seen[s], vev_clock_ticks_ns());
            pace = VEV_MAX(pace, paces[s]);
            lacks_free |= paces[s] != VEV_PACE_IDLE && vev_ring_lacks_free(keeper->rings[s]) > 0;
        }
        tick_us = next_tick_us(tick_us, pace);
        struct timespec until = time_in_us(tick_us);
        pthread_mutex_lock(&keeper->mutex);
        was_dirty = is_any(keeper->dirty);
        for (int s = 0; s < VEV_STREAM_COUNT; s++) {
            keeper->moving[s] = paces[s] != VEV_PACE_IDLE;
            keeper->dirty[s] |= keeper->moving[s] || atomic_load(&keeper->rings[s]->marks_dirty);
        }
        if (keeper->syncs && !was_dirty && is_any(keeper->dirty))
            pthread_cond_signal(&keeper->unsynced);
        if (lacks_free)
            have_reclaimed(keeper);
        if (!keeper->stop)
            pthread_cond_timedwait(&keeper->wake, &keeper->mutex, &until);
    }
    pthread_mutex_unlock(&keeper->mutex);
    return NULL;
}

vev_status vev_keeper_start(vev_ring *const *rings, vev_copy *copy, uint32_t sync_interval_ms,
                            vev_keeper **keeper_out)
{
    vev_keeper *keeper = calloc(1, sizeof *keeper);
    if (!keeper)
        return VEV_E_NOMEM;
    memcpy(keeper->rings, rings, sizeof keeper->rings);
    keeper->copy = copy;
    keeper->sync_interval_ms = copy ? vev_copy_interval_ms(copy) : sync_interval_ms;
    /* A process that only reads must not make room by dropping what it came to read, so what was
     * there before counts as seen. */
    for (int s = 0; s < VEV_STREAM_COUNT; s++)
        vev_ring_watch(rings[s], &keeper->seen[s], vev_clock_ticks_ns());
    pthread_mutex_init(&keeper->mutex, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&keeper->wake, &attributes);
    pthread_cond_init(&keeper->unsynced, &attributes);
    pthread_cond_init(&keeper->lacking, &attributes);
    pthread_condattr_destroy(&attributes);
    /* What a process that died has left is not synced. */
    memset(keeper->dirty, true, sizeof keeper->dirty);
    /* The application's signals are for its own threads. */
    sigset_t all, before;
    sigfillset(&all);
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGSEGV);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&keeper->looker, NULL, look, keeper);
    if (!error && keeper->sync_interval_ms > 0) {
        error = pthread_create(&keeper->syncer, NULL, sync_when_due, keeper);
        pthread_mutex_lock(&keeper->mutex);
        keeper->syncs = !error;
        pthread_mutex_unlock(&keeper->mutex);
        if (error)
            vev_keeper_stop(keeper);
    } else if (error) {
        vev_keeper_forget(keeper);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error)
        return error;
    *keeper_out = keeper;
    return VEV_OK;
}

void vev_keeper_stop(vev_keeper *keeper)
{
    if (!keeper)
        return;
    pthread_mutex_lock(&keeper->mutex);
    keeper->stop = true;
    pthread_cond_signal(&keeper->wake);
    pthread_cond_signal(&keeper->unsynced);
    pthread_cond_signal(&keeper->lacking);
    pthread_mutex_unlock(&keeper->mutex);
    pthread_join(keeper->looker, NULL);
    if (keeper->syncs)
        pthread_join(keeper->syncer, NULL);
    if (keeper->reclaims)
        pthread_join(keeper->reclaimer, NULL);
    pthread_cond_destroy(&keeper->wake);
    pthread_cond_destroy(&keeper->unsynced);
    pthread_cond_destroy(&keeper->lacking);
    pthread_mutex_destroy(&keeper->mutex);
    free(keeper);
}

void vev_keeper_forget(vev_keeper *keeper) { free(keeper); }
