"""The tests of cachefs.

A package, so that tests and benchmarks name the same servers:
``from tests.servers.s3 import S3Server``.
"""
