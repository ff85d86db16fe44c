"""Boxes made from the machines' own base image, so from Debian packages alone.

What only a test machine needs stands in the Vagrantfile of Vagrant's home, read before the checkout's.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

# What a fresh machine has that Vagrant can log in to, whatever its provider.
PREPARE = """set -e
useradd --create-home --shell /bin/bash vagrant
mkdir -m 0700 /home/vagrant/.ssh
cat > /home/vagrant/.ssh/authorized_keys
chown -R vagrant: /home/vagrant
echo 'vagrant ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/vagrant
cd /etc/systemd/system
mkdir ssh.service.d
printf '[Service]\\nExecStartPre=\\nExecStartPre=ssh-keygen -A\\n' > ssh.service.d/keys.conf
update-ca-certificates
"""
# eth0 alone: Vagrant gives eth1 its address, and networkd would take that away
NETWORK = """[Match]
Name=eth0

[Network]
"""


def tree(folder, image, name_servers, network):
    """A copy of the base image that is ready for Vagrant."""
    run("cp", "--archive", "--reflink=auto", image, folder)
    for authority in Path("/usr/local/share/ca-certificates").rglob("*.crt"):
        shutil.copy(authority, folder / "usr/local/share/ca-certificates")
    (folder / "etc/resolv.conf").write_text(name_servers)
    (folder / "etc/systemd/network/eth0.network").write_text(NETWORK + network)
    key = next(Path("/usr/share").glob("rubygems-integration/all/gems/vagrant-[0-9]*/keys/vagrant.pub"))
    run("chroot", folder, "sh", "-c", PREPARE, input=key.read_text())


# systemd 257 wants cgroup2 alone; vagrant-lxc looks for a control group called as the container. The link's
# address is fixed, as after a reload the old one would be looked for half a minute.
LXC_CONFIG = """lxc.apparmor.profile = unconfined
lxc.cap.drop = mac_admin mac_override sys_time sys_module
lxc.pty.max = 1024
lxc.signal.halt = SIGRTMIN+4
lxc.mount.auto = proc:mixed sys:mixed
lxc.mount.entry = cgroup2 sys/fs/cgroup cgroup2 rw,nosuid,nodev,noexec,relatime 0 0
lxc.cgroup.dir.container = {name}
lxc.cgroup.dir.monitor = {name}-monitor
lxc.net.0.type = veth
lxc.net.0.link = lxcbr0
lxc.net.0.flags = up
lxc.net.0.hwaddr = 00:16:3e:00:00:10
"""
LXC_HOME = """Vagrant.configure("2") do |config|
  config.vm.provider(:lxc) {{ |lxc| lxc.container_name = "{name}" }}
end
"""


def lxc(box, file, name):
    """Pack the tree `rootfs` of the directory `box`; what Vagrant's home says for it."""
    (box / "lxc-config").write_text(LXC_CONFIG.format(name=name))
    (box / "metadata.json").write_text(json.dumps({"provider": "lxc", "version": "1.0.0"}))
    tar = ["tar", "--create", "--numeric-owner", f"--directory={box}"]
    pack = ["--use-compress-program=gzip -1", "--exclude=./rootfs/dev/*"]
    run(*tar, *pack, f"--file={box}/rootfs.tar.gz", "./rootfs")
    run(*tar, f"--file={file}", "metadata.json", "lxc-config", "rootfs.tar.gz")
    return LXC_HOME.format(name=name)


# A kernel and what boots it; the disk has no boot loader, as QEMU is given the kernel's file.
KERNEL = ["e2fsprogs", "initramfs-tools", "linux-image-cloud-amd64"]
# (!) cx16: with it, QEMU 7.2's emulation panicked the machine's kernel in two boots of three. The disk of a
# test need not outlive its host, so nothing waits for that. The login comes after 40 s, on a busy host later.
LIBVIRT_HOME = """Vagrant.configure("2") do |config|
  config.vm.boot_timeout = 600
  config.vm.provider(:libvirt) do |it|
    it.driver = "qemu"
    it.cpu_mode, it.cpu_model = "custom", "Nehalem"
    it.cpu_feature name: "cx16", policy: "disable"
    it.disk_driver cache: "unsafe"
    it.graphics_type = it.video_type = "none"
    it.kernel, it.initrd = "{boot}/vmlinuz", "{boot}/initrd.img"
    it.cmd_line = "root=/dev/vda rw net.ifnames=0 console=ttyS0 mitigations=off quiet"
  end
end
"""
GIB = 10


def libvirt(box, file, boot, here):
    """Pack the tree `rootfs` of the directory `box` as a disk, and put its kernel into `boot`, which libvirt
    sees at `here`; what Vagrant's home says for it."""
    for name in ("vmlinuz", "initrd.img"):
        shutil.copy(next((box / "rootfs/boot").glob(f"{name}-*")), boot / name)
        (boot / name).chmod(0o644)
    disk = box / "disk"
    with disk.open("wb") as opened:
        os.truncate(opened.fileno(), GIB << 30)
    run("mkfs.ext4", "-q", "-d", box / "rootfs", disk)
    packed = ["-O", "qcow2", "-c", "-o", "compression_type=zstd"]
    run("qemu-img", "convert", *packed, disk, box / "box.img")
    form = {"provider": "libvirt", "format": "qcow2", "virtual_size": GIB}
    (box / "metadata.json").write_text(json.dumps(form))
    run("tar", "--create", f"--directory={box}", f"--file={file}", "metadata.json", "box.img")
    return LIBVIRT_HOME.format(boot=here)


def run(*command, **options):
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
