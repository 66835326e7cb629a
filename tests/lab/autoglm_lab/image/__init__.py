"""The image: a Debian root file system, a kernel, an initial ram disk, and a snapshot of the booted box.

recipe.py says what it is made of and hashes it; rootfs.py, kernel.py and disk.py make the parts; warm.py boots it once.
"""
