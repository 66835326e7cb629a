#!/bin/sh
# Runs every fuzz target for SECONDS_EACH (default 20) on its committed corpus; stops at the first finding.
# No nightly compiler and no cargo-fuzz needed: coverage is LLVM's own, and there is nothing unsafe here for a sanitizer to
# watch. For a long run: SECONDS_EACH=36000 ./run.sh pair, or `cargo fuzz run pair` where that is installed.
# With MERGE=1 what was found is reduced into the corpus, to be committed.
set -eu
cd "$(dirname "$0")"
: "${SECONDS_EACH:=20}" "${CARGO_TARGET_DIR:=$PWD/target}"
triple=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS="--cfg fuzzing -Cdebug-assertions -Coverflow-checks -Ccodegen-units=1 -Cpasses=sancov-module \
-Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares" \
    cargo build --quiet --locked --release --target "$triple" --target-dir "$CARGO_TARGET_DIR"
[ $# -gt 0 ] || set -- stream message machines pair
for target; do
    found="$CARGO_TARGET_DIR/found/$target"
    mkdir -p "$found" "corpus/$target"
    log="$CARGO_TARGET_DIR/found/$target.log"
    if ! "$CARGO_TARGET_DIR/$triple/release/$target" -max_total_time="$SECONDS_EACH" -max_len=4096 \
        -artifact_prefix="$CARGO_TARGET_DIR/found/" "$found" "corpus/$target" >"$log" 2>&1; then
        tail -40 "$log"
        exit 1
    fi
    echo "$target: $(grep DONE "$log")"
    if [ "${MERGE:-0}" = 1 ]; then
        "$CARGO_TARGET_DIR/$triple/release/$target" -merge=1 "corpus/$target" "$found" 2>&1 | tail -1
    fi
done
