"""Runs that outgrow one machine: captions of any length to tar shards, by any number of workers.

Which pictures a tar shard holds depends on the run alone, and a shard is the unit of work: it is made whole, by one
worker, under its own name. So it does not matter who makes which shard, in which order, or how often.

    plan -> target (where shards go) -> worker (makes one) -> share (--shard i/n), ray_engine (--engine ray)
"""
