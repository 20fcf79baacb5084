/* See vev_keeper.h.
 *
 * The helper polls, so that an append need not wake anybody (a system call). It looks often while
 * there is traffic and seldom when there is none. */
#include "vev_keeper.h"

#include <signal.h>
#include <stdlib.h>
#include <time.h>

#include "vev_ahead.h"
#include "vev_clock.h"
#include "vev_reclaim.h"
#include "vev_sync.h"

enum { TICK_FASTEST_US = 500, TICK_FAST_US = 1000, TICK_MOVING_US = 10000, TICK_MAX_US = 320000 };

struct vev_keeper {
    pthread_t thread, reclaimer;
    pthread_mutex_t mutex; /* stop, lacks_free, reclaims */
    pthread_cond_t wake, lacking;
    bool stop, lacks_free;
    bool reclaims; /* there is a reclaimer */
    uint32_t sync_interval_ms;
    vev_copy *copy; /* NULL: the log is not RAM-first */
    vev_ring *rings[VEV_STREAM_COUNT];
    vev_watch seen[VEV_STREAM_COUNT];
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

/* Sync what is dirty, failures being in vev_stats.degraded, and leave in `dirty` what is left to
 * do. */
static void bring_to_flash(vev_keeper *keeper, const vev_pace paces[VEV_STREAM_COUNT],
                           bool dirty[VEV_STREAM_COUNT])
{
    bool failed = false;
    if (keeper->copy) {
        failed = vev_copy_persist(keeper->copy, keeper->rings, NULL) != VEV_OK;
    } else {
        /* Frames before the events that name them. */
        static const int order[] = {VEV_MEDIA, VEV_EVENTS, VEV_DELIVERY};
        for (int s = 0; s < VEV_STREAM_COUNT; s++) {
            if (dirty[order[s]])
                (void)vev_ring_sync(keeper->rings[order[s]], 0);
            if (paces[order[s]] != VEV_PACE_IDLE)
                vev_ring_rewarm(keeper->rings[order[s]]);
        }
    }
    /* A record that was being written may have held the mark back. */
    for (int s = 0; s < VEV_STREAM_COUNT; s++)
        dirty[s] = dirty[s] && (failed || !vev_ring_is_durable(keeper->rings[s]));
}

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

/* Without a thread for it, what is lacking is counted out by appends. */
static void have_reclaimed(vev_keeper *keeper)
{
    pthread_mutex_lock(&keeper->mutex);
    if (!keeper->reclaims) /* with the signals that are blocked here */
        keeper->reclaims = pthread_create(&keeper->reclaimer, NULL, reclaim_ahead, keeper) == 0;
    keeper->lacks_free = true;
    pthread_cond_signal(&keeper->lacking);
    pthread_mutex_unlock(&keeper->mutex);
}

static void *run(void *argument)
{
    vev_keeper *keeper = argument;
    vev_watch *seen = keeper->seen;
    bool dirty[VEV_STREAM_COUNT] = {true, true,
                                    true}; /* what a process that died has left unsynced */
    uint32_t tick_us = TICK_MOVING_US;
    uint64_t synced_ns = vev_clock_ticks_ns();
    pthread_mutex_lock(&keeper->mutex);
    while (!keeper->stop) {
        pthread_mutex_unlock(&keeper->mutex);
        vev_pace paces[VEV_STREAM_COUNT], pace = VEV_PACE_IDLE;
        for (int s = 0; s < VEV_STREAM_COUNT; s++) {
            paces[s] = vev_ring_keep(keeper->rings[s], &seen[s], vev_clock_ticks_ns());
            pace = VEV_MAX(pace, paces[s]);
            dirty[s] |= paces[s] != VEV_PACE_IDLE || atomic_load(&keeper->rings[s]->marks_dirty);
            if (paces[s] != VEV_PACE_IDLE && vev_ring_lacks_free(keeper->rings[s]) > 0)
                have_reclaimed(keeper);
        }
        uint64_t now_ns = vev_clock_ticks_ns();
        uint64_t interval_ns = keeper->sync_interval_ms * 1000000ull;
        bool due = dirty[VEV_EVENTS] || dirty[VEV_MEDIA] || dirty[VEV_DELIVERY];
        if (due && interval_ns > 0 && now_ns - synced_ns >= interval_ns) {
            /* Another process may have written the copy just now, with what we have in it. */
            uint64_t copied_ns = keeper->copy ? vev_copy_persisted_ns(keeper->copy) : 0;
            if (copied_ns > synced_ns && now_ns - copied_ns < interval_ns) {
                synced_ns = copied_ns;
            } else {
                bring_to_flash(keeper, paces, dirty);
                synced_ns = vev_clock_ticks_ns();
            }
        }
        tick_us = next_tick_us(tick_us, pace);
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += (long)tick_us * 1000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_mutex_lock(&keeper->mutex);
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
    pthread_condattr_destroy(&attributes);
    pthread_cond_init(&keeper->lacking, NULL);
    /* The application's signals are for its own threads. */
    sigset_t all, before;
    sigfillset(&all);
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGSEGV);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&keeper->thread, NULL, run, keeper);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error) {
        vev_keeper_forget(keeper);
        return error;
    }
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
    pthread_cond_signal(&keeper->lacking);
    pthread_mutex_unlock(&keeper->mutex);
    pthread_join(keeper->thread, NULL);
    if (keeper->reclaims)
        pthread_join(keeper->reclaimer, NULL);
    pthread_cond_destroy(&keeper->wake);
    pthread_cond_destroy(&keeper->lacking);
    pthread_mutex_destroy(&keeper->mutex);
    free(keeper);
}

void vev_keeper_forget(vev_keeper *keeper) { free(keeper); }
