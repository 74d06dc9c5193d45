// What memory many readers really take: with no image, with one mapping, with copies of their own.

#pragma once

#include <sys/stat.h>

#include <fstream>
#include <string>
#include <vector>

#include "../../common/process.h"
#include "readers.h"

struct Memory {
    long rss = 0, pss = 0, tables = 0;  // KiB
};

[[noreturn]] inline void lost(pid_t reader) { errx(1, "reader %d failed or was killed", reader); }

// Adds up what the kernel says of each reader. Rss counts each page that is present; Pss counts a
// page that n processes have as 1/n, and is rounded down to KiB for each process. Neither counts
// the page tables, of which each process has its own: VmPTE [proc(5)].
inline Memory sum_memory(const std::vector<pid_t>& readers) {
    Memory sum;
    for (pid_t reader : readers)
        for (const char* name : {"/smaps_rollup", "/status"}) {
            const std::string file = "/proc/" + std::to_string(reader) + name;
            std::ifstream lines(file);
            if (!lines && errno == ESRCH) lost(reader);  // killed meanwhile
            if (!lines) err(1, "open(%s)", file.c_str());
            long kib;
            for (std::string field; lines >> field;) {
                if (field == "Rss:" && lines >> kib) sum.rss += kib;
                if (field == "Pss:" && lines >> kib) sum.pss += kib;
                if (field == "VmPTE:" && lines >> kib) sum.tables += kib;
            }
            if (lines.bad()) err(1, "read(%s)", file.c_str());
        }
    return sum;
}

// Starts readers that `hold` something, and stop; prints what memory they have then.
inline void measure(const char* what, size_t count, void (*hold)()) {
    std::vector<pid_t> readers;
    while (readers.size() < count) {
        const pid_t reader = spawn();
        if (reader == 0) {
            setpgid(0, 0);  // or Ctrl-Z and fg, meant for us, would continue it
            hold();
            raise(SIGSTOP);
            _exit(0);
        }
        readers.push_back(reader);
    }
    const auto until_stop = [](pid_t reader) {  // or its end
        int status;
        give_up_in(60);
        if (waitpid(reader, &status, WUNTRACED) == -1) err(1, "waitpid(%d)", reader);
        alarm(0);  // it would end us in what comes after this [alarm(2)]
        return status;
    };
    for (pid_t reader : readers)
        if (!WIFSTOPPED(until_stop(reader))) lost(reader);
    const Memory sum = sum_memory(readers);
    for (pid_t reader : readers) {
        int status;
        do {  // again, if a stop from outside came first: then its own is still to come
            kill(reader, SIGCONT);
            status = until_stop(reader);
        } while (WIFSTOPPED(status));
        if (status != 0) lost(reader);
    }
    printf("%-15s %9ld %9ld %12ld\n", what, sum.rss, sum.pss, sum.tables);
}

// What a reader holds until its process ends.
inline void hold_nothing() {  // what all have in common: the same code has run
    const Image image = map_image();
    look_up_all(image);
    unmap(image);
}

inline void hold_mapping() { look_up_all(map_image()); }

inline void hold_copy() {  // what each process does without shared memory
    const Image image = map_image();
    static const std::string copy(image.start, image.bytes);
    unmap(image);
    look_up_all({copy.data(), copy.size(), image.count});
}

inline int read_at_once(size_t count) {
    size_t bytes;
    struct stat first, last;
    const int fd = open_image(&bytes);
    const Image image = map_image();
    look_up_all(image);  // a bad one is one error here, not one from each reader
    printf("%zu readers, %zu entries, %zu bytes. In KiB, each reader's Pss rounded down:\n", count,
           image.count, image.bytes);
    printf("%-15s %9s %9s %12s\n", "", "Rss", "Pss", "page tables");
    unmap(image);  // or a share of the Pss would be ours
    measure("no image", count, hold_nothing);
    measure("one mapping", count, hold_mapping);
    measure("private copies", count, hold_copy);
    // While `fd` is open, no other file gets its inode number: the same device and number mean the
    // same file [inode(7)].
    if (fstat(fd, &first) == -1 || stat(path, &last) == -1) err(1, "stat(%s)", path);
    if (first.st_dev != last.st_dev || first.st_ino != last.st_ino)
        errx(1, "%s: a load came meanwhile; these figures are of two images", path);
    return 0;
}
