// How packets come in: from stdin, made by this program, or from a UDP port. Each is received
// straight into a free slot of the ring.
//
// `ours` is this process's end of the ring; reserve(), commit() and publish() are in ring.h. From
// waits.h: `stopped` is the signal that told us to stop, or 0; over() is true then, and when our
// child, the consumer, has ended. No wait is longer than kSlice, so that each looks at these two
// that often. The last packets of an input need no publish(): who leaves wakes the other.

#pragma once

#include <poll.h>
#include <sys/socket.h>

#include "source.h"
#include "waits.h"

inline uint64_t all_bytes = 0;  // of the packets that this process has handed over, or handled

// A free slot, however long that takes; nullptr if all is over and the ring full.
inline Slot* wait_for_slot() {
    for (;;) {
        Slot* slot = reserve(&ours, kSlice);
        if (slot || over()) return slot;
        watch_consumer();  // says so if nobody consumes
    }
}

// Commits the slot from wait_for_slot(): it holds a packet now.
inline void put_in_ring(size_t length, uint32_t tag = 0) {
    all_bytes += length;
    commit(&ours, static_cast<uint32_t>(length), tag);
}

// Waits for input; false if there is no more, or all is over before. The first poll(2) does not
// wait. If it finds nothing, the input pauses, and publish() wakes a consumer that sleeps still.
inline bool wait_for_input(int fd) {
    pollfd it = {fd, POLLIN, 0};
    for (int ms = 0; !stopped; ms = kSlice) {
        const int ready = poll(&it, 1, ms);
        if (ready > 0) return it.revents != POLLHUP;  // POLLHUP alone: a pipe's end [poll(2)]
        if (ready == -1 && errno != EINTR) err(1, "poll(input)");
        publish(&ours);
        if (over()) break;
    }
    return false;
}

// --pipe: what one read(2) brings is a packet.
inline void receive_stdin() {
    while (wait_for_input(STDIN_FILENO)) {
        Slot* slot = wait_for_slot();
        if (!slot) break;
        const ssize_t length = read(STDIN_FILENO, slot->data(), ours.size);
        // EAGAIN: another reader was faster [BUGS in select(2)].
        if (length == -1 && errno != EAGAIN) err(1, "read(stdin)");
        if (length == 0) break;
        if (length > 0) put_in_ring(static_cast<size_t>(length));
    }
}

// --generate: goes on with the ring's next number, so that a successor completes the series.
inline void generate() {
    while (ours.next < options.count && !stopped) {
        Slot* slot = wait_for_slot();
        if (!slot) break;
        put_in_ring(make_numbered(slot->data(), ours.next), kNumbered);
    }
}

// Receives one packet into the slot, or drops it if there is no slot; false: none has come.
inline bool receive_packet(int udp, Slot* slot) {
    void* data = slot ? slot->data() : nullptr;
    const size_t room = slot ? ours.size : 0;
    // MSG_TRUNC: returns the packet's whole length, also if it was cut to the room [recv(2)].
    const ssize_t length = recv(udp, data, room, MSG_DONTWAIT | MSG_TRUNC);
    if (length == -1 && errno != EAGAIN) err(1, "recv(UDP)");
    if (length == -1) return false;
    const bool oversize = length > static_cast<ssize_t>(ours.size);
    if (oversize) ++ours.ring->oversize;
    if (slot && !oversize)
        put_in_ring(static_cast<size_t>(length));
    else
        ++ours.ring->dropped;
    return true;
}

// --udp, until we are told to stop. While the ring is full, packets wait in the kernel's buffer,
// which drops what is too much.
inline void receive_packets(int udp) {
    while (!stopped) {
        Slot* slot = wait_for_slot();
        if (!slot) break;
        if (!receive_packet(udp, slot) && !wait_for_input(udp)) break;
    }
    // No new ones, but what waits in the kernel's buffer still has its turn. All is over() now: if
    // the ring is full, wait_for_slot() ends after one kSlice with none. Then we ask no more, and
    // read the rest to drop it.
    end_udp(udp);
    Slot* slot = wait_for_slot();
    while (receive_packet(udp, slot))
        if (slot) slot = wait_for_slot();
    ours.ring->dropped += dropped_udp(udp);
}
