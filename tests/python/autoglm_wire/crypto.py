"""X25519 (RFC 7748), ChaCha20-Poly1305 (RFC 8439) and the two Noise patterns of SPEC section 7."""

import hashlib
import hmac
import struct

P = 2**255 - 19


def x25519(scalar, point=bytes([9] + [0] * 31)):
    k = bytearray(scalar)
    k[0] &= 248
    k[31] = k[31] & 127 | 64
    k = int.from_bytes(k, "little")
    x1 = int.from_bytes(point, "little") & (1 << 255) - 1
    x2, z2, x3, z3, swap = 1, 0, x1, 1, 0
    for t in range(254, -1, -1):
        bit = k >> t & 1
        if swap ^ bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swap = bit
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb, da, cb = a * a % P, b * b % P, d * a % P, c * b % P
        x3, z3 = (da + cb) ** 2 % P, x1 * (da - cb) ** 2 % P
        e = aa - bb
        x2, z2 = aa * bb % P, e * (aa + 121665 * e) % P
    if swap:
        x2, z2 = x3, z3
    return (x2 * pow(z2, P - 2, P) % P).to_bytes(32, "little")


def _chacha_block(key, counter, nonce):
    initial = struct.unpack("<4I", b"expand 32-byte k") + struct.unpack("<8I", key) + (counter,) + struct.unpack("<3I", nonce)
    s = list(initial)

    def quarter(a, b, c, d):
        for x, y, z, n in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            s[x] = s[x] + s[y] & 0xFFFFFFFF
            s[z] ^= s[x]
            s[z] = (s[z] << n | s[z] >> 32 - n) & 0xFFFFFFFF

    for _ in range(10):
        for i in range(4):
            quarter(i, i + 4, i + 8, i + 12)
        for i in range(4):
            quarter(i, (i + 1) % 4 + 4, (i + 2) % 4 + 8, (i + 3) % 4 + 12)
    return struct.pack("<16I", *((a + b) & 0xFFFFFFFF for a, b in zip(s, initial)))


def _chacha(key, nonce, data):
    blocks = (_chacha_block(key, 1 + i, nonce) for i in range((len(data) + 63) // 64))
    return bytes(a ^ b for a, b in zip(data, b"".join(blocks)))


def _poly1305(key, data):
    r = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    total = 0
    for i in range(0, len(data), 16):
        total = (total + int.from_bytes(data[i : i + 16] + b"\1", "little")) * r % (2**130 - 5)
    return (total + int.from_bytes(key[16:], "little") & 2**128 - 1).to_bytes(16, "little")


def _tag(key, nonce, ad, ciphertext):
    pad = lambda data: data + bytes(-len(data) % 16)
    lengths = struct.pack("<QQ", len(ad), len(ciphertext))
    return _poly1305(_chacha_block(key, 0, nonce)[:32], pad(ad) + pad(ciphertext) + lengths)


class Forged(Exception):
    """A tag does not match."""


def encrypt(key, counter, ad, plaintext):
    nonce = struct.pack("<IQ", 0, counter)
    ciphertext = _chacha(key, nonce, plaintext)
    return ciphertext + _tag(key, nonce, ad, ciphertext)


def decrypt(key, counter, ad, sealed):
    nonce = struct.pack("<IQ", 0, counter)
    ciphertext, tag = sealed[:-16], sealed[-16:]
    if len(sealed) < 16 or not hmac.compare_digest(tag, _tag(key, nonce, ad, ciphertext)):
        raise Forged
    return _chacha(key, nonce, ciphertext)


def derive(key, counter):
    return encrypt(key, counter, b"", bytes(32))[:32]


def _hkdf(chaining_key, material, outputs):
    digest = lambda key, data: hmac.new(key, data, hashlib.blake2s).digest()
    secret, out, last = digest(chaining_key, material), [], b""
    for i in range(outputs):
        last = digest(secret, last + bytes([i + 1]))
        out.append(last)
    return out


class Noise:
    """NNpsk0, or KKpsk0 where static keys are given, as initiator or responder."""

    def __init__(self, initiator, psk, ephemeral, prologue, private=None, peer=None):
        self.initiator, self.e, self.s, self.rs, self.re = initiator, ephemeral, private, peer, None
        name = f"Noise_{'KK' if private else 'NN'}psk0_25519_ChaChaPoly_BLAKE2s".encode()
        self.h = name.ljust(32, b"\0") if len(name) <= 32 else hashlib.blake2s(name).digest()
        self.ck, self.k, self.n = self.h, None, 0
        self._mix_hash(prologue)
        if private:
            ours = x25519(private)
            self._mix_hash(ours if initiator else peer)
            self._mix_hash(peer if initiator else ours)
        self.psk = psk

    def _mix_hash(self, data):
        self.h = hashlib.blake2s(self.h + data).digest()

    def _mix_key(self, material):
        self.ck, self.k = _hkdf(self.ck, material, 2)
        self.n = 0

    def _mix_psk(self):
        self.ck, h, self.k = _hkdf(self.ck, self.psk, 3)
        self._mix_hash(h)
        self.n = 0

    def _seal_empty(self):
        sealed = encrypt(self.k, self.n, self.h, b"")
        self._mix_hash(sealed)
        self.n += 1
        return sealed

    def _open_empty(self, sealed):
        if decrypt(self.k, self.n, self.h, sealed) != b"":
            raise Forged
        self._mix_hash(sealed)
        self.n += 1

    def _dh(self, first):
        """The Diffie-Hellman tokens after `e`, of the first message or the second."""
        if first and self.s:
            # es, ss
            self._mix_key(x25519(self.e, self.rs) if self.initiator else x25519(self.s, self.re))
            self._mix_key(x25519(self.s, self.rs))
        if not first:
            # ee, se
            self._mix_key(x25519(self.e, self.re))
            if self.s:
                self._mix_key(x25519(self.s, self.re) if self.initiator else x25519(self.e, self.rs))

    def write(self):
        first = self.initiator
        if first:
            self._mix_psk()
        public = x25519(self.e)
        self._mix_hash(public)
        self._mix_key(public)
        self._dh(first)
        return public + self._seal_empty()

    def read(self, message):
        first = not self.initiator
        if first:
            self._mix_psk()
        self.re = message[:32]
        self._mix_hash(self.re)
        self._mix_key(self.re)
        self._dh(first)
        self._open_empty(message[32:])

    def split(self):
        """The keys from the initiator and from the responder."""
        return _hkdf(self.ck, b"", 2)


class ChannelKey:
    """One channel in one direction (SPEC section 7)."""

    def __init__(self, direction, channel):
        self.key, self.next = derive(direction, 2**64 - 2 - channel), 0

    def _advance(self):
        self.next += 1
        if self.next % 1024 == 0:
            self.key = derive(self.key, 2**64 - 1)

    def seal(self, message):
        sealed = encrypt(self.key, self.next, b"", message)
        self._advance()
        return sealed

    def open(self, sealed):
        message = decrypt(self.key, self.next, b"", sealed)
        self._advance()
        return message
