// The text of a configuration: reads it, and finds the keys and values in it. A mistake in it is
// named by its line.

#pragma once

#include <algorithm>
#include <string>
#include <string_view>

#include "../../common/process.h"
#include "image.h"

// All that a file has. It may be a pipe, which does not know how much will come: so in pieces.
inline std::string read_text(const char* file) {
    const int fd = open(file, O_RDONLY);
    if (fd == -1) err(1, "open(%s)", file);
    std::string text;
    char chunk[65536];
    ssize_t got;
    while ((got = read(fd, chunk, sizeof chunk)) > 0) {
        text.append(chunk, static_cast<size_t>(got));
        if (text.size() > config::kMostText)
            errx(1, "%s: has more than %zu bytes", file, config::kMostText);
    }
    if (got == -1) err(1, "read(%s)", file);
    close(fd);
    return text;
}

// Without the blanks at both ends.
inline std::string_view trim(std::string_view text) {
    const size_t first = text.find_first_not_of(" \t\r");  // \r: lines may end in CR LF
    if (first == text.npos) return {};
    return text.substr(first, text.find_last_not_of(" \t\r") - first + 1);
}

// The lines `key = value`; blank lines and those that start with # are skipped. The entries point
// into `text`.
inline config::Entries parse(std::string_view text, const char* file) {
    config::Entries entries;
    size_t line = 1;
    for (size_t start = 0, end; start < text.size(); start = end + 1, ++line) {
        end = std::min(text.find('\n', start), text.size());  // the last may have no newline
        const std::string_view whole = trim(text.substr(start, end - start));
        if (whole.find('\0') != whole.npos) errx(1, "%s:%zu: holds a NUL byte", file, line);
        if (whole.empty() || whole[0] == '#') continue;
        const size_t equals = whole.find('=');
        if (equals == whole.npos) errx(1, "%s:%zu: has no '='", file, line);
        const std::string_view key = trim(whole.substr(0, equals));
        if (key.empty()) errx(1, "%s:%zu: has no key before the '='", file, line);
        const auto [earlier, fresh] = entries.insert({key, trim(whole.substr(equals + 1))});
        if (fresh) continue;
        // The earlier key points into `text`: the newlines before it tell its line.
        const auto before = std::count(text.data(), earlier->first.data(), '\n');
        errx(1, "%s:%zu: the key '%.*s' was there in line %td", file, line,
             static_cast<int>(std::min<size_t>(key.size(), 60)), key.data(), before + 1);
    }
    if (entries.empty()) errx(1, "%s: holds no 'key = value'", file);
    return entries;
}
