"""From pictures and captions to training shards, and from shards to batches."""
