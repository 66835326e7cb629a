#!/bin/sh
# Runs every fuzz target (or those named) for SECONDS_EACH (default 20) on its committed corpus; stops at the first finding.
# The short form for CI: SECONDS_EACH=5 ./run.sh
# No nightly compiler and no cargo-fuzz needed: coverage is LLVM's own, and there is nothing unsafe here for a sanitizer to
# watch. For a long run: SECONDS_EACH=36000 ./run.sh pair, or `cargo fuzz run pair` where that is installed.
# With MERGE=1 the corpus becomes the least that reaches the edges that it and this run's finds reach, to be committed.
set -eu
cd "$(dirname "$0")"
: "${SECONDS_EACH:=20}" "${CARGO_TARGET_DIR:=$PWD/target}"
triple=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS="--cfg fuzzing -Cdebug-assertions -Coverflow-checks -Ccodegen-units=1 -Cpasses=sancov-module \
-Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares" \
    cargo build --quiet --locked --release --target "$triple" --target-dir "$CARGO_TARGET_DIR"
[ $# -gt 0 ] || set -- stream message machines dialogue pair
for target; do
    found="$CARGO_TARGET_DIR/found/$target"
    mkdir -p "$found" "corpus/$target"
    log="$CARGO_TARGET_DIR/found/$target.log"
    if ! "$CARGO_TARGET_DIR/$triple/release/$target" -max_total_time="$SECONDS_EACH" -max_len=4096 \
        -artifact_prefix="$CARGO_TARGET_DIR/found/" "$found" "corpus/$target" >"$log" 2>&1; then
        tail -40 "$log"
        echo "$target: replay with $CARGO_TARGET_DIR/$triple/release/$target FILE, FILE being named above"
        exit 1
    fi
    echo "$target: $(awk '/DONE/ { sub("#", "", $1); print $1 " executions, " $4 " edges covered" }' "$log"), no finding"
    if [ "${MERGE:-0}" = 1 ]; then
        mv "corpus/$target" "$CARGO_TARGET_DIR/found/$target.before"
        mkdir "corpus/$target"
        "$CARGO_TARGET_DIR/$triple/release/$target" -set_cover_merge=1 -use_counters=0 "corpus/$target" \
            "$CARGO_TARGET_DIR/found/$target.before" "$found" 2>&1 | tail -1
        rm -r "$CARGO_TARGET_DIR/found/$target.before"
    fi
done
