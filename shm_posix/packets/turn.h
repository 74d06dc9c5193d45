// Is there a slot to fill, or a packet to handle? Looks, and waits for it.
//
// Read before: presence.h, layout.h, sleep.h.

#pragma once

#include <stdint.h>

#include "layout.h"
#include "presence.h"
#include "sleep.h"

// Looks how far the other side is; true: there is a slot, or a packet. The other has stored its
// count when the packet was whole, or when it had done with the slot. Who sees the count sees that,
// too: this load acquires (seq_cst, the default, includes it), the store in advance() releases.
inline bool look(End* end) {
    const uint64_t count = end->theirs().count;
    end->limit = count + (end->side == kProducer ? end->slots : 0);
    return end->next < end->limit;
}

// Waits for a slot, or a packet, `ms` milliseconds at most. False, which may also come early: there
// is none, and `other` says who is there. A death wakes nobody: it is found at the deadline.
inline bool wait(End* end, int ms) {
    if (end->next < end->limit || look(end)) return true;
    // A consumer does not begin to sleep when the producer has left: nothing more will come. A
    // producer does when the consumer has left: another one may come.
    const auto news = [&] {
        return look(end) || (end->side == kConsumer && has_left(end->theirs().visits));
    };
    sleep_unless(news, &end->mine(), ms);
    if (look(end)) return true;
    end->other = find_side(end->fd, end->theirs().visits, end->other_side());
    return look(end);  // it may have counted a last packet, and then left or died
}
