#!/bin/busybox sh
# /init of the initramfs: finds the root disk and goes over to it. Containers cannot live on an initramfs: there is
# no pivot_root away from it.
/bin/busybox mount -t proc proc /proc
/bin/busybox modprobe virtio_pci
/bin/busybox modprobe virtio_blk
for _ in 1 2 3 4 5 6 7 8 9 10; do
    /bin/busybox mount -t devtmpfs dev /dev 2>/dev/null
    if /bin/busybox mount -t ext4 -o ro,noload /dev/vda /root; then break; fi
    /bin/busybox sleep 0.5
done
/bin/busybox umount /dev /proc
exec /bin/busybox switch_root /root /sbin/init
