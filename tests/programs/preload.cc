// Loaded into a program before its libraries [LD_PRELOAD in ld.so(8)], for test_faults.cc:
// FAIL_MALLOC=N has its N-th allocation fail, FAIL_MALLOC=N+ that and all later ones; JUMP=N has
// its clock jump: at each look it is N seconds behind, right, or N seconds ahead. That it has come
// to that, it tells whoever traces it, by a call that nobody makes.

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

extern "C" void* __libc_malloc(size_t bytes);
extern "C" void* __libc_calloc(size_t count, size_t bytes);
extern "C" void* __libc_realloc(void* old, size_t bytes);

static const char* value(const char* variable) {
    static const char* const kNone = "";
    const char* text = environ ? getenv(variable) : nullptr;
    return text ? text : kNone;
}

static bool fails() {
    static int count = 0;
    const char* which = value("FAIL_MALLOC");
    const int at = atoi(which);
    if (at == 0) return false;
    ++count;
    if (count < at || (count > at && which[strlen(which) - 1] != '+')) return false;
    syscall(SYS_getsid, 4711);
    errno = ENOMEM;
    return true;
}

extern "C" void* malloc(size_t bytes) { return fails() ? nullptr : __libc_malloc(bytes); }

extern "C" void* calloc(size_t count, size_t bytes) {
    return fails() ? nullptr : __libc_calloc(count, bytes);
}

extern "C" void* realloc(void* old, size_t bytes) {
    return fails() ? nullptr : __libc_realloc(old, bytes);
}

extern "C" int clock_gettime(clockid_t clock, timespec* time) {
    static int looks = 0;
    const int result = static_cast<int>(syscall(SYS_clock_gettime, clock, time));
    if (*value("JUMP") && clock == CLOCK_REALTIME) {
        syscall(SYS_getsid, 4711);
        time->tv_sec += atol(value("JUMP")) * (looks++ % 3 - 1);
    }
    return result;
}
