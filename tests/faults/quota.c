/* A disk quota that is reached, preloaded into a process: while the file QUOTA_REACHED exists, no
 * file in the directory QUOTA_DIRECTORY grows. What is there already can be written over.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

static int is_refused(int fd, off64_t end) {
    char link[64], path[PATH_MAX];
    struct stat64 found;
    const char *directory = getenv("QUOTA_DIRECTORY"), *reached = getenv("QUOTA_REACHED");
    if (!directory || !reached || access(reached, F_OK)) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0 || strncmp(path, directory, strlen(directory))) return 0;
    if (fstat64(fd, &found) || end <= found.st_size) return 0;
    errno = EDQUOT;
    return 1;
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
    return is_refused(fd, offset + size) ? -1 : real(fd, data, size, offset);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
    return pwrite64(fd, data, size, offset);
}

ssize_t write(int fd, const void *data, size_t size) {
    REAL(ssize_t, "write", int, const void *, size_t);
    off64_t at = lseek64(fd, 0, SEEK_CUR);
    return at >= 0 && is_refused(fd, at + size) ? -1 : real(fd, data, size);
}

int ftruncate64(int fd, off64_t size) {
    REAL(int, "ftruncate64", int, off64_t);
    return is_refused(fd, size) ? -1 : real(fd, size);
}

int ftruncate(int fd, off_t size) {
    return ftruncate64(fd, size);
}
