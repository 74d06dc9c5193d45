# Runs a command where 8 MB of memory are allowed, in a memory cgroup of its own, and says how it ended:
# sh docs/cgroup.sh COMMAND... Needs root; `sh docs/cgroup.sh true` says whether it works here.
set -eu
top=/sys/fs/cgroup/memory limit=memory.limit_in_bytes  # version 1
[ ! -e /sys/fs/cgroup/cgroup.controllers ] || top=/sys/fs/cgroup limit=memory.max  # version 2
group=$top/shared-memory-$$
mkdir "$group"
trap 'rmdir "$group"' EXIT
echo 8M > "$group/$limit"
# No swap either, where it is counted: or the pages would go there.
for swap in memory.memsw.limit_in_bytes=8M memory.swap.max=0; do
    [ ! -e "$group/${swap%=*}" ] || echo "${swap#*=}" > "$group/${swap%=*}"
done
status=0
sh -c 'echo $$ > "$0/cgroup.procs"; exec "$@"' "$group" "$@" || status=$?
[ $status -le 128 ] || echo "killed by SIG$(kill -l $status)"
exit $status
