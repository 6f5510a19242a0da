package catalog

import (
	"context"

	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/pack"
)

// IndexWriter gathers what packs hold into index objects of the usual size, and has the
// local index take in each of them. After an error it still has what was not written. It is
// not safe for concurrent use.
type IndexWriter struct {
	Item    *Item
	Local   Local
	Options store.PutOptions // of the index objects
	// Wrote is told of each index object that the store and Local have; nil if nobody
	// needs to know.
	Wrote func(name string, size int64, contents []pack.Contents)

	contents []pack.Contents // in the store and in no index object yet
	chunks   int             // in contents
}

// Add takes the contents of a pack that is in the store, and writes an index object once
// there are enough.
func (w *IndexWriter) Add(ctx context.Context, c pack.Contents) error {
	w.contents = append(w.contents, c)
	for _, f := range c.Frames {
		w.chunks += len(f.Chunks)
	}
	if w.chunks < segmentChunks {
		return nil
	}
	return w.Flush(ctx)
}

// Flush writes an index object of what was added since the last one, if that is anything.
func (w *IndexWriter) Flush(ctx context.Context) error {
	if len(w.contents) == 0 {
		return nil
	}
	name, size, err := w.Item.PutIndex(ctx, w.contents, w.Options)
	if err != nil {
		return err
	}
	// A crash here leaves an index object that the local index has not seen; the next
	// Sync reads it.
	if err := w.Local.Add(ctx, name, w.contents); err != nil {
		return err
	}
	if w.Wrote != nil {
		w.Wrote(name, size, w.contents)
	}
	w.contents, w.chunks = nil, 0
	return nil
}
