"""Figures of the product, each beside what it is measured against, taken in one run: `make bench`.

A module a figure; `lab` is where they are taken, `rows` what comes out. Nothing here runs in `make test`.
"""
