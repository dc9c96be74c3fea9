/* A disk, or a network drive, that fails: preloaded, it makes calls of the C library fail that read or change files
   below one folder. From the call number `first` on, `count` of them fail with `error`. See tests/fuzz/campaigns.py.

   cc -shared -fPIC -o failing_io.so failing_io.c -ldl */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char base[PATH_MAX];
static long first = -1, count, seen;
static int error_number;

void srgan_fail(const char *folder, long from, long how_many, int error) {
    snprintf(base, sizeof base, "%s", folder);
    error_number = error;
    count = how_many;
    seen = 0;
    first = from;
}

long srgan_seen(void) { return seen; }

static int is_below(const char *path) {
    size_t length = strlen(base);
    return strncmp(path, base, length) == 0 && (path[length] == '/' || path[length] == 0);
}

static int fails(void) {
    long number = __atomic_fetch_add(&seen, 1, __ATOMIC_RELAXED);
    if (number < first || number >= first + count) return 0;
    errno = error_number;
    return 1;
}

static int fails_at(int descriptor) {
    char link[64], path[PATH_MAX];
    if (first < 0) return 0;
    int before = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t size = readlink(link, path, sizeof path - 1);
    errno = before;
    if (size <= 0) return 0;
    path[size] = 0;
    return is_below(path) && fails();
}

/* A path may begin with a descriptor of its folder, or with one below /proc. */
static int fails_under(int folder, const char *path) {
    char whole[PATH_MAX];
    int descriptor, used = 0;
    if (first < 0 || !path) return 0;
    if (sscanf(path, "/proc/self/fd/%d%n", &descriptor, &used) == 1 && path[used] == '/') return fails_at(descriptor);
    if (path[0] == '/') return is_below(path) && fails();
    if (folder != AT_FDCWD) return fails_at(folder);
    return getcwd(whole, sizeof whole) && is_below(whole) && fails();
}

#define REAL(name) static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

ssize_t read(int f, void *data, size_t size) { REAL(read); return fails_at(f) ? -1 : real(f, data, size); }
ssize_t pread(int f, void *d, size_t n, off_t at) { REAL(pread); return fails_at(f) ? -1 : real(f, d, n, at); }
ssize_t pread64(int f, void *d, size_t n, off64_t at) { REAL(pread64); return fails_at(f) ? -1 : real(f, d, n, at); }
ssize_t write(int f, const void *data, size_t size) { REAL(write); return fails_at(f) ? -1 : real(f, data, size); }
ssize_t pwrite(int f, const void *d, size_t n, off_t at) { REAL(pwrite); return fails_at(f) ? -1 : real(f, d, n, at); }
ssize_t pwrite64(int f, const void *d, size_t n, off64_t at) { REAL(pwrite64); return fails_at(f) ? -1 : real(f, d, n, at); }
ssize_t writev(int f, const struct iovec *parts, int n) { REAL(writev); return fails_at(f) ? -1 : real(f, parts, n); }
int fsync(int f) { REAL(fsync); return fails_at(f) ? -1 : real(f); }
int fdatasync(int f) { REAL(fdatasync); return fails_at(f) ? -1 : real(f); }
int ftruncate(int f, off_t size) { REAL(ftruncate); return fails_at(f) ? -1 : real(f, size); }
int ftruncate64(int f, off64_t size) { REAL(ftruncate64); return fails_at(f) ? -1 : real(f, size); }
int posix_fallocate64(int f, off64_t at, off64_t size) { REAL(posix_fallocate64); return fails_at(f) ? errno : real(f, at, size); }
int rename(const char *a, const char *b) { REAL(rename); return fails_under(AT_FDCWD, b) ? -1 : real(a, b); }
int renameat(int f, const char *a, int g, const char *b) { REAL(renameat); return fails_under(g, b) ? -1 : real(f, a, g, b); }
int link(const char *a, const char *b) { REAL(link); return fails_under(AT_FDCWD, b) ? -1 : real(a, b); }
int linkat(int f, const char *a, int g, const char *b, int how) { REAL(linkat); return fails_under(g, b) ? -1 : real(f, a, g, b, how); }
int mkdir(const char *path, mode_t mode) { REAL(mkdir); return fails_under(AT_FDCWD, path) ? -1 : real(path, mode); }
int mkdirat(int f, const char *path, mode_t mode) { REAL(mkdirat); return fails_under(f, path) ? -1 : real(f, path, mode); }

#define OPENING(name, folder, ...) \
    mode_t mode = 0; \
    if (flags & (O_CREAT | O_TMPFILE)) { va_list more; va_start(more, flags); mode = va_arg(more, mode_t); va_end(more); } \
    REAL(name); \
    if ((flags & (O_WRONLY | O_RDWR | O_CREAT)) && fails_under(folder, path)) return -1; \
    return real(__VA_ARGS__, flags, mode)
int open(const char *path, int flags, ...) { OPENING(open, AT_FDCWD, path); }
int open64(const char *path, int flags, ...) { OPENING(open64, AT_FDCWD, path); }
int openat(int f, const char *path, int flags, ...) { OPENING(openat, f, f, path); }
int openat64(int f, const char *path, int flags, ...) { OPENING(openat64, f, f, path); }
