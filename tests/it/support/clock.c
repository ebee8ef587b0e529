/* Stands between weir and the system's wall clock: WEIR_TEST_CLOCK_AHEAD is how many seconds its clock is ahead. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = (int)syscall(SYS_clock_gettime, clock, now);
    const char *ahead = getenv("WEIR_TEST_CLOCK_AHEAD");
    if (result == 0 && clock == CLOCK_REALTIME && ahead)
        now->tv_sec += atol(ahead);
    return result;
}
