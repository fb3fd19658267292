"""Makes the cluster that the demo and the tests run on, from a bare Debian machine if need be.

`python3 -m tests.cluster` lists its commands; the Makefile wraps them. Only the standard library is used: this code
runs before any virtual environment exists. README.md beside this file tells what is made, from what, and what each
image promises.
"""
