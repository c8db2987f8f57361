/* SPDX-License-Identifier: Apache-2.0 */

#include "cli/vm_allow.h"

#include <fnmatch.h>
#include <stdio.h>
#include <string.h>

const char vm_why_pin[] = "it holds guest pages by reference, and what it "
			  "writes to a page that has moved is lost";
const char vm_why_map[] = "another process would map the guest's memory "
			  "unserved, and read zeros for pages that are "
			  "elsewhere";
const char vm_why_ram[] = "the guest's memory is the space, and no other";
const char vm_why_fill[] = "it fills or locks all of the guest's memory at "
			   "once";
const char vm_why_unseen[] = "what it brings in cannot be checked";
const char vm_why_unknown[] = "it is not among those that are known to work";

#define ALLOWED NULL, NULL
#define SIZE    "give the size with --memory"

/*
 * Devices that QEMU emulates: all they do to guest memory they do through
 * QEMU's mapping.  Variants of virtio devices are cut to their stem first.
 */
static const struct vm_rule devices[] = {
	{ "vfio-*", vm_why_pin, "an emulated or virtio device" },
	{ "vhost-user-fs", vm_why_map, "-virtfs, or a block device" },
	{ "vhost-user-blk", vm_why_map, "virtio-blk with -blockdev" },
	{ "vhost-user-scsi", vm_why_map, "virtio-scsi with scsi-hd" },
	{ "vhost-user-vsock", vm_why_map, "vhost-vsock" },
	{ "vhost-user-rng", vm_why_map, "virtio-rng" },
	{ "vhost-user-gpu", vm_why_map, "virtio-gpu" },
	{ "vhost-user-vga", vm_why_map, "virtio-vga" },
	{ "vhost-user-*", vm_why_map, "a device that QEMU emulates" },
	{ "vhost-scsi", vm_why_pin, "virtio-scsi with scsi-hd" },
	{ "vhost-vdpa*", vm_why_pin, "virtio-net with -netdev tap" },
	{ "scsi-generic", vm_why_pin, "scsi-hd" },
	{ "scsi-block", vm_why_pin, "scsi-hd" },
	{ "pvrdma", vm_why_pin, "virtio-net" },
	{ "x-pci-proxy-dev", vm_why_map, "a device that QEMU emulates" },
	{ "virtio-gpu-gl", vm_why_pin, "virtio-gpu" },
	{ "virtio-gpu-rutabaga", vm_why_pin, "virtio-gpu" },
	{ "virtio-vga-gl", vm_why_pin, "virtio-vga" },
	{ "pc-dimm", vm_why_ram, SIZE },
	{ "nvdimm", vm_why_ram, SIZE },
	{ "virtio-mem", vm_why_ram, SIZE ", and virtio-balloon to shrink" },
	{ "virtio-pmem", vm_why_ram, SIZE },
	{ "cxl-type3", vm_why_ram, SIZE },
	{ "ivshmem-*", vm_why_ram, "virtio-serial or a network" },
	/* Buses and bridges. */
	{ "ioh3420", ALLOWED },
	{ "i82801b11-bridge", ALLOWED },
	{ "pci-bridge", ALLOWED },
	{ "pci-bridge-seat", ALLOWED },
	{ "pcie-pci-bridge", ALLOWED },
	{ "pcie-root-port", ALLOWED },
	{ "pxb", ALLOWED },
	{ "pxb-pcie", ALLOWED },
	{ "x3130-upstream", ALLOWED },
	{ "xio3130-downstream", ALLOWED },
	{ "usb-hub", ALLOWED },
	{ "ich9-usb-*", ALLOWED },
	{ "nec-usb-xhci", ALLOWED },
	{ "qemu-xhci", ALLOWED },
	{ "pci-ohci", ALLOWED },
	{ "piix3-usb-uhci", ALLOWED },
	{ "piix4-usb-uhci", ALLOWED },
	{ "usb-ehci", ALLOWED },
	{ "intel-iommu", ALLOWED },
	{ "amd-iommu", ALLOWED },
	{ "virtio-iommu", ALLOWED },
	/* Disks; what lies behind them is judged with -drive and -blockdev. */
	{ "virtio-blk", ALLOWED },
	{ "virtio-scsi", ALLOWED },
	{ "scsi-hd", ALLOWED },
	{ "scsi-cd", ALLOWED },
	{ "ide-hd", ALLOWED },
	{ "ide-cd", ALLOWED },
	{ "ahci", ALLOWED },
	{ "ich9-ahci", ALLOWED },
	{ "piix[34]-ide", ALLOWED },
	{ "isa-ide", ALLOWED },
	{ "isa-fdc", ALLOWED },
	{ "floppy", ALLOWED },
	{ "nvme", ALLOWED },
	{ "nvme-ns", ALLOWED },
	{ "nvme-subsys", ALLOWED },
	{ "am53c974", ALLOWED },
	{ "dc390", ALLOWED },
	{ "lsi", ALLOWED },
	{ "lsi53c8*", ALLOWED },
	{ "megasas", ALLOWED },
	{ "megasas-gen2", ALLOWED },
	{ "mptsas1068", ALLOWED },
	{ "pvscsi", ALLOWED },
	{ "sd-card", ALLOWED },
	{ "sdhci-pci", ALLOWED },
	{ "usb-bot", ALLOWED },
	{ "usb-storage", ALLOWED },
	{ "usb-uas", ALLOWED },
	{ "usb-mtp", ALLOWED },
	{ "virtio-9p", ALLOWED },
	/* Networks and talk. */
	{ "virtio-net", ALLOWED },
	{ "e1000", ALLOWED },
	{ "e1000-8254*", ALLOWED },
	{ "e1000e", ALLOWED },
	{ "igb", ALLOWED },
	{ "i8255*", ALLOWED },
	{ "i82562", ALLOWED },
	{ "i82801", ALLOWED },
	{ "ne2k_isa", ALLOWED },
	{ "ne2k_pci", ALLOWED },
	{ "pcnet", ALLOWED },
	{ "rtl8139", ALLOWED },
	{ "tulip", ALLOWED },
	{ "usb-net", ALLOWED },
	{ "vmxnet3", ALLOWED },
	/* In the kernel, on QEMU's address space: faults are served. */
	{ "vhost-vsock", ALLOWED },
	{ "virtio-serial", ALLOWED },
	{ "virtconsole", ALLOWED },
	{ "virtserialport", ALLOWED },
	{ "isa-serial", ALLOWED },
	{ "isa-parallel", ALLOWED },
	{ "pci-serial*", ALLOWED },
	{ "usb-serial", ALLOWED },
	{ "isa-debugcon", ALLOWED },
	{ "isa-debug-exit", ALLOWED },
	/* People. */
	{ "VGA", ALLOWED },
	{ "cirrus-vga", ALLOWED },
	{ "isa-cirrus-vga", ALLOWED },
	{ "isa-vga", ALLOWED },
	{ "secondary-vga", ALLOWED },
	{ "bochs-display", ALLOWED },
	{ "ati-vga", ALLOWED },
	{ "ramfb", ALLOWED },
	{ "qxl", ALLOWED },
	{ "qxl-vga", ALLOWED },
	{ "vmware-svga", ALLOWED },
	{ "virtio-gpu", ALLOWED },
	{ "virtio-vga", ALLOWED },
	{ "virtio-keyboard", ALLOWED },
	{ "virtio-mouse", ALLOWED },
	{ "virtio-tablet", ALLOWED },
	{ "virtio-input-host", ALLOWED },
	{ "i8042", ALLOWED },
	{ "vmmouse", ALLOWED },
	{ "usb-kbd", ALLOWED },
	{ "usb-mouse", ALLOWED },
	{ "usb-tablet", ALLOWED },
	{ "usb-wacom-tablet", ALLOWED },
	{ "usb-ccid", ALLOWED },
	{ "ccid-card-*", ALLOWED },
	{ "u2f-passthru", ALLOWED },
	{ "usb-redir", ALLOWED },
	{ "usb-host", ALLOWED }, /* usbfs copies from buffers of its own */
	{ "AC97", ALLOWED },
	{ "ES1370", ALLOWED },
	{ "adlib", ALLOWED },
	{ "cs4231a", ALLOWED },
	{ "gus", ALLOWED },
	{ "sb16", ALLOWED },
	{ "hda-duplex", ALLOWED },
	{ "hda-micro", ALLOWED },
	{ "hda-output", ALLOWED },
	{ "intel-hda", ALLOWED },
	{ "ich9-intel-hda", ALLOWED },
	{ "usb-audio", ALLOWED },
	/* The machine itself. */
	{ "virtio-balloon", ALLOWED },
	{ "virtio-rng", ALLOWED },
	{ "virtio-crypto", ALLOWED },
	{ "loader", ALLOWED },
	{ "guest-loader", ALLOWED },
	{ "pvpanic", ALLOWED },
	{ "pvpanic-pci", ALLOWED },
	{ "vmcoreinfo", ALLOWED },
	{ "vmgenid", ALLOWED },
	{ "tpm-crb", ALLOWED },
	{ "tpm-tis", ALLOWED },
	{ "i6300esb", ALLOWED },
	{ "ib700", ALLOWED },
	{ "isa-applesmc", ALLOWED },
	{ "mc146818rtc", ALLOWED },
	{ "edu", ALLOWED },
	{ "*", vm_why_unknown, "a device of memspan-vm(1)'s list" },
};

static const struct vm_rule objects[] = {
	{ "memory-backend-*", vm_why_ram, SIZE },
	{ "cryptodev-vhost-user", vm_why_map, "cryptodev-backend-builtin" },
	{ "sev-*", vm_why_pin, NULL },
	{ "tdx-*", vm_why_pin, NULL },
	{ "x-remote-object", vm_why_map, NULL },
	{ "pr-manager-helper", vm_why_pin, "scsi-hd" },
	{ "authz-*", ALLOWED },
	{ "can-bus", ALLOWED },
	{ "colo-compare", ALLOWED },
	{ "cryptodev-backend-builtin", ALLOWED },
	{ "filter-*", ALLOWED },
	{ "input-*", ALLOWED },
	{ "iothread", ALLOWED },
	{ "main-loop", ALLOWED },
	{ "rng-*", ALLOWED },
	{ "secret", ALLOWED },
	{ "secret_keyring", ALLOWED },
	{ "throttle-group", ALLOWED },
	{ "tls-*", ALLOWED },
	{ "*", vm_why_unknown, NULL },
};

static const struct vm_rule netdevs[] = {
	{ "vhost-user", vm_why_map, "tap, with vhost=on if you like" },
	{ "vhost-vdpa", vm_why_pin, "tap, with vhost=on if you like" },
	{ "user", ALLOWED },
	{ "tap", ALLOWED },
	{ "bridge", ALLOWED },
	{ "socket", ALLOWED },
	{ "stream", ALLOWED },
	{ "dgram", ALLOWED },
	{ "hubport", ALLOWED },
	{ "l2tpv3", ALLOWED },
	{ "vde", ALLOWED },
	{ "none", ALLOWED },
	{ "nic", ALLOWED }, /* of -net: the guest's side */
	{ "*", vm_why_unknown, "user, tap, bridge, stream or dgram" },
};

/* Each of them reads and writes guest memory from QEMU's own threads. */
static const struct vm_rule block_drivers[] = {
	{ "nvme", vm_why_pin, "the disk as a file or block device" },
	{ "nvme-io_uring", vm_why_pin, "host_device" },
	{ "virtio-blk-v*", vm_why_pin, "host_device" },
	{ "io_uring", vm_why_pin, "file with aio=io_uring" },
	{ "iser", vm_why_pin, "iscsi" },
	{ "file", ALLOWED },
	{ "host_device", ALLOWED },
	{ "host_cdrom", ALLOWED },
	{ "raw", ALLOWED },
	{ "qcow", ALLOWED },
	{ "qcow2", ALLOWED },
	{ "qed", ALLOWED },
	{ "vmdk", ALLOWED },
	{ "vdi", ALLOWED },
	{ "vhdx", ALLOWED },
	{ "vpc", ALLOWED },
	{ "vvfat", ALLOWED },
	{ "parallels", ALLOWED },
	{ "bochs", ALLOWED },
	{ "cloop", ALLOWED },
	{ "dmg", ALLOWED },
	{ "luks", ALLOWED },
	{ "nbd", ALLOWED },
	{ "http", ALLOWED },
	{ "https", ALLOWED },
	{ "ftp", ALLOWED },
	{ "ftps", ALLOWED },
	{ "ssh", ALLOWED },
	{ "iscsi", ALLOWED },
	{ "nfs", ALLOWED },
	{ "rbd", ALLOWED },
	{ "gluster", ALLOWED },
	{ "null-co", ALLOWED },
	{ "null-aio", ALLOWED },
	{ "throttle", ALLOWED },
	{ "quorum", ALLOWED },
	{ "blkdebug", ALLOWED },
	{ "blklogwrites", ALLOWED },
	{ "blkreplay", ALLOWED },
	{ "blkverify", ALLOWED },
	{ "compress", ALLOWED },
	{ "copy-before-write", ALLOWED },
	{ "copy-on-read", ALLOWED },
	{ "preallocate", ALLOWED },
	{ "replication", ALLOWED },
	{ "snapshot-access", ALLOWED },
	{ "*", vm_why_unknown, "raw or qcow2 on file, host_device or nbd" },
};

static const struct vm_rule protocols[] = {
	{ "nvme", vm_why_pin, "the disk as a file or block device" },
	{ "iser", vm_why_pin, "iscsi:" },
	{ "gluster+rdma", vm_why_pin, "gluster:" },
	{ "json", ALLOWED }, /* what it holds is judged by itself */
	{ "file", ALLOWED },
	{ "fat", ALLOWED },
	{ "host_device", ALLOWED },
	{ "host_cdrom", ALLOWED },
	{ "nbd", ALLOWED },
	{ "nbd+*", ALLOWED },
	{ "http", ALLOWED },
	{ "https", ALLOWED },
	{ "ftp", ALLOWED },
	{ "ftps", ALLOWED },
	{ "ssh", ALLOWED },
	{ "iscsi", ALLOWED },
	{ "nfs", ALLOWED },
	{ "rbd", ALLOWED },
	{ "gluster", ALLOWED },
	{ "gluster+tcp", ALLOWED },
	{ "gluster+unix", ALLOWED },
	{ "null-co", ALLOWED },
	{ "null-aio", ALLOWED },
	{ "*", vm_why_unknown, "-blockdev, which names each driver" },
};

/* "off" is an old name of "none". */
static const struct vm_rule caches[] = {
	{ "writeback", ALLOWED },
	{ "writethrough", ALLOWED },
	{ "unsafe", ALLOWED },
	{ "*", vm_why_pin, "cache=writeback, the default" },
};

/* QEMU's io_uring reads and writes by READV and WRITEV and registers no
 * buffers, so that without O_DIRECT nothing is pinned. */
static const struct vm_rule aios[] = {
	{ "threads", ALLOWED },
	{ "io_uring", ALLOWED },
	{ "*", vm_why_pin, "aio=threads, the default, or aio=io_uring" },
};

static const struct vm_rule accels[] = {
	{ "kvm", ALLOWED },
	{ "tcg", ALLOWED },
	{ "*", vm_why_unknown, "kvm or tcg" },
};

static const struct vm_rule machines[] = {
	{ "x-remote", vm_why_map, "pc or q35" },
	{ "pc", ALLOWED },
	{ "pc-*", ALLOWED },
	{ "q35", ALLOWED },
	{ "microvm", ALLOWED },
	{ "isapc", ALLOWED },
	{ "none", ALLOWED },
	{ "*", vm_why_unknown, "pc or q35" },
};

static const struct {
	const struct vm_rule *v;
	size_t n;
} families[] = {
#define FAMILY(table)                    \
	{                                \
		table, ARRAY_SIZE(table) \
	}
	[VM_DEVICE] = FAMILY(devices),     [VM_OBJECT] = FAMILY(objects),
	[VM_NETDEV] = FAMILY(netdevs),     [VM_BLOCK] = FAMILY(block_drivers),
	[VM_PROTOCOL] = FAMILY(protocols), [VM_CACHE] = FAMILY(caches),
	[VM_AIO] = FAMILY(aios),           [VM_ACCEL] = FAMILY(accels),
	[VM_MACHINE] = FAMILY(machines),
};

/* virtio-blk of virtio-blk-pci-non-transitional, and the like. */
static void cut_bus(const char *name, char *buf, size_t bytes)
{
	static const char *const tails[] = {
		"-pci-non-transitional",
		"-pci-transitional",
		"-pci",
		"-device",
	};
	size_t n = strnlen(name, bytes - 1);

	memcpy(buf, name, n);
	buf[n] = '\0';
	/* Of others "-pci" is a part of the name: sdhci-pci. */
	if (strncmp(buf, "virtio-", 7) != 0 && strncmp(buf, "vhost-", 6) != 0)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(tails); i++) {
		size_t t = strlen(tails[i]);

		if (n > t && strcmp(buf + n - t, tails[i]) == 0) {
			buf[n - t] = '\0';
			return;
		}
	}
}

const struct vm_rule *vm_allow(enum vm_family family, const char *name)
{
	const struct vm_rule *rule = families[family].v;
	char stem[128];

	snprintf(stem, sizeof(stem), "%s", name);
	if (family == VM_DEVICE)
		cut_bus(name, stem, sizeof(stem));
	/* The last one is "*", which matches whatever is left. */
	while (fnmatch(rule->name, stem, 0) != 0)
		rule++;
	return rule;
}

const struct vm_rule *vm_allow_property(const char *key)
{
	static const struct vm_rule rules[] = {
		/* SG_IO of a host's disk. */
		{ "scsi", vm_why_pin, "virtio-scsi with scsi-hd" },
		/* Of virtio-gpu: a udmabuf of guest pages. */
		{ "blob", vm_why_pin, "it left out" },
		{ "memdev", vm_why_ram, SIZE },
		{ "pmrdev", vm_why_ram, SIZE },
		{ "hostmem", vm_why_pin, "it left out" },
		{ "prealloc", vm_why_fill, "it left out" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rules); i++)
		if (strcmp(rules[i].name, key) == 0)
			return &rules[i];
	return NULL;
}
