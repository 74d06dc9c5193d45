// Lab 3. Parent and child count together: each adds 1 to one shared count, as often as it is told.
// It prints the right number for small arguments, mostly. Why not for large ones?
//
//     g++ -o mine mine.cc && ./mine 1000000

#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

struct Shared {
    volatile long count;  // volatile: the compiler keeps every load and every store
};

static void add(Shared* shared, long times) {
    for (long i = 0; i < times; ++i) {
        shared->count = shared->count + 1;
    }
}

int main(int argc, char** argv) {
    if (argc != 2) errx(2, "usage: %s TIMES", argv[0]);
    const long times = atol(argv[1]);

    // An object without a name: the child inherits the mapping.
    void* address =
        mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (address == MAP_FAILED) err(1, "mmap(%zu)", sizeof(Shared));
    Shared* shared = static_cast<Shared*>(address);

    const pid_t child = fork();
    if (child == -1) err(1, "fork()");
    add(shared, times);
    if (child == 0) return 0;

    int status;
    if (waitpid(child, &status, 0) == -1) err(1, "waitpid(%d)", child);
    if (status != 0) errx(1, "the child failed");
    printf("count %ld\n", shared->count);
    return 0;
}
