// The report as a chart: one SVG file without scripts, fonts or links. Colours are attributes,
// which every renderer draws; the style only turns them round for dark screens. What differs in
// colour also differs in shape, for print and for eyes that do not tell the colours apart.

#include <stdlib.h>

#include <algorithm>

#include "report.h"

static constexpr double kWidth = 920, kLeft = 240, kRight = kWidth - 30, kRow = 22;

static const char kStyle[] =
    "<style>@media screen and (prefers-color-scheme:dark){.page{fill:#0d1117}"
    "text{fill:#f0f6fc}.grid{stroke:#3d444d}.one{stroke:#f0f6fc}}</style>\n";

static const char* const kColour[] = {"#0969da", "#bc4c00", "#1a7f37", "#8250df", "#cf222e"};
static const char* const kShape[] = {"M-5,0A5,5 0 1 1 5,0A5,5 0 1 1 -5,0Z",
                                     "M-4.5,-4.5H4.5V4.5H-4.5Z", "M0,-6L6,5H-6Z",
                                     "M0,-6.5L6.5,0L0,6.5L-6.5,0Z", "M0,6L6,-5H-6Z"};

static void text(FILE* out, double x, double y, const char* how, const std::string& words) {
    fprintf(out, "<text x=\"%.1f\" y=\"%.1f\" fill=\"#1f2328\" %s>", x, y, how);
    for (char c : words)
        fputs(c == '&' ? "&amp;" : c == '<' ? "&lt;" : std::string(1, c).c_str(), out);
    fputs("</text>\n", out);
}

static void line(FILE* out, double x1, double y1, double x2, double y2, const std::string& how) {
    fprintf(out, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" %s/>\n", x1, y1, x2, y2,
            how.c_str());
}

static void mark(FILE* out, double x, double y, size_t which) {
    fprintf(out, "<path transform=\"translate(%.1f,%.1f)\" d=\"%s\" fill=\"%s\"/>\n", x, y,
            kShape[which], kColour[which]);
}

struct Row {
    std::string label;
    std::vector<std::pair<size_t, Verdict>> marks;  // which mark, and where it stands
};

// Times as multiples of another, on a scale of powers: a mark and its interval for each. Returns
// the next panel's top.
static double panel(double top, const char* title, const char* note,
                    const std::vector<std::string>& marks, const std::vector<Row>& rows,
                    FILE* out) {
    double low = 0.8, high = 1.25;
    for (const Row& row : rows)
        for (const auto& [which, verdict] : row.marks) {
            low = std::min(low, verdict.range->low);
            high = std::max(high, verdict.range->high);
        }
    if (rows.empty()) return top;
    const auto x = [&](double ratio) {
        return kLeft + log(ratio / low) / log(high / low) * (kRight - kLeft);
    };
    text(out, 24, top + 20, "font-size=\"16\" font-weight=\"600\"", title);
    text(out, 24, top + 40, "font-size=\"12\"", note);
    double at = 30;
    for (size_t i = 0; i < marks.size(); ++i) {
        mark(out, at, top + 58, i);
        text(out, at + 12, top + 62, "", marks[i]);
        at += 44 + 7.5 * static_cast<double>(marks[i].size());
    }
    const double upper = top + 92, lower = upper + kRow * static_cast<double>(rows.size());
    double last = 0;
    for (double step : {0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.8, 1.0, 1.25, 2.0, 5.0, 10.0, 20.0}) {
        if (step < low || step > high || (step != 1 && x(step) - last < 30)) continue;
        if (step != 1 && fabs(x(step) - x(1)) < 30) continue;
        last = x(step);
        char label[16];
        snprintf(label, sizeof label, "%g", step);
        line(out, last, upper - 4, last, lower,
             step == 1 ? "class=\"one\" stroke=\"#1f2328\" stroke-width=\"1.5\""
                       : "class=\"grid\" stroke=\"#d9dee3\"");
        text(out, last, upper - 8, "font-size=\"12\" text-anchor=\"middle\"", label);
    }
    double y = upper + kRow / 2;
    for (const Row& row : rows) {
        text(out, kLeft - 12, y + 4, "text-anchor=\"end\"", row.label);
        for (const auto& [which, verdict] : row.marks) {
            const double at_y = y + 3.5 * static_cast<double>(which) - 5;
            line(out, x(verdict.range->low), at_y, x(verdict.range->high), at_y,
                 std::string("stroke-width=\"2\" stroke=\"") + kColour[which] + "\"");
            mark(out, x(verdict.ratio), at_y, which);
        }
        y += kRow;
    }
    return lower + 24;
}

// Rows and marks of one table: in each row the figures of one size, of one measure with a mark for
// each mechanism, or (`by_mechanism`) of one mechanism with a mark for each measure.
static std::vector<Row> rows_of(const Report& report, const char* table,
                                const std::vector<std::string>& measures, bool by_mechanism) {
    std::vector<Row> rows;
    for (size_t m = 0; m < measures.size(); ++m) {
        size_t mechanism = 0, bytes = 0;
        for (const Series* one : report.of(table, measures[m])) {
            mechanism = one->bytes == bytes ? mechanism + 1 : 0;
            bytes = one->bytes;
            if (!one->verdict || !one->verdict->range) continue;
            const std::string label =
                size_name(bytes) + " " + (by_mechanism ? one->mechanism : one->measure);
            auto row = std::find_if(rows.begin(), rows.end(),
                                    [&](const Row& it) { return it.label == label; });
            if (row == rows.end()) row = rows.insert(row, Row{label, {}});
            row->marks.emplace_back(by_mechanism ? m : mechanism - 1, *one->verdict);
        }
    }
    return rows;
}

void print_svg(const Report& report, FILE* out) {
    // The panels first, as only then the height is known.
    char* panels = nullptr;
    size_t length = 0;
    FILE* inside = open_memstream(&panels, &length);
    if (!inside) return;
    const std::vector<std::string> loops = {"read", "memchr", "memset", "memcpy", "random"};
    double top = panel(16, "The three mechanisms: time as a multiple of private memory's",
                       "Processor time, once every page is there; left is faster. Bars: where the "
                       "median lies, 95 % sure for all together.",
                       {"shm_open+mmap", "open+mmap", "shmget"},
                       rows_of(report, kLives, loops, false), inside);
    top = panel(top, "Huge pages: time as a multiple of that with small pages",
                "Where the settings give none, the marks stand at 1.", loops,
                rows_of(report, kHuge, loops, true), inside);
    const std::vector<std::string> costs = {"message", "round trip", "on one processor",
                                            "after a pause"};
    top = panel(top, "Messages to another process: time as a multiple of a pipe's",
                "One after another; and there and back.", costs,
                rows_of(report, kMessages, costs, true), inside);
    std::string about;
    for (const auto& [what, value] : report.machine)
        if (what == "processor" || what == "kernel" || what == "load before")
            about += (about.empty() ? "" : "; ") +
                     std::string(what == "load before" ? "load " : "") + value;
    text(inside, 24, top + 12, "font-size=\"12\"", about);
    fclose(inside);
    fprintf(out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" "
            "height=\"%.0f\" role=\"img\" font-family=\"system-ui,sans-serif\" "
            "font-size=\"13\">\n<title>Shared memory on Linux, measured</title>\n%s"
            "<rect class=\"page\" width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n",
            kWidth, top + 30, kWidth, top + 30, kStyle);
    fwrite(panels, 1, length, out);
    fputs("</svg>\n", out);
    free(panels);
}
