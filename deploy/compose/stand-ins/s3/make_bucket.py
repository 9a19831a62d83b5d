"""Waits for the S3 server beside it and makes the bucket that S3_BUCKET names; runs in the stand-in's image alone."""

from __future__ import annotations

import os
import time
import urllib.error
import urllib.request


def main() -> None:
    """Try for a minute."""
    bucket = urllib.request.Request(f"http://127.0.0.1:8333/{os.environ['S3_BUCKET']}", method="PUT")
    for _ in range(120):
        try:
            urllib.request.urlopen(bucket, timeout=5).close()  # noqa: S310, a fixed address
            return
        except urllib.error.HTTPError:
            return  # it is there
        except OSError:
            time.sleep(0.5)


if __name__ == "__main__":
    main()
