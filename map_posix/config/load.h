// The loader: makes the next image aside, in a file IMAGE.new, and publishes it: gives it the name
// that readers open. Begin with load(), at the end; the parts are above it, in its order.
//
// A load may be killed, and two may come at once. So each locks the file that it makes, and the
// kernel drops the lock with its process [flock(2)]: a file IMAGE.new that is locked is another
// load's; one that is not was left by a load that was killed.

#pragma once

#include <sys/file.h>
#include <sys/stat.h>

#include <string>

#include "../../common/process.h"
#include "image.h"
#include "text.h"

// Opens a file that we are about to remove or replace; -1: there is none. Nobody's data is
// overwritten or removed: it must be an image, and this user's. `or_empty`: a file without a byte
// will do, too.
inline int open_ours(const char* name, bool or_empty) {
    const int fd = open(name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);  // a FIFO would make us wait
    if (fd == -1 && errno == ENOENT) return -1;
    if (fd == -1) err(1, "open(%s)", name);
    struct stat it;
    if (fstat(fd, &it) == -1) err(1, "fstat(%s)", name);
    if (!S_ISREG(it.st_mode)) errx(1, "%s: is not a regular file", name);
    if (it.st_uid != geteuid()) errx(1, "%s: belongs to user %u, not to you", name, it.st_uid);
    if (or_empty && it.st_size == 0) return fd;
    uint32_t magic = 0;
    if (pread(fd, &magic, sizeof magic, 0) == -1) err(1, "pread(%s)", name);
    if (magic == config::kMagic) return fd;
    const std::string word = shell_word(name);
    errx(1,
         "%s: is not an image of ours, and stays as it is\n"
         "  look at it: od -c -N 64 -- %s\n"
         "  if nobody needs it: rm -- %s",
         name, word.c_str(), word.c_str());
}

// Locks IMAGE.new. False: what we locked no longer bears that name; between our open and our lock
// another load has published it, or removed it.
inline bool lock(const char* next, int fd) {
    struct stat it, named;
    if (flock(fd, LOCK_EX | LOCK_NB) == -1) {
        if (errno == EWOULDBLOCK) errx(1, "%s: another load is at work", next);
        err(1, "flock(%s)", next);
    }
    if (fstat(fd, &it) == -1) err(1, "fstat(%s)", next);
    if (lstat(next, &named) == 0) return it.st_dev == named.st_dev && it.st_ino == named.st_ino;
    if (errno != ENOENT) err(1, "lstat(%s)", next);
    return false;
}

// Removes what a killed load has left: an image, or a part of one, or a file without a byte. If it
// is gone before we have the lock, that is fine, too.
inline void remove_left_over(const char* next) {
    const int fd = open_ours(next, true);
    if (fd == -1) return;
    if (lock(next, fd) && unlink(next) == -1) err(1, "unlink(%s)", next);
    close(fd);
}

// Makes a file for the next image, which nobody can have mapped, and locks it. Another load may
// have come between: it made the file first (EEXIST), or removed ours as a left-over before we had
// the lock.
inline int make_next(const char* next) {
    remove_left_over(next);
    // 0444, less the umask: this descriptor may write, no later one may.
    const int fd = open(next, O_CREAT | O_EXCL | O_WRONLY, 0444);
    if (fd == -1 && errno != EEXIST) err(1, "open(%s)", next);
    if (fd == -1 || !lock(next, fd)) errx(1, "%s: another load is at work", next);
    return fd;
}

// Makes the image of a text, and publishes it as `image`, which is in `directory`.
inline int load(const char* file, const char* image, const char* directory) {
    const std::string text = read_text(file);
    const config::Entries entries = parse(text, file);
    const std::string bytes = config::make(entries);
    static std::string name;             // what atexit() below has to remove; empty: nothing
    name = std::string(image) + ".new";  // beside it: rename(2) stays in one file system
    const char* next = name.c_str();
    const int parent = open(directory, O_RDONLY | O_DIRECTORY);
    if (parent == -1) err(1, "open(%s)", directory);

    // No signal but SIGKILL ends us until IMAGE.new is published, or removed as we exit with an
    // error.
    sigset_t all, before;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &before);
    const int fd = make_next(next);  // open, and so locked, until we exit
    atexit([] {
        if (!name.empty()) unlink(name.c_str());
    });

    // write(2), and not stores to a mapping: a full disk is an error here and not SIGBUS.
    for (size_t done = 0; done < bytes.size();) {
        const ssize_t more = write(fd, bytes.data() + done, bytes.size() - done);
        if (more == -1) err(1, "write(%s)", next);
        done += static_cast<size_t>(more);
    }
    // The bytes first: after a power cut the new name must not be there without them.
    if (fsync(fd) == -1) err(1, "fsync(%s)", next);

    // Look at the file that rename(2) will replace, and do it last: it may have appeared just now.
    open_ours(image, false);  // for its checks alone

    // Publish it. Who opens the name gets the whole old image or the whole new one; who has mapped
    // the old one keeps it.
    if (rename(next, image) == -1) err(1, "rename(%s)", image);
    name.clear();
    sigprocmask(SIG_SETMASK, &before, nullptr);
    if (fsync(parent) == -1) err(1, "fsync(%s)", directory);  // the name, for a power cut
    printf("%s: %zu entries, %zu bytes\n", image, entries.size(), bytes.size());
    return 0;
}
