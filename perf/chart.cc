// The report as a chart: one SVG file without scripts, fonts or links, for light and dark pages.

#include <math.h>
#include <stdlib.h>

#include <algorithm>

#include "report.h"

static constexpr double kWidth = 920;
static constexpr int kColours = 4;

static const char kStyle[] =
    "<style>\n"
    ":root{--page:#ffffff;--ink:#1f2328;--soft:#59636e;--grid:#d9dee3;"
    "--c0:#6e7781;--c1:#0969da;--c2:#bc4c00;--c3:#1a7f37;--s0:#54aeff;--s1:#0969da;--s2:#8250df;"
    "--s3:#bc4c00}\n"
    "@media (prefers-color-scheme:dark){:root{--page:#0d1117;--ink:#f0f6fc;--soft:#9198a1;"
    "--grid:#3d444d;--c0:#9198a1;--c1:#58a6ff;--c2:#f0883e;--c3:#3fb950;--s0:#a5d6ff;"
    "--s1:#388bfd;--s2:#bc8cff;--s3:#f0883e}}\n"
    "text{font:13px system-ui,sans-serif;fill:var(--ink);paint-order:stroke;stroke:var(--page);"
    "stroke-width:3px}.h{font-size:16px;font-weight:600}"
    ".n{fill:var(--soft);font-size:12px}.e{text-anchor:end}.m{text-anchor:middle}"
    ".g{stroke:var(--grid)}.b{stroke:var(--ink);stroke-width:1.5}\n"
    "</style>\n";

static std::string xml(const std::string& text) {
    std::string safe;
    for (char c : text) safe += c == '&' ? "&amp;" : c == '<' ? "&lt;" : std::string(1, c);
    return safe;
}

static void text(FILE* out, double x, double y, const char* style, const std::string& words) {
    fprintf(out, "<text x=\"%.1f\" y=\"%.1f\" class=\"%s\">%s</text>\n", x, y, style,
            xml(words).c_str());
}

static void line(FILE* out, double x1, double y1, double x2, double y2, const std::string& style) {
    fprintf(out, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" %s/>\n", x1, y1, x2, y2,
            style.c_str());
}

static void box(FILE* out, double x, double y, double width, double height, char kind, int colour) {
    fprintf(out,
            "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"var(--%c%d)\"/>\n",
            x, y, std::max(width, 0.5), height, kind, colour);
}

// Marks differ in shape too: not everybody tells the colours apart.
static void mark(FILE* out, double x, double y, int colour) {
    const char* shapes[] = {"", "M-5,0A5,5 0 1 1 5,0A5,5 0 1 1 -5,0Z", "M-4.5,-4.5H4.5V4.5H-4.5Z",
                            "M0,-6L6,5H-6Z"};
    fprintf(out, "<path transform=\"translate(%.1f,%.1f)\" d=\"%s\" fill=\"var(--c%d)\"/>\n", x, y,
            shapes[colour], colour);
}

static int colour_of(const std::string& mechanism) {
    return mechanism == "shm_open+mmap" ? 1 : mechanism == "open+mmap" ? 2 : 3;
}

// Ratios to private memory, a mark with its interval for each size and mechanism; returns the next
// panel's top.
static double ratios_panel(const Report& report, double top, FILE* out) {
    std::vector<const Series*> all;
    for (long count : {100000L, 1000L})
        for (const Series* one : report.of(table_measure(count)))
            if (one->verdict && one->verdict->range) all.push_back(one);
    if (all.empty()) return top;
    double low = 0.9, high = 1.1;
    for (const Series* one : all) {
        low = std::min(low, one->verdict->range->low);
        high = std::max(high, one->verdict->range->high);
    }
    low = std::max(0.5, floor(low * 10) / 10), high = std::min(2.0, ceil(high * 10) / 10);
    text(out, 24, top + 20, "h", "Once every page is there: time to write and read it");
    text(out, 24, top + 40, "n",
         "Processor time; private memory is 1, lower is faster. Bars: where the median lies, 95 % "
         "sure for all together.");
    const char* names[] = {"", "shm_open+mmap", "open+mmap", "shmget"};
    for (int i = 1; i < kColours; ++i) {
        mark(out, 30 + 165 * (i - 1), top + 60, i);
        text(out, 42 + 165 * (i - 1), top + 64, "", names[i]);
    }
    const double left = 64, right = kWidth - 24, upper = top + 84, lower = top + 264;
    const auto y = [&](double ratio) {
        return lower - (std::clamp(ratio, low, high) - low) / (high - low) * (lower - upper);
    };
    for (long tenths = lround(low * 10); tenths <= lround(high * 10); ++tenths) {
        const double at = static_cast<double>(tenths) / 10;
        char label[16];
        snprintf(label, sizeof label, "%.1f", at);
        line(out, left, y(at), right, y(at), tenths == 10 ? "class=\"b\"" : "class=\"g\"");
        text(out, left - 8, y(at) + 4, "n e", label);
    }
    std::vector<std::pair<std::string, size_t>> groups;
    for (const Series* one : all)
        if (groups.empty() || groups.back() != std::pair(one->measure, one->bytes))
            groups.emplace_back(one->measure, one->bytes);
    const double step = (right - left) / static_cast<double>(groups.size());
    for (size_t g = 0; g < groups.size(); ++g) {
        const double middle = left + step * (static_cast<double>(g) + 0.5);
        text(out, middle, lower + 18, "m", size_name(groups[g].second));
        text(out, middle, lower + 34, "n m", groups[g].first.substr(groups[g].first.find('x')));
        for (const Series* one : all) {
            if (std::pair(one->measure, one->bytes) != groups[g]) continue;
            const int colour = colour_of(one->mechanism);
            const double x = middle + (colour - 2) * std::min(22.0, step / 4);
            line(out, x, y(one->verdict->range->low), x, y(one->verdict->range->high),
                 "stroke-width=\"2.5\" stroke=\"var(--c" + std::to_string(colour) + ")\"");
            mark(out, x, y(one->verdict->ratio), colour);
        }
    }
    return lower + 60;
}

// How long it takes until every page is there, in stages, for the largest size.
static double stages_panel(const Report& report, double top, FILE* out) {
    const auto all = report.of("make");
    double most = 0;
    for (const Series* one : all)
        if (one->bytes == all.back()->bytes) most = std::max(most, report.ready(*one));
    if (most == 0) return top;
    const size_t bytes = all.back()->bytes;
    text(out, 24, top + 20, "h", "Until every page is there: " + size_name(bytes) + ", in us");
    for (int s = 0; s < 4; ++s) {
        box(out, 24 + 110 * s, top + 34, 12, 12, 's', s);
        text(out, 42 + 110 * s, top + 45, "", kUntilReady[s]);
    }
    double y = top + 60;
    for (const Series* one : all) {
        if (one->bytes != bytes || one->real.empty()) continue;
        text(out, 148, y + 15, "e", one->mechanism);
        double x = 160;
        for (int s = 0; s < 4; ++s) {
            const double length = report.middle(kUntilReady[s], *one) / most * 480;
            if (length > 0.25) box(out, x, y, length, 20, 's', s);
            x += length;
        }
        const auto us = [](double ns) { return thousands(lround(ns / 1e3)); };
        std::string words = us(report.ready(*one));
        if (one->mechanism == "open+mmap")
            words += "; then msync " + us(report.middle("msync", *one));
        text(out, x + 8, y + 15, "", words);
        y += 28;
    }
    return y + 28;
}

// Messages per second to another process, on a scale of powers of ten.
static double transfers_panel(const Report& report, double top, FILE* out) {
    const auto all = report.of("message");
    if (all.empty()) return top;
    double least = 1e300, most = 0;
    for (const Series* one : all) {
        if (one->real.empty()) continue;
        least = std::min(least, 1e9 / median(one->real));
        most = std::max(most, 1e9 / median(one->real));
    }
    if (most == 0) return top;
    const double from = floor(log10(least)), to = ceil(log10(most) + 0.01);
    text(out, 24, top + 20, "h", "Messages per second to another process");
    text(out, 24, top + 40, "n", "Each step of the scale is ten times the one before.");
    const double left = 210, right = kWidth - 110;
    const auto x = [&](double rate) {
        return left + (log10(rate) - from) / (to - from) * (right - left);
    };
    const double upper = top + 68;
    const double lower = upper + static_cast<double>(all.size()) * 24 + 3 * 28;
    for (long power = lround(from); power <= lround(to); ++power) {
        const double rate = pow(10, static_cast<double>(power));
        line(out, x(rate), upper, x(rate), lower, "class=\"g\"");
        text(out, x(rate), upper - 6, "n m", thousands(lround(rate)));
    }
    double y = upper;
    for (size_t i = 0; i < all.size(); ++i) {
        if (i == 0 || all[i]->bytes != all[i - 1]->bytes) {
            y += i == 0 ? 4 : 8;
            text(out, 24, y + 16, "", std::to_string(all[i]->bytes) + " bytes");
            y += 22;
        }
        text(out, 198, y + 14, "e", all[i]->mechanism);
        const int colour = all[i]->mechanism.rfind("shared memory", 0) == 0 ? 1 : 0;
        if (all[i]->real.empty()) {
            text(out, left + 8, y + 14, "n", "not measured: does not fit");
        } else {
            const double rate = 1e9 / median(all[i]->real);
            box(out, left, y, x(rate) - left, 19, 'c', colour);
            text(out, x(rate) + 8, y + 14, "", thousands(static_cast<long>(rate)));
        }
        y += 24;
    }
    return lower + 20;
}

void print_svg(const Report& report, FILE* out) {
    // The panels first, as only then the height is known.
    char* panels = nullptr;
    size_t length = 0;
    FILE* inside = open_memstream(&panels, &length);
    if (!inside) return;
    double top = ratios_panel(report, 16, inside);
    top = stages_panel(report, top, inside);
    top = transfers_panel(report, top, inside);
    std::string about;
    for (const auto& [what, value] : report.machine)
        if (what == "processor" || what == "kernel" || what == "file in")
            about += (about.empty() ? "" : "; ") +
                     std::string(what == "file in" ? "file in " : "") + value;
    text(inside, 24, top + 16, "n", about);
    fclose(inside);
    fprintf(out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" "
            "height=\"%.0f\" role=\"img\">\n<title>Shared memory on Linux, measured</title>\n%s"
            "<rect width=\"100%%\" height=\"100%%\" fill=\"var(--page)\"/>\n",
            kWidth, top + 36, kWidth, top + 36, kStyle);
    fwrite(panels, 1, length, out);
    fputs("</svg>\n", out);
    free(panels);
}
