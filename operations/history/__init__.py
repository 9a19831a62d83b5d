"""What has happened: runs, snapshots, the queue."""
