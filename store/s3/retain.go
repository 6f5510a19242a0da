package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/cofferbackup/coffer/store"
)

// Retention goes with the version that is visible, which is the one that Delete
// would remove.

// RetainedUntil implements store.Retainer.
func (s *Store) RetainedUntil(ctx context.Context, key store.Key) (time.Time, error) {
	if err := store.CheckCall(ctx, key); err != nil {
		return time.Time{}, err
	}
	info, err := s.stat(ctx, key)
	if err != nil {
		return time.Time{}, s.fail(ctx, "stat", key, err)
	}
	return retainedUntil(info), nil
}

// Retain implements store.Retainer.
func (s *Store) Retain(ctx context.Context, key store.Key, r store.Retention) error {
	if err := store.CheckCall(ctx, key); err != nil {
		return err
	}
	info, err := s.stat(ctx, key)
	if err != nil {
		return s.fail(ctx, "stat", key, err)
	}
	has := store.Retention{Until: retainedUntil(info), Compliance: modeOf(info) == minio.Compliance}
	if !has.Until.Before(r.Until) {
		return nil
	}
	until, mode := ceiling(r.Until), mode(has.Extended(r, s.cfg.Now()))
	err = s.core.PutObjectRetention(ctx, s.cfg.Bucket, s.object(key),
		minio.PutObjectRetentionOptions{Mode: &mode, RetainUntilDate: &until, VersionID: info.VersionID})
	if err == nil {
		return nil
	}
	// The server refuses to shorten: somebody may have extended it further meanwhile.
	if now, serr := s.stat(ctx, key); serr == nil && !retainedUntil(now).Before(r.Until) {
		return nil
	}
	return s.fail(ctx, "retain", key, s.lockable(ctx, err))
}

// mode is what S3 calls it.
func mode(r store.Retention) minio.RetentionMode {
	if r.Compliance {
		return minio.Compliance
	}
	return minio.Governance
}

// ceiling is a time that S3 can write, and not before t.
func ceiling(t time.Time) time.Time {
	return t.Add(time.Second - 1).UTC().Truncate(time.Second)
}

// modeOf returns the mode of an object's retention, or "".
func modeOf(info minio.ObjectInfo) minio.RetentionMode {
	return minio.RetentionMode(info.Metadata.Get("X-Amz-Object-Lock-Mode"))
}

// retainedUntil returns the end of an object's retention, or zero.
func retainedUntil(info minio.ObjectInfo) time.Time {
	until, err := time.Parse(time.RFC3339, info.Metadata.Get("X-Amz-Object-Lock-Retain-Until-Date"))
	if err != nil {
		return time.Time{}
	}
	return until
}

// locked finds out a refusal that is due to retention. AWS calls it AccessDenied
// and MinIO InvalidRequest, like much else.
func (s *Store) locked(info minio.ObjectInfo, err error) error {
	var answer minio.ErrorResponse
	if !errors.As(err, &answer) || answer.Code != "AccessDenied" && answer.Code != "InvalidRequest" {
		return err
	}
	if until := retainedUntil(info); s.cfg.Now().Before(until) {
		return fmt.Errorf("%w until %s: %w", store.ErrLocked, until.Format(time.RFC3339), err)
	}
	if info.Metadata.Get("X-Amz-Object-Lock-Legal-Hold") == "ON" {
		return fmt.Errorf("%w: it is under legal hold: %w", store.ErrLocked, err)
	}
	return err
}

// lockable finds out a refusal that is due to a bucket without object lock, which
// servers call InvalidRequest, like much else.
func (s *Store) lockable(ctx context.Context, err error) error {
	var answer minio.ErrorResponse
	if !errors.As(err, &answer) || answer.StatusCode != http.StatusBadRequest {
		return err
	}
	_, _, _, _, lerr := s.core.GetObjectLockConfig(ctx, s.cfg.Bucket)
	if errors.As(lerr, &answer) && answer.Code == "ObjectLockConfigurationNotFoundError" {
		return lerr
	}
	return err
}
