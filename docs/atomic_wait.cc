// C++20's std::atomic::wait between two processes: with libstdc++, nobody is woken.
//
//     g++ -std=c++20 -o atomic_wait docs/atomic_wait.cc && ./atomic_wait

#include <err.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>

int main() {
    void* bytes = mmap(nullptr, sizeof(std::atomic<int>), PROT_READ | PROT_WRITE,
                       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (bytes == MAP_FAILED) err(1, "mmap()");
    auto* ready = static_cast<std::atomic<int>*>(bytes);
    const pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        ready->wait(0);
        _exit(0);
    }
    sleep(2);  // the child waits by now
    *ready = 1;
    ready->notify_one();
    sleep(1);
    puts(waitpid(child, nullptr, WNOHANG) == child ? "woken" : "still waiting");
}
