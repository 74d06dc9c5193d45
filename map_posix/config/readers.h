// The readers' side: the image is opened or refused, mapped, and looked up in: lookup.h.

#pragma once

#include <sys/mman.h>
#include <sys/stat.h>

#include <optional>
#include <string>
#include <string_view>

#include "../../common/process.h"
#include "lookup.h"

using config::Image;

inline const char* path = "./config.image";  // as main() has it from the command line

// Opens the image for reading, refuses a file not fit to be one. `bytes` is its length.
inline int open_image(size_t* bytes) {
    const int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);  // a FIFO would make us wait
    if (fd == -1 && errno == ENOENT)
        errx(1, "open(%s): %s\n  make it: %s load FILE --image %s", path, strerror(errno),
             shell_word(program_invocation_name).c_str(), shell_word(path).c_str());
    if (fd == -1) err(1, "open(%s)", path);
    struct stat it;
    if (fstat(fd, &it) == -1) err(1, "fstat(%s)", path);
    if (!S_ISREG(it.st_mode)) errx(1, "%s: is not a regular file", path);
    // Readers are often other users than the loader, so any owner will do: who names a file trusts
    // its owner. Anybody else who may write could change or shorten it under our mapping.
    if (it.st_mode & (S_IWGRP | S_IWOTH)) errx(1, "%s: others than its owner may write it", path);
    if (it.st_size == 0) errx(1, "%s: is empty", path);  // cannot be mapped
    // In 32 bits st_size may be larger than size_t [_FILE_OFFSET_BITS in feature_test_macros(7)].
    *bytes = static_cast<size_t>(it.st_size);
    if (static_cast<off_t>(*bytes) != it.st_size) errx(1, "%s: is too large for us", path);
    return fd;
}

// Maps the image. What is used of it later is checked then: see config::find().
inline Image map_image() {
    size_t bytes;
    const int fd = open_image(&bytes);
    void* start = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (start == MAP_FAILED) err(1, "mmap(%s)", path);
    close(fd);  // the mapping keeps the file, and stays read-only as the descriptor was
    Image image;
    const char* wrong = config::check(static_cast<const char*>(start), bytes, &image);
    if (wrong) errx(1, "%s: %s", path, wrong);
    return image;
}

inline void unmap(const Image& image) {
    if (munmap(const_cast<char*>(image.start), image.bytes) == -1) err(1, "munmap(%s)", path);
}

// The value of a key: it lies in the image, without parsing or copying.
inline std::string_view look_up(const Image& image, std::string_view key) {
    std::optional<std::string_view> value;
    if (const char* wrong = config::find(image, key, &value)) errx(1, "%s: %s", path, wrong);
    if (!value) errx(1, "%s: has no key '%s'", path, std::string(key).c_str());
    return *value;
}

// Looks up each key that is there, so all of the image is touched and checked.
inline void look_up_all(const Image& image) {
    const char* wrong = config::for_each(image, [&](const config::Texts& it) {
        if (look_up(image, it.key) != it.value) errx(1, "%s: two entries have one key", path);
    });
    if (wrong) errx(1, "%s: %s", path, wrong);
}
