#!/bin/sh
# Links the protocol crate into programs without any library, shows that nothing but mem* is missing from them, runs the
# golden vectors there, and prints what code and memory cost. Needs cargo, binutils, python3 and a C compiler (for mem.c).
set -eu
cd "$(dirname "$0")"
: "${CARGO_TARGET_DIR:=$PWD/target}"
out="$CARGO_TARGET_DIR/freestanding"
mkdir -p "$out"
cc -O2 -ffreestanding -fno-builtin -fno-tree-loop-distribute-patterns -c mem.c -o "$out/mem.o"

link() {
    cargo build --quiet --locked --release --target-dir "$out" --features "${1%-*}${2:-}"
    # One relocatable object: the program and whatever of core and alloc it needs.
    ld -r --gc-sections -e _start -u _start -o "$out/$1.o" "$out/release/libautoglm_freestanding.a"
    missing=$(nm -u "$out/$1.o" | awk '{print $2}' | grep -Ev '^(memcpy|memmove|memset|memcmp|bcmp)$' || true)
    if [ -n "$missing" ]; then
        printf '%s: undefined besides mem*:\n%s\n' "$1" "$missing" >&2
        exit 1
    fi
    echo "$1: undefined: $(nm -u "$out/$1.o" | awk '{print $2}' | tr '\n' ' ')"
    ld -static -nostdlib --gc-sections -e _start -o "$out/$1" "$out/$1.o" "$out/mem.o"
}

link vectors
"$out/vectors"
link device-clear
link device-secure ,secure
echo "code of the smallest whole device (x86-64, opt-level s), bytes:"
for program in device-clear device-secure; do
    size -A "$out/$program" | awk -v program=$program '$1 ~ /^\.(text|rodata|data\.rel\.ro)$/ { line = line " " $1 " " $2 } END { print "  " program ":" line }'
done
# They are no mere weight: somebody else's implementation speaks with both.
cd ../python
BARE="$out" python3 -m unittest test_device.Freestanding
