/* Counts what a process and its children do to files below one folder, and at one of these operations ends the process,
   lets the disk be full or sends the process a signal. Loaded by LD_PRELOAD, it stands before the C library's functions, so that it sees Python,
   NumPy, Arrow and OpenCV alike. benchmarks/crashes.py compiles and drives it.

   CRASH_ROOT   the folder, absolute
   CRASH_STATE  a file that holds struct state, shared by all processes
   CRASH_ARMED  1: count from the start; else from crash_arm(1) on */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { COUNT, KILL, FULL_ONCE, FULL_FROM, SIGNAL }; /* SIGNAL + n sends signal n */
struct state { long count, at, mode, fired, trace; }; /* trace: 1 to write a line for each operation */

static struct state nothing, *state = &nothing;
static char root[PATH_MAX], trace[PATH_MAX];
static size_t root_length;
static int armed;

__attribute__((constructor)) static void begin(void) {
    const char *folder = getenv("CRASH_ROOT"), *file = getenv("CRASH_STATE"), *now = getenv("CRASH_ARMED");
    if (!folder || !file) return;
    snprintf(root, sizeof root, "%s", folder);
    snprintf(trace, sizeof trace, "%s.trace", file);
    root_length = strlen(root);
    int (*open_)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
    int descriptor = open_(file, O_RDWR);
    if (descriptor < 0) return;
    void *shared = mmap(NULL, sizeof *state, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    close(descriptor);
    if (shared != MAP_FAILED) state = shared;
    armed = now && *now == '1';
}

void crash_arm(int on) { armed = on; }

static int below(const char *path) { return !strncmp(path, root, root_length) && strchr("/", path[root_length]); }

static const char *path_of(int descriptor, char *place) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, place, PATH_MAX - 1);
    place[length < 0 ? 0 : length] = 0;
    return place;
}

static const char *path_at(int folder, const char *path, char *place) { /* absolute, as far as it needs to be */
    if (path[0] == '/') return path;
    if (folder != AT_FDCWD) path_of(folder, place);
    else if (!getcwd(place, PATH_MAX)) *place = 0;
    size_t length = strlen(place);
    snprintf(place + length, PATH_MAX - length, "/%s", path);
    return place;
}

static void tell(const char *name, const char *path, const char *other) {
    static int (*open_)(const char *, int, ...);
    static ssize_t (*write_)(int, const void *, size_t);
    if (!open_) open_ = dlsym(RTLD_NEXT, "open"), write_ = dlsym(RTLD_NEXT, "write");
    int descriptor = open_(trace, O_WRONLY | O_APPEND | O_CREAT, 0600);
    char line[2 * PATH_MAX + 32];
    int length = snprintf(line, sizeof line, "%s\t%s\t%s\n", name, path, other ? other : "");
    if (write_(descriptor, line, length) < 0) abort();
    close(descriptor);
}

enum { GO_ON, END, FAIL };
static int next(const char *name, const char *path, const char *other, int may_be_full) {
    if (!armed || !(below(path) || (other && below(other)))) return GO_ON;
    int before = errno;
    long number = __atomic_add_fetch(&state->count, 1, __ATOMIC_SEQ_CST);
    if (state->trace) tell(name, path, other);
    errno = before;
    if (state->mode == KILL && number == state->at) {
        state->fired = 1;
        return END;
    }
    if (state->mode > SIGNAL && number == state->at) {
        state->fired = 1;
        kill(getpid(), (int)state->mode - SIGNAL);
    }
    if (may_be_full && ((state->mode == FULL_ONCE && number == state->at) ||
                        (state->mode == FULL_FROM && number >= state->at))) {
        state->fired = 1;
        errno = ENOSPC;
        return FAIL;
    }
    return GO_ON;
}

static void end(void) { kill(getpid(), SIGKILL); }

#define REAL(name) static __typeof__(name) *real; if (!real) real = dlsym(RTLD_NEXT, #name)
#define MEET(name, path, other, full, failure) \
    switch (next(name, path, other, full)) { case END: end(); break; case FAIL: return failure; }

/* A write that is ended has reached the disk by half, as one may. */
#define MEET_WRITE(half, failure) do { char place_[PATH_MAX]; \
    switch (next("write", path_of(descriptor, place_), NULL, 1)) { \
        case END: if (half) {} end(); break; case FAIL: return failure; } } while (0)

static int opens_to_write(int flags) { return flags & (O_WRONLY | O_RDWR | O_CREAT); }

#define OPEN(name, ...) { \
    mode_t mode = 0; \
    if (flags & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); } \
    char place[PATH_MAX]; \
    if (opens_to_write(flags)) MEET("open", path_at(folder, path, place), NULL, (flags & O_CREAT) != 0, -1) \
    REAL(name); return real(__VA_ARGS__, flags, mode); }

int open(const char *path, int flags, ...) { int folder = AT_FDCWD; OPEN(open, path) }
int open64(const char *path, int flags, ...) { int folder = AT_FDCWD; OPEN(open64, path) }
int openat(int folder, const char *path, int flags, ...) OPEN(openat, folder, path)
int openat64(int folder, const char *path, int flags, ...) OPEN(openat64, folder, path)

#define FOPEN(name) { char place[PATH_MAX]; \
    if (strpbrk(how, "wa+")) MEET("open", path_at(AT_FDCWD, path, place), NULL, 1, NULL) \
    REAL(name); return real(path, how); }
FILE *fopen(const char *path, const char *how) FOPEN(fopen)
FILE *fopen64(const char *path, const char *how) FOPEN(fopen64)

ssize_t write(int descriptor, const void *data, size_t size) {
    REAL(write); MEET_WRITE(real(descriptor, data, size / 2), -1); return real(descriptor, data, size);
}
ssize_t pwrite(int descriptor, const void *data, size_t size, off_t at) {
    REAL(pwrite); MEET_WRITE(real(descriptor, data, size / 2, at), -1); return real(descriptor, data, size, at);
}
ssize_t pwrite64(int descriptor, const void *data, size_t size, off64_t at) {
    REAL(pwrite64); MEET_WRITE(real(descriptor, data, size / 2, at), -1); return real(descriptor, data, size, at);
}
ssize_t writev(int descriptor, const struct iovec *parts, int count) {
    REAL(writev); MEET_WRITE(real(descriptor, parts, count / 2), -1); return real(descriptor, parts, count);
}
ssize_t sendfile(int descriptor, int from, off_t *at, size_t size) {
    REAL(sendfile); MEET_WRITE(real(descriptor, from, at, size / 2), -1); return real(descriptor, from, at, size);
}
ssize_t sendfile64(int descriptor, int from, off64_t *at, size_t size) {
    REAL(sendfile64); MEET_WRITE(real(descriptor, from, at, size / 2), -1); return real(descriptor, from, at, size);
}
ssize_t copy_file_range(int from, off64_t *at, int descriptor, off64_t *to, size_t size, unsigned flags) {
    REAL(copy_file_range);
    MEET_WRITE(real(from, at, descriptor, to, size / 2, flags), -1);
    return real(from, at, descriptor, to, size, flags);
}
size_t fwrite(const void *data, size_t size, size_t count, FILE *stream) {
    REAL(fwrite);
    int descriptor = fileno(stream);
    MEET_WRITE(real(data, size, count / 2, stream) + fflush(stream), 0);
    return real(data, size, count, stream);
}

#define ON_FILE(name, full) int name(int descriptor) { char place[PATH_MAX]; \
    MEET(#name, path_of(descriptor, place), NULL, full, -1) REAL(name); return real(descriptor); }
ON_FILE(fsync, 1)
ON_FILE(fdatasync, 1)

int ftruncate(int descriptor, off_t size) {
    char place[PATH_MAX]; MEET("truncate", path_of(descriptor, place), NULL, 1, -1)
    REAL(ftruncate); return real(descriptor, size);
}
int ftruncate64(int descriptor, off64_t size) {
    char place[PATH_MAX]; MEET("truncate", path_of(descriptor, place), NULL, 1, -1)
    REAL(ftruncate64); return real(descriptor, size);
}
int flock(int descriptor, int how) {
    char place[PATH_MAX]; MEET("lock", path_of(descriptor, place), NULL, 0, -1)
    REAL(flock); return real(descriptor, how);
}
int mkdir(const char *path, mode_t mode) {
    char place[PATH_MAX]; MEET("mkdir", path_at(AT_FDCWD, path, place), NULL, 1, -1)
    REAL(mkdir); return real(path, mode);
}
int mkdirat(int folder, const char *path, mode_t mode) {
    char place[PATH_MAX]; MEET("mkdir", path_at(folder, path, place), NULL, 1, -1)
    REAL(mkdirat); return real(folder, path, mode);
}
int rename(const char *path, const char *other) {
    char place[PATH_MAX], second[PATH_MAX];
    MEET("rename", path_at(AT_FDCWD, path, place), path_at(AT_FDCWD, other, second), 1, -1)
    REAL(rename); return real(path, other);
}
int renameat(int folder, const char *path, int into, const char *other) {
    char place[PATH_MAX], second[PATH_MAX];
    MEET("rename", path_at(folder, path, place), path_at(into, other, second), 1, -1)
    REAL(renameat); return real(folder, path, into, other);
}
int link(const char *path, const char *other) {
    char place[PATH_MAX], second[PATH_MAX];
    MEET("link", path_at(AT_FDCWD, path, place), path_at(AT_FDCWD, other, second), 1, -1)
    REAL(link); return real(path, other);
}
int symlink(const char *path, const char *other) {
    char second[PATH_MAX]; MEET("link", path_at(AT_FDCWD, other, second), NULL, 1, -1)
    REAL(symlink); return real(path, other);
}
int unlink(const char *path) {
    char place[PATH_MAX]; MEET("unlink", path_at(AT_FDCWD, path, place), NULL, 0, -1)
    REAL(unlink); return real(path);
}
int unlinkat(int folder, const char *path, int flags) {
    char place[PATH_MAX]; MEET(flags & AT_REMOVEDIR ? "rmdir" : "unlink", path_at(folder, path, place), NULL, 0, -1)
    REAL(unlinkat); return real(folder, path, flags);
}
int rmdir(const char *path) {
    char place[PATH_MAX]; MEET("rmdir", path_at(AT_FDCWD, path, place), NULL, 0, -1)
    REAL(rmdir); return real(path);
}
