"""The report that ends `make test` and `make test-all`: time per tier, expensive tests, skipped tests, and how
many MLflowServers `tests.e2e` created.

`python -m tests.report begin SUITE` clears the records of the previous run, `tier NAME -- COMMAND...` runs one tier and
measures it, `show` prints the report. While `tier` runs a command, the plugin of this package writes a record per test
in every pytest process that the command starts. Outside of `tier` the plugin does nothing.

The system's Python runs these commands, so the package needs nothing but the standard library, except `plugin`.
"""
