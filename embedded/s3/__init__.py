"""The S3 server of the embedded stack: a guard before the S3 part of ministack, in one process.

It runs in an environment of its own (`s3.lock`), so nothing here but `emulator` and `__main__` imports more than the
standard library. Nothing listens but S3, and nothing is served but what is signed with the stack's key.
"""
