// The exchange, with the mistakes of a first attempt. Lab 1 is to find and repair them.

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

// What parent and child share.
struct Items {
    int count;
    char name[3][16];
};

int main() {
    // An object, its size, and the object as memory.
    int fd = shm_open("/lab-exchange", O_CREAT | O_RDWR, 0666);
    ftruncate(fd, sizeof(Items));
    Items* items = static_cast<Items*>(
        mmap(nullptr, sizeof(Items), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));

    pid_t child = fork();
    if (child == 0) {
        printf("Child %d: start\n", getpid());
        printf("There is %d item in the shm\n", items->count);
        for (int i = 0; i < items->count; ++i) printf("%d: %s\n", i + 1, items->name[i]);
        return 0;
    }

    strcpy(items->name[0], "Nellson");
    strcpy(items->name[1], "Daisy");
    strcpy(items->name[2], "Robbie");
    items->count = 3;

    int status;
    waitpid(child, &status, 0);
    printf("Parent %d get child status:%d\n", getpid(), status);
    return 0;
}
