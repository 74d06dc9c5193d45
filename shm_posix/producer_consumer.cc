// Packets from a receiving to a processing process, through a ring in shared memory.
//
//     g++ -o producer_consumer producer_consumer.cc -lrt
//     ./producer_consumer --generate 1000000
//     ./producer_consumer --pipe < file | cmp - file
//     ./producer_consumer --udp 9000 --pipe          and elsewhere: nc -u 127.0.0.1 9000
//
// The producer receives each packet straight into a slot of the ring, the consumer handles it
// there: no copy in between. How the two wait for each other, and survive each other's death, is in
// packet_ring.h and seat.h; the shared memory object is made, mapped and removed in
// packet_object.h.

#include <poll.h>

#include "../common/process.h"
#include "packet_object.h"
#include "packet_options.h"
#include "packet_ring.h"
#include "packet_source.h"

constexpr int kSlice = 250;  // milliseconds until a wait looks up: is the other side alive?

static pid_t child = 0;                    // run: the consumer
static volatile sig_atomic_t stopped = 0;  // the signal that told us to stop
static volatile sig_atomic_t at_end = 0;   // all is handed over, or handled
static uint64_t packets, bytes;            // handed over, or handled, by this process
static double first_time, last_time;       // of these packets, in seconds
static int udp_socket;

// What the signals do: the first ends the input, the second of a kind the process. When the input
// has ended already, the first gives the consumer 10 seconds to come to its end; then on_signal()
// gives up.
static void stop(int signal) {
    stopped = signal;
    if (at_end) alarm(10);
}

// No more input: somebody stopped us, or our child is gone.
static bool over() {
    siginfo_t it = {};
    if (child) waitid(P_PID, static_cast<id_t>(child), &it, WEXITED | WNOHANG | WNOWAIT);
    return stopped || it.si_pid != 0;
}

// A free slot, however long that takes; nullptr if all is over and the ring full.
static Slot* room() {
    static Presence told = kHere;
    for (;;) {
        Slot* slot = reserve(&end, kSlice);
        if (slot) told = kHere;
        if (slot || over()) return slot;
        if (!child && end.other != told && end.other != kHere)
            warnx("%s: the ring is full and nobody consumes; start: %s consume --name %s", name(),
                  program_invocation_name, name());
        told = end.other;
    }
}

// Waits for input; false if all is over before.
static bool input(int fd) {
    pollfd it = {fd, POLLIN, 0};
    for (int ms = 0; !stopped; ms = kSlice) {
        if (poll(&it, 1, ms) > 0) return true;
        publish(&end);  // input pauses: hand over what there is
        if (over()) break;
    }
    return false;
}

static void count(size_t length) {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    last_time = static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
    if (packets++ == 0) first_time = last_time;
    bytes += length;
}

// The slot in hand has got a packet.
static void put_in_ring(size_t length, uint32_t tag = 0) {
    count(length);
    commit(&end, static_cast<uint32_t>(length), tag);
}

// --pipe: what one read(2) brings is a packet.
static void receive_stdin() {
    for (Slot* slot; input(STDIN_FILENO) && (slot = room());) {
        const ssize_t length = read(STDIN_FILENO, slot->data(), end.size);
        if (length == -1 && errno != EAGAIN) err(1, "read(stdin)");
        if (length == 0) break;
        if (length > 0) put_in_ring(static_cast<size_t>(length));
    }
}

// --generate: goes on where the ring ends, so that a successor completes the series.
static void generate() {
    for (Slot* slot; end.next < options.count && !stopped && (slot = room());)
        put_in_ring(make_numbered(slot->data(), end.next), kNumbered);
}

// One packet into the slot, or without a slot into nothing; false: none has come.
static bool receive_packet(Slot* slot) {
    const size_t size = slot ? end.size : 0;
    const ssize_t length = receive_udp(udp_socket, slot ? slot->data() : nullptr, size);
    if (length == -1) return false;
    if (slot && length <= static_cast<ssize_t>(size))
        put_in_ring(static_cast<size_t>(length));
    else
        ++end.ring->dropped;
    if (length > static_cast<ssize_t>(end.size)) ++end.ring->oversize;
    return true;
}

// --udp, until we are told to stop. While the ring is full, packets wait in the kernel's buffer,
// which drops what is too much.
static void receive_packets() {
    Slot* slot;
    while (!stopped && (slot = room()))
        if (!receive_packet(slot) && !input(udp_socket)) break;
    // What has come is still handled, or, if nobody makes room for it, dropped.
    end_udp(udp_socket);
    for (slot = room(); receive_packet(slot);)
        if (slot) slot = room();  // once there was none, no further wait
    end.ring->dropped += dropped_udp(udp_socket);
}

// What this process did, and how the two got on.
static void summary(const char* did) {
    FILE* out = options.pipe ? stderr : stdout;
    PacketRing& ring = *end.ring;
    lock(&ring.lock);
    const uintmax_t backlog = ring.backlog, slept[] = {ring.seat[0].slept, ring.seat[1].slept};
    unlock(&ring.lock);
    const double seconds = last_time - first_time, pace = seconds > 0 ? 1 / seconds : 0;
    fprintf(out,
            "%s %ju packets, %ju bytes in %.3f s: %.0f packets/s, %.1f MB/s\n"
            "largest backlog %ju of %u slots; slept: producer %ju times, consumer %ju times\n"
            "dropped %ju packets, %ju of them larger than a slot\n",
            did, uintmax_t{packets}, uintmax_t{bytes}, seconds, static_cast<double>(packets) * pace,
            static_cast<double>(bytes) * pace / 1e6, backlog, end.slots, slept[kProducer],
            slept[kConsumer], uintmax_t{ring.dropped}, uintmax_t{ring.oversize});
    if (fflush(out) != 0 || ferror(out)) err(1, "write(%s)", options.pipe ? "stderr" : "stdout");
}

// Receives packets until there are no more; returns the exit status.
static int produce() {
    if (options.udp)
        receive_packets();
    else if (options.generate)
        generate();
    else
        receive_stdin();
    publish(&end);
    if (!child) summary("handed over");
    return 0;
}

// Handles the packet in hand: it goes to stdout, or if it is numbered, it must be whole and next.
static void handle(const unsigned char* data, uint32_t length, uint32_t tag) {
    if (length > end.size) errx(1, "packet %ju: has an impossible length", uintmax_t{end.next});
    for (uint32_t done = 0; options.pipe && done < length;) {
        const ssize_t written = write(STDOUT_FILENO, data + done, length - done);
        if (written == -1) err(1, "write(stdout)");
        done += static_cast<uint32_t>(written);
    }
    if (!options.pipe && tag == kNumbered && !is_numbered(data, length, end.next))
        errx(1, "packet %ju: has another number, or its checksum is wrong", uintmax_t{end.next});
}

// Handles packets until the producer is gone and the ring empty, or we are stopped; returns the
// exit status.
static int consume() {
    for (bool first = true; !stopped; first = false) {
        Slot* slot = take(&end, kSlice);
        if (!slot && gone(end.other)) break;
        if (!slot && first && options.verb == "consume" && end.other == kNever)
            warnx("%s: nobody produces yet; start: %s produce --generate 1000 --name %s", name(),
                  program_invocation_name, name());
        if (!slot) continue;
        in_hand = true;
        const uint32_t length = slot->length;  // read once: the check is on what is used
        handle(slot->data(), length, slot->tag);
        release(&end);
        in_hand = false;
        count(length);
    }
    if (end.other == kDied) warnx("the producer died; all that it handed over is handled");
    summary("handled");
    return end.other == kDied;
}

int main(int argc, char** argv) {
    prepare();
    options = read_options(argc, argv);
    const bool run = options.verb == "run";
    if (options.udp) udp_socket = open_udp(options.port);
    handle_stops(stop, SA_RESETHAND | SA_RESTART);
    if (run)
        make_object();
    else
        open_object();
    PacketRing* ring = map_ring();
    if (run) child = spawn();
    const Side side = options.verb == "consume" || (run && child == 0) ? kConsumer : kProducer;
    if (run && side == kConsumer) {
        handle_stops(SIG_IGN, 0);  // the parent ends the input; the child goes on to its end
        stopped = 0;
    }
    join(ring, side);
    atexit(leave);
    int status = side == kConsumer ? consume() : produce();
    leave();
    at_end = 1;
    if (child) status = wait_for(child, stopped ? 10 : 0);
    if (stopped && !options.udp) {  // cut short; --udp has no other end
        signal(stopped, SIG_DFL);
        raise(stopped);
    }
    return status;
}
