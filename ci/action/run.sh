#!/usr/bin/env bash
# Runs pytest with the gate and the history, and writes reports, a comment and a badge. Any CI service can run it: it reads
# MEMBUDGET_* variables, each of which may be left out, and ends with pytest's exit code.
set -euo pipefail

python=${MEMBUDGET_PYTHON:-python}
reports=${MEMBUDGET_REPORTS:-membudget-reports}
history=${MEMBUDGET_HISTORY:-}
membudget=("$python" -m pytest_membudget)

mkdir -p "$reports"
rm -f "$reports"/memory.* "$reports"/trend.* "$reports"/comment.md "$reports"/badge.json
# Quotes in the arguments mean what they mean in a shell; nothing in them is run.
# Arrays are filled and used in ways that the bash of macOS (3.2) knows.
arguments=()
while IFS= read -r -d '' word; do arguments+=("$word"); done < <("$python" -c 'import os, shlex
for word in shlex.split(os.environ.get("MEMBUDGET_ARGUMENTS", "")): print(word, end="\0")')

options=("--membudget-report=$reports/memory.html" "--membudget-report=$reports/memory.json" "--junitxml=$reports/memory.xml")
[ -z "${MEMBUDGET_BASELINE:-}" ] || options+=("--membudget-baseline=$MEMBUDGET_BASELINE")
if [ -n "$history" ]; then
    mkdir -p "$(dirname "$history")"
    options+=("--membudget-history=$history")
fi

code=0
"$python" -m pytest ${arguments[@]+"${arguments[@]}"} "${options[@]}" || code=$?

trend=0
if [ -n "$history" ] && [ -s "$history" ]; then
    fail=()
    [ "${MEMBUDGET_FAIL_ON_TREND:-false}" != true ] || fail=(--fail)
    "${membudget[@]}" history trend "$history" ${fail[@]+"${fail[@]}"} --since "${MEMBUDGET_SINCE:-}" \
        --output "$reports/trend.html" --output "$reports/trend.md" --output "$reports/trend.json" || trend=$?
fi
if [ -s "$reports/memory.json" ]; then
    "${membudget[@]}" report "$reports/memory.json" --format badge > "$reports/badge.json"
    "${membudget[@]}" report "$reports/memory.json" --format comment > "$reports/comment.md"
    if [ -s "$reports/trend.md" ]; then
        sed 's/^# /### /; s/^## /#### /' "$reports/trend.md" >> "$reports/comment.md"
    fi
fi

[ "$code" -ne 0 ] || code=$trend
if [ -n "${GITHUB_OUTPUT:-}" ]; then
    {
        echo "exit-code=$code"
        [ ! -s "$reports/comment.md" ] || echo "comment-file=$reports/comment.md"
        [ ! -s "$reports/badge.json" ] || echo "badge-file=$reports/badge.json"
    } >> "$GITHUB_OUTPUT"
fi
if [ -n "${GITHUB_STEP_SUMMARY:-}" ] && [ -s "$reports/trend.md" ]; then
    cat "$reports/trend.md" >> "$GITHUB_STEP_SUMMARY"
fi
exit "$code"
