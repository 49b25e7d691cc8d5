#!/usr/bin/env bash
# From nothing to a model that writes Python, in minutes, on a CPU, without a network: a tokenizer and a tiny phi
# from the Python library's own source, finetuned on sixty exercises, exported, and read by plain transformers.
#
# examples/tiny.sh FOLDER
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=${1:?give a folder, which is made}
mkdir -p "$out"

python "$here/library.py" "$out/library.jsonl" --megabytes "${MEGABYTES:-20}"
phi-fast tokenizer train "$out/library.jsonl" --vocab 4096 --runs --output "$out/tokenizer.json"
phi-fast tokenize "$out/library.jsonl" --tokenizer "$out/tokenizer.json" --output "$out/tokens"
phi-fast train tiny --data "$out/tokens" --output "$out/base" ${CHANGES:-}

phi-fast tokenize "$here/exercises.jsonl" --tokenizer "$out/tokenizer.json" --output "$out/exercise-tokens"
phi-fast finetune tiny_exercises --from "$out/base" --data "$out/exercise-tokens" --output "$out/tuned" ${CHANGES:-}

phi-fast export "$out/tuned" --best --tokens "$out/exercise-tokens" --output "$out/model"
python "$here/generate.py" "$out/model"
