"""Captions to pictures: one road for a folder of one process, a share of a run in parts, and an actor of a cluster.

    run (what decides the pictures) -> generation (makes what is missing) -> pipeline (captions -> pictures)

What is missing is known by the output: `folder` goes on picture by picture, as one process does; `shards` are the units
of work of many processes, and each is made whole, by one worker, under its own name. So it does not matter who makes
which shard, in which order, or how often. Both stand on a target (files and locks, here or at a URL), a storage (loose
pictures or tar shards), a manifest, and one `run.json`.
"""
