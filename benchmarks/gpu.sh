#!/usr/bin/env bash
# What a machine with one NVIDIA GPU shows, in at most eight minutes and without a network: whether
# the attention backends are right there, steps of base and large beside torch, packed real text,
# and a run that is killed and resumes to the same bits. Prints JSON, a part a field.
#
#   benchmarks/gpu.sh OUTPUT.json [FOLDER]
#
# FOLDER (default: runs/gpu) takes what is written. Needs Python 3.11 or newer with jax, and torch
# for its parts (PYTHON names another than python3). Wheels of what is missing there may be carried:
# WHEELS=DIR takes them from that folder, made beforehand where there is a network by
#
#   pip download --no-deps --only-binary=:all: --python-version 3.12 --dest DIR datasets dill \
#     docstring-parser ftfy httpcore2 httpx2 multiprocess rensa sentencex tensorboardX \
#     truststore typeshed-client tzdata wcwidth
#
# REHEARSAL=TEXT.txt takes tiny models and that text, and as long as it needs, to try the script itself
# on any machine.
set -euo pipefail
output=$(realpath -m "${1:?usage: benchmarks/gpu.sh OUTPUT.json [FOLDER]}")
folder=$(realpath -m "${2:-runs/gpu}")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}
mkdir -p "$folder" "$(dirname "$output")"
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
if [[ -n ${WHEELS:-} ]]; then
  "$python" -m pip install --quiet --no-deps --no-index --upgrade --target "$folder/packages" \
    "$WHEELS"/*.whl
  export PYTHONPATH=$PYTHONPATH:$folder/packages
fi
if [[ -n ${REHEARSAL:-} ]]; then
  base=(--size tiny --rows 4 --length 32 --steps 2) large=("${base[@]}") steps=6
  shapes=(2x24x2x8) sizes=(--vocab-size 256) rows=(--max-length 32) batch=4 resumed=tiny
  corpus=$(realpath "$REHEARSAL") limit=6000
else
  base=(--size base --rows 64 --length 512) large=(--size large --rows 32 --length 512) steps=1500
  shapes=(16x512x12x64) sizes=(--vocab-size 8192) rows=(--max-length 512) batch=64 resumed=base
  corpus=corpus:python limit=470
fi
parts=$folder/parts
rm -rf "$parts" && mkdir -p "$parts"

# measure NAME SECONDS COMMAND...: what it prints as parts/NAME.out, its exit code as parts/NAME.code;
# 124 where it took longer, or where the eight minutes are over.
measure() {
  local name=$1 seconds=$2 left=$((limit - SECONDS)) code=0
  shift 2
  [[ -z ${REHEARSAL:-} ]] || seconds=$limit
  ((seconds <= left)) || seconds=$((left > 1 ? left : 1))
  echo "$name ..." >&2
  timeout --kill-after=5 "$seconds" "$@" >"$parts/$name.out" 2>"$parts/$name.err" || code=$?
  echo "$code" >"$parts/$name.code"
}
bench=("$python" -m benchmarks.bench_gpu)

for dtype in float32 bfloat16; do
  measure "conformance-$dtype" 40 "$python" -m bertjax bench attention --json --rounds 1 \
    --shapes "${shapes[@]}" --dtype "$dtype"
done
measure tokenizer 20 "$python" -m train.tokenizer --input "$corpus" \
  --output "$folder/tokenizer" "${sizes[@]}"
rm -rf "$folder/rows"
measure rows 30 "$python" -m train.prepare --input "$corpus" --output "$folder/rows" \
  --tokenizer "$folder/tokenizer" "${rows[@]}"
measure resume 150 "${bench[@]}" resume --size "$resumed" --rows "$batch" --data "$folder/rows" \
  --folder "$folder/runs" --steps "$steps"
measure base 40 "${bench[@]}" ours "${base[@]}"
measure base-torch 25 "${bench[@]}" torch "${base[@]}"
measure base-cudnn 40 "${bench[@]}" ours "${base[@]}" --attention cudnn
measure base-torch-no-dropout 25 "${bench[@]}" torch "${base[@]}" --dropout 0
measure large 50 "${bench[@]}" ours "${large[@]}"
measure large-torch 25 "${bench[@]}" torch "${large[@]}"
measure text 40 "${bench[@]}" ours "${base[@]}" --data "$folder/rows"
measure text-torch 25 "${bench[@]}" torch "${base[@]}" --data "$folder/rows"
measure base-raced 40 "${bench[@]}" ours "${base[@]}" --raced

"$python" - "$parts" >"$output" <<'PROGRAM'
import json
import pathlib
import sys

found = {}
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.code"), key=lambda path: path.stat().st_mtime):
    code, text = int(path.read_text()), path.with_suffix(".out").read_text()
    try:
        value = json.loads(text) if code in (0, 1) else None
    except ValueError:
        value = {"said": text.splitlines()[-3:]} if code == 0 else None
    if value is None:
        value = {"failed": code, "said": path.with_suffix(".err").read_text().splitlines()[-5:]}
    found[path.stem] = value
print(json.dumps(found, indent=1))
PROGRAM
echo "written to $output" >&2
