// Lab 7, ours. Five exchanges that print the same; a comment says what was wrong with each.
//
//     g++ -o ours ours.cc -lrt && ./ours 1        (add -pthread before glibc 2.34)

#include <err.h>
#include <fcntl.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

struct Items {
    int count;
    char name[3][16];
    sem_t ready;
};

static void store(Items* items) {
    strcpy(items->name[0], "Nellson");
    strcpy(items->name[1], "Daisy");
    strcpy(items->name[2], "Robbie");
    items->count = 3;
}

static void print(const Items* items) {
    printf("There is %d item in the shm\n", items->count);
    for (int i = 0; i < items->count; ++i) printf("%d: %s\n", i + 1, items->name[i]);
}

static void wait_until_ready(Items* items) {
    while (sem_wait(&items->ready) == -1) continue;
}

// Memory without a name: who is forked inherits it.
static Items* map(int flags) {
    void* address =
        mmap(nullptr, sizeof(Items), PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
    if (address == MAP_FAILED) err(1, "mmap(%zu)", sizeof(Items));
    return static_cast<Items*>(address);
}

// Like fork(2); the child says that it is there.
static pid_t start() {
    const pid_t child = fork();
    if (child == -1) err(1, "fork()");
    if (child == 0) printf("Child %d: start\n", getpid());
    return child;
}

// Waits for the child, and says how it ended.
static int finish(pid_t child) {
    int status;
    if (waitpid(child, &status, 0) == -1) err(1, "waitpid(%d)", child);
    if (WIFSIGNALED(status)) errx(1, "the child was killed");
    printf("Parent %d get child status:%d\n", getpid(), WEXITSTATUS(status));
    return 0;
}

// A private mapping is copied at fork: what the child had was not shared, and was there only
// because it was stored before. So it is shared now, and the child waits for what is stored after
// fork.
static int exchange_1() {
    Items* items = map(MAP_SHARED);
    if (sem_init(&items->ready, 1, 0) == -1) err(1, "sem_init(ready)");
    const pid_t child = start();
    if (child == 0) {
        wait_until_ready(items);
        print(items);
        return 0;
    }
    store(items);
    if (sem_post(&items->ready) == -1) err(1, "sem_post(ready)");
    return finish(child);
}

// A sleep waits for time, and not for the items.
static int exchange_2() {
    Items* items = map(MAP_SHARED);
    if (sem_init(&items->ready, 1, 0) == -1) err(1, "sem_init(ready)");
    const pid_t child = start();
    if (child == 0) {
        wait_until_ready(items);
        print(items);
        return 0;
    }
    store(items);
    if (sem_post(&items->ready) == -1) err(1, "sem_post(ready)");
    return finish(child);
}

// A semaphore of one process: who sleeps on it in another is not woken. Nobody slept, because the
// child came late.
static int exchange_3() {
    Items* items = map(MAP_SHARED);
    if (sem_init(&items->ready, 1, 0) == -1) err(1, "sem_init(ready)");
    const pid_t child = start();
    if (child == 0) {
        sleep(1);  // it has something else to do first
        wait_until_ready(items);
        print(items);
        return 0;
    }
    store(items);
    if (sem_post(&items->ready) == -1) err(1, "sem_post(ready)");
    return finish(child);
}

// The name stayed. Who inherits the mapping needs none: it goes as soon as the object is made.
static int exchange_4() {
    const int fd = shm_open("/lab-same", O_RDWR | O_CREAT | O_EXCL, 0600);
    if (fd == -1) err(1, "shm_open(/lab-same)");
    if (shm_unlink("/lab-same") == -1) err(1, "shm_unlink(/lab-same)");
    if (ftruncate(fd, sizeof(Items)) == -1) err(1, "ftruncate(/lab-same)");
    void* address = mmap(nullptr, sizeof(Items), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (address == MAP_FAILED) err(1, "mmap(/lab-same)");
    Items* items = static_cast<Items*>(address);
    if (sem_init(&items->ready, 1, 0) == -1) err(1, "sem_init(ready)");
    const pid_t child = start();
    if (child == 0) {
        wait_until_ready(items);
        print(items);
        return 0;
    }
    store(items);
    if (sem_post(&items->ready) == -1) err(1, "sem_post(ready)");
    return finish(child);
}

// Of a child that was killed WEXITSTATUS says 0.
static int exchange_5() {
    Items* items = map(MAP_SHARED);
    if (sem_init(&items->ready, 1, 0) == -1) err(1, "sem_init(ready)");
    const pid_t child = start();
    if (child == 0) {
        wait_until_ready(items);
        print(items);
        return 0;
    }
    store(items);
    if (sem_post(&items->ready) == -1) err(1, "sem_post(ready)");
    int status;
    if (waitpid(child, &status, 0) == -1) err(1, "waitpid(%d)", child);
    if (WIFSIGNALED(status)) errx(1, "the child was killed");
    printf("Parent %d get child status:%d\n", getpid(), WEXITSTATUS(status));
    return 0;
}

// Your answers: what is wrong with each as it was given, one word of the page's list.
static const char* const kMistake[] = {"private", "sleep", "pshared", "left", "status"};

int main(int argc, char** argv) {
    int (*const exchanges[])() = {exchange_1, exchange_2, exchange_3, exchange_4, exchange_5};
    const int number = argc == 2 ? atoi(argv[1]) : 0;
    if (number >= 1 && number <= 5) return exchanges[number - 1]();
    for (int i = 0; i < 5; ++i) printf("%d %s\n", i + 1, kMistake[i]);
    return 0;
}
