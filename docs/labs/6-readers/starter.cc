// Lab 6. One configuration, the file ./config, and many readers that map it. Lab 6 is to find what
// a reader sees while somebody publishes a new one.
//
//     g++ -o mine mine.cc && ./mine publish FILE && ./mine read

#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

// The bytes of a file become the configuration.
static void publish(const char* file) {
    const int in = open(file, O_RDONLY);
    if (in == -1) err(1, "open(%s)", file);
    const int out = open("config", O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (out == -1) err(1, "open(config)");
    char chunk[65536];
    ssize_t got;
    while ((got = read(in, chunk, sizeof chunk)) > 0)
        for (ssize_t done = 0, more; done < got; done += more)
            if ((more = write(out, chunk + done, static_cast<size_t>(got - done))) == -1)
                err(1, "write(config)");
    if (got == -1) err(1, "read(%s)", file);
}

static void print(const char* text, size_t bytes) {
    for (size_t i = 0; i < bytes; ++i) putchar(text[i]);
    if (fflush(stdout) != 0) err(1, "write(stdout)");
}

// Prints the configuration, waits for Enter, and prints it again, from the same mapping.
static void read_twice() {
    const int fd = open("config", O_RDWR);
    struct stat it;
    if (fd == -1) err(1, "open(config)");
    if (fstat(fd, &it) == -1) err(1, "fstat(config)");
    const size_t bytes = static_cast<size_t>(it.st_size);
    void* address = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
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
