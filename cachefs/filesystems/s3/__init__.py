"""S3 through s3fs: how a server is reached, and the requests that a cache needs."""
