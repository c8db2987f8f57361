/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What of QEMU's command line a guest on a space may have, in each spelling.
 */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "cli/vm_allow.h"
#include "cli/vm_args.h"

static struct vm_args args;
static struct errmsg em;
static struct vm_host host;

/* Read words divided by blanks.  Returns what vm_args_read() does. */
static int read_line(const char *line)
{
	AUTO_FREE char *copy = strdup(line);
	char *v[32], *save = NULL;
	int n = 0;

	for (char *t = strtok_r(copy, " ", &save); t;
	     t = strtok_r(NULL, " ", &save))
		v[n++] = t;
	return vm_args_read(n, v, &host, &args, &em);
}

/* What is refused of a line: the arguments, divided by ';'.  "" is nothing. */
static const char *refused(const char *line)
{
	static char result[4096];
	size_t at = 0;

	if (read_line(line) < 0)
		return "EINVAL";
	result[0] = '\0';
	for (size_t i = 0; i < args.n_refusals; i++) {
		const struct vm_refusal *r = &args.refusal[i];

		assert_true(r->why[0] != '\0');
		at += (size_t)snprintf(result + at, sizeof(result) - at, "%s%s",
		                       i > 0 ? ";" : "", r->what);
	}
	return result;
}

#define allows(line)  assert_string_equal(refused(line), "")
#define refuses(line) assert_string_equal(refused(line), line)

static void an_ordinary_guest_is_let_through(void **state)
{
	(void)state;
	allows("");
	allows("-m 512 -nographic -kernel k -initrd i -append console=ttyS0");
	allows("-machine q35,accel=kvm:tcg -cpu max,svm=off -smp 4");
	allows("--machine q35 --nodefaults --serial stdio");
	allows("-drive file=a.qcow2,if=virtio,cache=writeback,aio=threads");
	allows("-drive file=a.img,format=raw,cache=unsafe,aio=io_uring");
	allows("-drive if=pflash,format=raw,readonly=on,file=OVMF.fd");
	allows("-blockdev driver=qcow2,node-name=d,file.driver=file,"
	       "file.filename=a,,b,cache.direct=off");
	allows("-blockdev {\"driver\":\"nbd\",\"node-name\":\"d\",\"server\":"
	       "{\"type\":\"unix\",\"path\":\"s\"},"
	       "\"cache\":{\"direct\":false,\"no-flush\":true}}");
	allows("-device virtio-blk-pci,drive=d,scsi=off");
	allows("-device {\"driver\":\"virtio-net-pci\",\"netdev\":\"n\"}");
	allows("-device virtio-balloon-pci,free-page-reporting=on");
	allows("-device virtio-blk-pci-non-transitional -device virtio-rng");
	allows("-device vhost-vsock-pci,guest-cid=3 -device help");
	allows("-netdev user,id=n -netdev tap,id=t,vhost=on,ifname=t0");
	allows("-netdev bridge,id=b,br=b0 -netdev socket,id=s,connect=:1");
	allows("-netdev stream,id=x,server=on,addr.type=unix,addr.path=p");
	allows("-nic user,model=virtio-net-pci -nic none -net nic -net user");
	allows("-hda a.img -cdrom b.iso -pflash c -fda d disk.img");
	allows("-hda nbd://host/x -cdrom https://host/x.iso");
	allows("-object iothread,id=t -object rng-random,id=r,filename=f");
	allows("-overcommit mem-lock=off,cpu-pm=on -enable-kvm -snapshot");
	allows("-bios b -L d -boot c -rtc base=utc -monitor none -S -s");
	allows("-global virtio-blk-pci.scsi=off -virtfs local,path=/,x=y");
}

static void devices_that_pin_or_share_are_refused(void **state)
{
	(void)state;
	refuses("-device vfio-pci");
	refuses("-device vfio-pci-nohotplug");
	refuses("-device vhost-user-fs-pci");
	refuses("-device vhost-user-blk-pci-non-transitional");
	refuses("-device vhost-user-something-new");
	refuses("-device vhost-scsi-pci");
	refuses("-device vhost-vdpa-device-pci");
	refuses("-device scsi-generic");
	refuses("-device scsi-block");
	refuses("-device pvrdma");
	refuses("-device pc-dimm");
	refuses("-device nvdimm");
	refuses("-device virtio-mem-pci");
	refuses("-device virtio-gpu-gl-pci");
	refuses("-device ivshmem-plain");
	assert_string_equal(refused("-device vfio-pci,host=01:00.0"),
	                    "-device vfio-pci");
	assert_string_equal(refused("--device driver=vfio-pci"),
	                    "--device vfio-pci");
	assert_string_equal(refused("-device id=x,driver=vfio-pci"),
	                    "-device vfio-pci");
	assert_string_equal(refused("-device {\"driver\":\"vfio-pci\"}"),
	                    "-device vfio-pci");
	/* The first and the last are looked at, whichever QEMU takes. */
	assert_string_equal(refused("-device vfio-pci,driver=e1000"),
	                    "-device vfio-pci");
	assert_string_equal(refused("-device e1000,driver=vfio-pci"),
	                    "-device vfio-pci");
}

static void what_is_on_no_list_is_refused(void **state)
{
	(void)state;
	refuses("-device dma-engine-of-next-year");
	refuses("-object thing-of-next-year");
	refuses("-netdev af-xdp");
	refuses("-blockdev driver=blkio");
	refuses("-accel accel=xen");
	refuses("-option-of-next-year");
	refuses("-device id=x");
	assert_string_equal(refused("-machine xenfv"), "-machine type=xenfv");
}

static void properties_that_pin_are_refused(void **state)
{
	(void)state;
	assert_string_equal(refused("-device virtio-blk-pci,scsi=on"),
	                    "-device scsi=on");
	assert_string_equal(refused("-device virtio-blk-pci,scsi"),
	                    "-device scsi=on");
	assert_string_equal(
		refused("-device {\"driver\":\"virtio-gpu\",\"blob\":true}"),
		"-device blob=on");
	refuses("-global virtio-blk-pci.scsi=on");
	refuses("-global virtio-gpu-pci.blob=on");
	refuses("-global memory-backend-file.merge=on");
}

static void a_global_is_refused_where_it_cannot_be_read(void **state)
{
	(void)state;
	refuses("-global driver=virtio-blk-pci,property=scsi,value=on");
	refuses("-global nonsense");
}

static void direct_io_is_refused_in_each_spelling(void **state)
{
	(void)state;
	refuses("-drive cache=none");
	refuses("-drive cache=off");
	refuses("-drive cache=directsync");
	refuses("-drive cache=of-next-year");
	refuses("-drive cache.direct=on");
	refuses("-drive cache.direct=yes");
	refuses("-drive file.cache.direct=on");
	refuses("-blockdev cache.direct=on");
	refuses("-blockdev file.cache.direct=true");
	refuses("-drive aio=native");
	refuses("-drive file.aio=native");
	assert_string_equal(refused("-drive file=a,if=none,cache=none,id=x"),
	                    "-drive cache=none");
	assert_string_equal(refused("-drive cache.direct,file=a"),
	                    "-drive cache.direct=on");
	assert_string_equal(refused("-blockdev {\"cache\":{\"direct\":true}}"),
	                    "-blockdev cache.direct=on");
	assert_string_equal(refused("-blockdev {\"file\":{\"driver\":\"file\","
	                            "\"cache\":{\"direct\":true}}}"),
	                    "-blockdev file.cache.direct=on");
	assert_string_equal(
		refused("-drive file=json:{\"cache\":{\"direct\":true}}"),
		"-drive file.cache.direct=on");
	assert_string_equal(
		refused("-hda json:{\"file\":{\"aio\":\"native\"}}"),
		"-hda file.file.aio=native");
	assert_string_equal(refused("json:{\"cache\":{\"direct\":true}}"),
	                    "file.cache.direct=on");
}

static void disks_that_pin_are_refused(void **state)
{
	(void)state;
	refuses("-drive file=nvme://0000:01:00.0/1");
	refuses("-drive driver=nvme");
	refuses("-drive format=nvme");
	refuses("-drive file.driver=nvme");
	refuses("-blockdev driver=nvme");
	refuses("-blockdev file.driver=virtio-blk-vhost-vdpa");
	refuses("-blockdev transport=iser");
	refuses("-drive file=iser://host/target/1");
	refuses("-drive file=gluster+rdma://host/volume/x");
	refuses("-drive file=blkdebug::nvme://0000:01:00.0/1");
	assert_string_equal(refused("-hda nvme://0000:01:00.0/1"),
	                    "-hda file=nvme://0000:01:00.0/1");
	assert_string_equal(refused("nvme://0000:01:00.0/1"),
	                    "file=nvme://0000:01:00.0/1");
	assert_string_equal(
		refused("-blockdev {\"driver\":\"raw\",\"file\":{\"driver\":"
	                "\"nvme\",\"device\":\"0000:01:00.0\"}}"),
		"-blockdev file.driver=nvme");
	/* A colon behind a slash is no protocol. */
	allows("-drive file=/dev/disk/by-path/pci-0000:01:00.0");
	allows("-drive file=./nvme:x");
}

static void networks_of_other_processes_are_refused(void **state)
{
	(void)state;
	refuses("-netdev vhost-user");
	refuses("-netdev vhost-vdpa");
	assert_string_equal(refused("-netdev type=vhost-user,id=n,chardev=c"),
	                    "-netdev vhost-user");
	assert_string_equal(refused("-netdev {\"type\":\"vhost-user\"}"),
	                    "-netdev vhost-user");
	assert_string_equal(refused("-nic vhost-user,chardev=c"),
	                    "-nic vhost-user");
	assert_string_equal(refused("-nic user,model=pvrdma"),
	                    "-nic model=pvrdma");
}

static void other_memory_is_refused(void **state)
{
	(void)state;
	refuses("-mem-prealloc");
	refuses("-mem-path /dev/hugepages");
	refuses("-object memory-backend-ram");
	refuses("-object memory-backend-memfd");
	refuses("-object memory-backend-file");
	refuses("-overcommit mem-lock=on");
	refuses("-numa node,memdev=m");
	refuses("-m slots=2");
	refuses("-m maxmem=4G");
	refuses("-object sev-guest");
	refuses("-machine memory-encryption=sev0");
	refuses("-machine confidential-guest-support=sev0");
	assert_string_equal(
		refused("-object {\"qom-type\":\"memory-backend-ram\"}"),
		"-object memory-backend-ram");
	assert_string_equal(refused("-m 1G,slots=2,maxmem=4G"),
	                    "-m slots=2;-m maxmem=4G");
}

static void there_is_no_insisting_on_another_backend(void **state)
{
	(void)state;
	refuses("-machine memory-backend=m");
	assert_true(args.refusal[0].always);
	refuses("-machine memory.size=1G");
	assert_true(args.refusal[0].always);
	refuses("-mem-prealloc");
	assert_false(args.refusal[0].always);
}

static void what_cannot_be_checked_is_refused(void **state)
{
	(void)state;
	refuses("-readconfig file");
	refuses("-set device.x.y=z");
	refuses("-add-fd fd=3,set=1");
	refuses("-plugin p.so");
	refuses("-preconfig");
	refuses("-incoming defer");
	refuses("-daemonize");
	refuses("-device {'driver':'e1000'}");
	refuses("-blockdev {");
}

static void nesting_is_refused_under_kvm_alone(void **state)
{
	(void)state;
	assert_string_equal(refused("-enable-kvm -cpu Haswell,+vmx"),
	                    "-cpu vmx=on");
	assert_string_equal(refused("-accel kvm -cpu Haswell,vmx=on"),
	                    "-cpu vmx=on");
	assert_string_equal(refused("-cpu Haswell,vmx -machine accel=kvm"),
	                    "-cpu vmx=on");
	assert_string_equal(refused("-enable-kvm -cpu EPYC,+svm"),
	                    "-cpu svm=on");
	allows("-cpu Haswell,+vmx");
	allows("-enable-kvm -cpu Haswell,-vmx");
	allows("-enable-kvm -cpu host");
	host.vmx_nested = true;
	assert_string_equal(refused("-enable-kvm -cpu host"), "-cpu host");
	assert_string_equal(refused("-enable-kvm -cpu max,+x"), "-cpu host");
	allows("-enable-kvm -cpu host,vmx=off");
	allows("-enable-kvm -cpu host,-vmx");
	allows("-enable-kvm -cpu Haswell");
	allows("-enable-kvm");
	allows("-cpu max");
	host = (struct vm_host){ .svm_nested = true };
	assert_string_equal(refused("-accel kvm -cpu host"), "-cpu host");
	allows("-accel kvm -cpu host,svm=off");
	host.svm_nested = false;
}

static void memory_and_processors_are_read(void **state)
{
	(void)state;
	allows("");
	assert_int_equal(args.ram_bytes, 0);
	assert_int_equal(args.cpus, 1);
	assert_string_equal(args.machine, "");
	allows("-m 512 -smp 4 -M q35");
	assert_int_equal(args.ram_bytes, 512ll << 20);
	assert_int_equal(args.cpus, 4);
	assert_string_equal(args.machine, "q35");
	assert_false(args.kvm);
	allows("-m size=2G -smp cpus=2,maxcpus=8 -machine type=pc-q35-5.0");
	assert_int_equal(args.ram_bytes, 2ll << 30);
	assert_int_equal(args.cpus, 8);
	assert_string_equal(args.machine, "pc-q35-5.0");
	allows("-smp sockets=2,cores=3,threads=2 -accel kvm");
	assert_int_equal(args.cpus, 12);
	assert_true(args.kvm);
	/* The last -machine that names a type. */
	allows("-machine q35 -machine hmat=on");
	assert_string_equal(args.machine, "q35");
}

static void what_is_no_command_line_is_an_error(void **state)
{
	(void)state;
	assert_int_equal(read_line("-kernel"), -EINVAL);
	assert_string_equal(em.text, "-kernel: a value must follow");
	assert_int_equal(read_line("-m x"), -EINVAL);
	assert_int_equal(read_line("-m 0"), -EINVAL);
	assert_int_equal(read_line("-smp x"), -EINVAL);
	assert_int_equal(read_line("-smp 0"), -EINVAL);
	assert_int_equal(read_line("-smp 1000000"), -EINVAL);
}

static void a_value_is_no_option(void **state)
{
	(void)state;
	allows("-append -daemonize -kernel -mem-prealloc");
	/* What follows an unknown option may be its value, or a disk. */
	refuses("-option-of-next-year");
	assert_string_equal(refused("-next-year value -device vfio-pci"),
	                    "-next-year;-device vfio-pci");
}

static void refusals_that_have_no_room_are_counted(void **state)
{
	char line[1024] = "";

	(void)state;
	for (unsigned i = 0; i < VM_REFUSALS_MAX + 3; i++)
		strcat(line, "-daemonize ");
	assert_int_equal(read_line(line), 0);
	assert_int_equal(args.n_refusals, VM_REFUSALS_MAX + 3);
	assert_string_equal(args.refusal[VM_REFUSALS_MAX - 1].what,
	                    "-daemonize");
}

static void long_names_are_cut_in_messages_alone(void **state)
{
	AUTO_FREE char *line = malloc(4096);

	(void)state;
	memset(line, 'x', 4095);
	line[4095] = '\0';
	memcpy(line, "-device ", 8);
	assert_int_equal(read_line(line), 0);
	assert_int_equal(args.n_refusals, 1);
	assert_true(strlen(args.refusal[0].what) <
	            sizeof(args.refusal[0].what));
}

static void each_family_ends_with_a_rule_for_the_rest(void **state)
{
	(void)state;
	for (int f = VM_DEVICE; f <= VM_MACHINE; f++) {
		const struct vm_rule *rule =
			vm_allow((enum vm_family)f, "no-such-thing");

		assert_string_equal(rule->name, "*");
		assert_non_null(rule->why);
	}
}

static void no_option_is_named_twice(void **state)
{
	const char *name;
	bool value;

	(void)state;
	for (size_t i = 0; (name = vm_args_option(i, &value)); i++) {
		assert_true(name[0] != '-');
		for (size_t j = 0; j < i; j++)
			assert_string_not_equal(vm_args_option(j, &value),
			                        name);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_ordinary_guest_is_let_through),
		cmocka_unit_test(devices_that_pin_or_share_are_refused),
		cmocka_unit_test(what_is_on_no_list_is_refused),
		cmocka_unit_test(properties_that_pin_are_refused),
		cmocka_unit_test(a_global_is_refused_where_it_cannot_be_read),
		cmocka_unit_test(direct_io_is_refused_in_each_spelling),
		cmocka_unit_test(disks_that_pin_are_refused),
		cmocka_unit_test(networks_of_other_processes_are_refused),
		cmocka_unit_test(other_memory_is_refused),
		cmocka_unit_test(there_is_no_insisting_on_another_backend),
		cmocka_unit_test(what_cannot_be_checked_is_refused),
		cmocka_unit_test(nesting_is_refused_under_kvm_alone),
		cmocka_unit_test(memory_and_processors_are_read),
		cmocka_unit_test(what_is_no_command_line_is_an_error),
		cmocka_unit_test(a_value_is_no_option),
		cmocka_unit_test(refusals_that_have_no_room_are_counted),
		cmocka_unit_test(long_names_are_cut_in_messages_alone),
		cmocka_unit_test(each_family_ends_with_a_rule_for_the_rest),
		cmocka_unit_test(no_option_is_named_twice),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
