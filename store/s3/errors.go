package s3

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"

	"github.com/minio/minio-go/v7"

	"github.com/cofferbackup/coffer/store"
)

// fail names the operation, the bucket and the key, and gives err its sentinel
// and, where an operator can act, the next step.
func (s *Store) fail(ctx context.Context, op string, key store.Key, err error) error {
	what := op
	if key != "" {
		what += " " + string(key)
	}
	if cerr := ctx.Err(); cerr != nil {
		return fmt.Errorf("%s in %s: %w", what, s.cfg, cerr)
	}
	return fmt.Errorf("%s in %s: %w", what, s.cfg, s.classify(err))
}

// sentinels are errors that need no more than their name.
var sentinels = []error{store.ErrNotExist, store.ErrExist, store.ErrShort, store.ErrMissing, store.ErrDenied,
	store.ErrFull, store.ErrUnavailable, store.ErrLocked, errors.ErrUnsupported}

func (s *Store) classify(err error) error {
	for _, sentinel := range sentinels {
		if errors.Is(err, sentinel) {
			return err
		}
	}
	var answer minio.ErrorResponse
	if errors.As(err, &answer) {
		return s.classifyAnswer(answer)
	}
	var cert *tls.CertificateVerificationError
	switch {
	case errors.As(err, &cert):
		return fmt.Errorf("the server's certificate is not trusted: %w; name the CA that signed it with ca=/file.pem in the store URL", err)
	case errors.Is(err, http.ErrSchemeMismatch):
		return fmt.Errorf("the server speaks no TLS on this port: %w; correct the port, or say tls=off in the store URL", err)
	}
	// No answer: the network, a timeout, a connection that was cut.
	return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
}

// classifyAnswer reads the error codes of AWS, MinIO and Ceph.
func (s *Store) classifyAnswer(e minio.ErrorResponse) error {
	text := fmt.Sprintf("%s (%s, HTTP %d)", e.Error(), e.Code, e.StatusCode)
	switch e.Code {
	case "NoSuchKey", "NoSuchVersion":
		return store.ErrNotExist
	case "PreconditionFailed":
		return store.ErrExist
	case "InvalidRange":
		return store.ErrShort
	case "NoSuchBucket":
		return fmt.Errorf("%w: there is no bucket %s at %s; make it, or correct the store URL", store.ErrMissing, s.cfg.Bucket, s.cfg.Endpoint)
	case "ObjectLocked":
		return fmt.Errorf("%w: %s", store.ErrLocked, text)
	case "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "QuotaExceeded":
		return fmt.Errorf("%w: %s; make room, or raise the bucket's quota", store.ErrFull, text)
	case "ObjectLockConfigurationNotFoundError", "InvalidBucketObjectLockConfiguration":
		return fmt.Errorf("%w: the bucket has no object lock; use one that was made with it, or take the lock out of the vault's configuration", errors.ErrUnsupported)
	case "InvalidAccessKeyId", "SignatureDoesNotMatch":
		return fmt.Errorf("%w: %s; correct the credentials (%s)", store.ErrDenied, text, s.source())
	case "ExpiredToken", "InvalidToken", "TokenRefreshRequired":
		return fmt.Errorf("%w: %s; renew the credentials (%s)", store.ErrDenied, text, s.source())
	case "RequestTimeTooSkewed":
		return fmt.Errorf("%w: %s; set this machine's clock", store.ErrDenied, text)
	case "AuthorizationHeaderMalformed", "InvalidRegion", "PermanentRedirect", "IllegalLocationConstraintException":
		return fmt.Errorf("%w: %s; name the bucket's region with region= in the store URL", store.ErrDenied, text)
	case "AccessDenied", "AllAccessDisabled", "AccountProblem":
		return fmt.Errorf("%w: %s; allow the key to list, read and write %s, and to delete if this agent prunes", store.ErrDenied, text, s.cfg)
	case "SlowDown", "SlowDownRead", "SlowDownWrite", "ServiceUnavailable", "InternalError", "RequestTimeout", "Throttling",
		"ThrottlingException", "RequestLimitExceeded", "OperationAborted", "ConditionalRequestConflict", "IncompleteBody", "BadDigest",
		"XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch", "NoSuchUpload", "XMinioServerNotInitialized":
		return fmt.Errorf("%w: %s", store.ErrUnavailable, text)
	}
	switch code := e.StatusCode; {
	case code == http.StatusUnauthorized, code == http.StatusForbidden:
		return fmt.Errorf("%w: %s", store.ErrDenied, text)
	case code == http.StatusPreconditionFailed:
		return store.ErrExist
	case code == http.StatusInsufficientStorage:
		return fmt.Errorf("%w: %s", store.ErrFull, text)
	case code == http.StatusNotImplemented:
		return fmt.Errorf("%w: %s", errors.ErrUnsupported, text)
	case code == http.StatusTooManyRequests, code == http.StatusRequestTimeout, code >= 500:
		return fmt.Errorf("%w: %s", store.ErrUnavailable, text)
	}
	return errors.New(text)
}

// source names where the credentials come from.
func (s *Store) source() string {
	if s.cfg.Credentials == "" {
		return FromEnv + " or " + FromIAM
	}
	return s.cfg.Credentials
}
