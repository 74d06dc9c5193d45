// Packets from a receiving to a processing process, through a ring in shared memory.
//
//     g++ -o producer_consumer producer_consumer.cc -lrt
//     ./producer_consumer --generate 1000000
//     ./producer_consumer --pipe < file | cmp - file
//     ./producer_consumer --udp 9000 --pipe          and elsewhere: nc -u 127.0.0.1 9000
//
// The producer receives each packet straight into a slot of the ring, the consumer handles it
// there: no copy in between. The object that holds the ring is opened, mapped and removed in
// packet_object.h; how the two hand packets over and wait for each other is in ring_end.h.

#include "../common/process.h"
#include "packet_object.h"
#include "packet_options.h"
#include "packet_source.h"
#include "packet_wait.h"
#include "ring_end.h"

static uint64_t packets, bytes;       // handed over, or handled, by this process
static double first_time, last_time;  // of these packets, in seconds

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
    for (Slot* slot; wait_for_input(STDIN_FILENO) && (slot = wait_for_slot());) {
        const ssize_t length = read(STDIN_FILENO, slot->data(), end.size);
        if (length == -1 && errno != EAGAIN) err(1, "read(stdin)");
        if (length == 0) break;
        if (length > 0) put_in_ring(static_cast<size_t>(length));
    }
}

// --generate: goes on where the ring ends, so that a successor completes the series.
static void generate() {
    for (Slot* slot; end.next < options.count && !stopped && (slot = wait_for_slot());)
        put_in_ring(make_numbered(slot->data(), end.next), kNumbered);
}

// One packet into the slot, or without a slot into nothing; false: none has come.
static bool receive_packet(int udp, Slot* slot) {
    const ssize_t length = receive_udp(udp, slot ? slot->data() : nullptr, slot ? end.size : 0);
    if (length == -1) return false;
    const bool oversize = length > static_cast<ssize_t>(end.size);
    if (oversize) ++end.ring->oversize;
    if (slot && !oversize)
        put_in_ring(static_cast<size_t>(length));
    else
        ++end.ring->dropped;
    return true;
}

// --udp, until we are told to stop. While the ring is full, packets wait in the kernel's buffer,
// which drops what is too much.
static void receive_packets(int udp) {
    Slot* slot;
    while (!stopped && (slot = wait_for_slot()))
        if (!receive_packet(udp, slot) && !wait_for_input(udp)) break;
    // What has come is still handled, or, if nobody makes room for it, dropped.
    end_udp(udp);
    for (slot = wait_for_slot(); receive_packet(udp, slot);)
        if (slot) slot = wait_for_slot();
    end.ring->dropped += dropped_udp(udp);
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

// Handles packets until the producer is gone and the ring empty, or we are stopped.
static void handle_packets() {
    while (!stopped) {
        Slot* slot = take(&end, kSlice);
        if (!slot && gone(end.other)) break;
        if (!slot) continue;
        const uint32_t length = slot->length;  // read once: the check is on what is used
        handle(slot->data(), length, slot->tag);
        release(&end);
        count(length);
    }
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

// The receiving process.
static void produce(int udp) {
    if (options.udp)
        receive_packets(udp);
    else if (options.generate)
        generate();
    else
        receive_stdin();
    publish(&end);
    if (options.verb == "produce") summary("handed over");
}

// The processing process; returns the exit status.
static int consume() {
    if (options.verb == "consume" && end.other == kNever)
        warnx("%s: nobody produces yet; start: %s produce --generate 1000 --name %s", name(),
              program_invocation_name, name());
    handle_packets();
    if (end.other == kDied) warnx("the producer died; all that it handed over is handled");
    summary("handled");
    return end.other == kDied;
}

int main(int argc, char** argv) {
    prepare();
    options = read_options(argc, argv);
    const bool run = options.verb == "run";
    const int udp = options.udp ? open_udp(options.port) : -1;
    if (run)
        make_object();
    else
        open_object();
    PacketRing* ring = map_ring();
    handle_stops(stop, SA_RESETHAND | SA_RESTART);
    if (run) child = spawn();
    const bool consumer = options.verb == "consume" || (run && child == 0);
    if (run && consumer) ignore_stops();  // the parent ends the input; the child comes to its end
    join(ring, consumer ? kConsumer : kProducer);
    atexit(leave);
    int status = 0;
    if (consumer)
        status = consume();
    else
        produce(udp);
    leave();
    if (child) status = wait_for(child, 0);
    if (stopped && !options.udp) {  // cut short; --udp has no other end
        signal(stopped, SIG_DFL);
        raise(stopped);
    }
    return status;
}
