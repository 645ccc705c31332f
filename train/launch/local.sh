#!/usr/bin/env bash
# Starts N processes of train.pretrain on this machine's CPU, which train one model together:
#
#   train/launch/local.sh 2 --config configs/pretrain/textbooks.yaml --data rows --run runs/mine
#
# It is one run: the same command, with as many processes or fewer, continues it. It is for trying
# on one machine what runs on many; on a CPU one process is faster.
#
# --print before N prints the commands and starts nothing. Variables that may be set:
#   PYTHON   the interpreter (python)
#   DEVICES  CPU devices of each process (1)
#   PORT     where process 0 listens for the others (a free one)
#
# SIGTERM and SIGINT are handed on to all processes, which save and end with 75. When one fails
# (ends with neither 0 nor 75), the others have 20 seconds to end with a reason of their own, and are
# killed then: one that died before it joined would be waited for five minutes. The exit code is the
# first that is not 0, in the order of the processes, those that were killed so left out.
set -um # with -m each process hears only the signals that are handed on

print=
if [[ ${1-} == --print ]]; then
  print=1
  shift
fi
if [[ ! ${1-} =~ ^[1-9][0-9]*$ ]]; then
  echo "usage: train/launch/local.sh [--print] N [argument of train.pretrain ...]" >&2
  exit 2
fi
count=$1
shift

python=${PYTHON:-python}
find_port='import socket, sys
try:
    server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
except (OSError, OverflowError, ValueError) as error:
    sys.exit(f"error: PORT={sys.argv[1]} is no port that is free ({error}); leave it out")
print(server.getsockname()[1])'
port=$("$python" -c "$find_port" "${PORT:-0}") || exit 2
if [[ ! ${DEVICES:-1} =~ ^[1-9][0-9]*$ ]]; then
  echo "error: DEVICES=$DEVICES must be a whole number above 0" >&2
  exit 2
fi

ids=()
# shellcheck disable=SC2317 # the traps call it
hand_on() {
  kill -s "$1" "${ids[@]}" 2>/dev/null
}
trap 'hand_on TERM' TERM
trap 'hand_on INT' INT

for ((index = 0; index < count; index++)); do
  command=(env JAX_PLATFORMS=cpu "JAX_NUM_CPU_DEVICES=${DEVICES:-1}"
    "JAX_COORDINATOR_ADDRESS=127.0.0.1:$port" "JAX_COORDINATOR_BIND_ADDRESS=127.0.0.1:$port"
    "JAX_NUM_PROCESSES=$count" "JAX_PROCESS_ID=$index"
    "$python" -m train.pretrain "$@" --distributed true)
  if [[ $print ]]; then
    printf '%q ' "${command[@]}"
    echo
  else
    "${command[@]}" </dev/null &
    ids+=($!)
  fi
done

looks=40 # each half a second: counted, as the time in which this script is stopped is none
codes=()
failed=
killed=
while ((${#ids[@]})); do
  for index in "${!ids[@]}"; do
    ! kill -0 "${ids[index]}" 2>/dev/null || continue
    wait "${ids[index]}"
    code=$?
    unset "ids[index]"
    ((code)) || continue
    echo "process $index of $count ended with $code" >&2
    [[ $killed ]] || codes[index]=$code
    ((code == 75)) || failed=1 # one that was stopped leaves the others to save in their own time
  done
  if [[ $failed ]] && ((${#ids[@]} && looks-- == 0)); then
    echo "error: 20 seconds later these have not ended, and are killed: process ${!ids[*]}" >&2
    killed=1
    kill -KILL "${ids[@]}" 2>/dev/null
  fi
  sleep 0.5 &
  wait $! # which a signal ends
done
codes+=(0)
exit "${codes[@]::1}"
