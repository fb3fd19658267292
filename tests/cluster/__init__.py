"""Creates the cluster for the demo and the tests, if necessary starting from a bare Debian machine.

`python3 -m tests.cluster` lists its commands, which the Makefile calls. This code only uses the standard library,
because it runs before a virtual environment exists. README.md in this folder describes what is created, from which
sources, and the contract of each image.
"""
