// What memory many readers of one image really take: with one mapping, and with a copy each.

#pragma once

#include <fstream>
#include <string>
#include <vector>

#include "../../common/process.h"
#include "file.h"
#include "image.h"

// What each process does without shared memory: reads the file into memory of its own.
inline Image copy_image() {
    size_t bytes;
    const int fd = open_image(&bytes);
    // mmap, not malloc: so unmap() serves both.
    void* start = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED) err(1, "mmap(%zu bytes)", bytes);
    if (read(fd, start, bytes) != static_cast<ssize_t>(bytes)) errx(1, "%s: ended early", path);
    close(fd);
    return checked(start, bytes, false);
}

struct Memory {
    long pss = 0, rss = 0, tables = 0;  // KiB
};

// Adds up the memory of all readers as the kernel counts it. Rss counts each page that is present;
// Pss counts a page that n processes have as 1/n, and is rounded down to KiB for each process. Both
// leave out the page tables, which each process has for itself: VmPTE [proc(5)].
inline Memory sum_memory(const std::vector<pid_t>& readers) {
    Memory sum;
    for (pid_t reader : readers)
        for (const char* name : {"/smaps_rollup", "/status"}) {
            const std::string file = "/proc/" + std::to_string(reader) + name;
            std::ifstream lines(file);
            if (!lines) err(1, "open(%s)", file.c_str());
            for (std::string field; lines >> field;) {
                long kib;
                if (field == "Pss:" && lines >> kib) sum.pss += kib;
                if (field == "Rss:" && lines >> kib) sum.rss += kib;
                if (field == "VmPTE:" && lines >> kib) sum.tables += kib;
            }
        }
    return sum;
}

// Waits until all have stopped themselves, looks at their memory and lets them go on.
inline Memory measure_stopped(const std::vector<pid_t>& readers) {
    for (pid_t reader : readers) {
        int status;
        alarm(60);  // on_signal() gives up
        if (waitpid(reader, &status, WUNTRACED) == -1) err(1, "waitpid(%d)", reader);
        alarm(0);
        if (!WIFSTOPPED(status)) errx(1, "reader %d failed or was killed", reader);
    }
    const Memory sum = sum_memory(readers);
    for (pid_t reader : readers) kill(reader, SIGCONT);
    return sum;
}

// A reader: twice it takes the image, reads and checks all of it and stops to be measured. The
// first time brings in the program's own pages, code and stack; the second time it holds the image.
[[noreturn]] inline void be_reader(Image (*take)()) {
    setpgid(0, 0);  // Ctrl-Z and fg stop and continue the parent alone
    for (bool hold : {false, true}) {
        const Image image = take();
        if (const char* wrong = config::check_all(image)) errx(1, "%s: %s", path, wrong);
        if (!hold) unmap(image);
        raise(SIGSTOP);
    }
    _exit(0);
}

// Starts readers that `take` the image; prints a line of the table.
inline void measure(const char* what, size_t count, Image (*take)()) {
    std::vector<pid_t> readers;
    while (readers.size() < count) {
        readers.push_back(spawn());
        if (readers.back() == 0) be_reader(take);
    }
    const Memory own = measure_stopped(readers);  // at their first stop, without the image
    const Memory all = measure_stopped(readers);  // at the second, with it
    for (pid_t reader : readers)
        if (wait_for(reader, 60) != 0) errx(1, "reader %d failed", reader);
    printf("%-15s %9ld %9ld %9ld %18ld %12ld\n", what, all.rss, all.pss, own.pss, all.pss - own.pss,
           all.tables);
}

// Tells images apart.
inline uint64_t checksum_of(const Image& image) {
    return reinterpret_cast<const config::Header*>(image.start)->checksum;
}

inline int read_at_once(size_t count) {
    const Image image = map_image();
    // A bad one is one error here, not one from each reader.
    if (const char* wrong = config::check_all(image)) errx(1, "%s: %s", path, wrong);
    const uint64_t before = checksum_of(image);
    printf("%zu readers, %zu entries, %zu bytes. In KiB, each reader's Pss rounded down:\n", count,
           image.count, image.bytes);
    printf("%-15s %9s %9s %9s %18s %12s\n", "", "Rss", "Pss", "own Pss", "for the image",
           "page tables");
    unmap(image);  // or a share of the Pss would be ours
    measure("one mapping", count, map_image);
    measure("private copies", count, copy_image);
    if (checksum_of(map_image()) != before)
        errx(1, "%s: a load came meanwhile; these figures are of two images", path);
    return 0;
}
