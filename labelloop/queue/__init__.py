"""Redis: jobs, leases, heartbeats, hints. All of it may vanish at any time."""
