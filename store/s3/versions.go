package s3

import (
	"context"
	"iter"
	"strings"

	"github.com/minio/minio-go/v7"

	"github.com/cofferbackup/coffer/store"
)

// Concealed implements store.Concealer.
func (s *Store) Concealed(ctx context.Context, prefix store.Key) iter.Seq2[store.Info, error] {
	return func(yield func(store.Info, error) bool) {
		if err := prefix.CheckPrefix(); err != nil {
			yield(store.Info{}, err)
			return
		}
		marked := "" // what the last delete marker hides, until it is yielded
		opts := minio.ListObjectsOptions{Prefix: s.object(prefix), Recursive: true, WithVersions: true}
		for o := range s.core.ListObjectsIter(ctx, s.cfg.Bucket, opts) {
			if o.Err != nil {
				yield(store.Info{}, s.fail(ctx, "list versions", prefix, o.Err))
				return
			}
			if o.IsDeleteMarker {
				if o.IsLatest {
					marked = o.Key
				}
				continue
			}
			name, ok := strings.CutPrefix(o.Key, s.root)
			key := store.Key(name)
			if o.Key != marked || !ok || key.Check() != nil {
				continue
			}
			marked = "" // older versions of it follow
			if !yield(store.Info{Key: key, Size: o.Size, Modified: o.LastModified}, nil) {
				return
			}
		}
		// The client ends a cancelled listing as if it were complete.
		if err := ctx.Err(); err != nil {
			yield(store.Info{}, s.fail(ctx, "list versions", prefix, err))
		}
	}
}
