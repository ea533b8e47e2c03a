/* Loaded before a program: from start_recording on, writes what it does to the files below a folder into a log.

   Each entry: a letter, three numbers (64 bits), the lengths of two texts (64 bits) and the texts. A call that this
   file does not know makes the log differ from what is on the disk in the end, which its reader checks. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static char root[PATH_MAX];
static int log_file = -1;
static pthread_mutex_t one_at_a_time = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;

void start_recording(const char *folder, const char *file)
{
    snprintf(root, sizeof root, "%s/", folder);
    log_file = syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static void put(const void *data, size_t size)
{
    while (size) {
        long done = syscall(SYS_write, log_file, data, size);
        if (done <= 0)
            _exit(70);
        data = (const char *)data + done;
        size -= done;
    }
}

static void note(char kind, uint64_t a, uint64_t b, const void *one, uint64_t one_size, const char *two)
{
    uint64_t two_size = two ? strlen(two) : 0, numbers[] = {kind, a, b, 0, one_size, two_size};
    put(numbers, sizeof numbers);
    put(one, one_size);
    put(two ? two : "", two_size);
}

void mark(const char *text)
{
    if (log_file >= 0)
        note('K', 0, 0, text, strlen(text), NULL);
}

/* The absolute path of a name; 0 where it is not below the folder that is recorded. */
static int resolve(int folder, const char *name, char *path)
{
    char from[PATH_MAX] = "", link[64];
    if (log_file < 0)
        return 0;
    if (name[0] != '/') {
        snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        if (syscall(SYS_readlink, folder == AT_FDCWD ? "/proc/self/cwd" : link, from, sizeof from - 1) < 0)
            return 0;
        strncat(from, "/", sizeof from - strlen(from) - 1);
    }
    if ((size_t)snprintf(path, PATH_MAX, "%s%s", from, name) >= PATH_MAX)
        return 0;
    return !strncmp(path, root, strlen(root));
}

/* The number of an open file or folder; 0 where it is not below the folder, or the folder itself. */
static uint64_t number_of(int file)
{
    char path[PATH_MAX + 1] = "", link[64];
    struct stat status;
    if (log_file < 0)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    long size = syscall(SYS_readlink, link, path, PATH_MAX - 1);
    if (size < 0)
        return 0;
    path[size] = '/';
    return strncmp(path, root, strlen(root)) || fstat(file, &status) ? 0 : status.st_ino;
}

#define ALONE(type, call, what)                                                                                        \
    pthread_mutex_lock(&one_at_a_time);                                                                                \
    type result = call;                                                                                                \
    int why = errno;                                                                                                   \
    if (result != (type)-1) {                                                                                          \
        what;                                                                                                          \
    }                                                                                                                  \
    pthread_mutex_unlock(&one_at_a_time);                                                                              \
    errno = why;                                                                                                       \
    return result

static int open_at(int folder, const char *name, int flags, int mode)
{
    char path[PATH_MAX];
    struct stat before, now;
    int ours = flags & (O_CREAT | O_TRUNC) && (flags & O_TMPFILE) != O_TMPFILE && resolve(folder, name, path);
    int there = ours && !stat(path, &before);
    ALONE(int, syscall(SYS_openat, folder, name, flags, mode), if (ours && !fstat(result, &now)) {
        if (!there)
            note('C', now.st_ino, 0, path, strlen(path), NULL);
        else if (flags & O_TRUNC)
            note('T', now.st_ino, 0, "", 0, NULL);
    });
}

#define OPENS(name)                                                                                                    \
    int name(const char *path, int flags, ...)                                                                         \
    {                                                                                                                  \
        va_list more;                                                                                                  \
        va_start(more, flags);                                                                                         \
        int mode = va_arg(more, int);                                                                                  \
        va_end(more);                                                                                                  \
        return open_at(AT_FDCWD, path, flags, mode);                                                                   \
    }
#define OPENS_AT(name)                                                                                                 \
    int name(int folder, const char *path, int flags, ...)                                                             \
    {                                                                                                                  \
        va_list more;                                                                                                  \
        va_start(more, flags);                                                                                         \
        int mode = va_arg(more, int);                                                                                  \
        va_end(more);                                                                                                  \
        return open_at(folder, path, flags, mode);                                                                     \
    }
OPENS(open)
OPENS(open64)
OPENS_AT(openat)
OPENS_AT(openat64)

static uint64_t place_in(int file)
{
    struct stat status;
    if (fcntl(file, F_GETFL) & O_APPEND && !fstat(file, &status))
        return status.st_size;
    return lseek(file, 0, SEEK_CUR);
}

ssize_t write(int file, const void *data, size_t size)
{
    uint64_t number = number_of(file), place = number ? place_in(file) : 0;
    ALONE(ssize_t, syscall(SYS_write, file, data, size), if (number) note('W', number, place, data, result, NULL));
}

ssize_t pwrite64(int file, const void *data, size_t size, off64_t place)
{
    uint64_t number = number_of(file);
    ALONE(ssize_t, syscall(SYS_pwrite64, file, data, size, place),
          if (number) note('W', number, place, data, result, NULL));
}

ssize_t pwrite(int file, const void *data, size_t size, off_t place)
{
    return pwrite64(file, data, size, place);
}

ssize_t writev(int file, const struct iovec *parts, int count)
{
    if (!number_of(file))
        return syscall(SYS_writev, file, parts, count);
    ssize_t all = 0;
    for (int part = 0; part < count; part++) {
        ssize_t done = write(file, parts[part].iov_base, parts[part].iov_len);
        if (done < 0)
            return all ? all : done;
        all += done;
        if ((size_t)done < parts[part].iov_len)
            break;
    }
    return all;
}

/* Who copies so goes on by reading and writing. */
ssize_t sendfile64(int out, int in, off64_t *place, size_t size)
{
    if (number_of(out)) {
        errno = ENOTSOCK;
        return -1;
    }
    return syscall(SYS_sendfile, out, in, place, size);
}

ssize_t sendfile(int out, int in, off_t *place, size_t size)
{
    return sendfile64(out, in, place, size);
}

ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t size, unsigned flags)
{
    if (number_of(out)) {
        errno = ENOSYS;
        return -1;
    }
    return syscall(SYS_copy_file_range, in, from, out, to, size, flags);
}

int ftruncate64(int file, off64_t size)
{
    uint64_t number = number_of(file);
    ALONE(int, syscall(SYS_ftruncate, file, size), if (number) note('T', number, size, "", 0, NULL));
}

int ftruncate(int file, off_t size)
{
    return ftruncate64(file, size);
}

static int synced(int file, long call)
{
    uint64_t number = number_of(file);
    ALONE(int, syscall(call, file), if (number) note(call == SYS_syncfs ? 'A' : 'F', number, 0, "", 0, NULL));
}

int fsync(int file)
{
    return synced(file, SYS_fsync);
}

int fdatasync(int file)
{
    return synced(file, SYS_fdatasync);
}

int syncfs(int file)
{
    return synced(file, SYS_syncfs);
}

void sync(void)
{
    syscall(SYS_sync);
    if (log_file >= 0)
        note('A', 0, 0, "", 0, NULL);
}

int renameat2(int from, const char *old, int to, const char *new, unsigned flags)
{
    char one[PATH_MAX], two[PATH_MAX];
    int ours = resolve(from, old, one) && resolve(to, new, two);
    ALONE(int, syscall(SYS_renameat2, from, old, to, new, flags),
          if (ours) note('R', flags, 0, one, strlen(one), two));
}

int renameat(int from, const char *old, int to, const char *new)
{
    return renameat2(from, old, to, new, 0);
}

int rename(const char *old, const char *new)
{
    return renameat2(AT_FDCWD, old, AT_FDCWD, new, 0);
}

int linkat(int from, const char *old, int to, const char *new, int flags)
{
    char one[PATH_MAX], two[PATH_MAX];
    int ours = resolve(from, old, one) && resolve(to, new, two);
    ALONE(int, syscall(SYS_linkat, from, old, to, new, flags), if (ours) note('L', 0, 0, one, strlen(one), two));
}

int link(const char *old, const char *new)
{
    return linkat(AT_FDCWD, old, AT_FDCWD, new, 0);
}

int unlinkat(int folder, const char *name, int flags)
{
    char path[PATH_MAX];
    int ours = resolve(folder, name, path);
    ALONE(int, syscall(SYS_unlinkat, folder, name, flags), if (ours) note('U', 0, 0, path, strlen(path), NULL));
}

int unlink(const char *name)
{
    return unlinkat(AT_FDCWD, name, 0);
}

int rmdir(const char *name)
{
    return unlinkat(AT_FDCWD, name, AT_REMOVEDIR);
}

int mkdirat(int folder, const char *name, mode_t mode)
{
    char path[PATH_MAX];
    struct stat status;
    int ours = resolve(folder, name, path);
    ALONE(int, syscall(SYS_mkdirat, folder, name, mode),
          if (ours && !stat(path, &status)) note('M', status.st_ino, 0, path, strlen(path), NULL));
}

int mkdir(const char *name, mode_t mode)
{
    return mkdirat(AT_FDCWD, name, mode);
}
