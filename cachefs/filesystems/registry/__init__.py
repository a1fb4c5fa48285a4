"""Repositories of registries: credentials, requests, and objects by the paths of the interface."""
