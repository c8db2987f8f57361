# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# In a guest, for scripts: . /net.sh

# Two hosts in one guest: network namespaces a (10.9.0.1) and b (10.9.0.2),
# joined by one cable.  Run something on one of them by: on a COMMAND ...
#
# iproute2 is called by its path: busybox, as a shell, prefers its own "ip",
# which knows no namespaces.
two_hosts() {
	/sbin/ip netns add a && /sbin/ip netns add b &&
		/sbin/ip link add cable netns a type veth \
			peer name cable netns b &&
		host_up a 10.9.0.1 && host_up b 10.9.0.2
}

host_up() {
	on "$1" /sbin/ip link set lo up &&
		on "$1" /sbin/ip addr add "$2/24" dev cable &&
		on "$1" /sbin/ip link set cable up
}

on() {
	host=$1
	shift
	/sbin/ip netns exec "$host" "$@"
}
