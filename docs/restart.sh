#!/bin/sh
# Restarts a real kernel, in a virtual machine, between `write` and `read` of the three programs:
#
#     sh docs/restart.sh orderly    the file system is unmounted before
#     sh docs/restart.sh cut        the power goes right after `write`
#     sh docs/restart.sh synced     the power goes after sync(1) of the file and its directory
#
# It needs qemu-system-x86_64, a static busybox, mke2fs, g++, and a kernel with ext4 and NVMe built
# in, as Debian's package linux-image-cloud-amd64 has it; KERNEL=FILE names another one.
# `sh docs/restart.sh check` says whether all is there.
set -eu
: "${1:?orderly, cut, synced or check}"
top=$(cd "$(dirname "$0")/.." && pwd)
kernel=${KERNEL:-$(ls /boot/vmlinuz-*cloud* 2> /dev/null | tail -n 1)}
for tool in qemu-system-x86_64 busybox mke2fs g++; do
    command -v $tool > /dev/null || { echo "restart.sh: needs $tool" >&2; exit 1; }
done
[ -r "$kernel" ] || { echo "restart.sh: needs a kernel, see the comment at its beginning" >&2; exit 1; }
[ "$1" != check ] || exit 0

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' HUP INT TERM
mkdir "$dir/root" "$dir/root/bin"
cp "$(command -v busybox)" "$dir/root/bin/busybox"
for program in shm_posix map_posix shm_v; do
    g++ -std=c++17 -static -o "$dir/root/bin/$program" "$top/$program/$program.cc" -pthread -lrt 2> "$dir/log"
done
cat > "$dir/root/init" << 'END'
#!/bin/busybox sh
export PATH=/bin
busybox mkdir -p /proc /dev /disk
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
mkdir /dev/shm
mount -t tmpfs tmpfs /dev/shm
mount -t ext4 /dev/nvme0n1 /disk
cd /disk
echo
case $what in
read) shm_posix read; map_posix read; shm_v read ;;
*) shm_posix write; map_posix write; shm_v write ;;
esac
[ $what != synced ] || sync tmp.shm .
cd /
[ $what != orderly ] || umount /disk
echo o > /proc/sysrq-trigger  # power off at once: writes nothing back [proc(5)]
sleep 60
END
chmod +x "$dir/root/init"
(cd "$dir/root" && find . | busybox cpio -o -H newc 2> "$dir/log" | gzip -1 > "$dir/initrd")
truncate -s 32M "$dir/disk"
mke2fs -q -t ext4 "$dir/disk"
for what in "$1" read; do
    qemu-system-x86_64 -accel tcg -m 256 -nographic -no-reboot -nic none \
        -kernel "$kernel" -initrd "$dir/initrd" \
        -drive "file=$dir/disk,if=none,id=disk,format=raw" -device nvme,serial=1,drive=disk \
        -append "console=ttyS0 quiet what=$what" < /dev/null 2>> "$dir/log" |
        tr -d '\r' | grep -a '^[a-zT1-9][^(]*:\|^There' || true
done
