package s3

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"net/http"
	"time"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sync/errgroup"

	"github.com/cofferbackup/coffer/store"
)

const (
	crcHeader  = "x-amz-checksum-crc32c"
	algoHeader = "x-amz-checksum-algorithm"
	typeHeader = "x-amz-checksum-type"
	fullObject = "FULL_OBJECT" // the checksum is of all bytes, however they were sent

	// partsAtOnce of one object.
	partsAtOnce = 4
	// abortTimeout is how long parts that are of no use any more are waited for.
	abortTimeout = 30 * time.Second
)

// Put implements store.Putter. An object larger than the part size is sent in
// parts, several at once.
func (s *Store) Put(ctx context.Context, key store.Key, body store.Body, opts store.PutOptions) error {
	if err := store.CheckPut(ctx, key, body); err != nil {
		return err
	}
	put := s.putWhole
	if body.Size() > s.cfg.PartSize {
		put = s.putParts
	}
	err := put(ctx, s.object(key), body, options(opts))
	if err != nil && !opts.Retention.Until.IsZero() {
		err = s.lockable(ctx, err)
	}
	if err != nil {
		return s.fail(ctx, "put", key, err)
	}
	return nil
}

// options translates opts.
func options(opts store.PutOptions) minio.PutObjectOptions {
	o := minio.PutObjectOptions{
		UserMetadata: make(map[string]string), // the client sends x-amz-* of it as they are
		// What the client would hash itself is handed to it.
		DisableContentSha256: true,
	}
	if until := opts.Retention.Until; !until.IsZero() {
		o.RetainUntilDate, o.Mode = ceiling(until), mode(opts.Retention)
	}
	return o
}

func (s *Store) putWhole(ctx context.Context, name string, body store.Body, opts minio.PutObjectOptions) error {
	opts.UserMetadata[crcHeader] = checksum(body)
	opts.SetMatchETagExcept("*")
	_, err := s.core.PutObject(ctx, s.cfg.Bucket, name, body.Reader(), body.Size(), "", s.hash(body), opts)
	return err
}

func (s *Store) putParts(ctx context.Context, name string, body store.Body, opts minio.PutObjectOptions) (err error) {
	opts.UserMetadata[algoHeader], opts.UserMetadata[typeHeader] = "CRC32C", fullObject
	upload, err := s.core.NewMultipartUpload(ctx, s.cfg.Bucket, name, opts)
	if err != nil {
		return err
	}
	// From here to the end a crash leaves parts that nobody sees.
	defer func() {
		if err != nil {
			// Also when it is not known whether the upload was completed: then there
			// is nothing to abort.
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTimeout)
			defer cancel()
			_ = s.core.AbortMultipartUpload(ctx, s.cfg.Bucket, name, upload)
		}
	}()
	parts, err := s.sendParts(ctx, name, upload, body)
	if err != nil {
		return err
	}
	done := minio.PutObjectOptions{UserMetadata: map[string]string{crcHeader: checksum(body), typeHeader: fullObject}}
	// The object comes to be here, and here it counts who was first.
	done.SetMatchETagExcept("*")
	_, err = s.core.CompleteMultipartUpload(ctx, s.cfg.Bucket, name, upload, parts, done)
	return err
}

func (s *Store) sendParts(ctx context.Context, name, upload string, body store.Body) ([]minio.CompletePart, error) {
	size := body.Size()
	parts := make([]minio.CompletePart, (size+s.cfg.PartSize-1)/s.cfg.PartSize)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(partsAtOnce)
	for i := range parts {
		off := int64(i) * s.cfg.PartSize
		part := body.Slice(off, min(s.cfg.PartSize, size-off))
		group.Go(func() error {
			crc := checksum(part)
			sent, err := s.core.PutObjectPart(ctx, s.cfg.Bucket, name, upload, i+1, part.Reader(), part.Size(), minio.PutObjectPartOptions{
				Sha256Hex: s.hash(part), DisableContentSha256: true, CustomHeader: http.Header{http.CanonicalHeaderKey(crcHeader): {crc}},
			})
			if err != nil {
				return fmt.Errorf("send part %d of %d: %w", i+1, len(parts), err)
			}
			parts[i] = minio.CompletePart{PartNumber: i + 1, ETag: sent.ETag, ChecksumCRC32C: crc}
			return nil
		})
	}
	return parts, group.Wait()
}

// checksum returns the CRC-32C of b (RFC 3720, appendix B.4) as S3 writes it: big
// endian, in base64.
func checksum(b store.Body) string {
	table := crc32.MakeTable(crc32.Castagnoli)
	var sum uint32
	for _, p := range b {
		sum = crc32.Update(sum, table, p)
	}
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, sum))
}

// hash returns the SHA-256 of b in hex for the signature, or "" where TLS
// protects the bytes.
func (s *Store) hash(b store.Body) string {
	if !s.cfg.Plaintext {
		return ""
	}
	h := sha256.New()
	for _, p := range b {
		h.Write(p)
	}
	return hex.EncodeToString(h.Sum(nil))
}
