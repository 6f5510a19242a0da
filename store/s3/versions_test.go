package s3_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/cofferbackup/coffer/internal/testkit"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/s3"
)

// noVersions: where there are versions, a plain DELETE would hide the object and
// free nothing.
func noVersions(t *testing.T, m *testkit.MinIO) {
	s := open(t, parse(t, m.URL("locked/versions")))
	for range 2 {
		put(t, s, "a", []byte("x"), store.PutOptions{})
		if err := s.Delete(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
	}
	opts := minio.ListObjectsOptions{Prefix: "versions/", Recursive: true, WithVersions: true}
	for o := range m.Client(t).ListObjectsIter(t.Context(), "locked", opts) {
		t.Errorf("there is still %s version %s, delete marker %v, %v", o.Key, o.VersionID, o.IsDeleteMarker, o.Err)
	}
}

// hiddenBySomebody: what a delete marker hides is told from what is not there, and what
// is behind it is not touched.
func hiddenBySomebody(t *testing.T, m *testkit.MinIO) {
	s, c := open(t, parse(t, m.URL("locked/hidden"))), m.Client(t)
	put(t, s, "a", []byte("x"), store.PutOptions{})
	if err := c.RemoveObject(t.Context(), "locked", "hidden/a", minio.RemoveObjectOptions{}); err != nil {
		t.Fatal(err)
	}
	marker := ""
	for o := range c.ListObjectsIter(t.Context(), "locked", minio.ListObjectsOptions{Prefix: "hidden/", Recursive: true, WithVersions: true}) {
		if o.IsDeleteMarker {
			marker = o.VersionID
		}
	}
	put(t, s, "b", []byte("in the place of another"), store.PutOptions{})
	if err := c.RemoveObject(t.Context(), "locked", "hidden/b", minio.RemoveObjectOptions{}); err != nil {
		t.Fatal(err)
	}
	put(t, s, "b", []byte("yy"), store.PutOptions{})
	if err := c.RemoveObject(t.Context(), "locked", "hidden/none", minio.RemoveObjectOptions{}); err != nil {
		t.Fatal(err) // a marker and nothing behind it
	}
	concealed(t, s, "a")
	concealed(t, open(t, parse(t, m.URL("locked"))), "hidden/a")
	_, stat := s.Stat(t.Context(), "a")
	_, until := s.RetainedUntil(t.Context(), "a")
	for op, err := range map[string]error{"stat": stat, "get": s.Get(t.Context(), "a", make([]byte, 1), 0), "retained until": until} {
		if !errors.Is(err, store.ErrHidden) || !errors.Is(err, store.ErrNotExist) || !strings.Contains(err.Error(), marker) {
			t.Errorf("%s: %v, want that marker %s hides it", op, err, marker)
		}
	}
	if err := s.Delete(t.Context(), "a"); err != nil {
		t.Errorf("delete: %v", err)
	}
	for _, err := range []error{s.Get(t.Context(), "c", make([]byte, 1), 0), s.Get(t.Context(), "c", nil, 0)} {
		if !errors.Is(err, store.ErrNotExist) || errors.Is(err, store.ErrHidden) {
			t.Errorf("get what is not there: %v", err)
		}
	}
	if err := c.RemoveObject(t.Context(), "locked", "hidden/a", minio.RemoveObjectOptions{VersionID: marker}); err != nil {
		t.Fatal(err)
	}
	if got, err := store.ReadAll(t.Context(), s, "a", 10); err != nil || string(got) != "x" {
		t.Errorf("without the marker: %q, %v", got, err)
	}
	concealed(t, s)
	concealed(t, open(t, parse(t, m.URL("plain/hidden"))))
}

// concealed wants these objects, of one byte, and no others to be hidden.
func concealed(t *testing.T, s *s3.Store, want ...store.Key) {
	t.Helper()
	var got []store.Key
	for info, err := range s.Concealed(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(string(info.Key), "hidden/") || !strings.Contains(string(info.Key), "/") {
			got = append(got, info.Key)
			if info.Size != 1 || time.Since(info.Modified).Abs() > time.Minute {
				t.Errorf("%+v", info)
			}
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("hidden: %q, want %q", got, want)
	}
}
