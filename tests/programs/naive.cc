// An exchange as tutorials print it: right as long as nothing happens. Each family of
// test_faults.cc must find what is wrong with it: nothing is checked, the object may be anybody's,
// the child waits for ever.

#include <fcntl.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

struct Items {
    sem_t ready;
    int count;
    char name[3][16];
};

int main(int, char** argv) {
    const int fd = shm_open(argv[2], O_CREAT | O_RDWR, 0600);
    if (ftruncate(fd, sizeof(Items)) == -1) return 1;
    Items* items = static_cast<Items*>(
        mmap(nullptr, sizeof(Items), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    sem_init(&items->ready, 1, 0);
    if (fork() == 0) {
        printf("Child %d: start\n", getpid());
        sem_wait(&items->ready);
        printf("There is %d item in the shm\n", items->count);
        for (int i = 0; i < items->count; ++i) printf("%d: %s\n", i + 1, items->name[i]);
        return 0;
    }
    strcpy(items->name[0], "Nellson");
    strcpy(items->name[1], "Daisy");
    strcpy(items->name[2], "Robbie");
    items->count = 3;
    sem_post(&items->ready);
    int status = 0;
    wait(&status);
    printf("Parent %d get child status:%d\n", getpid(), status);
    munmap(items, sizeof(Items));
    shm_unlink(argv[2]);
    return 0;
}
