// One process hands messages to another, in six ways; what does that cost?

#pragma once

#include <mqueue.h>
#include <stdint.h>
#include <sys/socket.h>

#include <algorithm>
#include <string>
#include <vector>

#include "../shm_posix/packets/ring.h"
#include "rounds.h"

// Two of them in batches, which tells what batches do from what the way does.
enum How { kRing, kRingEach, kPipe, kPipeBlocks, kSocket, kQueue, kHows };
inline const char* const kHow[kHows] = {"shared memory", "shared memory, one by one",
                                        "pipe",          "pipe, 64 KiB blocks",
                                        "UNIX socket",   "message queue"};

// One direction, made before the fork; each process then keeps one side of it.
struct Line {
    How how;
    size_t size;      // bytes of every message
    int fds[2] = {};  // [0] to read, [1] to write; of a ring and a message queue both the same
    Ring* memory = nullptr;
    End end = {};
    // Of what goes through read(2) and write(2): a message, or as many as fit into 64 KiB. The
    // sender has filled it up to `filled`; the receiver, too, and has used what is before `used`.
    std::vector<unsigned char> buffer = {};
    size_t filled = 0, used = 0;
    std::string problem = {};

    bool ring() const { return how == kRing || how == kRingEach; }
    uint32_t slots() const { return std::clamp<uint32_t>((1 << 20) / uint32_t(size), 16, 1024); }
    size_t bytes() const { return static_cast<size_t>(ring_bytes(slots(), uint32_t(size))); }
};

// Maps a ring in an object without a name.
inline void open_ring(Line& line) {
    const int fd = open("/dev/shm", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    line.fds[0] = line.fds[1] = fd;
    if (fd == -1) {
        line.problem = failure("open", "/dev/shm, O_TMPFILE");
        return;
    }
    errno = posix_fallocate(fd, 0, static_cast<off_t>(line.bytes()));
    if (errno != 0) {
        line.problem = failure("posix_fallocate", std::to_string(line.bytes()) + " bytes");
        return;
    }
    void* memory = mmap(nullptr, line.bytes(), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED)
        line.problem = failure("mmap", std::to_string(line.bytes()) + " bytes");
    else
        line.memory = ring_create(memory, line.slots(), uint32_t(line.size));
}

inline void open_queue(Line& line) {
    const std::string name = object_name + "-line";
    mq_attr attributes = {};
    attributes.mq_maxmsg = line.size > 8192 ? 4 : 10;  // both queues within RLIMIT_MSGQUEUE
    attributes.mq_msgsize = static_cast<long>(line.size);
    hold_signals();  // until the name is gone: the descriptor is enough
    const mqd_t queue = mq_open(name.c_str(), O_RDWR | O_CREAT | O_EXCL, 0600, &attributes);
    if (queue == -1)
        line.problem = failure("mq_open", std::to_string(line.size) + " bytes") +
                       " (/proc/sys/fs/mqueue/msgsize_max says what fits)";
    else
        mq_unlink(name.c_str());
    hold_signals(SIG_UNBLOCK);
    line.fds[0] = line.fds[1] = queue;
}

inline void open_line(Line& line) {
    const size_t messages = line.how == kPipeBlocks ? std::max<size_t>(65536 / line.size, 1) : 1;
    line.buffer.resize(messages * line.size);
    if (line.ring())
        open_ring(line);
    else if (line.how == kQueue)
        open_queue(line);
    else if (line.how == kSocket && socketpair(AF_UNIX, SOCK_STREAM, 0, line.fds) == -1)
        line.problem = failure("socketpair", "");
    else if (line.how != kSocket && pipe(line.fds) == -1)
        line.problem = failure("pipe", "");
}

// Keeps one side: a reader sees the end of the line when the last writer is gone. The descriptor of
// a ring stays open: to close it would drop the lock that tells who is there.
inline void keep(Line& line, Side side) {
    if (line.ring()) {
        if (const char* fault = ring_join(&line.end, line.fds[0], line.memory, side))
            errx(1, "ring_join: the ring %s", fault);
    } else if (line.how != kQueue) {
        close(line.fds[side == kProducer ? 0 : 1]);
    }
}

inline void close_line(Line& line, Side side) {
    if (line.end.ring) ring_leave(&line.end);
    if (line.memory) munmap(line.memory, line.bytes());
    close(line.fds[side == kProducer ? 1 : 0]);
}

// Told to stop, or the child is no more (whom the parent still has to wait for).
inline bool peer_gone() {
    siginfo_t child = {};
    waitid(P_ALL, 0, &child, WEXITED | WNOHANG | WNOWAIT);
    return stopped || child.si_pid != 0;
}

// Can a call that failed be made again?
inline bool again() { return (errno == EINTR || errno == ETIMEDOUT) && !peer_gone(); }

// Writes what is in the buffer.
inline bool flush(Line& line) {
    for (size_t done = 0; done < line.filled;) {
        const timespec deadline = {time(nullptr) + 2, 0};
        const unsigned char* from = line.buffer.data() + done;
        const size_t rest = line.filled - done;
        ssize_t n = 0;
        if (line.how != kQueue)
            n = write(line.fds[1], from, rest);
        else if (mq_timedsend(line.fds[1], reinterpret_cast<const char*>(from), rest, 0,
                              &deadline) == 0)
            n = static_cast<ssize_t>(rest);
        else
            n = -1;
        if (n == -1 && !again()) return false;
        if (n > 0) done += static_cast<size_t>(n);
    }
    line.filled = 0;
    return true;
}

// Fills and sends one message; its first byte asks for an answer. False: no use to go on.
inline bool send(Line& line, bool answer) {
    Slot* slot = nullptr;
    while (line.ring() && !(slot = reserve(&line.end, 1000)))
        if (peer_gone()) return false;
    unsigned char* at = slot ? slot->data() : line.buffer.data() + line.filled;
    memset(at, 1, line.size);
    at[0] = answer;
    if (slot) {
        commit(&line.end, uint32_t(line.size));
        if (answer || line.how == kRingEach) publish(&line.end);
        return true;
    }
    line.filled += line.size;
    return (line.filled < line.buffer.size() && !answer) || flush(line);
}

// Reads until there is a whole message in the buffer.
inline bool fill(Line& line) {
    if (line.filled - line.used >= line.size) return true;
    std::copy(line.buffer.data() + line.used, line.buffer.data() + line.filled, line.buffer.data());
    line.filled -= line.used;
    line.used = 0;
    while (line.filled < line.size) {
        const timespec deadline = {time(nullptr) + 2, 0};
        unsigned char* to = line.buffer.data() + line.filled;
        const size_t room = line.buffer.size() - line.filled;
        const ssize_t n = line.how == kQueue
                              ? mq_timedreceive(line.fds[0], reinterpret_cast<char*>(to), room,
                                                nullptr, &deadline)
                              : read(line.fds[0], to, room);
        if (n == 0 || (n == -1 && !again())) return false;
        if (n > 0) line.filled += static_cast<size_t>(n);
    }
    return true;
}

inline volatile uint64_t sink;  // so that nobody leaves the reading out

// Receives one message and reads every byte of it.
inline bool receive(Line& line, bool* answer) {
    Slot* slot = nullptr;
    while (line.ring() && !(slot = take(&line.end, 1000)))
        if (peer_gone() || gone(line.end.other)) return false;
    if (!slot && !fill(line)) return false;
    const unsigned char* at = slot ? slot->data() : line.buffer.data() + line.used;
    uint64_t sum = 0;
    for (size_t i = 0; i + 8 <= line.size; i += 8) {
        uint64_t word;
        memcpy(&word, at + i, 8);
        sum += word;
    }
    sink = sum;
    *answer = at[0] != 0;
    if (slot)
        release(&line.end);
    else
        line.used += line.size;
    return true;
}

struct Transfer {
    std::string problem;
    long batch = 0;                  // messages in each sample of `message`
    std::vector<double> message;     // ns per message, one after another
    std::vector<double> round_trip;  // ns until a message of the same size is back
};

// Half of the time goes to batches of messages, each answered once; the other half to round trips.
inline Transfer transfer(How how, size_t size, double seconds) {
    Transfer result;
    Line there = {how, size}, back = {how, size};
    open_line(there);
    if (there.problem.empty()) open_line(back);
    result.problem = there.problem + back.problem;
    if (!result.problem.empty()) {
        if (there.problem.empty()) close_line(there, kProducer);
        return result;
    }
    const pid_t child = spawn();
    if (child == 0) {
        for (int stop : kStops) signal(stop, SIG_DFL);
        keep(there, kConsumer);
        keep(back, kProducer);
        for (bool answer; receive(there, &answer);)
            if (answer && !send(back, true)) break;
        _exit(0);
    }
    keep(there, kProducer);
    keep(back, kConsumer);
    bool going = true, ignored;
    const auto batch = [&](long n) {
        const double ns = timed([&] {
            for (long i = 1; i <= n && going; ++i) going = send(there, i == n);
            going = going && receive(back, &ignored) && !stopped;
        });
        return ns / static_cast<double>(n);
    };
    // Batches of such a length that there is time for ten.
    long n = 16;
    while (going && batch(n) * static_cast<double>(n) < seconds / 20 * 1e9 / 2) n *= 2;
    result.batch = n;
    for (const double end = now() + seconds / 2 * 1e9; going && now() < end;)
        result.message.push_back(batch(n));
    for (const double end = now() + seconds / 2 * 1e9; going && now() < end;)
        result.round_trip.push_back(batch(1));
    if (!going && !stopped) result.problem = "the receiver ended early";
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    close_line(there, kProducer);
    close_line(back, kConsumer);
    return result;
}
