// Packets from a receiving to a processing process, through a ring in shared memory.
//
//     g++ -o producer_consumer producer_consumer.cc -lrt
//     ./producer_consumer --generate 1000000
//     ./producer_consumer --pipe < file | cmp - file
//     ./producer_consumer --udp 9000 --pipe          and elsewhere: nc -u 127.0.0.1 9000
//
// The producer receives each packet straight into a slot of the ring, the consumer handles it
// there: no copy in between. `producer` and `consumer` are their ends of the ring: reserve() and
// commit() in ring_producer.h, take() and release() in ring_consumer.h. The object that holds it is
// made, mapped and removed in object.h, the waits are in wait.h, the sources of
// packets in source.h.

#include "../../common/process.h"
#include "object.h"
#include "options.h"
#include "source.h"
#include "wait.h"

static uint64_t packets, bytes;       // handed over, or handled, by this process
static double first_time, last_time;  // of these packets, in seconds

static void count_packet(size_t length) {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    last_time = static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
    if (packets++ == 0) first_time = last_time;
    bytes += length;
}

// Commits the slot from wait_for_slot(): it holds a packet now.
static void put_in_ring(size_t length, uint32_t tag = 0) {
    count_packet(length);
    commit(&producer, static_cast<uint32_t>(length), tag);
}

// --pipe: what one read(2) brings is a packet.
static void receive_stdin() {
    while (wait_for_input(STDIN_FILENO)) {
        Slot* slot = wait_for_slot();
        if (!slot) break;
        const ssize_t length = read(STDIN_FILENO, slot->data(), producer.size);
        if (length == -1 && errno != EAGAIN) err(1, "read(stdin)");
        if (length == 0) break;
        if (length > 0) put_in_ring(static_cast<size_t>(length));
    }
}

// --generate: goes on where the ring ends, so that a successor completes the series.
static void generate() {
    while (producer.next < options.count && !stopped) {
        Slot* slot = wait_for_slot();
        if (!slot) break;
        put_in_ring(make_numbered(slot->data(), producer.next), kNumbered);
    }
}

// One packet into the slot, or without a slot into nothing; false: none has come.
static bool receive_packet(int udp, Slot* slot) {
    const size_t room = slot ? producer.size : 0;
    const ssize_t length = receive_udp(udp, slot ? slot->data() : nullptr, room);
    if (length == -1) return false;
    const bool oversize = length > static_cast<ssize_t>(producer.size);
    if (oversize) ++ring->oversize;
    if (slot && !oversize)
        put_in_ring(static_cast<size_t>(length));
    else
        ++ring->dropped;
    return true;
}

// --udp, until we are told to stop. While the ring is full, packets wait in the kernel's buffer,
// which drops what is too much.
static void receive_packets(int udp) {
    while (!stopped) {
        Slot* slot = wait_for_slot();
        if (!slot) break;
        if (!receive_packet(udp, slot) && !wait_for_input(udp)) break;
    }
    // No new ones, but what waits in the kernel's buffer still has its turn. When there is no slot
    // for kSlice, the rest is dropped.
    end_udp(udp);
    Slot* slot = wait_for_slot();
    while (receive_packet(udp, slot))
        if (slot) slot = wait_for_slot();
    ring->dropped += dropped_udp(udp);
}

// Handles the packet in hand: it goes to stdout, or if it is numbered, it must be whole and next.
static void handle(const unsigned char* data, uint32_t length, uint32_t tag) {
    const uintmax_t number = consumer.next;
    if (length > consumer.size) errx(1, "packet %ju: has an impossible length", number);
    if (!options.pipe && tag == kNumbered && !is_numbered(data, length, number))
        errx(1, "packet %ju: has another number, or its checksum is wrong", number);
    if (!options.pipe) return;
    for (uint32_t done = 0; done < length;) {
        const ssize_t written = write(STDOUT_FILENO, data + done, length - done);
        if (written == -1) err(1, "write(stdout)");
        done += static_cast<uint32_t>(written);
    }
}

// Handles packets until we are stopped, or the ring is empty and the producer gone.
static void handle_packets() {
    while (!stopped) {
        Slot* slot = take(&consumer, kSlice);
        if (!slot && gone(consumer.producer)) break;
        if (!slot) continue;
        const uint32_t length = slot->length;
        handle(slot->data(), length, slot->tag);
        release(&consumer);
        count_packet(length);
    }
}

// What this process did, and how the two got on.
static void summary(const char* did) {
    FILE* out = options.pipe ? stderr : stdout;
    lock(&ring->lock);
    const uintmax_t backlog = ring->backlog, slept[] = {ring->seat[0].slept, ring->seat[1].slept};
    unlock(&ring->lock);
    const double seconds = last_time - first_time, pace = seconds > 0 ? 1 / seconds : 0;
    fprintf(out,
            "%s %ju packets, %ju bytes in %.3f s: %.0f packets/s, %.1f MB/s\n"
            "largest backlog %ju of %u slots; slept: producer %ju times, consumer %ju times\n"
            "dropped %ju packets, %ju of them larger than a slot\n",
            did, uintmax_t{packets}, uintmax_t{bytes}, seconds, static_cast<double>(packets) * pace,
            static_cast<double>(bytes) * pace / 1e6, backlog, ring->slots, slept[kProducer],
            slept[kConsumer], uintmax_t{ring->dropped}, uintmax_t{ring->oversize});
    if (fflush(out) != 0 || ferror(out)) err(1, "write(%s)", options.pipe ? "stderr" : "stdout");
}

// The receiving process.
static int produce(int udp) {
    if (options.udp)
        receive_packets(udp);
    else if (options.generate)
        generate();
    else
        receive_stdin();
    publish(&producer);
    if (!child) summary("handed over");  // in run the child's says it all
    return 0;
}

// The processing process; its exit status is 1 after a producer that died.
static int consume() {
    if (options.verb == "consume" && find_side(ring, kProducer) == kNever)
        warnx("%s: nobody produces yet; start: %s produce --generate 1000 --name %s", name(),
              program_invocation_name, name());
    handle_packets();
    const bool died = consumer.producer == kDied;  // then the ring was empty, too
    if (died) warnx("the producer died; all that it handed over is handled");
    summary("handled");
    return died;
}

int main(int argc, char** argv) {
    prepare();
    options = read_options(argc, argv);
    const bool run = options.verb == "run";
    const int udp = options.udp ? open_udp(options.port) : -1;
    handle_stops(stop, SA_RESTART);
    if (run)
        make_object();
    else
        open_object();
    map_ring();
    side = options.verb == "consume" ? kConsumer : kProducer;
    if (run && (child = spawn()) == 0) {
        side = kConsumer;
        ignore_stops();
    }
    join();
    int status = side == kProducer ? produce(udp) : consume();
    leave();  // now, since the child ends when it finds us gone
    if (child) status = wait_for(child, stopped ? 10 : 0);
    if (stopped && !options.udp) {  // cut short; --udp is done when it is stopped
        signal(stopped, SIG_DFL);
        raise(stopped);
    }
    return status;
}
