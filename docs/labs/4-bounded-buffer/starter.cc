// Lab 4. The parent reads lines and puts each into a slot; the child takes them out and prints
// them. There are as many slots as the command line says.
// It prints the right lines, mostly. What does it do while it waits?
//
//     g++ -o mine mine.cc && seq 100000 | ./mine 4 | tail -1

#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

constexpr int kSlots = 16;  // at most
constexpr int kBytes = 64;  // of a line, with its end

struct Buffer {
    volatile int used;    // slots with a line that was not taken yet
    volatile int closed;  // no more lines will come
    char line[kSlots][kBytes];
};

static void produce(Buffer* buffer, int slots) {
    char line[kBytes];
    for (int in = 0; fgets(line, sizeof line, stdin) != nullptr; in = (in + 1) % slots) {
        while (buffer->used == slots) continue;
        strcpy(buffer->line[in], line);
        buffer->used = buffer->used + 1;
    }
    buffer->closed = 1;
}

static void consume(Buffer* buffer, int slots) {
    for (int out = 0;; out = (out + 1) % slots) {
        while (buffer->used == 0 && !buffer->closed) continue;
        if (buffer->used == 0) return;
        fputs(buffer->line[out], stdout);
        buffer->used = buffer->used - 1;
    }
}

int main(int argc, char** argv) {
    const int slots = argc == 2 ? atoi(argv[1]) : 0;
    if (slots < 1 || slots > kSlots) errx(2, "usage: %s SLOTS (1 to %d)", argv[0], kSlots);
    void* address =
        mmap(nullptr, sizeof(Buffer), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (address == MAP_FAILED) err(1, "mmap(%zu)", sizeof(Buffer));
    Buffer* buffer = static_cast<Buffer*>(address);

    const pid_t child = fork();
    if (child == -1) err(1, "fork()");
    if (child == 0) {
        setlinebuf(stdout);  // each line is seen at once
        consume(buffer, slots);
        return fflush(stdout) == 0 ? 0 : 1;
    }
    produce(buffer, slots);
    int status;
    if (waitpid(child, &status, 0) == -1) err(1, "waitpid(%d)", child);
    if (status != 0) errx(1, "the child failed");
    return 0;
}
