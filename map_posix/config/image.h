// The image of a configuration: its layout, how it is made, the check before use, the lookup. Bytes
// only: no file, no mapping; so the tests can try a hundred thousand damaged images in one process.

#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <map>
#include <string_view>

namespace config {

constexpr uint32_t kMagic = 0x31474643;  // "CFG1" in memory on a little-endian machine
constexpr uint32_t kVersion = 2;

// An image is a Header, the index (Entry after Entry, in ascending order of their keys), the bytes
// of all keys and values. Each reader maps it at another address: so offsets, in bytes from the
// image's start, and no pointers.
struct Header {
    uint32_t magic, version;
    uint64_t bytes;     // of the whole image
    uint64_t count;     // entries
    uint64_t checksum;  // of all other bytes of the image
};

struct Entry {
    uint32_t key, key_bytes, value, value_bytes;
};
static_assert(sizeof(Header) == 32 && sizeof(Entry) == 16, "laid out alike in every program");

// An image that check() found good. The numbers are a copy: whoever may write the file can change
// it after the check. Then an answer of ours may be wrong, but we do not step outside the image.
// (If the file is shortened, that is SIGBUS.)
struct Image {
    const char* start = nullptr;
    size_t bytes = 0, count = 0;
};

// FNV-1a, 64 bits: each step is reversible, so one changed byte always changes the result.
inline uint64_t hash(uint64_t sum, const char* bytes, size_t count) {
    for (size_t i = 0; i < count; ++i)
        sum = (sum ^ static_cast<unsigned char>(bytes[i])) * 0x100000001b3;
    return sum;
}

// What Header::checksum has to be; `bytes` is at least the header's.
inline uint64_t checksum(const char* start, size_t bytes) {
    const uint64_t before = hash(0xcbf29ce484222325, start, offsetof(Header, checksum));
    return hash(before, start + sizeof(Header), bytes - sizeof(Header));
}

// What an image is made of, in the order of its index: by the keys' bytes.
using Entries = std::map<std::string_view, std::string_view>;

// Bytes of the image of these entries.
inline size_t image_bytes(const Entries& entries) {
    size_t bytes = sizeof(Header) + entries.size() * sizeof(Entry);
    for (const auto& [key, value] : entries) bytes += key.size() + value.size();
    return bytes;
}

// Makes the image in image_bytes(entries) bytes at `start`.
inline void fill(char* start, size_t bytes, const Entries& entries) {
    auto* header = reinterpret_cast<Header*>(start);
    auto* entry = reinterpret_cast<Entry*>(header + 1);
    size_t end = sizeof *header + entries.size() * sizeof *entry;
    const auto append = [&](std::string_view text, uint32_t* offset, uint32_t* size) {
        *offset = static_cast<uint32_t>(end);  // fits: a text has at most 16 MiB
        *size = static_cast<uint32_t>(text.copy(start + end, text.size()));
        end += text.size();
    };
    for (const auto& [key, value] : entries) {
        append(key, &entry->key, &entry->key_bytes);
        append(value, &entry->value, &entry->value_bytes);
        ++entry;
    }
    *header = {kMagic, kVersion, bytes, entries.size(), 0};
    header->checksum = checksum(start, bytes);
}

// `index` < image.count.
inline Entry entry(const Image& image, size_t index) {
    Entry it;
    memcpy(&it, image.start + sizeof(Header) + index * sizeof it, sizeof it);
    return it;
}

inline bool inside(const Image& image, uint32_t offset, uint32_t bytes) {
    return offset >= sizeof(Header) && uint64_t{offset} + bytes <= image.bytes;
}

// The text in the image itself, not a copy; empty if it would lie outside, as it may when the file
// was changed after the check.
inline std::string_view text(const Image& image, uint32_t offset, uint32_t bytes) {
    if (!inside(image, offset, bytes)) return {};
    return {image.start + offset, bytes};
}

inline std::string_view key(const Image& image, size_t index) {
    const Entry it = entry(image, index);
    return text(image, it.key, it.key_bytes);
}

inline std::string_view value(const Image& image, size_t index) {
    const Entry it = entry(image, index);
    return text(image, it.value, it.value_bytes);
}

// Looks a key up by binary search; false: there is none.
inline bool find(const Image& image, std::string_view wanted, std::string_view* found) {
    size_t low = 0, high = image.count;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        const int order = key(image, middle).compare(wanted);
        if (order == 0) {
            *found = value(image, middle);
            return true;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return false;
}

// Whether every entry is found by its key: the work of a reader of all.
inline bool verify(const Image& image) {
    for (size_t i = 0; i < image.count; ++i) {
        std::string_view found;
        if (!find(image, key(image, i), &found) || found != value(image, i)) return false;
    }
    return true;
}

// Checks bytes that may be anything. Returns nullptr and fills `image`, or returns what is wrong.
inline const char* check(const char* start, size_t bytes, Image* image) {
    if (bytes < sizeof(Header)) return "is shorter than an image's header";
    Header header;
    memcpy(&header, start, sizeof header);
    if (header.magic != kMagic) return "is not an image of ours";
    if (header.version != kVersion) return "is an image of another version";
    if (header.bytes != bytes) return "is not as long as the image was made";
    if (header.checksum != checksum(start, bytes)) return "is damaged: its checksum is wrong";
    if (header.count > (bytes - sizeof header) / sizeof(Entry))
        return "is damaged: its index lies outside";
    *image = {start, bytes, static_cast<size_t>(header.count)};
    for (size_t i = 0; i < image->count; ++i) {
        const Entry it = entry(*image, i);
        if (!inside(*image, it.key, it.key_bytes) || !inside(*image, it.value, it.value_bytes))
            return "is damaged: an entry points outside";
        // A binary search in an index out of order would miss keys that are there.
        if (i > 0 && key(*image, i - 1) >= key(*image, i))
            return "is damaged: its keys are unsorted";
    }
    return nullptr;
}

}  // namespace config
