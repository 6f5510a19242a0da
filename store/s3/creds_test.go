package s3_test

import (
	"crypto/fips140"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/internal/testkit"
	"github.com/cofferbackup/coffer/store"
	"github.com/cofferbackup/coffer/store/s3"
)

func credsFile(t *testing.T, content string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "credentials")
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func wrongCredentials(t *testing.T, m *testkit.MinIO) {
	for _, c := range []struct {
		name, content string
		mode          os.FileMode
		want          string // in the error
	}{
		{"secret", m.AccessKey + "\nnot-the-hunter2-secret\n", 0o600, "correct the credentials"},
		{"key id", "nobody-at-all\n" + m.SecretKey + "\n", 0o600, "correct the credentials"},
		{"mode", m.AccessKey + "\n" + m.SecretKey + "\n", 0o640, "chmod 600"},
		{"one line", m.AccessKey + ":hunter2\n", 0o600, "two lines"},
		{"empty", "", 0o600, "two lines"},
		{"other profile", "[other]\naws_access_key_id=hunter2\naws_secret_access_key=hunter2\n", 0o600, "[default]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := parse(t, m.URL("plain"))
			cfg.Credentials = s3.FromFile + credsFile(t, c.content, c.mode)
			_, err := s3.Open(t.Context(), cfg)
			if !errors.Is(err, store.ErrDenied) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("open: %v, want %v that speaks of %q", err, store.ErrDenied, c.want)
			}
			if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), m.SecretKey) {
				t.Errorf("the error shows a secret: %v", err)
			}
		})
	}
	if fips140.Enforced() {
		cfg := parse(t, m.URL("plain"))
		cfg.Credentials = s3.FromFile + credsFile(t, m.AccessKey+"\nshort\n", 0o600)
		if _, err := s3.Open(t.Context(), cfg); !errors.Is(err, store.ErrDenied) || !strings.Contains(err.Error(), "FIPS") {
			t.Errorf("open with a secret that FIPS 140-3 does not allow: %v", err)
		}
	}
	cfg := parse(t, m.URL("plain"))
	cfg.Credentials = s3.FromFile + "/no/such/file"
	if _, err := s3.Open(t.Context(), cfg); !errors.Is(err, store.ErrDenied) || !strings.Contains(err.Error(), "/no/such/file") {
		t.Errorf("open without the file: %v", err)
	}
}

func credentialsFromEnv(t *testing.T, m *testkit.MinIO) {
	t.Setenv("AWS_ACCESS_KEY_ID", m.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", m.SecretKey)
	t.Setenv("AWS_SESSION_TOKEN", "")
	for _, source := range []string{"", s3.FromEnv} {
		cfg := parse(t, m.URL("plain"))
		cfg.Credentials = source
		open(t, cfg)
	}
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	cfg := parse(t, m.URL("plain"))
	cfg.Credentials = s3.FromEnv
	if _, err := s3.Open(t.Context(), cfg); !errors.Is(err, store.ErrDenied) || !strings.Contains(err.Error(), "AWS_SECRET_ACCESS_KEY") {
		t.Errorf("open without the secret in the environment: %v", err)
	}
}

// credentialsChange: keys are rotated under a running agent.
func credentialsChange(t *testing.T, m *testkit.MinIO) {
	path := credsFile(t, "[other]\naws_access_key_id = x\n[default]\n# now\naws_access_key_id = "+m.AccessKey+"\naws_secret_access_key="+m.SecretKey+"\n", 0o600)
	cfg := parse(t, m.URL("plain/rotated"))
	cfg.Credentials = s3.FromFile + path
	s := open(t, cfg)
	replace := func(content string) {
		next := credsFile(t, content, 0o600)
		if err := os.Rename(next, path); err != nil {
			t.Fatal(err)
		}
	}
	replace("old-and-revoked\nold-and-revoked\n")
	if err := s.Put(t.Context(), "a", nil, store.PutOptions{}); !errors.Is(err, store.ErrDenied) {
		t.Errorf("put with the new, wrong keys: %v", err)
	}
	replace(m.AccessKey + "\n" + m.SecretKey + "\n")
	if err := s.Put(t.Context(), "a", nil, store.PutOptions{}); err != nil {
		t.Errorf("put with the new, right keys: %v", err)
	}
}

// credentialsFromIAM has the metadata service of a container, which is the one
// that can be somewhere else.
func credentialsFromIAM(t *testing.T, m *testkit.MinIO) {
	var status atomic.Int32
	status.Store(http.StatusOK)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(int(status.Load()))
		_, _ = fmt.Fprintf(w, `{"Code":"Success","AccessKeyId":%q,"SecretAccessKey":%q,"Expiration":%q}`,
			m.AccessKey, m.SecretKey, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	}))
	t.Cleanup(srv.Close)
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", srv.URL)
	for _, source := range []string{"", s3.FromIAM} {
		cfg := parse(t, m.URL("plain"))
		cfg.Credentials = source
		open(t, cfg)
	}
	status.Store(http.StatusInternalServerError)
	for source, want := range map[string]error{"": store.ErrDenied, s3.FromIAM: store.ErrUnavailable} {
		cfg := parse(t, m.URL("plain"))
		cfg.Credentials = source
		if _, err := s3.Open(t.Context(), cfg); !errors.Is(err, want) {
			t.Errorf("credentials=%s without an answer: %v, want %v", source, err, want)
		}
	}
}
