"""Instructions per exchange, counted by valgrind: a guard against regressions, and a profiler.

Times on shared machines say nothing about a few percent; counted instructions do. `wire` is a network
without sockets, `exchanges` runs a scenario on it, `counting` runs that under callgrind,
`stored` compares with the figures of earlier runs, `profile` shows where the instructions go.
"""
