#!/usr/bin/env bash
# What a GPU shows of otbench, in one command of at most nine minutes that installs nothing and needs no network:
#
#   tests/perf/gpu.sh [FOLDER] [--budget SECONDS] [--rehearse]
#
# In this order of worth: the CUDA tests, the step table (the training loop as written, as CUDA graphs, a bare loop), the
# suites gpu-* of otbench/suites.toml. Each part has a limit of its own, the suites have what is left of the budget (540 s)
# and stop by themselves; rows are written as they come, and the same command with the same FOLDER (default: gpu-results)
# does the runs that are missing. A table is printed last. Data files are found by OTBENCH_DATA; what lacks a file or a
# package is recorded as missing. PYTHON is the interpreter (default: python3). --rehearse runs all parts on the CPU at tiny
# sizes, to test this script.
#
# Exit status: 0, or 1 where a part failed (one that time ended has not), or 2 where nothing could be run.
set -uo pipefail

here=$PWD
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
python=${PYTHON:-python3}
[[ $python = */* && $python != /* ]] && python=$here/$python
folder=gpu-results budget=540 rehearse=
while (($#)); do
    case $1 in
        --rehearse) rehearse=1 ;;
        --budget)
            budget=${2:-}
            [[ $budget =~ ^[1-9][0-9]*$ ]] || { echo "gpu.sh: --budget ${budget:-is empty}: give whole seconds" >&2; exit 2; }
            shift
            ;;
        -*) echo "gpu.sh: unknown option $1: use gpu.sh [FOLDER] [--budget SECONDS] [--rehearse]" >&2; exit 2 ;;
        *) folder=$1 ;;
    esac
    shift
done
[[ $folder = /* ]] || folder=$here/$folder
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
cd "$root" || exit 2

device=cuda
if [[ $rehearse ]]; then
    device=cpu
elif ! said=$("$python" -c '
import sys
from otbench import UserError
from otbench.runner.devices import find_device
try:
    find_device("cuda")
except UserError as error:
    sys.exit(f"{error}")' 2>&1); then
    echo "gpu.sh: no GPU to run on: ${said##*$'\n'} (--rehearse tries this script on the CPU)" >&2
    exit 2
fi
mkdir -p "$folder" || exit 2

last=20 # seconds for the table that is printed last
failed=0
: >"$folder/parts.txt"

# part NAME SECONDS COMMAND...: what it prints goes to NAME.txt; it gets SECONDS at most, and no more than is left.
part() {
    local name=$1 most=$2 left=$((budget - last - SECONDS)) began=$SECONDS status
    shift 2
    ((most < left)) && left=$most
    if ((left < 10)); then
        echo "$name: not begun, no time was left" | tee -a "$folder/parts.txt"
        return
    fi
    echo "== $name, at most $left s"
    # Into a file, not a pipe: what a killed part left running would hold that open.
    timeout -s INT -k 8 "$left" "$@" >"$folder/$name.txt" 2>&1
    status=$?
    cat "$folder/$name.txt"
    case $status in
        0) said="done" ;;
        124 | 137) said="stopped, its time was over" ;;
        *) said="failed, exit status $status" failed=1 ;;
    esac
    echo "$name: $said, $((SECONDS - began)) s" | tee -a "$folder/parts.txt"
}

step=("$python" tests/perf/step.py --device "$device")
run=("$python" -m otbench run --device "$device" --jobs 1 --memory 64GiB --timeout 4m --results "$folder/results")
tests=("$python" -m pytest -p no:cacheprovider tests/test_cuda.py)
if [[ $rehearse ]]; then
    tests+=(-k lines) # skipped where there is no GPU
    step+=(--rounds 2 --repeats 1 --stack 2 --settings 2,8,8)
fi

part tests 150 "${tests[@]}"
part step-max-min 60 "${step[@]}"
part step-critic 40 "${step[@]}" --training critic
if [[ $rehearse ]]; then
    part gpu-rehearsal 60 "${run[@]}" -t gaussian -s identity "otm[steps=2,width=8,batch=8]" --seeds 2 --together 2
else
    part gpu-pairs 260 "${run[@]}" --suite gpu-pairs
    part gpu-spurious 100 "${run[@]}" --suite gpu-spurious
    part gpu-sinkhorn 90 "${run[@]}" --suite gpu-sinkhorn
    part gpu-faces 170 "${run[@]}" --suite gpu-faces
    part gpu-million 170 "${run[@]}" --suite gpu-million
fi

{
    echo "== parts"
    cat "$folder/parts.txt"
    echo "== tests"
    tail -n 1 "$folder/tests.txt"
    for table in step-max-min step-critic; do
        echo "== $table"
        cat "$folder/$table.txt"
    done
    echo "== suites"
    for report in verdicts "leaderboard --published"; do
        # shellcheck disable=SC2086  (a command and its option)
        timeout -k 2 $((last / 2)) "$python" -m otbench $report "$folder/results"
    done
} 2>/dev/null | tee "$folder/table.txt"
exit "$failed"
