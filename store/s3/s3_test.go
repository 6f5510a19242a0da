package s3_test

import (
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/cofferbackup/coffer/internal/testkit"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/s3"
	"github.com/cofferbackup/coffer/store/storetest"
)

func parse(t *testing.T, raw string) s3.Config {
	t.Helper()
	cfg, err := s3.ParseURL(raw)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func open(t *testing.T, cfg s3.Config) *s3.Store {
	t.Helper()
	s, err := s3.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func put(t *testing.T, s store.Store, key store.Key, content []byte, opts store.PutOptions) {
	t.Helper()
	if err := s.Put(t.Context(), key, store.Body{content}, opts); err != nil {
		t.Fatal(err)
	}
}

// contract runs the suite, each test on a prefix of its own in the bucket, with
// parts small enough that large objects have several.
func contract(t *testing.T, url string) { storetest.Run(t, prefixes(t, url)) }

func prefixes(t *testing.T, url string) func(t *testing.T) store.Store {
	cfg := parse(t, url)
	cfg.PartSize = s3.MinPartSize
	var n atomic.Int32
	return func(t *testing.T) store.Store {
		cfg := cfg
		cfg.Prefix = fmt.Sprintf("Site.A/test-%d", n.Add(1))
		return open(t, cfg)
	}
}

func TestContract(t *testing.T) {
	m := testkit.StartMinIO(t, testkit.MinIOOptions{})
	m.Bucket(t, "plain", testkit.BucketOptions{})
	contract(t, m.URL("plain"))
	wantNoUploads(t, m, "plain")
}

func TestContractTLS(t *testing.T) {
	m := testkit.StartMinIO(t, testkit.MinIOOptions{TLS: true, Domain: "s3.localhost"})
	m.Bucket(t, "path", testkit.BucketOptions{})
	m.Bucket(t, "virtual", testkit.BucketOptions{})
	t.Run("path", func(t *testing.T) { contract(t, m.URL("path")+"&style=path") })
	t.Run("virtual", func(t *testing.T) { contract(t, m.VirtualURL("virtual")) })
}

func TestContractVirtualHost(t *testing.T) {
	m := testkit.StartMinIO(t, testkit.MinIOOptions{Domain: "s3.localhost"})
	m.Bucket(t, "bucket", testkit.BucketOptions{})
	contract(t, m.VirtualURL("bucket"))
}

func TestContractObjectLock(t *testing.T) {
	m := testkit.StartMinIO(t, testkit.MinIOOptions{})
	m.Bucket(t, "locked", testkit.BucketOptions{ObjectLock: true})
	contract(t, m.URL("locked"))
}

// TestContractKept: in a bucket that keeps everything, and with credentials that may
// not delete.
func TestContractKept(t *testing.T) {
	m := testkit.StartMinIO(t, testkit.MinIOOptions{})
	m.Bucket(t, "kept", testkit.BucketOptions{Keep: 1})
	m.Bucket(t, "kept-too", testkit.BucketOptions{Keep: 1})
	m.Bucket(t, "plain", testkit.BucketOptions{})
	m.Bucket(t, "locked", testkit.BucketOptions{ObjectLock: true})
	t.Run("compliance", func(t *testing.T) { storetest.RunKept(t, store.ErrLocked, prefixes(t, m.URL("kept"))) })
	for _, bucket := range []string{"plain", "kept-too"} {
		least := m.Allow(t, bucket, "s3:ListBucket", "s3:GetBucketObjectLockConfiguration", "s3:GetObject", "s3:PutObject")
		t.Run("credentials for "+bucket, func(t *testing.T) {
			storetest.RunKept(t, store.ErrDenied, prefixes(t, m.As(least, m.URL(bucket))))
		})
	}
	keeper := m.Allow(t, "locked", "s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:GetObjectRetention", "s3:PutObjectRetention")
	t.Run("credentials that may extend", func(t *testing.T) { extends(t, prefixes(t, m.As(keeper, m.URL("locked")))(t)) })
}

// extends: who may put and retain can keep what he puts longer, and not shorter.
func extends(t *testing.T, s store.Store) {
	hour := time.Now().Add(time.Hour)
	put(t, s, "a", []byte("x"), store.PutOptions{Retention: store.Retention{Until: hour}})
	r := s.(store.Retainer)
	for _, ask := range []time.Duration{2 * time.Hour, time.Minute} {
		if err := r.Retain(t.Context(), "a", store.Retention{Until: hour.Add(ask)}); err != nil {
			t.Fatal(err)
		}
		if got, err := r.RetainedUntil(t.Context(), "a"); err != nil || got.Before(hour.Add(2*time.Hour)) {
			t.Errorf("retained until %v, %v", got, err)
		}
	}
	if err := s.Delete(t.Context(), "a"); !errors.Is(err, store.ErrLocked) && !errors.Is(err, store.ErrDenied) {
		t.Errorf("delete: %v", err)
	}
}

// wantNoUploads checks that no parts were left in the bucket.
func wantNoUploads(t *testing.T, m *testkit.MinIO, bucket string) {
	t.Helper()
	for u := range m.Client(t).ListIncompleteUploads(t.Context(), bucket, "", true) {
		t.Errorf("an upload was left: %s %v", u.Key, u.Err)
	}
}

// TestServer is what needs a server and no other kind of it than the plainest.
func TestServer(t *testing.T) {
	m := testkit.StartMinIO(t, testkit.MinIOOptions{})
	m.Bucket(t, "plain", testkit.BucketOptions{})
	m.Bucket(t, "locked", testkit.BucketOptions{ObjectLock: true})
	for _, c := range []struct {
		name string
		test func(*testing.T, *testkit.MinIO)
	}{
		{"Whole bucket", wholeBucket},
		{"Prefixes are apart", prefixesApart},
		{"Checksums are kept", checksumsKept},
		{"Retention", retention},
		{"Large put onto an object", largeOntoObject},
		{"Delete leaves no version", noVersions},
		{"Hidden by somebody", hiddenBySomebody},
		{"Bucket missing", bucketMissing},
		{"Bucket goes away", bucketGoesAway},
		{"Wrong credentials", wrongCredentials},
		{"Credentials from environment", credentialsFromEnv},
		{"Credentials from the machine", credentialsFromIAM},
		{"Credentials change", credentialsChange},
		{"Retry through an outage", outage},
		{"Retry after a cut", cutAfterApply},
		{"Damage on the way", damage},
		{"Answer is cut", answerCut},
		{"Limits", limits},
		{"Limits end with the operation", limitsEnd},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, m) })
	}
}

func wholeBucket(t *testing.T, m *testkit.MinIO) {
	m.Bucket(t, "whole", testkit.BucketOptions{})
	s := open(t, parse(t, m.URL("whole")))
	put(t, s, "a/b", []byte("x"), store.PutOptions{})
	// Objects of others whose names are no keys.
	c := m.Client(t)
	for _, name := range []string{"README", "a/.hidden", "a/with space"} {
		if _, err := c.PutObject(t.Context(), "whole", name, strings.NewReader("x"), 1, minio.PutObjectOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	var got []store.Key
	for info, err := range s.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, info.Key)
	}
	if len(got) != 1 || got[0] != "a/b" {
		t.Errorf("list: %q", got)
	}
}

func prefixesApart(t *testing.T, m *testkit.MinIO) {
	one, two := open(t, parse(t, m.URL("plain/host1"))), open(t, parse(t, m.URL("plain/host10")))
	put(t, one, "vault", []byte("one"), store.PutOptions{})
	put(t, two, "vault", []byte("two"), store.PutOptions{})
	for info, err := range one.List(t.Context(), "") {
		if err != nil || info.Key != "vault" {
			t.Errorf("list: %+v, %v", info, err)
		}
	}
	if got, err := store.ReadAll(t.Context(), one, "vault", 10); err != nil || string(got) != "one" {
		t.Errorf("%q, %v", got, err)
	}
}

func checksumsKept(t *testing.T, m *testkit.MinIO) {
	cfg := parse(t, m.URL("plain/sums"))
	cfg.PartSize = s3.MinPartSize
	s := open(t, cfg)
	for key, size := range map[store.Key]int{"small": 1000, "parts": 2*s3.MinPartSize + 99} {
		data := make([]byte, size)
		for i := range data {
			data[i] = byte(i * i >> 8)
		}
		put(t, s, key, data, store.PutOptions{})
		info, err := m.Client(t).StatObject(t.Context(), "plain", "sums/"+string(key), minio.StatObjectOptions{Checksum: true})
		if err != nil {
			t.Fatal(err)
		}
		want := minio.NewChecksum(minio.ChecksumCRC32C, be32(crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)))).Encoded()
		if info.ChecksumCRC32C != want || info.ChecksumMode != "FULL_OBJECT" {
			t.Errorf("%s: the server has checksum %q of mode %q, want %q of the whole object", key, info.ChecksumCRC32C, info.ChecksumMode, want)
		}
	}
}

// largeOntoObject: the server refuses before it has read the body, and that must
// not look like a connection that was cut.
func largeOntoObject(t *testing.T, m *testkit.MinIO) {
	s := open(t, parse(t, m.URL("plain/large")))
	put(t, s, "a", []byte("x"), store.PutOptions{})
	for range 5 {
		if err := s.Put(t.Context(), "a", store.Body{make([]byte, 48<<20)}, store.PutOptions{}); !errors.Is(err, store.ErrExist) {
			t.Errorf("put 48 MiB onto an object: %v", err)
		}
	}
}

func be32(n uint32) []byte { return []byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)} }

func retention(t *testing.T, m *testkit.MinIO) {
	cfg := parse(t, m.URL("locked/retention"))
	cfg.PartSize = s3.MinPartSize
	s := open(t, cfg)
	until := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	for _, c := range []struct {
		key        store.Key
		size       int
		compliance bool
		mode       minio.RetentionMode
	}{
		{"governance", 10, false, minio.Governance},
		{"compliance", 10, true, minio.Compliance},
		{"parts", s3.MinPartSize + 1, true, minio.Compliance},
	} {
		put(t, s, c.key, make([]byte, c.size), store.PutOptions{Retention: store.Retention{Until: until, Compliance: c.compliance}})
		mode, got, err := m.Client(t).GetObjectRetention(t.Context(), "locked", "retention/"+string(c.key), "")
		if err != nil || mode == nil || *mode != c.mode || got == nil || !got.Equal(until) {
			t.Errorf("%s: the server keeps it %v until %v, %v; want %v until %v", c.key, mode, got, err, c.mode, until)
		}
		if err := s.Delete(t.Context(), c.key); !errors.Is(err, store.ErrLocked) {
			t.Errorf("%s: delete before the time: %v", c.key, err)
		}
		if got, err := s.RetainedUntil(t.Context(), c.key); err != nil || !got.Equal(until) {
			t.Errorf("%s: retained until %v, %v; want %v", c.key, got, err, until)
		}
		if _, err := s.Stat(t.Context(), c.key); err != nil {
			t.Errorf("%s: after the refused delete: %v", c.key, err)
		}
		later := until.Add(time.Hour)
		for _, ask := range []store.Retention{{Until: later, Compliance: !c.compliance}, {Until: until, Compliance: true}, {Until: later}} {
			if err := s.Retain(t.Context(), c.key, ask); err != nil {
				t.Errorf("%s: retain until %v: %v", c.key, ask.Until, err)
			}
			mode, got, err := m.Client(t).GetObjectRetention(t.Context(), "locked", "retention/"+string(c.key), "")
			if err != nil || *mode != c.mode || !got.Equal(later) {
				t.Errorf("%s: after it was extended the server keeps it %v until %v, %v; want %v until %v", c.key, mode, got, err, c.mode, later)
			}
		}
	}
	put(t, s, "free", nil, store.PutOptions{})
	if got, err := s.RetainedUntil(t.Context(), "free"); err != nil || !got.IsZero() {
		t.Errorf("without retention: %v, %v", got, err)
	}
	if err := s.Retain(t.Context(), "free", store.Retention{Until: until, Compliance: true}); err != nil {
		t.Errorf("retain what had no retention: %v", err)
	}
	if mode, got, err := m.Client(t).GetObjectRetention(t.Context(), "locked", "retention/free", ""); err != nil || *mode != minio.Compliance || !got.Equal(until) {
		t.Errorf("the server keeps it %v until %v, %v", mode, got, err)
	}
	if _, err := s.RetainedUntil(t.Context(), "none"); !errors.Is(err, store.ErrNotExist) {
		t.Errorf("of no object: %v", err)
	}
	plain := open(t, parse(t, m.URL("plain/retention")))
	err := plain.Put(t.Context(), "a", nil, store.PutOptions{Retention: store.Retention{Until: until}})
	if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "object lock") {
		t.Errorf("retention in a bucket without object lock: %v", err)
	}
	put(t, plain, "a", nil, store.PutOptions{})
	if err := plain.Retain(t.Context(), "a", store.Retention{Until: until}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("retain in a bucket without object lock: %v", err)
	}
}

func bucketMissing(t *testing.T, m *testkit.MinIO) {
	_, err := s3.Open(t.Context(), parse(t, m.URL("no-such-bucket")))
	if !errors.Is(err, store.ErrMissing) || !strings.Contains(err.Error(), "no-such-bucket at "+m.Endpoint) {
		t.Errorf("open: %v", err)
	}
}

func bucketGoesAway(t *testing.T, m *testkit.MinIO) {
	m.Bucket(t, "fleeting", testkit.BucketOptions{})
	s := open(t, parse(t, m.URL("fleeting")))
	if err := m.Client(t).RemoveBucket(t.Context(), "fleeting"); err != nil {
		t.Fatal(err)
	}
	_, stat := s.Stat(t.Context(), "a")
	errs := map[string]error{
		"get": s.Get(t.Context(), "a", make([]byte, 1), 0), "get nothing": s.Get(t.Context(), "a", nil, 0), "stat": stat,
		"put": s.Put(t.Context(), "a", nil, store.PutOptions{}), "delete": s.Delete(t.Context(), "a"), "list": nil,
	}
	for _, err := range s.List(t.Context(), "") {
		errs["list"] = err
	}
	for op, err := range errs {
		if !errors.Is(err, store.ErrMissing) {
			t.Errorf("%s: %v, want %v", op, err, store.ErrMissing)
		}
	}
}

func TestUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	cfg := parse(t, "s3://"+addr+"/bucket?tls=off&credentials=file:"+credsFile(t, "a-key-id\na-secret-of-some-length\n", 0o600))
	if _, err := s3.Open(t.Context(), cfg); !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), addr) {
		t.Errorf("open: %v", err)
	}
}

func TestCA(t *testing.T) {
	m := testkit.StartMinIO(t, testkit.MinIOOptions{TLS: true})
	m.Bucket(t, "bucket", testkit.BucketOptions{})
	other := testkit.StartMinIO(t, testkit.MinIOOptions{TLS: true})
	for what, c := range map[string]struct{ ca, want string }{
		"none":       {"", "ca=/file.pem"},
		"other":      {other.CAFile, "ca=/file.pem"},
		"no file":    {"/no/such/file", "/no/such/file"},
		"not a cert": {m.CredsFile, "no PEM certificate"},
	} {
		cfg := parse(t, m.URL("bucket"))
		cfg.CA = c.ca
		_, err := s3.Open(t.Context(), cfg)
		if err == nil || errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("CA %s: %v, want an error that is not worth trying again and speaks of %q", what, err, c.want)
		}
	}
	cfg := parse(t, m.URL("bucket"))
	cfg.Plaintext, cfg.CA = true, ""
	if _, err := s3.Open(t.Context(), cfg); err == nil {
		t.Error("plain HTTP to a TLS port succeeds")
	}
	plain := testkit.StartMinIO(t, testkit.MinIOOptions{})
	cfg = parse(t, plain.URL("bucket"))
	cfg.Plaintext = false
	if _, err := s3.Open(t.Context(), cfg); err == nil || errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "tls=off") {
		t.Errorf("TLS to a plain port: %v", err)
	}
}
