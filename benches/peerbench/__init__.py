"""Penstock and other Python rate limiters and retriers, measured side by side in one run.

`benches/peers.py` is the command. Here are its parts:

- `peer`: what an adapter to a library has to offer; `adapters/` has one file per library.
- `latency` (of admissions, and of retries), `threads`, `waiting`: the scenarios. Each runs in a process of its own
  (`worker`), so that one limiter's memory, threads and garbage are not measured with the next one's.
- `run` runs them in turn, `tables` and `report` tell the results.
- `figures`: what is computed from the times of admissions, free of I/O.
"""
