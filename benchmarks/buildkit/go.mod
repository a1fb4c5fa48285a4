module buildkit-peer

go 1.26.3

// BuildKit promises nothing about these packages: with another version main.go may need a change.
require github.com/moby/buildkit v0.32.1-0.20260821152935-73ed6825c4b7

require (
	github.com/containerd/containerd/v2 v2.3.3
	github.com/containerd/errdefs v1.0.0
	github.com/opencontainers/go-digest v1.0.0
	github.com/opencontainers/image-spec v1.1.1
)
