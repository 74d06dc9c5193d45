// An exchange that does everything otherwise, and is right: the sweep of test_faults.cc must find
// nothing. No name, no semaphore, no stdio; the child polls, a signal is handled, errors are 3.

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct Items {
    char name[3][16];
    int there;
};

static void put(int fd, const char* format, ...) {
    char text[256];
    va_list rest;
    va_start(rest, format);
    vsnprintf(text, sizeof text, format, rest);
    va_end(rest);
    for (const char* from = text; *from != '\0';) {
        const ssize_t bytes = write(fd, from, strlen(from));
        if (bytes > 0) from += bytes;
        if (bytes == -1 && errno != EINTR) {
            if (fd == STDOUT_FILENO) put(STDERR_FILENO, "odd: write: %s\n", strerror(errno));
            _exit(3);
        }
    }
}

static void ended(int) {
    const char text[] = "odd: ended by a signal\n";
    if (write(STDERR_FILENO, text, strlen(text)) == -1) _exit(4);
    _exit(3);
}

static void give_up(const char* call) {
    put(STDERR_FILENO, "odd: %s: %s\n", call, strerror(errno));
    _exit(3);
}

int main() {
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    signal(SIGCHLD, SIG_DFL);
    signal(SIGTERM, ended);
    void* bytes =
        mmap(nullptr, sizeof(Items), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (bytes == MAP_FAILED) give_up("mmap");
    Items* items = static_cast<Items*>(bytes);
    const pid_t parent = getpid(), child = fork();
    if (child == -1) give_up("fork");
    if (child == 0) {
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) == -1) give_up("prctl");
        if (getppid() != parent) _exit(3);
        put(STDOUT_FILENO, "Child %d: start\n", getpid());
        for (int i = 0; __atomic_load_n(&items->there, __ATOMIC_ACQUIRE) == 0; ++i) {
            errno = ETIMEDOUT;
            if (i == 500) give_up("waiting");
            const timespec moment = {0, 10000000};
            nanosleep(&moment, nullptr);
        }
        put(STDOUT_FILENO, "There is 3 item in the shm\n1: %s\n2: %s\n3: %s\n", items->name[0],
            items->name[1], items->name[2]);
        _exit(0);
    }
    strcpy(items->name[0], "Nellson");
    strcpy(items->name[1], "Daisy");
    strcpy(items->name[2], "Robbie");
    __atomic_store_n(&items->there, 1, __ATOMIC_RELEASE);
    int status = 0;
    while (waitpid(child, &status, 0) == -1)
        if (errno != EINTR) give_up("waitpid");
    if (status != 0) put(STDERR_FILENO, "odd: the child failed\n");
    if (status != 0) _exit(3);
    put(STDOUT_FILENO, "Parent %d get child status:0\n", parent);
    _exit(0);
}
