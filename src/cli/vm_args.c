/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of options says of each whether a value follows, or all that
 * stands behind an unknown word would be read wrongly; so a word that it lacks
 * is refused, like a device that is on no list.
 */

#include "cli/vm_args.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "cli/vm_allow.h"
#include "cli/vm_text.h"

/* Whether a feature of the CPU was named. */
enum wish { UNSAID, ON, OFF };

struct reader {
	struct vm_args *args;
	struct errmsg *em;
	const char *option;    /* the one that is being read, "-device" */
	bool cpu_of_host;      /* -cpu host, or max, which is that with KVM */
	enum wish vmx, svm;    /* what -cpu says of them */
	struct vm_pairs *pair; /* of the option that is being read */
};

static const char why_nested[] =
	"KVM holds pages of a guest within the guest by reference, and writes "
	"to them are lost when they move";
static const char why_postcopy[] =
	"a migration may want a userfaultfd of its own on the guest's memory";
static const char why_fork[] =
	"memspan waits for QEMU's end, and this one ends at once";
static const char why_linger[] =
	"the guest's memory would stay mapped when QEMU has ended";
static const char why_numa[] =
	"its nodes would need memory of their own, and the guest's is the "
	"space";

/* --- refusals ------------------------------------------------------------ */

static struct vm_refusal *refuse(struct reader *r, const char *why,
                                 const char *instead, const char *fmt, ...)
	PRINTF_LIKE(4, 5);

/* Note a refusal; its place is returned, one too many shares the last. */
static struct vm_refusal *refuse(struct reader *r, const char *why,
                                 const char *instead, const char *fmt, ...)
{
	size_t i = min_u64(r->args->n_refusals++, VM_REFUSALS_MAX - 1);
	struct vm_refusal *to = &r->args->refusal[i];
	char what[sizeof(to->what)];
	va_list list;

	va_start(list, fmt);
	vsnprintf(what, sizeof(what), fmt, list);
	va_end(list);
	snprintf(to->what, sizeof(to->what), "%s%s%.100s", r->option,
	         what[0] != '\0' && r->option[0] != '\0' ? " " : "", what);
	snprintf(to->why, sizeof(to->why), "%s", why);
	to->instead = instead;
	to->always = false;
	return to;
}

/* Judge a name by its family's list; it is shown as "KEY=NAME". */
static void judge(struct reader *r, enum vm_family family, const char *key,
                  const char *name)
{
	const struct vm_rule *rule = vm_allow(family, name);

	if (rule->why)
		refuse(r, rule->why, rule->instead, "%s%s%s", key,
		       key[0] != '\0' ? "=" : "", name);
}

/*
 * Read a value into r->pair.  Returns whether there is anything to judge: a
 * value that cannot be read is refused, one that asks QEMU for help is none.
 */
static bool split(struct reader *r, const char *text, const char *implied)
{
	struct errmsg em;

	r->pair = vm_pairs_free(r->pair);
	r->pair = vm_pairs_new();
	if (!r->pair || vm_text_read(text, implied, r->pair, &em) < 0) {
		refuse(r, r->pair ? em.text : "out of memory",
		       "KEY=VALUE,... or plain JSON", "%s", text);
		return false;
	}
	return strcmp(text, "help") != 0 && strcmp(text, "?") != 0;
}

/* --- what guest memory meets --------------------------------------------- */

/* A file's name may begin with a protocol: "nbd:...". */
static void judge_file(struct reader *r, const char *key, const char *name)
{
	size_t n = strcspn(name, ":/");
	char protocol[32];

	if (name[n] != ':')
		return;
	snprintf(protocol, sizeof(protocol), "%.*s", (int)n, name);
	if (vm_allow(VM_PROTOCOL, protocol)->why)
		refuse(r, vm_allow(VM_PROTOCOL, protocol)->why,
		       vm_allow(VM_PROTOCOL, protocol)->instead, "%s%s%s", key,
		       key[0] != '\0' ? "=" : "", name);
}

static void judge_block(struct reader *r, const struct vm_pair *p)
{
	if (vm_key_ends(p->key, "direct")) {
		if (!vm_value_off(p->value))
			refuse(r, vm_why_pin, "cache.direct=off, the default",
			       "%s=%s", p->key, p->value);
	} else if (vm_key_ends(p->key, "cache")) {
		judge(r, VM_CACHE, p->key, p->value);
	} else if (vm_key_ends(p->key, "aio")) {
		judge(r, VM_AIO, p->key, p->value);
	} else if (vm_key_ends(p->key, "driver") ||
	           strcmp(p->key, "format") == 0) {
		judge(r, VM_BLOCK, p->key, p->value);
	} else if (vm_key_ends(p->key, "file") ||
	           vm_key_ends(p->key, "filename")) {
		judge_file(r, p->key, p->value);
	} else if (vm_key_ends(p->key, "transport")) {
		if (strcmp(p->value, "iser") == 0)
			refuse(r, vm_why_pin, "transport=tcp", "%s=%s", p->key,
			       p->value);
	} else if (vm_key_ends(p->key, "pr-manager")) {
		refuse(r, vm_why_pin, "it left out", "%s=%s", p->key, p->value);
	}
}

static int take_block(struct reader *r, const char *text)
{
	if (!split(r, text, NULL))
		return 0;
	for (size_t i = 0; i < r->pair->n; i++)
		judge_block(r, &r->pair->v[i]);
	return 0;
}

/* -hda FILE and the like: the name of a file, which may be json:... */
static int take_file(struct reader *r, const char *text)
{
	struct errmsg em;

	r->pair = vm_pairs_free(r->pair);
	r->pair = vm_pairs_new();
	if (!r->pair || vm_pairs_add(r->pair, "file", text, &em) < 0) {
		refuse(r, r->pair ? em.text : "out of memory", "-blockdev",
		       "%s", text);
		return 0;
	}
	for (size_t i = 0; i < r->pair->n; i++)
		judge_block(r, &r->pair->v[i]);
	return 0;
}

static int take_device(struct reader *r, const char *text)
{
	const struct vm_rule *rule;
	bool named = false;

	if (!split(r, text, "driver"))
		return 0;
	for (size_t i = 0; i < r->pair->n; i++) {
		const struct vm_pair *p = &r->pair->v[i];

		rule = vm_allow_property(p->key);
		if (strcmp(p->key, "driver") == 0) {
			judge(r, VM_DEVICE, "", p->value);
			named = true;
		} else if (rule && !vm_value_off(p->value)) {
			refuse(r, rule->why, rule->instead, "%s=%s", p->key,
			       p->value);
		}
	}
	if (!named)
		refuse(r, "it names no device", NULL, "%s", text);
	return 0;
}

/* Judge all values of one key, which may be implied. */
static int take_type(struct reader *r, const char *text, const char *key,
                     enum vm_family family)
{
	if (!split(r, text, key))
		return 0;
	for (size_t i = 0; i < r->pair->n; i++)
		if (strcmp(r->pair->v[i].key, key) == 0)
			judge(r, family, "", r->pair->v[i].value);
	return 0;
}

static int take_object(struct reader *r, const char *text)
{
	return take_type(r, text, "qom-type", VM_OBJECT);
}

static int take_netdev(struct reader *r, const char *text)
{
	return take_type(r, text, "type", VM_NETDEV);
}

/* -nic and -net name the guest's side too. */
static int take_nic(struct reader *r, const char *text)
{
	take_netdev(r, text);
	for (size_t i = 0; r->pair && i < r->pair->n; i++) {
		const struct vm_pair *p = &r->pair->v[i];

		if (strcmp(p->key, "model") == 0 &&
		    strcmp(p->value, "virtio") != 0 &&
		    strcmp(p->value, "help") != 0)
			judge(r, VM_DEVICE, "model", p->value);
	}
	return 0;
}

/* DRIVER.PROPERTY=VALUE, or the three by their names. */
static int take_global(struct reader *r, const char *text)
{
	const char *dot = strchr(text, '.'), *equals = strchr(text, '=');
	const struct vm_rule *rule;
	char key[64];

	if (!dot || !equals || dot > equals) {
		refuse(r, vm_why_unseen, "-global DRIVER.PROPERTY=VALUE", "%s",
		       text);
		return 0;
	}
	snprintf(key, sizeof(key), "%.*s", (int)(equals - dot - 1), dot + 1);
	rule = vm_allow_property(key);
	if (rule && !vm_value_off(equals + 1))
		refuse(r, rule->why, rule->instead, "%s", text);
	if (strncmp(text, "memory-backend", 14) == 0)
		refuse(r, vm_why_ram, NULL, "%s", text);
	return 0;
}

/* --- the machine --------------------------------------------------------- */

/* kvm:tcg is a list of what to try. */
static void judge_accels(struct reader *r, const char *text)
{
	while (*text != '\0') {
		size_t n = strcspn(text, ":");
		char name[32];

		snprintf(name, sizeof(name), "%.*s", (int)n, text);
		judge(r, VM_ACCEL, "accel", name);
		r->args->kvm |= strcmp(name, "kvm") == 0;
		text += n + (text[n] == ':');
	}
}

static int take_accel(struct reader *r, const char *text)
{
	if (!split(r, text, "accel"))
		return 0;
	for (size_t i = 0; i < r->pair->n; i++)
		if (strcmp(r->pair->v[i].key, "accel") == 0)
			judge_accels(r, r->pair->v[i].value);
	return 0;
}

static int take_kvm(struct reader *r, const char *text)
{
	(void)text;
	r->args->kvm = true;
	return 0;
}

static void judge_machine(struct reader *r, const struct vm_pair *p)
{
	static const char *const pinning[] = {
		"memory-encryption",
		"confidential-guest-support",
		"igd-passthru",
	};

	if (strcmp(p->key, "type") == 0) {
		judge(r, VM_MACHINE, "type", p->value);
		snprintf(r->args->machine, sizeof(r->args->machine), "%s",
		         p->value);
	} else if (strcmp(p->key, "accel") == 0) {
		judge_accels(r, p->value);
	} else if (strcmp(p->key, "memory-backend") == 0) {
		refuse(r, vm_why_ram, "--memory or --space", "%s=%s", p->key,
		       p->value)
			->always = true;
	} else if (strncmp(p->key, "memory.", 7) == 0) {
		refuse(r, vm_why_ram, "-m SIZE", "%s=%s", p->key, p->value)
			->always = true;
	} else if (strncmp(p->key, "smp.", 4) == 0) {
		refuse(r, vm_why_unseen, "-smp", "%s=%s", p->key, p->value);
	} else if (strncmp(p->key, "sgx-epc", 7) == 0 ||
	           strncmp(p->key, "cxl-", 4) == 0) {
		refuse(r, vm_why_ram, NULL, "%s=%s", p->key, p->value);
	}
	for (size_t i = 0; i < ARRAY_SIZE(pinning); i++)
		if (strcmp(p->key, pinning[i]) == 0 && !vm_value_off(p->value))
			refuse(r, vm_why_pin, "it left out", "%s=%s", p->key,
			       p->value);
}

static int take_machine(struct reader *r, const char *text)
{
	if (!split(r, text, "type"))
		return 0;
	for (size_t i = 0; i < r->pair->n; i++)
		judge_machine(r, &r->pair->v[i]);
	return 0;
}

/* "vmx", "vmx=on", "+vmx" and "-vmx" of a feature's name. */
static void take_feature(const struct vm_pair *p, const char *name,
                         enum wish *wish)
{
	bool sign = p->key[0] == '+' || p->key[0] == '-';

	if (strcmp(p->key + sign, name) != 0)
		return;
	if (p->key[0] == '-' || (!sign && vm_value_off(p->value)))
		*wish = OFF;
	else
		*wish = ON;
}

static int take_cpu(struct reader *r, const char *text)
{
	if (!split(r, text, "model"))
		return 0;
	r->vmx = r->svm = UNSAID;
	for (size_t i = 0; i < r->pair->n; i++) {
		const struct vm_pair *p = &r->pair->v[i];

		if (strcmp(p->key, "model") == 0)
			r->cpu_of_host = strcmp(p->value, "host") == 0 ||
			                 strcmp(p->value, "max") == 0;
		take_feature(p, "vmx", &r->vmx);
		take_feature(p, "svm", &r->svm);
	}
	return 0;
}

/* A guest within the guest, when all that decides it has been read. */
static void judge_nesting(struct reader *r, const struct vm_host *host)
{
	r->option = "-cpu";
	if (!r->args->kvm)
		return;
	if (r->vmx == ON)
		refuse(r, why_nested, "vmx=off", "vmx=on");
	if (r->svm == ON)
		refuse(r, why_nested, "svm=off", "svm=on");
	if (r->cpu_of_host && host->vmx_nested && r->vmx == UNSAID)
		refuse(r, why_nested, "-cpu host,vmx=off", "host");
	if (r->cpu_of_host && host->svm_nested && r->svm == UNSAID)
		refuse(r, why_nested, "-cpu host,svm=off", "host");
}

static int take_memory(struct reader *r, const char *text)
{
	const char *size;

	if (!split(r, text, "size"))
		return 0;
	for (size_t i = 0; i < r->pair->n; i++)
		if (strcmp(r->pair->v[i].key, "slots") == 0 ||
		    strcmp(r->pair->v[i].key, "maxmem") == 0)
			refuse(r, vm_why_ram,
			       "all of it with --memory, and "
			       "virtio-balloon to shrink",
			       "%s=%s", r->pair->v[i].key, r->pair->v[i].value);
	size = vm_pairs_get(r->pair, "size");
	if (!size)
		return 0;
	if (vm_bytes(size, true, &r->args->ram_bytes) < 0 ||
	    r->args->ram_bytes == 0)
		return errmsg_say(r->em, -EINVAL,
		                  "-m: '%s' is no size of guest memory", size);
	return 0;
}

/* One number of -smp; 1 where it is not given. */
static int cpu_number(struct reader *r, const char *key, unsigned *ret)
{
	const char *text = vm_pairs_get(r->pair, key);
	char *end;
	unsigned long n;

	*ret = 1;
	if (!text)
		return 0;
	n = strtoul(text, &end, 10);
	if (text[0] < '0' || text[0] > '9' || *end != '\0' || n < 1 ||
	    n > VM_CPUS_MAX)
		return errmsg_say(r->em, -EINVAL,
		                  "-smp: '%s' is no number from 1 to %u", text,
		                  VM_CPUS_MAX);
	*ret = (unsigned)n;
	return 0;
}

static int take_smp(struct reader *r, const char *text)
{
	static const char *const parts[] = { "sockets", "dies", "clusters",
		                             "cores", "threads" };
	unsigned n, product = 1, most = 1;
	int e;

	if (!split(r, text, "cpus"))
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		e = cpu_number(r, parts[i], &n);
		if (e < 0)
			return e;
		product = (unsigned)min_u64((uint64_t)product * n, VM_CPUS_MAX);
	}
	e = cpu_number(r, "cpus", &n);
	if (e == 0)
		e = cpu_number(r, "maxcpus", &most);
	if (e < 0)
		return e;
	r->args->cpus = (unsigned)max_u64(max_u64(n, most), product);
	return 0;
}

static int take_overcommit(struct reader *r, const char *text)
{
	const char *lock;

	if (!split(r, text, NULL))
		return 0;
	lock = vm_pairs_get(r->pair, "mem-lock");
	if (lock && !vm_value_off(lock))
		refuse(r, vm_why_fill, "mem-lock=off, the default",
		       "mem-lock=%s", lock);
	return 0;
}

static int take_numa(struct reader *r, const char *text)
{
	r->args->numa = true;
	refuse(r, why_numa, "memspan vm --numa", "%s", text);
	return 0;
}

/* --- the table ----------------------------------------------------------- */

static const struct option {
	const char *name;
	bool value;                                       /* one follows */
	int (*take)(struct reader *r, const char *value); /* NULL: pass it on */
	const char *why, *instead;                        /* why not to */
} options[] = {
#define REFUSED(name, value, why, instead)      \
	{                                       \
		name, value, NULL, why, instead \
	}
#define FLAG(name)                            \
	{                                     \
		name, false, NULL, NULL, NULL \
	}
#define VALUE(name)                          \
	{                                    \
		name, true, NULL, NULL, NULL \
	}
#define TAKEN(name, take)                    \
	{                                    \
		name, true, take, NULL, NULL \
	}
	/* Memory. */
	TAKEN("m", take_memory),
	TAKEN("machine", take_machine),
	TAKEN("M", take_machine),
	TAKEN("numa", take_numa),
	TAKEN("object", take_object),
	TAKEN("overcommit", take_overcommit),
	REFUSED("mem-path", true, vm_why_ram, "--memory or --space"),
	REFUSED("mem-prealloc", false, vm_why_fill, "it left out"),
	REFUSED("incoming", true, why_postcopy, "a guest that boots here"),
	REFUSED("async-teardown", false, why_linger, "it left out"),
	REFUSED("run-with", true, vm_why_unseen, "it left out"),
	/* Processors. */
	TAKEN("accel", take_accel),
	{ "enable-kvm", false, take_kvm, NULL, NULL },
	TAKEN("cpu", take_cpu),
	TAKEN("smp", take_smp),
	REFUSED("xen-attach", false, vm_why_unknown, "kvm or tcg"),
	REFUSED("xen-domid", true, vm_why_unknown, "kvm or tcg"),
	REFUSED("xen-domid-restrict", false, vm_why_unknown, "kvm or tcg"),
	/* Devices. */
	TAKEN("device", take_device),
	TAKEN("global", take_global),
	TAKEN("netdev", take_netdev),
	TAKEN("nic", take_nic),
	TAKEN("net", take_nic),
	TAKEN("drive", take_block),
	TAKEN("blockdev", take_block),
	TAKEN("hda", take_file),
	TAKEN("hdb", take_file),
	TAKEN("hdc", take_file),
	TAKEN("hdd", take_file),
	TAKEN("fda", take_file),
	TAKEN("fdb", take_file),
	TAKEN("cdrom", take_file),
	TAKEN("sd", take_file),
	TAKEN("mtdblock", take_file),
	TAKEN("pflash", take_file),
	FLAG("snapshot"),
	VALUE("fsdev"),
	VALUE("virtfs"),
	VALUE("iscsi"),
	FLAG("usb"),
	VALUE("usbdevice"),
	VALUE("tpmdev"),
	VALUE("chardev"),
	VALUE("serial"),
	VALUE("parallel"),
	VALUE("debugcon"),
	VALUE("monitor"),
	VALUE("qmp"),
	VALUE("qmp-pretty"),
	VALUE("mon"),
	/* What a person sees and hears. */
	VALUE("display"),
	FLAG("nographic"),
	VALUE("vga"),
	VALUE("vnc"),
	VALUE("spice"),
	FLAG("full-screen"),
	FLAG("portrait"),
	VALUE("rotate"),
	VALUE("g"),
	VALUE("k"),
	VALUE("audio"),
	VALUE("audiodev"),
	FLAG("audio-help"),
	/* How it boots and ends. */
	VALUE("kernel"),
	VALUE("initrd"),
	VALUE("append"),
	VALUE("dtb"),
	VALUE("bios"),
	VALUE("option-rom"),
	VALUE("L"),
	VALUE("boot"),
	VALUE("loadvm"),
	VALUE("fw_cfg"),
	VALUE("acpitable"),
	VALUE("smbios"),
	FLAG("no-acpi"),
	FLAG("no-hpet"),
	FLAG("no-fd-bootchk"),
	FLAG("win2k-hack"),
	FLAG("S"),
	FLAG("no-reboot"),
	FLAG("no-shutdown"),
	VALUE("action"),
	VALUE("watchdog-action"),
	VALUE("rtc"),
	VALUE("icount"),
	FLAG("nodefaults"),
	FLAG("no-user-config"),
	FLAG("only-migratable"),
	REFUSED("daemonize", false, why_fork,
	        "a service manager, or '&' of the shell"),
	/* Around it. */
	VALUE("name"),
	VALUE("uuid"),
	VALUE("pidfile"),
	VALUE("sandbox"),
	VALUE("seed"),
	VALUE("compat"),
	VALUE("msg"),
	VALUE("echr"),
	FLAG("s"),
	VALUE("gdb"),
	VALUE("D"),
	VALUE("d"),
	VALUE("dfilter"),
	VALUE("trace"),
	FLAG("singlestep"),
	FLAG("enable-sync-profile"),
	VALUE("dump-vmstate"),
	FLAG("h"),
	FLAG("help"),
	FLAG("version"),
	/* What brings in what cannot be seen here. */
	REFUSED("add-fd", true, vm_why_unseen, "the file by its name"),
	REFUSED("readconfig", true, vm_why_unseen, "the options written out"),
	REFUSED("set", true, vm_why_unseen, "the option written out"),
	REFUSED("plugin", true, vm_why_unseen, NULL),
	REFUSED("preconfig", false, vm_why_unseen, "the options written out"),
	REFUSED("chroot", true, vm_why_unknown, "-sandbox"),
	REFUSED("runas", true, vm_why_unknown,
	        "memspan vm as the user who should run it"),
};

const char *vm_args_option(size_t i, bool *takes_value)
{
	if (i >= ARRAY_SIZE(options))
		return NULL;
	*takes_value = options[i].value;
	return options[i].name;
}

static const struct option *find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		if (strcmp(name, options[i].name) == 0)
			return &options[i];
	return NULL;
}

/* Read the option v[*i], and step over its value.  Returns 0 or -errno. */
static int take_option(struct reader *r, int n, char *const *v, int *i)
{
	/* "--device" is "-device". */
	const char *name = v[*i] + 1 + (v[*i][1] == '-');
	const struct option *option = find(name);
	const char *value = "";

	r->option = v[*i];
	if (!option) {
		refuse(r, vm_why_unknown, NULL, "%s", "");
		return 0;
	}
	if (option->value) {
		if (*i + 1 == n)
			return errmsg_say(r->em, -EINVAL,
			                  "%s: a value must follow", v[*i]);
		value = v[++*i];
	}
	if (option->why)
		refuse(r, option->why, option->instead, "%s", value);
	return option->take ? option->take(r, value) : 0;
}

int vm_args_read(int n, char *const *v, const struct vm_host *host,
                 struct vm_args *ret, struct errmsg *em)
{
	struct reader r = { .args = ret, .em = em };
	int e = 0;

	*ret = (struct vm_args){ .cpus = 1 };
	for (int i = 0; i < n && e == 0; i++) {
		if (v[i][0] == '-') {
			e = take_option(&r, n, v, &i);
		} else { /* the first disk */
			r.option = "";
			e = take_file(&r, v[i]);
		}
	}
	if (e == 0)
		judge_nesting(&r, host);
	vm_pairs_free(r.pair);
	return e;
}
