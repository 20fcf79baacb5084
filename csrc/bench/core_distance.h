/* How far apart two cores are: what threads that share memory pay, whatever they do. */
#ifndef CORE_DISTANCE_H
#define CORE_DISTANCE_H

/** Nanoseconds that a line of cache takes from one core to another: the first two that this
 *  process may use hand it to and fro.
 *
 *  Under a hypervisor the same two cores may be near now and far a minute later.
 *
 *  @return Nanoseconds one way, the best of ten rounds; 0 where there is one core, or no thread.
 *  @par Threads  One at a time.   @par Cost  Some milliseconds of both cores. */
double core_distance_ns(void);

#endif
