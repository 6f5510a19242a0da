// Package store is the contract with object storage, where a vault lives.
//
// Invariants that every implementation keeps and storetest checks:
//   - An object is written once and whole. Put never replaces one, and no part
//     of an object is visible before all of it is durable.
//   - A Put that failed may have happened. Whoever retries must be ready to find
//     the object in place.
//   - Only Delete removes, and only the agent holds a Deleter.
//   - An operation looks at its arguments and at ctx before it changes anything.
//   - What is put or deleted when the operation returns stays so after a crash of
//     the machine that holds it.
//
// Callers keep one rule in return: a key is never the folder of another ("a" and
// "a/b"), because file systems cannot hold both.
package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"
)

// Errors of every implementation, told apart with errors.Is.
var (
	ErrNotExist = errors.New("object does not exist")
	ErrExist    = errors.New("object exists already")
	// ErrHidden: somebody deleted the object in a store that keeps versions, so that they
	// are hidden by a delete marker. It is an ErrNotExist, which stores that can tell
	// refine so in Get and Stat.
	ErrHidden = fmt.Errorf("%w: a delete marker hides it, and what it hides may be there still", ErrNotExist)
	// ErrShort: the object ends before the range that was asked for.
	ErrShort = errors.New("object is shorter than expected")
	// ErrMissing: the store itself (bucket, folder) is not there.
	ErrMissing = errors.New("store does not exist")
	// ErrDenied: credentials or permissions do not allow it; also a read-only store.
	ErrDenied = errors.New("store denies access")
	// ErrFull: no space, or over quota.
	ErrFull = errors.New("store is full")
	// ErrUnavailable: the store did not answer, or asked to come back later.
	// It is the only error worth trying again.
	ErrUnavailable = errors.New("store does not answer")
	// ErrLocked: the object may not be deleted before its retention ends.
	ErrLocked = errors.New("object is under retention")
)

// MaxObject is the size of the largest object that may be put, in bytes. Readers
// refuse to allocate for more.
const MaxObject = 256 << 20

// Key names an object: one or more segments of [a-z0-9._-] joined by "/", none of
// them "." or ".." or starting with ".", at most 512 bytes in all.
type Key string

// Check tells whether k is well formed.
func (k Key) Check() error {
	if len(k) == 0 || len(k) > 512 {
		return fmt.Errorf("key %q: length %d is not in 1..512", string(k), len(k))
	}
	for seg := range strings.SplitSeq(string(k), "/") {
		if seg == "" || seg[0] == '.' {
			return fmt.Errorf("key %q: segment %q is not allowed", string(k), seg)
		}
		for i := 0; i < len(seg); i++ {
			c := seg[i]
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-' {
				return fmt.Errorf("key %q: byte %q is not allowed", string(k), c)
			}
		}
	}
	return nil
}

// CheckPrefix tells whether k can be the start of a key, as List takes it.
func (k Key) CheckPrefix() error {
	if k == "" {
		return nil
	}
	// A prefix ends anywhere in a key, also where a new segment begins.
	if err := Key(strings.TrimSuffix(string(k), "/")).Check(); err != nil {
		return fmt.Errorf("prefix of a key: %w", err)
	}
	return nil
}

// Base returns the last segment of k.
func (k Key) Base() string { return string(k[strings.LastIndexByte(string(k), '/')+1:]) }

// Info describes an object in a listing.
type Info struct {
	Key      Key
	Size     int64
	Modified time.Time // by the store's clock; never used to decide anything about data
}

// Body is the content of an object: its parts in order. Store implementations
// read the parts and never change or keep them.
type Body [][]byte

// Size returns the number of bytes in b.
func (b Body) Size() int64 {
	var n int64
	for _, p := range b {
		n += int64(len(p))
	}
	return n
}

// Check tells whether b is small enough to be put.
func (b Body) Check() error {
	if n := b.Size(); n > MaxObject {
		return fmt.Errorf("object of %d bytes is over the limit of %d", n, int64(MaxObject))
	}
	return nil
}

// Slice returns n bytes of b from off, without copying. It panics if they are
// not all in b.
func (b Body) Slice(off, n int64) Body {
	if off < 0 || n < 0 || off > b.Size()-n {
		panic(fmt.Sprintf("slice %d bytes at %d of a body of %d", n, off, b.Size()))
	}
	var out Body
	for _, p := range b {
		if n == 0 {
			break
		}
		if off >= int64(len(p)) {
			off -= int64(len(p))
			continue
		}
		p = p[off:]
		p = p[:min(n, int64(len(p)))]
		out, off, n = append(out, p), 0, n-int64(len(p))
	}
	return out
}

// Reader returns a new reader over b, which several readers may share.
func (b Body) Reader() io.ReadSeeker { return &bodyReader{body: b, size: b.Size()} }

// Retention asks the store to refuse deletion until a time, or a little longer. A
// store that cannot promise that refuses the Put with errors.ErrUnsupported.
type Retention struct {
	Until      time.Time // zero: none
	Compliance bool      // false: governance mode
}

// Extended returns the retention of an object that has r and is to be kept as next
// says: the later end, and the mode of the one in force.
func (r Retention) Extended(next Retention, now time.Time) Retention {
	if !now.Before(r.Until) {
		r.Compliance = next.Compliance
	}
	if r.Until.Before(next.Until) {
		r.Until = next.Until
	}
	return r
}

// PutOptions of a Put. The zero value asks for nothing special.
type PutOptions struct {
	Retention Retention
}

// Getter reads objects.
type Getter interface {
	// Get fills p from offset off of the object: all of p, or an error, and then
	// what is in p is undefined. ErrNotExist if there is no such object, ErrShort
	// if it ends too early.
	Get(ctx context.Context, key Key, p []byte, off int64) error
	// Stat returns what a listing would say of the object.
	Stat(ctx context.Context, key Key) (Info, error)
}

// Putter writes objects.
type Putter interface {
	// Put writes a new object, durably and atomically. ErrExist if the key is
	// taken. After any other error the object may or may not be there.
	Put(ctx context.Context, key Key, body Body, opts PutOptions) error
}

// Lister finds objects.
type Lister interface {
	// List yields every object whose key starts with prefix ("" for all) once, in
	// ascending order of the bytes of their keys. The prefix is compared as text
	// and need not end at a "/". After an error it yields nothing more; without
	// one, the listing is complete. Objects that are put or deleted meanwhile may
	// or may not be seen.
	List(ctx context.Context, prefix Key) iter.Seq2[Info, error]
}

// Deleter removes objects.
type Deleter interface {
	// Delete removes the object, durably. No error if it is not there. ErrLocked if
	// retention forbids it.
	Delete(ctx context.Context, key Key) error
}

// Retainer is what a store can do that keeps objects from being deleted.
type Retainer interface {
	// RetainedUntil returns when the retention of the object ends, or the zero time
	// if it has none, or one without an end. errors.ErrUnsupported if the store
	// cannot say.
	RetainedUntil(ctx context.Context, key Key) (time.Time, error)
	// Retain sees to it that the object is kept until r.Until at the least. It never
	// shortens a retention. An object that is under one keeps its mode; one that is
	// not gets that of r. ErrNotExist if there is no such object,
	// errors.ErrUnsupported if the store cannot keep it.
	Retain(ctx context.Context, key Key, r Retention) error
}

// Concealer is what a store can do that keeps versions of what is deleted.
type Concealer interface {
	// Concealed yields the objects whose key starts with prefix and that a delete marker
	// hides (ErrHidden): the newest version behind it, in ascending order. After an error
	// it yields nothing more: ErrDenied if the credentials may not list versions,
	// errors.ErrUnsupported if the store keeps none.
	Concealed(ctx context.Context, prefix Key) iter.Seq2[Info, error]
}

// Store is all of it. Implementations are safe for concurrent use.
type Store interface {
	Getter
	Putter
	Lister
	Deleter
}

// ReadAll returns the whole object, which must be no larger than limit bytes, nor
// than MaxObject.
func ReadAll(ctx context.Context, g Getter, key Key, limit int64) ([]byte, error) {
	info, err := g.Stat(ctx, key)
	if err != nil {
		return nil, err
	}
	if limit = min(limit, MaxObject); info.Size < 0 || info.Size > limit {
		return nil, fmt.Errorf("read %s: its size of %d bytes is not in 0..%d", key, info.Size, limit)
	}
	p := make([]byte, info.Size)
	if err := g.Get(ctx, key, p, 0); err != nil {
		return nil, err
	}
	return p, nil
}

type bodyReader struct {
	body Body
	size int64
	pos  int64
	part int   // the part that pos is in
	off  int64 // where in it
}

func (r *bodyReader) Read(p []byte) (int, error) {
	if r.pos >= r.size {
		return 0, io.EOF
	}
	n := 0
	for n < len(p) && r.part < len(r.body) {
		c := copy(p[n:], r.body[r.part][r.off:])
		n, r.off = n+c, r.off+int64(c)
		if r.off == int64(len(r.body[r.part])) {
			r.part, r.off = r.part+1, 0
		}
	}
	r.pos += int64(n)
	return n, nil
}

func (r *bodyReader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += r.pos
	case io.SeekEnd:
		offset += r.size
	default:
		return 0, fmt.Errorf("seek: whence %d is unknown", whence)
	}
	if offset < 0 {
		return 0, errors.New("seek before the start")
	}
	r.pos, r.part, r.off = offset, 0, offset
	for r.part < len(r.body) && r.off >= int64(len(r.body[r.part])) {
		r.off -= int64(len(r.body[r.part]))
		r.part++
	}
	return offset, nil
}
