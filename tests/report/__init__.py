"""The report at the end of `make test` and `make test-all`: time per tier, expensive and skipped tests, the number of
MLflowServers that `tests.e2e` created, and the coverage by the unit tests.

`python -m tests.report begin SUITE` deletes the records of the previous run, `tier NAME -- COMMAND...` runs a tier and
measures it, `show` prints the report. While `tier` runs a command, the plugin of this package writes a record per test
in every pytest process that the command starts. Outside of `tier` the plugin does nothing.

The system's Python runs these commands, so all modules except `plugin` and `coverage` only need the standard library.
"""
