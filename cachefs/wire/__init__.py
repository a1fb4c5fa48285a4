"""The JSON of cache configs and of OCI, as structs, with the rules of validity."""
