// One process hands messages to another, in four ways; what does that cost?

#pragma once

#include <mqueue.h>
#include <stdint.h>
#include <sys/socket.h>

#include <algorithm>
#include <string>
#include <vector>

#include "../shm_posix/packets/ring_consumer.h"
#include "../shm_posix/packets/ring_producer.h"
#include "rounds.h"

enum How { kRing, kPipe, kSocket, kQueue, kHows };
inline const char* const kHow[kHows] = {"shared memory", "pipe", "UNIX socket", "message queue"};

// One direction, made before the fork; each process then keeps one side of it.
struct Line {
    How how;
    size_t size;      // bytes of every message
    int fds[2] = {};  // [0] to read, [1] to write; of a message queue both the same
    void* memory = nullptr;
    Producer producer = {};
    Consumer consumer = {};
    std::vector<unsigned char> buffer = {};
    std::string problem = {};

    uint32_t slots() const { return std::clamp<uint32_t>((1 << 20) / uint32_t(size), 16, 1024); }
    size_t bytes() const { return ring_bytes(slots(), uint32_t(size)); }
};

inline void open_line(Line& line) {
    const std::string name = object_name + "-line";
    line.buffer.resize(line.size);
    hold_signals();  // until the name is gone: the descriptors are enough
    if (line.how == kRing) {
        const int fd = shm_open(name.c_str(), O_RDWR | O_CREAT | O_EXCL, 0600);
        if (fd == -1) line.problem = failure("shm_open", "/dev/shm" + name);
        if (fd != -1) {
            shm_unlink(name.c_str());
            errno = posix_fallocate(fd, 0, static_cast<off_t>(line.bytes()));
            if (errno != 0)
                line.problem = failure("posix_fallocate", std::to_string(line.bytes()) + " bytes");
            else
                line.memory =
                    mmap(nullptr, line.bytes(), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
            if (line.memory == MAP_FAILED) {
                line.problem = failure("mmap", "/dev/shm" + name);
                line.memory = nullptr;
            }
            close(fd);
        }
        if (line.memory) ring_create(line.memory, line.slots(), uint32_t(line.size));
    } else if (line.how == kPipe) {
        if (pipe(line.fds) == -1) line.problem = failure("pipe", "");
    } else if (line.how == kSocket) {
        if (socketpair(AF_UNIX, SOCK_STREAM, 0, line.fds) == -1)
            line.problem = failure("socketpair", "");
    } else {
        mq_attr attributes = {};
        attributes.mq_maxmsg = line.size > 8192 ? 4 : 10;  // both queues within RLIMIT_MSGQUEUE
        attributes.mq_msgsize = static_cast<long>(line.size);
        const mqd_t queue = mq_open(name.c_str(), O_RDWR | O_CREAT | O_EXCL, 0600, &attributes);
        if (queue == -1)
            line.problem = failure("mq_open", std::to_string(line.size) + " bytes") +
                           " (/proc/sys/fs/mqueue/msgsize_max says what fits)";
        else
            mq_unlink(name.c_str());
        line.fds[0] = line.fds[1] = queue;
    }
    hold_signals(SIG_UNBLOCK);
}

// Keeps one side: a reader sees the end of the line when the last writer is gone.
inline void keep(Line& line, Side side) {
    if (line.how == kRing) {
        PacketRing* ring = static_cast<PacketRing*>(line.memory);
        if (const char* fault = side == kProducer ? ring_join(&line.producer, ring)
                                                  : ring_join(&line.consumer, ring))
            errx(1, "ring_join: the ring %s", fault);
    } else if (line.how != kQueue)
        close(line.fds[side == kProducer ? 0 : 1]);
}

inline void close_line(Line& line, Side side) {
    if (line.how == kRing) {
        if (line.producer.ring) ring_leave(&line.producer);
        if (line.consumer.ring) ring_leave(&line.consumer);
        munmap(line.memory, line.bytes());
    } else
        close(line.fds[side == kProducer ? 1 : 0]);
}

// Told to stop, or the child is no more (whom the parent still has to wait for).
inline bool peer_gone() {
    siginfo_t child = {};
    waitid(P_ALL, 0, &child, WEXITED | WNOHANG | WNOWAIT);
    return stopped || child.si_pid != 0;
}

// Fills and sends one message; its first byte asks for an answer. False: no use to go on.
inline bool send(Line& line, bool answer) {
    Slot* slot = nullptr;
    while (line.how == kRing && !(slot = reserve(&line.producer, 1000)))
        if (peer_gone()) return false;
    unsigned char* at = slot ? slot->data() : line.buffer.data();
    memset(at, 1, line.size);
    at[0] = answer;
    if (slot) {
        commit(&line.producer, uint32_t(line.size));
        if (answer) publish(&line.producer);
        return true;
    }
    for (size_t done = 0; done < line.size;) {
        ssize_t n = 0;
        if (line.how == kQueue) {
            const timespec deadline = {time(nullptr) + 2, 0};
            const char* message = reinterpret_cast<char*>(at);
            if (mq_timedsend(line.fds[1], message, line.size, 0, &deadline) == 0) return true;
            n = -1;
        } else {
            n = write(line.fds[1], at + done, line.size - done);
        }
        if (n == -1 && ((errno != EINTR && errno != ETIMEDOUT) || peer_gone())) return false;
        if (n > 0) done += static_cast<size_t>(n);
    }
    return true;
}

inline volatile uint64_t sink;  // so that nobody leaves the reading out

// Receives one message and reads every byte of it.
inline bool receive(Line& line, bool* answer) {
    Slot* slot = nullptr;
    while (line.how == kRing && !(slot = take(&line.consumer, 1000)))
        if (peer_gone() || line.consumer.producer == kDied) return false;
    unsigned char* at = slot ? slot->data() : line.buffer.data();
    for (size_t done = 0; !slot && done < line.size;) {
        const timespec deadline = {time(nullptr) + 2, 0};
        char* to = reinterpret_cast<char*>(at + done);
        const ssize_t n = line.how == kQueue
                              ? mq_timedreceive(line.fds[0], to, line.size, nullptr, &deadline)
                              : read(line.fds[0], to, line.size - done);
        if (n == 0 || (n == -1 && ((errno != EINTR && errno != ETIMEDOUT) || peer_gone())))
            return false;
        if (n > 0) done += static_cast<size_t>(n);
    }
    uint64_t sum = 0;
    for (size_t i = 0; i + 8 <= line.size; i += 8) {
        uint64_t word;
        memcpy(&word, at + i, 8);
        sum += word;
    }
    sink = sum;
    *answer = at[0] != 0;
    if (slot) release(&line.consumer);
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
