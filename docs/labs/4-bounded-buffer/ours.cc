// Lab 4, ours. The parent reads lines and puts each into a slot; the child takes them out and
// prints them. Two semaphores count: the slots that are free, and those that hold a line.
//
//     g++ -o ours ours.cc && seq 100000 | ./ours 4 | tail -1      (add -pthread before glibc 2.34)

#include <err.h>
#include <errno.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

constexpr int kSlots = 16;  // at most
constexpr int kBytes = 64;  // of a line, with its end

struct Buffer {
    sem_t free;  // the producer sleeps here when all slots are full
    sem_t full;  // the consumer sleeps here when all are free
    char line[kSlots][kBytes];
};

static void take_one(sem_t* semaphore) {
    while (sem_wait(semaphore) == -1)
        if (errno != EINTR) err(1, "sem_wait");
}

static void give_one(sem_t* semaphore) {
    if (sem_post(semaphore) == -1) err(1, "sem_post");
}

static void produce(Buffer* buffer, int slots) {
    char line[kBytes];
    int in = 0;  // the slots go round, and each side knows which is its next: so the order stays
    do {
        // An empty text is the end. It goes through a slot like the lines, and so comes after them.
        if (fgets(line, sizeof line, stdin) == nullptr) line[0] = '\0';
        take_one(&buffer->free);
        strcpy(buffer->line[in], line);
        give_one(&buffer->full);  // after the store: who is woken finds the line
        in = (in + 1) % slots;
    } while (line[0] != '\0');
}

static void consume(Buffer* buffer, int slots) {
    for (int out = 0;; out = (out + 1) % slots) {
        take_one(&buffer->full);
        if (buffer->line[out][0] == '\0') return;
        fputs(buffer->line[out], stdout);
        give_one(&buffer->free);  // after the line was used: from here on it may be overwritten
    }
}

int main(int argc, char** argv) {
    const int slots = argc == 2 ? atoi(argv[1]) : 0;
    if (slots < 1 || slots > kSlots) errx(2, "usage: %s SLOTS (1 to %d)", argv[0], kSlots);
    void* address =
        mmap(nullptr, sizeof(Buffer), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (address == MAP_FAILED) err(1, "mmap(%zu)", sizeof(Buffer));
    Buffer* buffer = static_cast<Buffer*>(address);

    // 1: they are for several processes [sem_init(3)]. At first all slots are free.
    if (sem_init(&buffer->free, 1, static_cast<unsigned>(slots)) == -1) err(1, "sem_init(free)");
    if (sem_init(&buffer->full, 1, 0) == -1) err(1, "sem_init(full)");

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
