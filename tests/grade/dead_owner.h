// Lab 5: the dead owner. A lock can outlive its owner.

#pragma once

#include "updates.h"

class DeadOwner : Updates {
  public:
    explicit DeadOwner(Stage& stage) : Updates(stage) {}

    void grade() {
        if (!count_one_after_the_other())
            return stage_.not_shown({"killed", "status"}, "there is no shared count");
        report_status();
        // The child alone executes one addition and a little more: this many instructions.
        const int length = kill_after(-1, "");
        for (int moment = 0; moment < 20 && !stage_.lost("killed"); ++moment)
            kill_after(length * moment / 20, std::to_string(moment + 1) + " of 20");
        stage_.earn("killed");
        hold_everywhere();
        run_freely();
    }

  private:
    // The child is killed before it has done anything.
    void report_status() {
        {
            Run run(stage_, options(some(300, 900)));
            if (fork_child(run)) {
                run.tracer.send(run.child(), SIGKILL);
                run.go_on(run.child());
            }
            run.finish();
            if (run.why.empty() && run.status() == 1)
                stage_.earn("status");
            else
                stage_.lose("status", {"killed the child before it counted", run.seen(),
                                       "a child that failed is told by status 1: waitpid(2) knows",
                                       "PROGRAM 1000; echo $?"});
        }
        stage_.clear();
    }

    // The parent stands, the child counts to 3, and is killed so many instructions later; then the
    // parent goes on. -1: only returns how many instructions one more addition takes.
    int kill_after(int instructions, const std::string& moment) {
        int steps = 0;
        {
            const long times = some(300, 900);
            Run run(stage_, options(instructions == -1 ? kEndless : times));
            address_ = 0;
            if (!fork_child(run)) return 0;
            Tracee* child = run.child();
            while (steps < 20000 && count(run) < 3 && step(run, child) == Went::there) ++steps;
            for (steps = 0; steps < 3000 && (instructions == -1 || steps < instructions); ++steps)
                if (step(run, child) != Went::there || (instructions == -1 && count(run) == 4))
                    break;
            if (instructions == -1) {
                run.tracer.kill_all();
                run.finish();
                return steps;
            }
            const long counted = count(run);
            run.tracer.send(child, SIGKILL);
            while (!child->ended)
                if (run.next().what == Event::over) break;
            run.finish();
            const std::string wanted = "count " + std::to_string(times + counted) + "\n";
            const std::string did = "ran it with " + std::to_string(times) +
                                    " and killed the child after " + std::to_string(counted) +
                                    " additions and " + std::to_string(instructions) +
                                    " instructions (moment " + moment + ")";
            if (!run.why.empty())
                stage_.lose("killed",
                            {did, run.why,
                             "the child died with the lock: nobody gives it back unless "
                             "the kernel does",
                             "PROGRAM 1000000000 & sleep 1; kill -9 $(pgrep -P $!); wait"});
            else if (run.out() != wanted)
                stage_.lose(
                    "killed",
                    {did, "asked for is " + wanted.substr(0, wanted.size() - 1) + "; " + run.seen(),
                     "the parent is to make its own additions and to print what the object "
                     "holds, whatever the child was doing",
                     ""});
        }
        stage_.clear();
        return steps;
    }
};

inline Lab dead_owner_lab() {
    return {
        5,
        "5-dead-owner",
        "the dead owner: a lock can outlive its owner",
        90,
        {"docs/labs/5-dead-owner/ours.cc"},
        {{"builds", 1, "it builds"},
         {"result", 2, "it prints 'count' and twice the argument when nobody disturbs anybody"},
         {"shared", 2, "there is one count, in an object that both processes share"},
         {"exact", 3, "nothing is lost, whoever is held at whatever instruction"},
         {"sleeps", 2, "who has to wait sleeps"},
         {"killed", 8, "the child is killed at 20 moments: the parent goes on, and counts right"},
         {"status", 1, "it ends with status 1 when the child was killed"},
         {"left", 1, "nothing is left"}},
        [](Stage& stage) { DeadOwner(stage).grade(); }};
}
