// The image of a configuration: its layout, how it is made, the lookup, the checks. Bytes only: no
// file, no mapping; so the tests can try a hundred thousand damaged images in one process.
//
//     Header │ table: 2 slots or more for each entry │ entries: Entry, key, value, one by one
//
// A key's hash says in which slot to begin; the slots from there on, up to an empty one, say which
// entries may be the key's. So a lookup touches three pages or so, however large the image is.

#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <map>
#include <string_view>

namespace config {

constexpr uint32_t kMagic = 0x31474643;  // "CFG1" in memory on a little-endian machine
constexpr uint32_t kVersion = 3;

// Each reader maps the image at another address: so offsets, in bytes from its start, and no
// pointers.
struct Header {
    uint32_t magic, version;
    uint64_t bytes;     // of the whole image
    uint64_t slots;     // of the table: a power of two, more than there are entries
    uint64_t count;     // entries
    uint64_t checksum;  // of all that follows the header
    uint64_t own;       // checksum of the header up to here
};

struct Slot {
    uint32_t hash;   // of the key: most other keys are told by it
    uint32_t entry;  // where it is; 0: the slot is empty
};

struct Entry {
    uint64_t checksum;  // of all that follows: the sizes, the key, the value
    uint32_t key_bytes, value_bytes;
};
static_assert(sizeof(Header) == 48 && sizeof(Slot) == 8 && sizeof(Entry) == 16,
              "laid out alike in every program");

// An image whose header was found good. The numbers are a copy: whoever may write the file can
// change it after the check. Then an answer of ours may be wrong, but we do not step outside the
// image. (If the file is shortened, that is SIGBUS.)
struct Image {
    const char* start = nullptr;
    size_t bytes = 0, slots = 0, count = 0;
};

// FNV-1a, 64 bits: each step is reversible, so one changed byte always changes the result.
inline uint64_t hash(const char* bytes, size_t count) {
    uint64_t sum = 0xcbf29ce484222325;
    for (size_t i = 0; i < count; ++i)
        sum = (sum ^ static_cast<unsigned char>(bytes[i])) * 0x100000001b3;
    return sum;
}

// What the three checksums have to be; `start` has the bytes that they speak of.
inline uint64_t header_checksum(const char* start) { return hash(start, offsetof(Header, own)); }
inline uint64_t image_checksum(const char* start, size_t bytes) {
    return hash(start + sizeof(Header), bytes - sizeof(Header));
}
inline uint64_t entry_checksum(const char* start, size_t key_bytes, size_t value_bytes) {
    const size_t head = offsetof(Entry, key_bytes);
    return hash(start + head, sizeof(Entry) - head + key_bytes + value_bytes);
}

// What an image is made of; in this order its entries lie.
using Entries = std::map<std::string_view, std::string_view>;

inline size_t slots_for(size_t count) {
    size_t slots = 2;
    while (slots < 2 * count) slots *= 2;
    return slots;
}

// Bytes of the image of these entries: less than 2^30, since a text has at most 16 MiB.
inline size_t image_bytes(const Entries& entries) {
    size_t bytes = sizeof(Header) + slots_for(entries.size()) * sizeof(Slot);
    for (const auto& [key, value] : entries) bytes += sizeof(Entry) + key.size() + value.size();
    return bytes;
}

// Makes the image in image_bytes(entries) bytes at `start`, all 0.
inline void fill(char* start, size_t bytes, const Entries& entries) {
    Header header = {kMagic, kVersion, bytes, slots_for(entries.size()), entries.size(), 0, 0};
    auto* table = reinterpret_cast<Slot*>(start + sizeof header);
    size_t end = sizeof header + header.slots * sizeof(Slot);
    for (const auto& [key, value] : entries) {
        Entry entry = {0, static_cast<uint32_t>(key.size()), static_cast<uint32_t>(value.size())};
        char* at = start + end;
        memcpy(at, &entry, sizeof entry);
        key.copy(at + sizeof entry, key.size());
        value.copy(at + sizeof entry + key.size(), value.size());
        entry.checksum = entry_checksum(at, key.size(), value.size());
        memcpy(at, &entry, sizeof entry);

        const uint32_t mark = static_cast<uint32_t>(hash(key.data(), key.size()));
        size_t slot = mark % header.slots;
        while (table[slot].entry != 0) slot = (slot + 1) % header.slots;
        table[slot] = {mark, static_cast<uint32_t>(end)};
        end += sizeof entry + key.size() + value.size();
    }
    header.checksum = image_checksum(start, bytes);
    memcpy(start, &header, sizeof header);
    header.own = header_checksum(start);
    memcpy(start, &header, sizeof header);
}

// Checks the header of bytes that may be anything. Returns nullptr and fills `image`, or returns
// what is wrong.
inline const char* check_header(const char* start, size_t bytes, Image* image) {
    if (bytes < sizeof(Header)) return "is shorter than an image's header";
    Header header;
    memcpy(&header, start, sizeof header);
    if (header.magic != kMagic) return "is not an image of ours";
    if (header.version != kVersion) return "is an image of another version";
    if (header.bytes != bytes) return "is not as long as the image was made";
    if (header.own != header_checksum(start)) return "is damaged: its header's checksum is wrong";
    if (header.slots == 0 || header.slots > (bytes - sizeof header) / sizeof(Slot))
        return "is damaged: its table lies outside";
    *image = {start, bytes, static_cast<size_t>(header.slots), static_cast<size_t>(header.count)};
    return nullptr;
}

inline Slot slot(const Image& image, size_t index) {
    Slot it;
    memcpy(&it, image.start + sizeof(Header) + index * sizeof it, sizeof it);
    return it;
}

// The key and the value of an entry, in the image itself and not copied; false if they would lie
// outside.
struct Pair {
    std::string_view key, value;
};
inline bool read_entry(const Image& image, size_t at, Pair* pair) {
    Entry it;
    if (at > image.bytes || image.bytes - at < sizeof it) return false;
    memcpy(&it, image.start + at, sizeof it);
    const char* key = image.start + at + sizeof it;
    if (uint64_t{it.key_bytes} + it.value_bytes > image.bytes - at - sizeof it) return false;
    *pair = {{key, it.key_bytes}, {key + it.key_bytes, it.value_bytes}};
    return true;
}

// Whether the entry is as it was made; read_entry() has found it inside.
inline bool sound(const Pair& pair) {
    const char* start = pair.key.data() - sizeof(Entry);
    uint64_t sum;
    memcpy(&sum, start, sizeof sum);
    return sum == entry_checksum(start, pair.key.size(), pair.value.size());
}

// Looks a key up, and checks the entry that it finds. `no` is an answer only for an image in which
// check_all() finds nothing wrong: damage may hide a key.
enum class Found { yes, no, damaged };
inline Found find(const Image& image, std::string_view key, std::string_view* value) {
    const uint32_t mark = static_cast<uint32_t>(hash(key.data(), key.size()));
    for (size_t i = 0; i < image.slots; ++i) {
        const Slot it = slot(image, (mark % image.slots + i) % image.slots);
        if (it.entry == 0) return Found::no;
        if (it.hash != mark) continue;
        Pair pair;
        if (!read_entry(image, it.entry, &pair)) return Found::damaged;
        if (pair.key != key) continue;
        *value = pair.value;
        return sound(pair) ? Found::yes : Found::damaged;
    }
    return Found::no;
}

// Checks every byte, and that each entry is found by its key. Returns nullptr, or what is wrong.
inline const char* check_all(const Image& image) {
    Header header;
    memcpy(&header, image.start, sizeof header);
    if (header.checksum != image_checksum(image.start, image.bytes))
        return "is damaged: its checksum is wrong";
    size_t count = 0;
    for (size_t i = 0; i < image.slots; ++i) {
        const Slot it = slot(image, i);
        if (it.entry == 0) continue;
        ++count;
        Pair pair;
        if (!read_entry(image, it.entry, &pair)) return "is damaged: an entry lies outside";
        std::string_view value;
        if (find(image, pair.key, &value) != Found::yes || value.data() != pair.value.data())
            return "is damaged: an entry is not found by its key";
    }
    return count == image.count ? nullptr : "is damaged: it has another number of entries";
}

}  // namespace config
