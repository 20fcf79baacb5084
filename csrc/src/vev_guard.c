/* See vev_guard.h. The handler uses only thread-local storage, lock-free atomics and siglongjmp;
 * with SA_NODEFER no signal stays blocked after the jump, so sigsetjmp need not save the mask (a
 * system call). */
#include "vev_guard.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

enum { RANGE_COUNT = 512 };

static struct {
    _Atomic uintptr_t low, high;
} ranges[RANGE_COUNT];

static _Thread_local vev_guard *innermost;
static struct sigaction previous;
static pthread_once_t install_once = PTHREAD_ONCE_INIT;
static vev_status install_status;

static bool is_ours(uintptr_t address)
{
    for (int i = 0; i < RANGE_COUNT; i++)
        if (address >= atomic_load(&ranges[i].low) && address < atomic_load(&ranges[i].high))
            return true;
    return false;
}

static void on_sigbus(int signo, siginfo_t *info, void *context)
{
    vev_guard *guard = innermost;
    if (guard && is_ours((uintptr_t)info->si_addr)) {
        innermost = guard->outer;
        siglongjmp(guard->jump, 1);
    }
    if (previous.sa_flags & SA_SIGINFO) {
        previous.sa_sigaction(signo, info, context);
    } else if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) {
        previous.sa_handler(signo);
    } else {
        /* Not ours and nobody else's: let the instruction fault again and the default act. */
        signal(SIGBUS, SIG_DFL);
    }
}

static void install(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_sigbus;
    action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    install_status = sigaction(SIGBUS, &action, &previous) == 0 ? VEV_OK : errno;
}

vev_status vev_guard_install(void)
{
    pthread_once(&install_once, install);
    return install_status;
}

void vev_guard_enter(vev_guard *guard)
{
    guard->outer = innermost;
    innermost = guard;
}

void vev_guard_leave(vev_guard *guard) { innermost = guard->outer; }

void vev_guard_remember(const void *base, size_t size)
{
    for (int i = 0; i < RANGE_COUNT; i++) {
        uintptr_t none = 0;
        if (atomic_compare_exchange_strong(&ranges[i].low, &none, (uintptr_t)base)) {
            atomic_store(&ranges[i].high, (uintptr_t)base + size);
            return;
        }
    }
}

void vev_guard_forget(const void *base)
{
    for (int i = 0; i < RANGE_COUNT; i++) {
        if (atomic_load(&ranges[i].low) == (uintptr_t)base) {
            atomic_store(&ranges[i].high, 0);
            atomic_store(&ranges[i].low, 0);
            return;
        }
    }
}
