#!/usr/bin/env bash
# Pretrains on a Cloud TPU slice through gcloud, one process a host, as jax detects it:
#
#   export NAME=bertjax ZONE=us-west4-a TYPE=v5litepod-16 VERSION=v2-alpha-tpuv5-lite
#   train/launch/tpu_vm.sh create
#   train/launch/tpu_vm.sh install       # copies this checkout to every host, makes its .venv
#   train/launch/tpu_vm.sh run --config configs/pretrain/base.yaml --data /shared/rows --run /shared/runs/base
#   train/launch/tpu_vm.sh stop          # all hosts save at the same step and end; `run` goes on
#   train/launch/tpu_vm.sh delete
#
# --print before the word prints the commands and runs nothing. /shared stands for a directory that
# all hosts mount (Filestore, or a bucket through gcsfuse), with the rows in it. `run` ends when the
# hosts end; a connection that breaks ends them with SIGHUP: begin it in tmux.
# NAME is the slice's, TYPE its accelerator type, VERSION its runtime (`gcloud compute tpus tpu-vm
# versions list --zone ZONE`).
set -eu

print=
if [[ ${1-} == --print ]]; then
  print=1
  shift
fi

act() {
  if [[ $print ]]; then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}

on_all_hosts() {
  act gcloud compute tpus tpu-vm ssh "$NAME" --zone "$ZONE" --worker all --command "$1"
}

needed=(NAME ZONE)
[[ ${1-} != create ]] || needed+=(TYPE VERSION)
for variable in "${needed[@]}"; do
  if [[ -z ${!variable-} ]]; then
    echo "error: $variable is not set; the head of $0 shows all of them" >&2
    exit 2
  fi
done
word=${1-}
[[ $# == 0 ]] || shift
case $word in
create)
  act gcloud compute tpus tpu-vm create "$NAME" --zone "$ZONE" \
    --accelerator-type "$TYPE" --version "$VERSION"
  ;;
install)
  archive=$(mktemp -u).tar.gz
  act git archive --format tar.gz --prefix bertjax/ --output "$archive" HEAD
  act gcloud compute tpus tpu-vm scp "$archive" "$NAME:bertjax.tar.gz" --zone "$ZONE" --worker all
  act rm "$archive"
  # Images of Ubuntu 22.04 have Python 3.10.
  on_all_hosts "tar xzf bertjax.tar.gz && cd bertjax && python=python3 && \
{ python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
{ echo 'python3 is older than 3.11: uv installs 3.12' >&2 && python3 -m pip install --quiet --user uv \
&& python3 -m uv python install 3.12 && python=\$(python3 -m uv python find --system 3.12); }; } && \
make install PYTHON=\$python && .venv/bin/uv pip install \
--python .venv/bin/python --constraint constraints.txt 'jax[tpu]'"
  ;;
run)
  on_all_hosts "cd bertjax && .venv/bin/python -m train.pretrain$(printf ' %q' "$@") --distributed true"
  ;;
stop)
  on_all_hosts "pkill -TERM -f '[t]rain.pretrain'"
  ;;
delete)
  act gcloud compute tpus tpu-vm delete "$NAME" --zone "$ZONE" --quiet
  ;;
*)
  echo "usage: train/launch/tpu_vm.sh [--print] create|install|run|stop|delete [argument ...]" >&2
  exit 2
  ;;
esac
