#!/usr/bin/env bash
# Verifies and measures models on this machine's GPU: our engine, and OnnxParser's of the same TensorRT.
#
#   benches/gpu/spine.sh [--fp16] [--no-parser] MODEL...
#
# A MODEL is NAME.onnx or NAME.onnx.xz, with options of trt-fuse after it in the same word if it needs any:
#   'resnet50.dyn.onnx.xz --range batch=1:8:32'
# Needs TensorRT's libraries on LD_LIBRARY_PATH and python3. TRT_FUSE names the program (trt-fuse on PATH otherwise), OUT
# the folder for the results: results.jsonl, a line for each model, and a log of what went wrong. TIMING_CACHE may name a
# file of kernel times that is used and added to. A model whose plan fails
# to build, verify or run does not stop the others; each step has STEP_LIMIT seconds (300).
#
# Each side's line holds "built" (the measured plain runs, with build time and layers), "verify" (differences from the
# evaluator on random inputs, FP32 without TF32 unless --fp16) and "graph" (runs as a CUDA graph, inputs and outputs left
# where they are).
set -uo pipefail

sides=(ours parser)
options=(${TIMING_CACHE:+--timing-cache "$TIMING_CACHE"})
tolerance=1e-4
while [[ ${1:-} == --* ]]; do
  case $1 in
    --fp16) options+=(--fp16) tolerance=2e-2 ;;
    --no-parser) sides=(ours) ;;
    *) echo "unknown option $1" >&2 && exit 2 ;;
  esac
  shift
done
program=${TRT_FUSE:-trt-fuse}
out=${OUT:-.}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"

# Runs a step; its last line of JSON goes to the file $work/$1, or what it said to stderr if there is none.
step() {
  local name=$1
  shift
  timeout "${STEP_LIMIT:-300}" "$@" >"$work/stdout" 2>"$work/stderr"
  local code=$?
  if ! grep '^{' "$work/stdout" | tail -n 1 | grep . >"$work/$name"; then
    tail -n 3 "$work/stderr" | python3 -c 'import json, sys; print(json.dumps({"error": sys.stdin.read().strip(), "code": int(sys.argv[1])}))' $code >"$work/$name"
    { echo "== $*"; cat "$work/stderr"; } >>"$out/errors.log"
  fi
  grep -q '"error"' "$work/$name" && return 1
  return 0
}

for word in "$@"; do
  read -r -a words <<<"$word"
  model=${words[0]}
  name=$(basename "$model" .xz)
  name=${name%.onnx}
  file=$work/$name.onnx
  if [[ $model == *.xz ]]; then xz -dc "$model" >"$file"; else cp "$model" "$file"; fi
  line="{\"model\": \"$name\""
  for side in "${sides[@]}"; do
    extra=("${words[@]:1}" "${options[@]}")
    [[ $side == parser ]] && extra+=(--parser)
    plan=$work/$side.plan
    rm -f "$plan"
    if step built "$program" bench "$file" --saveEngine "$plan" "${extra[@]}"; then
      step verify "$program" verify "$file" --plan "$plan" --json --tolerance "$tolerance" "${extra[@]}"
      step graph "$program" bench "$plan" --useCudaGraph --noDataTransfers --iterations 200
      line+=", \"$side\": {\"built\": $(<"$work/built"), \"verify\": $(<"$work/verify"), \"graph\": $(<"$work/graph")}"
    elif [[ -s $plan ]]; then
      step verify "$program" verify "$file" --plan "$plan" --json --tolerance "$tolerance" "${extra[@]}"
      line+=", \"$side\": {\"built\": $(<"$work/built"), \"verify\": $(<"$work/verify")}"
    else
      line+=", \"$side\": {\"built\": $(<"$work/built")}"
    fi
  done
  echo "$line}" | tee -a "$out/results.jsonl"
done
