// The exchange, right as long as nothing happens. Lab 2 is to have it leave nothing, whatever does.

#include <err.h>
#include <fcntl.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

struct Shared {
    int count;
    char name[3][16];
    sem_t ready;
};

const char* name = "/lab-exchange";

int main() {
    int fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (fd == -1) err(1, "shm_open");
    if (ftruncate(fd, sizeof(Shared)) == -1) err(1, "ftruncate");
    void* address = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (address == MAP_FAILED) err(1, "mmap");
    Shared* shared = static_cast<Shared*>(address);
    sem_init(&shared->ready, 1, 0);
    pid_t child = fork();
    if (child == -1) err(1, "fork");
    if (child == 0) {
        printf("Child %d: start\n", getpid());
        while (sem_wait(&shared->ready) == -1) continue;
        printf("There is %d item in the shm\n", shared->count);
        for (int i = 0; i < 3; ++i) printf("%d: %s\n", i + 1, shared->name[i]);
        return 0;
    }
    strcpy(shared->name[0], "Nellson");
    strcpy(shared->name[1], "Daisy");
    strcpy(shared->name[2], "Robbie");
    shared->count = 3;
    sem_post(&shared->ready);
    int status;
    if (waitpid(child, &status, 0) == -1) err(1, "waitpid");
    shm_unlink(name);
    if (WIFSIGNALED(status)) errx(1, "the child was killed");
    printf("Parent %d get child status:%d\n", getpid(), WEXITSTATUS(status));
    return 0;
}
