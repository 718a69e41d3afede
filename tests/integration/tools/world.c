/* SPDX-License-Identifier: Apache-2.0 */
/* Preloaded into a batond under test: the disk and the wall clock as the test wants them.
 * BATON_WORLD names a file of int64 cells that the test maps too (cluster.py, World):
 * 0: each flush takes so many ms more   1: flushes fail with this errno
 * 2: seconds added to wall time         3: allocation of disk fails with this errno */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum cell { FLUSH_MS, FLUSH_ERRNO, WALL_SECONDS, ALLOCATE_ERRNO, CELLS };

int fdatasync(int fd);
int posix_fallocate(int fd, off_t at, off_t len);

static _Atomic int64_t *cells(void)
{
    static _Atomic(_Atomic int64_t *) mapped;
    static _Atomic int64_t none[CELLS];
    _Atomic int64_t *v = atomic_load(&mapped);
    if (v)
        return v;
    const char *path = getenv("BATON_WORLD");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    void *p = fd < 0 ? MAP_FAILED
                     : mmap(NULL, CELLS * sizeof(int64_t), PROT_READ | PROT_WRITE,
                           MAP_SHARED, fd, 0);
    if (fd >= 0)
        close(fd);
    v = p == MAP_FAILED ? none : p;
    atomic_store(&mapped, v);
    return v;
}

static void *real(const char *name)
{
    void *f = dlsym(RTLD_NEXT, name);
    if (!f)
        abort();
    return f;
}

/* Waits in steps, so that the test can end it. */
static int flush_fails(void)
{
    struct timespec step = {.tv_nsec = 10000000};
    for (int64_t waited = 0; waited < cells()[FLUSH_MS]; waited += 10)
        nanosleep(&step, NULL);
    if (cells()[FLUSH_ERRNO] == 0)
        return 0;
    errno = (int)cells()[FLUSH_ERRNO];
    return -1;
}

int fdatasync(int fd)
{
    static int (*next)(int);
    if (!next)
        next = (int (*)(int))real("fdatasync");
    return flush_fails() ? -1 : next(fd);
}

int posix_fallocate(int fd, off_t at, off_t len)
{
    static int (*next)(int, off_t, off_t);
    if (!next)
        next = (int (*)(int, off_t, off_t))real("posix_fallocate");
    if (cells()[ALLOCATE_ERRNO])
        return (int)cells()[ALLOCATE_ERRNO];
    return next(fd, at, len);
}

int clock_gettime(clockid_t clock, struct timespec *out)
{
    static int (*next)(clockid_t, struct timespec *);
    if (!next)
        next = (int (*)(clockid_t, struct timespec *))real("clock_gettime");
    int result = next(clock, out);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        out->tv_sec += cells()[WALL_SECONDS];
    return result;
}
