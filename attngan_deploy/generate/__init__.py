"""Captions to pictures: one process and a folder of files, or any number of workers and tar shards.

    pipeline (captions -> pictures) -> writer, storage (a folder of them) -> generation (`t2i generate`)

Runs that outgrow one machine make tar shards. Which pictures a tar shard holds depends on the run alone, and a shard is
the unit of work: it is made whole, by one worker, under its own name. So it does not matter who makes which shard, in
which order, or how often.

    plan -> target (where shards go) -> worker (makes one) -> share (--shard i/n), ray_engine (--engine ray)
"""
