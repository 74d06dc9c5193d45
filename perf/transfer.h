// One process hands messages to another, in six ways; what does that cost?

#pragma once

#include <mqueue.h>
#include <stdint.h>
#include <sys/socket.h>

#include <algorithm>
#include <string>
#include <vector>

#include "../common/process.h"
#include "../shm_posix/packets/join.h"
#include "rounds.h"

// Two of them in batches, which tells what batches do from what the way does.
enum How { kRing, kRingEach, kPipe, kPipeBlocks, kSocket, kQueue, kHows };
inline const char* const kHow[kHows] = {"shared memory", "shared memory, one by one",
                                        "pipe",          "pipe, 64 KiB blocks",
                                        "UNIX socket",   "message queue"};

// One direction, made before the fork; each process then keeps one side of it.
struct Line {
    How how;
    size_t size;            // bytes of every message
    int fds[2] = {-1, -1};  // to read, to write; of a ring and a message queue both the same
    End end = {};           // of a ring
    // Of what goes through read(2) and write(2): a message, or as many as fit into 64 KiB. The
    // sender has filled it up to `filled`; the receiver, too, and has used what is before `used`.
    std::vector<unsigned char> buffer = {};
    size_t filled = 0, used = 0;
    std::string problem = {};

    bool ring() const { return how == kRing || how == kRingEach; }
    uint32_t slots() const { return std::clamp<uint32_t>((1 << 20) / uint32_t(size), 16, 1024); }
    size_t bytes() const { return static_cast<size_t>(ring_bytes(slots(), uint32_t(size))); }
};

// A ring in a POSIX object, as it is measured elsewhere in this program.
inline void open_ring(Line& line) {
    Memory memory = {kMechanisms[kPosix], line.bytes()};
    for (auto step : {make, reserve, map})
        if (line.problem.empty()) line.problem = step(memory);
    line.fds[0] = line.fds[1] = memory.handle;
    if (line.problem.empty()) line.end = ring_create(memory.at, line.slots(), uint32_t(line.size));
}

inline void open_queue(Line& line) {
    const std::string name = object_name + "-line";
    mq_attr attributes = {};
    attributes.mq_maxmsg = line.size > 8192 ? 4 : 10;  // both queues within RLIMIT_MSGQUEUE
    attributes.mq_msgsize = static_cast<long>(line.size);
    const mqd_t queue = mq_open(name.c_str(), O_RDWR | O_CREAT | O_EXCL, 0600, &attributes);
    if (queue == -1)
        line.problem = failure("mq_open", std::to_string(line.size) + " bytes") +
                       " (/proc/sys/fs/mqueue/msgsize_max says what fits)";
    else
        mq_unlink(name.c_str());  // the descriptor is enough
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
    if (line.end.ring) {
        if (const char* fault = ring_join(&line.end, line.fds[0], side))
            errx(1, "ring_join: the ring %s", fault);
        // Each process maps each page at its first touch: that is no message's cost.
        volatile char* const data = reinterpret_cast<char*>(line.end.ring);
        const size_t page = static_cast<size_t>(getpagesize());
        for (size_t at = 0; at < line.bytes(); at += page) static_cast<void>(data[at]);
    } else if (line.how != kQueue) {
        int& other = line.fds[side == kProducer ? 0 : 1];
        close(other);
        other = -1;
    }
}

inline void close_line(Line& line) {
    if (line.end.fd != -1) ring_leave(&line.end);
    if (line.end.ring) munmap(line.end.ring, line.bytes());
    if (line.fds[0] != -1) close(line.fds[0]);
    if (line.fds[1] != -1 && line.fds[1] != line.fds[0]) close(line.fds[1]);
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

// Medians, in ns: of a message, one after another; until a message of the same size is back, where
// the two may run on any processor, share one, or the first sends after a pause.
enum Cost { kMessage, kTrip, kTripShared, kTripRested, kCosts };
inline const char* const kCost[kCosts] = {"message", "round trip", "on one processor",
                                          "after a pause"};
struct Transfer {
    std::string problem;
    double ns[kCosts] = {};
};

// Has both run on the first of our processors only, or on all of them again [sched_setaffinity(2)].
inline void share_processor(pid_t child, const cpu_set_t& all, bool share) {
    cpu_set_t chosen = all;
    for (int cpu = 0, found = 0; share && cpu < CPU_SETSIZE; ++cpu)
        if (CPU_ISSET(cpu, &all) && found++ > 0) CPU_CLR(cpu, &chosen);
    sched_setaffinity(0, sizeof chosen, &chosen);
    sched_setaffinity(child, sizeof chosen, &chosen);
}

// Each of the four gets its part of the time.
inline Transfer transfer(How how, size_t size, double seconds) {
    Transfer result;
    Line there = {how, size}, back = {how, size};
    open_line(there);
    if (there.problem.empty()) open_line(back);
    result.problem = there.problem + back.problem;
    if (!result.problem.empty()) {
        close_line(there);
        close_line(back);
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
        const Took took = timed([&] {
            for (long i = 1; i <= n && going; ++i) going = send(there, i == n);
            going = going && receive(back, &ignored) && !stopped;
        });
        return took.ns / static_cast<double>(n);
    };
    const double part = seconds / int{kCosts} * 1e9;
    // Batches of such a length that there is time for eight, after as long for finding it. The
    // first waits for the child to start; and one that something held up would make them too short.
    long n = 16;
    batch(n);
    while (going && std::min(batch(n), batch(n)) * static_cast<double>(n) < part / 16) n *= 2;
    cpu_set_t all;
    sched_getaffinity(0, sizeof all, &all);
    for (Cost cost : {kMessage, kTrip, kTripShared, kTripRested}) {
        const double end = now() + part;
        if (cost == kTripShared) share_processor(child, all, true);
        std::vector<double> samples;
        while (going && (now() < end || samples.empty())) {
            const timespec pause = {0, 1000000};
            if (cost == kTripRested) nanosleep(&pause, nullptr);
            samples.push_back(batch(cost == kMessage ? n : 1));
        }
        if (cost == kTripShared) share_processor(child, all, false);
        if (going) result.ns[cost] = median(samples);
    }
    if (!going && !stopped) result.problem = "the receiver ended early";
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    close_line(there);
    close_line(back);
    return result;
}
