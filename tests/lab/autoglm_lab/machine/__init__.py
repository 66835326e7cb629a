"""One virtual machine: hardware.py (what it is made of), vm.py (its life), channel.py (talking to the agent in it), transfer.py (files)."""
