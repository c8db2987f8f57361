# SPDX-License-Identifier: Apache-2.0
# Completion of memspan(1) for bash; test/cluster/test_cli.py holds it to what
# the program says of itself.
# shellcheck shell=bash

_memspan()
{
	local word=$2 before=$3 command=${COMP_WORDS[1]}
	local commands="doctor up status validate space map bench run vm down"
	local common="--run-dir --coordinator --help"
	local words

	COMPREPLY=()
	if ((COMP_CWORD == 1)); then
		words="$commands help --help --version"
		mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
		return
	fi

	# What stands behind an option that takes a value.
	case $before in
	--run-dir | --hgrm)
		mapfile -t COMPREPLY < <(compgen -d -- "$word")
		return ;;
	--output | --qemu)
		mapfile -t COMPREPLY < <(compgen -f -- "$word")
		return ;;
	--placement)
		mapfile -t COMPREPLY < <(compgen -W "near far free" -- "$word")
		return ;;
	--coordinator | --nodes | --node | --memory | --shards | --lease | --size | \
		--replicas | --bind | --space | --pattern | --threads | --seed)
		return ;;
	esac

	case $command in
	help) words=$commands ;;
	doctor | status | validate | map) words="--json $common" ;;
	up) words="--nodes --memory --shards --lease --json $common" ;;
	down) words=$common ;;
	run) words="--space --node $common" ;;
	vm)
		words="--space --memory --node --numa --unsafe --print --qemu
			$common" ;;
	space)
		words="--size --replicas --overcommit --bind --json $common"
		if ((COMP_CWORD == 2)) && [[ $word != -* ]]; then
			words="create list show delete"
		fi ;;
	bench)
		words="--space --size --pattern --nodes --threads --placement
			--seed --json --output --hgrm $common" ;;
	esac
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}

complete -F _memspan memspan
