// The loader: reads the text of a configuration, makes an image of it aside, publishes it. Begin
// with load(), at the end; the parts are above it, in its order.

#pragma once

#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <string>
#include <string_view>

#include "../../common/process.h"
#include "image.h"
#include "readers.h"

inline std::string read_text(const char* file) {
    const int fd = open(file, O_RDONLY);
    if (fd == -1) err(1, "open(%s)", file);
    std::string text;
    char chunk[65536];
    ssize_t got;
    while ((got = read(fd, chunk, sizeof chunk)) > 0) {
        text.append(chunk, static_cast<size_t>(got));
        if (text.size() > config::kMostText)
            errx(1, "%s: has more than %zu bytes", file, config::kMostText);
    }
    if (got == -1) err(1, "read(%s)", file);
    close(fd);
    return text;
}

inline std::string_view trim(std::string_view text) {
    const size_t first = text.find_first_not_of(" \t\r");  // \r: lines may end in CR LF
    if (first == text.npos) return {};
    return text.substr(first, text.find_last_not_of(" \t\r") - first + 1);
}

// The lines `key = value`; blank lines and those that start with # are skipped. The entries point
// into `text`.
inline config::Entries parse(std::string_view text, const char* file) {
    config::Entries entries;
    size_t line = 1;
    for (size_t start = 0, end; start < text.size(); start = end + 1, ++line) {
        end = std::min(text.find('\n', start), text.size());
        const std::string_view whole = trim(text.substr(start, end - start));
        if (whole.find('\0') != whole.npos) errx(1, "%s:%zu: holds a NUL byte", file, line);
        if (whole.empty() || whole[0] == '#') continue;
        const size_t equals = whole.find('=');
        if (equals == whole.npos) errx(1, "%s:%zu: has no '='", file, line);
        const std::string_view key = trim(whole.substr(0, equals));
        if (key.empty()) errx(1, "%s:%zu: has no key before the '='", file, line);
        const auto [earlier, fresh] = entries.insert({key, trim(whole.substr(equals + 1))});
        if (!fresh)
            errx(1, "%s:%zu: the key '%.*s' was there in line %td", file, line,
                 static_cast<int>(std::min<size_t>(key.size(), 60)), key.data(),
                 1 + std::count(text.data(), earlier->first.data(), '\n'));
    }
    if (entries.empty()) errx(1, "%s: holds no 'key = value'", file);
    return entries;
}

// Nobody's data is overwritten or removed: a file in our way must be an image, and this user's.
// `or_empty`: a file without a byte will do, too.
inline void must_be_ours(const char* name, int fd, bool or_empty) {
    struct stat it;
    uint32_t magic = 0;
    if (fstat(fd, &it) == -1) err(1, "fstat(%s)", name);
    if (!S_ISREG(it.st_mode)) errx(1, "%s: is not a regular file", name);
    if (it.st_uid != geteuid()) errx(1, "%s: belongs to user %u, not to you", name, it.st_uid);
    if (or_empty && it.st_size == 0) return;
    if (pread(fd, &magic, sizeof magic, 0) == -1) err(1, "pread(%s)", name);
    if (magic != config::kMagic) errx(1, "%s: is not an image of ours, and stays as it is", name);
}

// Locks the image in the making. The kernel drops the lock with its process [flock(2)]: a file that
// is locked is another load's, one that is not was left by a load that was killed. False: what
// we locked no longer bears the name; between our open and our lock another load has published it,
// or removed it.
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

// Removes what a killed load has left. If it is gone before we have the lock, that is fine, too.
inline void remove_left_over(const char* next) {
    const int fd = open_existing(next);
    if (fd == -1 && errno == ENOENT) return;
    if (fd == -1) err(1, "open(%s)", next);
    must_be_ours(next, fd, true);
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

// Makes the image of a text and publishes it.
inline int load(const char* file, const char* directory) {
    const std::string text = read_text(file);
    const config::Entries entries = parse(text, file);
    const std::string image = config::make(entries);
    static std::string name;            // of the image in the making, until it is published
    name = std::string(path) + ".new";  // beside it: rename(2) stays in one disk
    const char* next = name.c_str();
    const int parent = open(directory, O_RDONLY | O_DIRECTORY);
    if (parent == -1) err(1, "open(%s)", directory);

    // Signals wait until what is begun is published, or removed as we exit with an error.
    sigset_t all, before;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &before);
    const int fd = make_next(next);
    atexit([] {
        if (!name.empty()) unlink(name.c_str());
    });

    // write(2), and not stores to a mapping: a full disk is an error here and not SIGBUS.
    for (size_t done = 0; done < image.size();) {
        const ssize_t more = write(fd, image.data() + done, image.size() - done);
        if (more == -1) err(1, "write(%s)", next);
        done += static_cast<size_t>(more);
    }
    // Or after a power cut the new name could be there without its bytes.
    if (fsync(fd) == -1) err(1, "fsync(%s)", next);

    // Look at the file that rename(2) will replace, and do it last: it may have appeared just now.
    const int old = open_existing(path);
    if (old == -1 && errno != ENOENT) err(1, "open(%s)", path);
    if (old != -1) must_be_ours(path, old, false);

    // Publish it. Who opens the name gets the whole old image or the whole new one; who has mapped
    // the old one keeps it.
    if (rename(next, path) == -1) err(1, "rename(%s)", path);
    name.clear();
    sigprocmask(SIG_SETMASK, &before, nullptr);
    if (fsync(parent) == -1) err(1, "fsync(%s)", directory);  // the name, for a power cut
    printf("%s: %zu entries, %zu bytes\n", path, entries.size(), image.size());
    return 0;
}
