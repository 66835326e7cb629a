"""Tests of the setup: `python3 -m unittest discover -s models/tests -t models`. No network; real pip, real files.

What needs an installed bundle or the build tools says so when it skips; after `setup.py all` nothing skips on Linux
as root.
"""
