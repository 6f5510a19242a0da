// Package s3 keeps a vault in a bucket of S3 or of a server that speaks it.
//
// Invariants:
//   - Put is a conditional write (If-None-Match: *), in one request or in parts:
//     the server decides who was first. A server that does not know the condition
//     must be kept away from vaults: putting an object twice finds it out.
//   - What is sent carries a checksum (CRC-32C) that the server compares and
//     keeps. Without TLS it carries a SHA-256 as well, inside the signature.
//   - Nothing is tried again here: that is package retry's. A connection that
//     moves no byte for two minutes is cut.
//   - In a bucket with versions, which object lock needs, Delete removes the
//     version that is visible and leaves no delete marker. What somebody else's
//     marker hides is not there (store.ErrHidden), and is left as it is.
//
// A crash in the middle of a Put in parts leaves parts that nobody sees; the
// bucket's lifecycle rule for incomplete uploads removes them.
package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/s3utils"

	"github.com/cofferbackup/coffer/store"
)

// Store is a bucket, or what is below a prefix in one. It implements store.Store.
type Store struct {
	cfg       Config
	root      string // of all object names: "" or ending in "/"
	core      minio.Core
	transport *http.Transport
}

var (
	_ store.Store     = (*Store)(nil)
	_ store.Retainer  = (*Store)(nil)
	_ store.Concealer = (*Store)(nil)
)

// Open connects to the bucket and makes sure that it is there and that the
// credentials may list it. The caller closes the store.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	s, err := newStore(cfg)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", cfg, err)
	}
	if err := s.probe(ctx); err != nil {
		s.transport.CloseIdleConnections()
		return nil, s.fail(ctx, "open store", "", err)
	}
	return s, nil
}

func newStore(cfg Config) (*Store, error) {
	if cfg.PartSize == 0 {
		cfg.PartSize = DefaultPartSize
	}
	if cfg.stall == 0 {
		cfg.stall = stallTimeout
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	transport, err := newTransport(cfg)
	if err != nil {
		return nil, err
	}
	opts := &minio.Options{
		Creds:     newCreds(cfg.Credentials),
		Secure:    !cfg.Plaintext,
		Transport: transport,
		Region:    cfg.Region,
		// One try: another one is package retry's decision.
		MaxRetries: 1,
	}
	switch cfg.Style {
	case Path:
		opts.BucketLookup = minio.BucketLookupPath
	case Virtual:
		opts.BucketLookup = minio.BucketLookupDNS
	}
	client, err := minio.New(cfg.Endpoint, opts)
	if err != nil {
		return nil, err
	}
	s := &Store{cfg: cfg, core: minio.Core{Client: client}, transport: transport}
	if cfg.Region == "" && !s3utils.IsAmazonEndpoint(*client.EndpointURL()) {
		// Only AWS has to be asked where a bucket is.
		opts.Region = "us-east-1"
		if s.core.Client, err = minio.New(cfg.Endpoint, opts); err != nil {
			return nil, err
		}
	}
	if cfg.Prefix != "" {
		s.root = cfg.Prefix + "/"
	}
	return s, nil
}

// Close gives idle connections back. Operations must have ended.
func (s *Store) Close() error {
	s.transport.CloseIdleConnections()
	return nil
}

// probe lists one object. Other requests would do, but a HEAD has no body to say
// what is wrong.
func (s *Store) probe(ctx context.Context) error {
	for info := range s.core.ListObjectsIter(ctx, s.cfg.Bucket, minio.ListObjectsOptions{Prefix: s.root, Recursive: true, MaxKeys: 1}) {
		return info.Err
	}
	return ctx.Err()
}

func (s *Store) object(key store.Key) string { return s.root + string(key) }

// Get implements store.Getter.
func (s *Store) Get(ctx context.Context, key store.Key, p []byte, off int64) error {
	if err := store.CheckGet(ctx, key, off); err != nil {
		return err
	}
	if len(p) == 0 {
		// S3 has no empty ranges.
		info, err := s.stat(ctx, key)
		if err == nil && off > info.Size {
			err = store.ErrShort
		}
		if err != nil {
			return s.fail(ctx, "get", key, err)
		}
		return nil
	}
	err := s.get(ctx, key, p, off)
	if minio.ToErrorResponse(err).Code == minio.NoSuchKey {
		// Only a HEAD tells what hides it.
		if _, serr := s.stat(ctx, key); errors.Is(serr, store.ErrHidden) {
			err = serr
		}
	}
	if err != nil {
		return s.fail(ctx, "get", key, err)
	}
	return nil
}

func (s *Store) get(ctx context.Context, key store.Key, p []byte, off int64) error {
	var opts minio.GetObjectOptions
	if err := opts.SetRange(off, off+int64(len(p))-1); err != nil {
		return err
	}
	body, info, header, err := s.core.GetObject(ctx, s.cfg.Bucket, s.object(key), opts)
	if err != nil {
		return err
	}
	defer body.Close()
	if want := fmt.Sprintf("bytes %d-", off); off > 0 && !strings.HasPrefix(header.Get("Content-Range"), want) {
		return fmt.Errorf("%w: the server does not know ranges: it answers %q", errors.ErrUnsupported, header.Get("Content-Range"))
	}
	if info.Size >= 0 && info.Size < int64(len(p)) {
		return fmt.Errorf("%w: %d bytes at %d, %d asked for", store.ErrShort, info.Size, off, len(p))
	}
	if _, err := io.ReadFull(body, p); err != nil {
		return fmt.Errorf("%w: read the answer: %w", store.ErrUnavailable, err)
	}
	return nil
}

// Stat implements store.Getter.
func (s *Store) Stat(ctx context.Context, key store.Key) (store.Info, error) {
	if err := store.CheckCall(ctx, key); err != nil {
		return store.Info{}, err
	}
	info, err := s.stat(ctx, key)
	if err != nil {
		return store.Info{}, s.fail(ctx, "stat", key, err)
	}
	return store.Info{Key: key, Size: info.Size, Modified: info.LastModified}, nil
}

func (s *Store) stat(ctx context.Context, key store.Key) (minio.ObjectInfo, error) {
	info, err := s.core.StatObject(ctx, s.cfg.Bucket, s.object(key), minio.StatObjectOptions{})
	if err == nil {
		return info, nil
	}
	var answer minio.ErrorResponse
	if errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound {
		// A HEAD that finds nothing does not tell an object from a bucket.
		if perr := s.probe(ctx); perr != nil {
			return info, perr
		}
		if info.IsDeleteMarker {
			return info, fmt.Errorf("%w (marker %s)", store.ErrHidden, info.VersionID)
		}
		return info, store.ErrNotExist
	}
	return info, err
}

// Delete implements store.Deleter.
func (s *Store) Delete(ctx context.Context, key store.Key) error {
	if err := store.CheckCall(ctx, key); err != nil {
		return err
	}
	// Where there are versions, a DELETE without one hides the object and frees
	// nothing, and object lock does not stand in its way.
	info, err := s.stat(ctx, key)
	if errors.Is(err, store.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = s.core.RemoveObject(ctx, s.cfg.Bucket, s.object(key), minio.RemoveObjectOptions{VersionID: info.VersionID})
		err = s.locked(info, err)
	}
	if err != nil {
		return s.fail(ctx, "delete", key, err)
	}
	return nil
}

// List implements store.Lister. It passes over objects whose names are not keys.
func (s *Store) List(ctx context.Context, prefix store.Key) iter.Seq2[store.Info, error] {
	return func(yield func(store.Info, error) bool) {
		if err := store.CheckList(ctx, prefix); err != nil {
			yield(store.Info{}, err)
			return
		}
		owner := false
		opts := minio.ListObjectsOptions{Prefix: s.object(prefix), Recursive: true, FetchOwner: &owner}
		last := ""
		for o := range s.core.ListObjectsIter(ctx, s.cfg.Bucket, opts) {
			err := o.Err
			if err == nil && o.Key <= last {
				err = fmt.Errorf("%w: the server lists %q after %q: a listing that is not sorted cannot be relied on", errors.ErrUnsupported, o.Key, last)
			}
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				yield(store.Info{}, s.fail(ctx, "list", prefix, err))
				return
			}
			last = o.Key
			name, ok := strings.CutPrefix(o.Key, s.root)
			key := store.Key(name)
			if !ok || key.Check() != nil {
				continue
			}
			if !yield(store.Info{Key: key, Size: o.Size, Modified: o.LastModified}, nil) {
				return
			}
		}
		// The client ends a cancelled listing as if it were complete.
		if err := ctx.Err(); err != nil {
			yield(store.Info{}, s.fail(ctx, "list", prefix, err))
		}
	}
}
