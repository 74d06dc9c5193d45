// Lab 6, ours. One configuration, the file ./config, and many readers that map it: one copy for all
// of them, which nobody changes. A new one is made aside, and takes the name in one step.
//
//     g++ -o ours ours.cc && ./ours publish FILE && ./ours read

#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

// In the same directory: rename(2) stays within one file system.
static const char* const kNext = "config.new";

// Says what failed, and leaves nothing.
static void give_up(const char* call, const char* file) {
    warn("%s(%s)", call, file);
    unlink(kNext);
    exit(1);
}

// The bytes of a file become the configuration.
static void publish(const char* file) {
    const int in = open(file, O_RDONLY);
    if (in == -1) err(1, "open(%s)", file);
    // One that was killed may have left such a file. Nobody reads it, so we begin it anew.
    const int out = open(kNext, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (out == -1) err(1, "open(%s)", kNext);
    char chunk[65536];
    ssize_t got;
    while ((got = read(in, chunk, sizeof chunk)) > 0)
        for (ssize_t done = 0, more; done < got; done += more)
            if ((more = write(out, chunk + done, static_cast<size_t>(got - done))) == -1)
                give_up("write", kNext);
    if (got == -1) give_up("read", file);
    // The bytes before the name: after a power cut, too.
    if (fsync(out) == -1) give_up("fsync", kNext);
    // Whoever opens the name gets the whole old file or the whole new one. Who has the old one
    // mapped keeps it: it has no name any more, and goes with its last reader.
    if (rename(kNext, "config") == -1) give_up("rename", kNext);
}

static void print(const char* text, size_t bytes) {
    for (size_t i = 0; i < bytes; ++i) putchar(text[i]);
    if (fflush(stdout) != 0) err(1, "write(stdout)");
}

// Prints the configuration, waits for Enter, and prints it again, from the same mapping.
static void read_twice() {
    // For reading only: then the mapping cannot become writable, either [mprotect(2)].
    const int fd = open("config", O_RDONLY);
    struct stat it;
    if (fd == -1) err(1, "open(config)");
    // Of the file that we have opened; the name may lead to another by now.
    if (fstat(fd, &it) == -1) err(1, "fstat(config)");
    const size_t bytes = static_cast<size_t>(it.st_size);
    void* address = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (address == MAP_FAILED) err(1, "mmap(config)");
    close(fd);  // the mapping keeps the file
    print(static_cast<char*>(address), bytes);
    for (int c; (c = getchar()) != '\n' && c != EOF;) continue;
    print(static_cast<char*>(address), bytes);
}

int main(int argc, char** argv) {
    if (argc == 3 && strcmp(argv[1], "publish") == 0)
        publish(argv[2]);
    else if (argc == 2 && strcmp(argv[1], "read") == 0)
        read_twice();
    else
        errx(2, "usage: %s publish FILE | read", argv[0]);
    return 0;
}
