// Buildkit-peer times BuildKit's own S3 cache exporter and its loading of a manifest.
//
// It is BuildKit's code as buildkitd runs it, without a daemon and without a build around it. See
// README.md in this directory for how to build and call it.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/errdefs"
	"github.com/moby/buildkit/cache/remotecache/s3"
	v1 "github.com/moby/buildkit/cache/remotecache/v1"
	cacheconfig "github.com/moby/buildkit/cache/remotecache/v1/types"
	"github.com/moby/buildkit/solver"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// arguments are what the caller gives as JSON.
type arguments struct {
	Attributes map[string]string `json:"attributes"` // as `--cache-to type=s3` takes them
	Folder     string            `json:"folder"`     // export: of files named sha256:HEX
	Manifest   string            `json:"manifest"`   // load: a file, instead of the attributes
}

// work is what is timed. It returns figures for the caller to check.
type work func(context.Context) (map[string]any, error)

var operations = map[string]func(context.Context, arguments) (work, error){
	"export": export,
	"load":   load,
}

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "buildkit-peer:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, words []string) error {
	if len(words) != 3 || operations[words[0]] == nil || words[1] != "--json" {
		return errors.New("usage: buildkit-peer export|load --json ARGUMENTS")
	}
	given, ready := []byte(words[2]), func() error { return nil }
	if words[2] == "-" {
		lines := bufio.NewReader(os.Stdin)
		first, err := lines.ReadBytes('\n')
		if err != nil {
			return fmt.Errorf("a line of JSON is expected on standard input: %w", err)
		}
		given, ready = first, func() error {
			fmt.Println("ready")
			_, err := lines.ReadBytes('\n')
			return err
		}
	}
	var args arguments
	if err := json.Unmarshal(given, &args); err != nil {
		return fmt.Errorf("the arguments are not the JSON expected: %w", err)
	}
	do, err := operations[words[0]](ctx, args)
	if err != nil {
		return err
	}
	if err := ready(); err != nil {
		return err
	}
	figures, err := measure(ctx, do)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(figures)
}

func measure(ctx context.Context, do work) (map[string]any, error) {
	// Reset the peak: preparing is not part of the work. Only Linux can do this.
	_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0)
	started, used := time.Now(), cpu()
	figures, err := do(ctx)
	if err != nil {
		return nil, err
	}
	figures["seconds"] = time.Since(started).Seconds()
	figures["cpu"] = cpu() - used
	figures["mib"] = peak()
	figures["buildkit"] = version()
	return figures, nil
}

// version is that of BuildKit, as go.mod names it.
func version() string {
	if built, ok := debug.ReadBuildInfo(); ok {
		for _, module := range built.Deps {
			if module.Path == "github.com/moby/buildkit" {
				return module.Version
			}
		}
	}
	return "unknown"
}

// cpu is the CPU seconds used by all threads of this process.
func cpu() float64 {
	var used syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &used)
	return float64(used.Utime.Nano()+used.Stime.Nano()) / 1e9
}

// peak is the peak resident memory in MiB, or 0 without /proc.
func peak() float64 {
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		if words := strings.Fields(line); len(words) > 1 && words[0] == "VmHWM:" {
			kib, _ := strconv.ParseFloat(words[1], 64)
			return kib / 1024
		}
	}
	return 0
}

// export uploads a folder of blobs, each the result of one record.
//
// The first requests connect: the exporter's client is private.
func export(ctx context.Context, args arguments) (work, error) {
	exporter, err := s3.ResolveCacheExporterFunc()(ctx, nil, args.Attributes)
	if err != nil {
		return nil, err
	}
	files, err := os.ReadDir(args.Folder)
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		blob, err := digest.Parse(file.Name())
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file.Name(), err)
		}
		info, err := file.Info()
		if err != nil {
			return nil, err
		}
		layer := cacheconfig.LayerAnnotations{
			MediaType: ocispecs.MediaTypeImageLayerGzip,
			DiffID:    blob, // nothing unpacks it
			Size:      info.Size(),
		}
		result := solver.CacheExportResult{Result: &solver.Remote{
			Descriptors: []ocispecs.Descriptor{descriptor(blob, layer)},
			Provider:    folder(args.Folder),
		}}
		if _, _, err := exporter.Add(blob, nil, []solver.CacheExportResult{result}); err != nil {
			return nil, err
		}
	}
	names := strings.Split(args.Attributes["name"], ";")
	if names[0] == "" {
		names = []string{"buildkit"}
	}
	return func(ctx context.Context) (map[string]any, error) {
		_, err := exporter.Finalize(ctx)
		return map[string]any{"names": names, "blobs": len(files)}, err
	}, nil
}

// load decodes a manifest, from a file or of a name in a bucket, and answers one look-up.
func load(ctx context.Context, args arguments) (work, error) {
	if args.Manifest == "" {
		return loadName(ctx, args.Attributes)
	}
	raw, err := os.ReadFile(args.Manifest)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) (map[string]any, error) {
		// What the importer does once it has the bytes, which it can only get from S3.
		var config cacheconfig.CacheConfig
		if err := json.Unmarshal(raw, &config); err != nil {
			return nil, err
		}
		layers := v1.DescriptorProvider{}
		for _, layer := range config.Layers {
			if layer.Annotations == nil || layer.Annotations.DiffID == "" {
				return nil, fmt.Errorf("layer %s has no diffID", layer.Blob)
			}
			layers[layer.Blob] = v1.DescriptorProviderPair{
				Descriptor: descriptor(layer.Blob, *layer.Annotations),
			}
		}
		chains := v1.NewCacheChains()
		if err := v1.ParseConfig(config, layers, chains); err != nil {
			return nil, err
		}
		// No worker: only loading a result needs one.
		keys, results, err := v1.NewCacheKeyStorage(chains, nil)
		if err != nil {
			return nil, err
		}
		figures := map[string]any{"records": len(config.Records), "layers": len(config.Layers)}
		return figures, lookUp(solver.NewCacheManager(ctx, args.Manifest, keys, results))
	}, nil
}

// loadName has the importer get and read the manifest.
func loadName(ctx context.Context, attributes map[string]string) (work, error) {
	importer, none, err := s3.ResolveCacheImporterFunc()(ctx, nil, attributes)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) (map[string]any, error) {
		cache, err := importer.Resolve(ctx, none, "s3", nil)
		if err != nil {
			return nil, err
		}
		return map[string]any{}, lookUp(cache)
	}, nil
}

func lookUp(cache solver.CacheManager) error {
	_, err := cache.Query(nil, 0, "sha256:0", 0)
	return err
}

// descriptor describes a layer as the exporter expects it and the importer makes it.
func descriptor(blob digest.Digest, layer cacheconfig.LayerAnnotations) ocispecs.Descriptor {
	annotations := map[string]string{labels.LabelUncompressed: layer.DiffID.String()}
	if !layer.CreatedAt.IsZero() {
		if text, err := layer.CreatedAt.MarshalText(); err == nil {
			annotations["buildkit/createdat"] = string(text)
		}
	}
	return ocispecs.Descriptor{
		MediaType:   layer.MediaType,
		Digest:      blob,
		Size:        layer.Size,
		Annotations: annotations,
	}
}

// folder provides blobs from files named by digest, with the reader of buildkitd's content store.
type folder string

func (f folder) ReaderAt(_ context.Context, layer ocispecs.Descriptor) (content.ReaderAt, error) {
	return local.OpenReader(f.path(layer.Digest))
}

func (f folder) Info(_ context.Context, blob digest.Digest) (content.Info, error) {
	info, err := os.Stat(f.path(blob))
	if errors.Is(err, os.ErrNotExist) {
		return content.Info{}, fmt.Errorf("%s: %w", blob, errdefs.ErrNotFound)
	}
	if err != nil {
		return content.Info{}, err
	}
	return content.Info{Digest: blob, Size: info.Size(), CreatedAt: info.ModTime()}, nil
}

func (f folder) path(blob digest.Digest) string {
	return filepath.Join(string(f), blob.String())
}
