// Lab 8: measuring. A difference needs an interval. What the program is given is constructed, so
// that the truth is known; no time is taken.

#pragma once

#include <math.h>

#include <random>

#include "lab.h"

class Measuring {
  public:
    explicit Measuring(Stage& stage) : stage_(stage) {}

    void grade() {
        if (!answer())
            return stage_.not_shown(
                {"agrees", "same", "found", "covers", "outliers", "drift", "few", "errors"},
                "it needs a line that can be read");
        const auto word = [](const Said& it, double truth) {
            return it.word == (truth > 1 ? "slower" : truth < 1 ? "faster" : "cannot tell");
        };
        const std::string bell = "docs/labs/8-measuring/times.sh";
        decide("same", 20, 16, {1, 0.06}, word,
               {"", "", "A against A is no difference: one experiment of 20 may alarm, no more",
                "sh " + bell + " true true 40 | PROGRAM"});
        decide("found", 10, 9, {1.1, 0.06}, word,
               {"", "", "the difference is larger than what chance can do in so many rounds",
                "sh " + bell + " 'sleep 0.010' 'sleep 0.012' 40 | PROGRAM"});
        decide("covers", 20, 16, {1.02, 0.15},
               [](const Said& it, double truth) { return it.low <= truth && truth <= it.high; },
               {"", "", "an interval of 95 % has the true ratio in it, 19 times of 20",
                "for i in 1 2 3 4; do sh " + bell + " true true 40 | PROGRAM; done"});
        const auto near_it = [&](const Said& it, double truth) {
            return word(it, truth) && fabs(it.ratio / truth - 1) < 0.08;
        };
        decide("outliers", 6, 5, {1.1, 0.05, 40, 4}, near_it,
               {"", "",
                "an interrupted round says nothing of the program, and moves a mean as far "
                "as it likes",
                "(seq 100 139 | sed 's/.*/& &1/'; echo 5000 5) | PROGRAM"});
        decide("drift", 4, 4, {1.1, 0.02, 40, 0, 3}, near_it,
               {"", "", "the times of one round belong together: compare them with each other",
                "seq 40 | awk '{ print 100 * $1, 110 * $1 }' | PROGRAM"});
        decide("few", 2, 2, {2, 0.01, 5},
               [](const Said& it, double) { return it.word == "cannot tell"; },
               {"", "", "five coins show the same side in 2 of 32 throws: that is more than 5 %",
                "yes 100 200 | head -n 5 | PROGRAM"});
        refuse();
        stage_.earn("agrees");
    }

  private:
    // What is true of an experiment.
    struct Truth {
        double ratio, noise;  // of the second way's times to the first's; of each time
        int rounds = 40;
        int outliers = 0;  // how many rounds have one time that is 20 to 60 times as long
        double drift = 0;  // by how much longer all takes in the end
    };
    struct Said {
        double ratio = 0, low = 0, high = 0;
        std::string word, seen;
        bool legible = false, told = false;
    };

    // The same times for the same seed, but for their unit: what matters is how they compare.
    static std::string times(unsigned seed, const Truth& it) {
        std::mt19937 random(seed);
        std::random_device device;
        const double unit = pow(10, device() % 4);
        const auto part = [&] { return random() / 4294967296.0; };
        const auto noise = [&] {
            double sum = -6;  // of 12 parts: nearly normal, its deviation 1
            for (int i = 0; i < 12; ++i) sum += part();
            return exp(it.noise * sum);
        };
        std::string text;
        for (int round = 0; round < it.rounds; ++round) {
            const double all = 100 * (1 + it.drift * round / it.rounds);
            double first = all * noise(), second = all * it.ratio * noise();
            if (it.outliers > 0 && round % (it.rounds / it.outliers) == 3)
                (part() < 0.5 ? first : second) *= 20 + 40 * part();
            char line[80];
            snprintf(line, sizeof line, "%.4f %.4f\n", unit * first, unit * second);
            text += line;
        }
        return text;
    }

    Said ask(const std::string& text) {
        Run::Options options;
        options.input = memfd_create("times", MFD_CLOEXEC);
        if (pwrite(options.input, text.data(), text.size(), 0) == -1) Box::fail("memfd_create");
        Said it;
        {
            Run run(stage_, options);
            run.finish();
            const std::string out = run.out();
            char word[16] = "";
            int length = -1;
            sscanf(out.c_str(), "ratio %lf from %lf to %lf: %15[a-z ]\n%n", &it.ratio, &it.low,
                   &it.high, word, &length);
            it.word = word;
            it.legible = run.why.empty() && run.status() == 0 &&
                         length == static_cast<int>(out.size()) &&
                         (it.word == "slower" || it.word == "faster" || it.word == "cannot tell");
            it.told = run.why.empty() && run.told();
            it.seen = run.seen();
        }
        close(options.input);
        stage_.clear();
        return it;
    }

    // A difference that nobody can overlook, either way round.
    bool answer() {
        for (const double ratio : {1.5, 1 / 1.5}) {
            const Said it = ask(times(1, {ratio, 0.01}));
            const std::string did = "gave it 40 rounds in which the second way takes " +
                                    std::string(ratio > 1 ? "1.5 times" : "2 thirds") +
                                    " of the first's time, all within a few percent";
            if (it.legible && fabs(it.ratio / ratio - 1) < 0.05 && it.low <= it.ratio &&
                it.ratio <= it.high && it.word == (ratio > 1 ? "slower" : "faster"))
                continue;
            stage_.lose("result",
                        {did, it.seen,
                         it.legible ? "the ratio is the second time to the first, and the word is "
                                      "said of the second"
                                    : "the line is 'ratio R from LOW to HIGH: ' and slower, faster "
                                      "or cannot tell: each character counts",
                         "yes 100 150 | head -n 40 | PROGRAM"});
            if (!it.legible) return false;
        }
        stage_.earn("result");
        return true;
    }

    // Experiments of which it has to be right in at least so many; every second is the other way
    // round.
    void decide(const std::string& id, int experiments, int least, Truth truth,
                const std::function<bool(const Said&, double)>& right, Finding finding) {
        std::string wrong;
        int were_right = 0;
        for (int seed = 1; seed <= experiments; ++seed, truth.ratio = 1 / truth.ratio) {
            const Said it = ask(times(static_cast<unsigned>(seed), truth));
            const std::string said = "; of one with ratio " + number(truth.ratio) + ": " + it.seen;
            if (!it.legible) {
                wrong = said;
                finding.means =
                    "the line, or how it ended, is not what is asked for: each "
                    "character counts";
                break;  // perhaps after a long time
            }
            if (right(it, truth.ratio))
                ++were_right;
            else
                wrong = said;
            // Four digits are printed.
            const double low = it.low - 1, high = 1 - it.high, digit = 1e-4;
            const bool agrees = it.word == "slower"   ? low > -digit
                                : it.word == "faster" ? high > -digit
                                                      : low < digit && high < digit;
            if (!agrees && id != "few")
                stage_.lose("agrees", {"compared its word with its own interval", it.seen,
                                       "slower: all of the interval is above 1; faster: below; "
                                       "cannot tell: 1 is in it",
                                       finding.command});
        }
        if (were_right >= least) return stage_.earn(id);
        finding.did = "gave it " + std::to_string(experiments) + " experiments of " +
                      std::to_string(truth.rounds) + " rounds, each time with " +
                      number(100 * truth.noise) + " % of noise" +
                      (truth.outliers > 0 ? ", some rounds with a time 20 to 60 times as long"
                       : truth.drift > 0  ? ", on a machine that becomes slower and slower"
                                          : "");
        finding.saw = "right in " + std::to_string(were_right) + wrong;
        stage_.lose(id, finding);
    }

    static std::string number(double value) {
        char text[32];
        snprintf(text, sizeof text, "%.3g", value);
        return text;
    }

    // What is no experiment.
    void refuse() {
        for (const char* text : {"", "100 110\n100\n", "100 110\nfast 110\n", "100 110\n100 0\n"}) {
            const Said it = ask(text);
            if (it.told && it.word.empty()) continue;
            return stage_.lose(
                "errors", {"gave it '" + std::string(text) + "'", it.seen,
                           "what is left out silently is missing in the result: say so on stderr, "
                           "end with status 1",
                           "printf '" + std::string(text[0] ? "100 110\\n100\\n" : "") +
                               "' | PROGRAM; echo $?"});
        }
        stage_.earn("errors");
    }

    Stage& stage_;
};

inline Lab measuring_lab() {
    return {
        8,
        "8-measuring",
        "measuring: a difference needs an interval",
        60,
        {"docs/labs/8-measuring/ours.cc"},
        {{"builds", 1, "it builds"},
         {"result", 2, "it prints the ratio, the interval and the right word where all is plain"},
         {"agrees", 1, "the word is what the interval says"},
         {"same", 4, "two ways that take the same time: it cannot tell"},
         {"found", 3, "10 % of difference in 40 rounds are found"},
         {"covers", 2, "the true ratio is in the interval"},
         {"outliers", 3, "a few interrupted rounds change nothing"},
         {"drift", 2, "a machine that becomes slower changes nothing"},
         {"few", 1, "with fewer than six rounds it cannot tell"},
         {"errors", 1, "what is no experiment is refused"}},
        [](Stage& stage) { Measuring(stage).grade(); }};
}
