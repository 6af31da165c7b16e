#!/bin/sh
# Debian: apt-get install clang lld
set -e
cd "$(dirname "$0")"
build() {
    clang --target=wasm32 -Oz -Wall -Wextra -Werror -ffreestanding -fno-builtin -nostdlib \
        -Wl,--no-entry -Wl,--strip-all "-D$1" -o "$2" textsm.c
}
build SM_FILTER filter-contains.wasm
build SM_MAP map-replace.wasm
