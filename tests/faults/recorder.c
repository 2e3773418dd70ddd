/* Records what a process does to files, preloaded into it: each write, truncation, removal and
 * sync of a file in the directory RECORDED_DIRECTORY, as a record at the end of RECORDED_TRACE.
 * What is mapped into memory (SQLite's -shm, which a crash does not leave behind) is left out.
 *
 * A record is: one letter (W, T, U, S), the length of the name (1 byte), two numbers (8 bytes each,
 * as the machine has them), the name, and for W the data. The numbers are offset and length of a
 * write, and the new length of a truncation.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

/* The name of a path in the directory: empty for the directory itself, NULL for any other. */
static const char *name_in_directory(const char *path) {
    const char *directory = getenv("RECORDED_DIRECTORY");
    size_t length = directory ? strlen(directory) : 0;
    if (!length || strncmp(path, directory, length)) return NULL;
    if (!path[length]) return "";
    if (path[length] != '/') return NULL;
    const char *name = path + length + 1;
    size_t size = strlen(name);
    if (size > 4 && !strcmp(name + size - 4, "-shm")) return NULL;
    return size < 256 && !strchr(name, '/') ? name : NULL;
}

static const char *name_of(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length <= 0) return NULL;
    path[length] = 0;
    return name_in_directory(path);
}

static void record(char what, const char *name, uint64_t one, uint64_t other, const void *data) {
    static int trace = -1;
    if (trace < 0) trace = open(getenv("RECORDED_TRACE"), O_WRONLY | O_APPEND | O_CREAT, 0600);
    char head[18] = {what, (char)strlen(name)};
    memcpy(head + 2, &one, 8);
    memcpy(head + 10, &other, 8);
    struct iovec parts[3] = {
        {head, sizeof head}, {(void *)name, strlen(name)}, {(void *)data, data ? other : 0}};
    if (writev(trace, parts, 3) < 0) abort();
}

static ssize_t written(int fd, const void *data, off64_t offset, ssize_t result) {
    char path[PATH_MAX];
    const char *name = result > 0 ? name_of(fd, path) : NULL;
    if (name) record('W', name, offset, result, data);
    return result;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
    REAL(ssize_t, "pwrite", int, const void *, size_t, off_t);
    pthread_mutex_lock(&lock);
    ssize_t result = written(fd, data, offset, real(fd, data, size, offset));
    pthread_mutex_unlock(&lock);
    return result;
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
    pthread_mutex_lock(&lock);
    ssize_t result = written(fd, data, offset, real(fd, data, size, offset));
    pthread_mutex_unlock(&lock);
    return result;
}

ssize_t write(int fd, const void *data, size_t size) {
    REAL(ssize_t, "write", int, const void *, size_t);
    pthread_mutex_lock(&lock);
    off64_t offset = lseek64(fd, 0, SEEK_CUR);
    ssize_t result = real(fd, data, size);
    if (offset >= 0) written(fd, data, offset, result);
    pthread_mutex_unlock(&lock);
    return result;
}

static int truncated(int fd, off64_t size, int result) {
    char path[PATH_MAX];
    const char *name = result == 0 ? name_of(fd, path) : NULL;
    if (name) record('T', name, size, 0, NULL);
    return result;
}

int ftruncate(int fd, off_t size) {
    REAL(int, "ftruncate", int, off_t);
    pthread_mutex_lock(&lock);
    int result = truncated(fd, size, real(fd, size));
    pthread_mutex_unlock(&lock);
    return result;
}

int ftruncate64(int fd, off64_t size) {
    REAL(int, "ftruncate64", int, off64_t);
    pthread_mutex_lock(&lock);
    int result = truncated(fd, size, real(fd, size));
    pthread_mutex_unlock(&lock);
    return result;
}

int unlink(const char *path) {
    REAL(int, "unlink", const char *);
    pthread_mutex_lock(&lock);
    int result = real(path);
    const char *name = result == 0 ? name_in_directory(path) : NULL;
    if (name) record('U', name, 0, 0, NULL);
    pthread_mutex_unlock(&lock);
    return result;
}

static int synced(int fd, int result) {
    char path[PATH_MAX];
    const char *name = result == 0 ? name_of(fd, path) : NULL;
    if (name) record('S', name, 0, 0, NULL);
    return result;
}

int fsync(int fd) {
    REAL(int, "fsync", int);
    pthread_mutex_lock(&lock);
    int result = synced(fd, real(fd));
    pthread_mutex_unlock(&lock);
    return result;
}

int fdatasync(int fd) {
    REAL(int, "fdatasync", int);
    pthread_mutex_lock(&lock);
    int result = synced(fd, real(fd));
    pthread_mutex_unlock(&lock);
    return result;
}
