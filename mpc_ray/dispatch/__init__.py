"""Which triple runs a job: the planner's plan kept up to date while jobs come and go.

dispatcher.py   the state, on arrival, on a tick, and when something breaks; no Ray
measured.py     round trips, bandwidth and speeds as measured, and how far predictions were off
kinds.py        kinds of jobs, and the first guess of what one costs
seen.py         what a leader has seen of its runs; the forecast whose error is exported
actor.py        the plan in one Ray actor
emulated.py     a trace on a real Ray cluster of several labelled nodes
router.py       Ray Serve's request router that asks it
"""
