"""A Debian edge box in qemu, and the faults that are done to it. Read cli.py, then machine/vm.py and scenarios/__init__.py."""
