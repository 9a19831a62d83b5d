"""The watcher: annotations in, snapshots and queued jobs out, scores back into Label Studio."""
