// The image of a configuration as a file: opened, checked, mapped.

#pragma once

#include <sys/mman.h>
#include <sys/stat.h>

#include "../../common/process.h"
#include "image.h"

using config::Image;

inline const char* path = "./config.image";

// Opens the image for reading, refuses a file not fit to be one. `bytes` is its length.
inline int open_image(size_t* bytes) {
    const int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);  // a FIFO would make us wait
    if (fd == -1 && errno == ENOENT) {
        warn("open(%s)", path);
        errx(1, "make it: %s load FILE --image %s", shell_word(program_invocation_name).c_str(),
             shell_word(path).c_str());
    }
    if (fd == -1) err(1, "open(%s)", path);
    struct stat it;
    if (fstat(fd, &it) == -1) err(1, "fstat(%s)", path);
    if (!S_ISREG(it.st_mode)) errx(1, "%s: is not a regular file", path);
    // Readers are often other users than the loader, so any owner will do: who names a file trusts
    // its owner. Anybody else who may write could change or shorten it under our mapping.
    if (it.st_mode & (S_IWGRP | S_IWOTH)) errx(1, "%s: others than its owner may write it", path);
    if (it.st_size == 0) errx(1, "%s: is empty", path);  // cannot be mapped
    *bytes = static_cast<size_t>(it.st_size);
    return fd;
}

// The image in bytes that may be anything; `all`: every byte is checked, and not the header alone.
inline Image checked(const void* start, size_t bytes, bool all) {
    Image image;
    const char* wrong = config::check_header(static_cast<const char*>(start), bytes, &image);
    if (!wrong && all) wrong = config::check_all(image);
    if (wrong) errx(1, "%s: %s", path, wrong);
    return image;
}

// Maps the image. What is used of it later is checked then: see look_up().
inline Image map_image() {
    size_t bytes;
    const int fd = open_image(&bytes);
    void* start = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (start == MAP_FAILED) err(1, "mmap(%s)", path);
    close(fd);  // the mapping keeps the file, and stays read-only as the descriptor was
    return checked(start, bytes, false);
}

inline void unmap(const Image& image) {
    if (munmap(const_cast<char*>(image.start), image.bytes) == -1) err(1, "munmap(%s)", path);
}
