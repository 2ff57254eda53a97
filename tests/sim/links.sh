#!/bin/sh
# links.sh PROGRAM... - each links nothing but libc and what the compiler itself brings along.
set -eu
for program in "$@"; do
        ldd "$program" | while read -r name rest; do
                case "$name" in
                linux-vdso.so.* | libc.so.* | libm.so.* | libpthread.so.* | /lib*/ld-linux*.so.*) ;;
                libasan.so.* | libubsan.so.* | libtsan.so.* | liblsan.so.*) ;; # sanitizers,
                libdl.so.* | librt.so.* | libgcc_s.so.* | libstdc++.so.*) ;;   # and what they need
                *)
                        echo "$program links $name $rest" >&2
                        exit 1
                        ;;
                esac
        done
done
