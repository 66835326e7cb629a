/* The only functions that a compiler expects of its surroundings (GCC manual, section "Standards"; LLVM asks for bcmp
 * too). Firmware has them from its C library or from compiler-builtins. Built with -fno-builtin and without loop
 * recognition, or they would call themselves. */
#include <stddef.h>

void *memcpy(void *restrict to, const void *restrict from, size_t bytes) {
    char *t = to;
    const char *f = from;
    while (bytes--) *t++ = *f++;
    return to;
}

void *memmove(void *to, const void *from, size_t bytes) {
    char *t = to;
    const char *f = from;
    if (t <= f) return memcpy(to, from, bytes);
    while (bytes--) t[bytes] = f[bytes];
    return to;
}

void *memset(void *to, int value, size_t bytes) {
    char *t = to;
    while (bytes--) *t++ = (char)value;
    return to;
}

int memcmp(const void *left, const void *right, size_t bytes) {
    const unsigned char *l = left, *r = right;
    for (; bytes--; l++, r++)
        if (*l != *r) return *l - *r;
    return 0;
}

int bcmp(const void *left, const void *right, size_t bytes) { return memcmp(left, right, bytes); }
