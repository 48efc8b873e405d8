#!/bin/sh
# The machine as a fresh Debian has it, but for systemd: version 2 control groups and nothing else, no module loaded
# that nobody asked for, no controller handed down.
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
ln -s /proc/self/fd /dev/fd
# What systemd makes of modules.devname: the first open loads the module.
mknod -m 660 /dev/loop-control c 10 237
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs -o mode=755 run /run
mount -t tmpfs tmp /tmp
mount -t cgroup2 -o nsdelegate,memory_recursiveprot cgroup2 /sys/fs/cgroup
mount -t ext4 /dev/vdb /data
ip link set lo up
hostname vm
mkdir -p /data/tmp
