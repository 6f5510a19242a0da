package s3

import (
	"bufio"
	"bytes"
	"context"
	"crypto/fips140"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/cofferbackup/coffer/store"
)

// newCreds returns the credentials that source names. Errors of finding them
// have their sentinels.
func newCreds(source string) *credentials.Credentials {
	if path, ok := strings.CutPrefix(source, FromFile); ok {
		return credentials.New(&fileCreds{path: path})
	}
	return credentials.New(&machineCreds{source: source, iam: &credentials.IAM{Client: iamClient()}})
}

// iamClient talks to the metadata service, which is on the machine or not at all.
func iamClient() *http.Client {
	return &http.Client{
		Timeout:   5 * time.Second,
		Transport: &http.Transport{DialContext: (&net.Dialer{Timeout: 2 * time.Second}).DialContext},
	}
}

// machineCreds are those of the environment and of the machine's role.
type machineCreds struct {
	source string
	iam    *credentials.IAM
	isIAM  bool
}

func (c *machineCreds) RetrieveWithCredContext(cc *credentials.CredContext) (credentials.Value, error) {
	if c.source != FromIAM {
		v := credentials.Value{
			AccessKeyID: os.Getenv("AWS_ACCESS_KEY_ID"), SecretAccessKey: os.Getenv("AWS_SECRET_ACCESS_KEY"),
			SessionToken: os.Getenv("AWS_SESSION_TOKEN"), SignerType: credentials.SignatureV4,
		}
		if v.AccessKeyID != "" && v.SecretAccessKey != "" {
			c.isIAM = false
			return v, strong(v)
		}
		if c.source == FromEnv {
			return v, fmt.Errorf("%w: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not both set; set them for the service, or say credentials=file:/path in the store URL",
				store.ErrDenied)
		}
	}
	ctx := context.Background()
	if cc != nil && cc.Context != nil {
		ctx = cc.Context
	}
	v, err := c.iam.RetrieveWithCredContext(&credentials.CredContext{Client: c.iam.Client, Context: ctx})
	if err == nil {
		c.isIAM = true
		return v, strong(v)
	}
	if c.source == FromIAM {
		return v, fmt.Errorf("%w: ask the metadata service for the machine's role: %w", store.ErrUnavailable, err)
	}
	return v, fmt.Errorf("%w: no credentials: AWS_ACCESS_KEY_ID is not set and the machine has no role; say credentials=file:/path in the store URL",
		store.ErrDenied)
}

func (c *machineCreds) Retrieve() (credentials.Value, error) { return c.RetrieveWithCredContext(nil) }

func (c *machineCreds) IsExpired() bool { return c.isIAM && c.iam.IsExpired() }

// fileCreds are read from a file, and again when it has changed, so that keys can
// be rotated under a running agent.
type fileCreds struct {
	path string
	seen os.FileInfo
}

func (c *fileCreds) IsExpired() bool {
	info, err := os.Stat(c.path)
	return err != nil || c.seen == nil || !info.ModTime().Equal(c.seen.ModTime()) || info.Size() != c.seen.Size() || !os.SameFile(info, c.seen)
}

func (c *fileCreds) RetrieveWithCredContext(*credentials.CredContext) (credentials.Value, error) {
	return c.Retrieve()
}

func (c *fileCreds) Retrieve() (credentials.Value, error) {
	f, err := os.Open(c.path)
	if err != nil {
		return credentials.Value{}, fmt.Errorf("%w: read credentials: %w", store.ErrDenied, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return credentials.Value{}, fmt.Errorf("%w: read credentials: %w", store.ErrDenied, err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return credentials.Value{}, fmt.Errorf("%w: credentials file %s is open to others (mode %04o); chmod 600 %s",
			store.ErrDenied, c.path, info.Mode().Perm(), c.path)
	}
	b, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return credentials.Value{}, fmt.Errorf("%w: read credentials file %s: %w", store.ErrDenied, c.path, err)
	}
	v, err := parseCreds(b)
	if err != nil {
		return credentials.Value{}, fmt.Errorf("%w: credentials file %s: %w", store.ErrDenied, c.path, err)
	}
	c.seen = info
	return v, strong(v)
}

// strong refuses a secret that FIPS 140-3 does not allow as the key of an HMAC
// (SP 800-131A: 112 bits). Signing with it would panic.
func strong(v credentials.Value) error {
	if fips140.Enforced() && len("AWS4"+v.SecretAccessKey) < 112/8 {
		return fmt.Errorf("%w: the secret key is too short for FIPS 140-3, which is enforced here; use one of 10 characters or more", store.ErrDenied)
	}
	return nil
}

// parseCreds reads the default profile of an AWS credentials file, or two lines.
// Its errors show nothing of the file.
func parseCreds(b []byte) (credentials.Value, error) {
	v := credentials.Value{SignerType: credentials.SignatureV4}
	var plain []string
	profile := "default" // what comes before any heading counts, too
	for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		if line[0] == '[' {
			profile = strings.TrimSpace(strings.Trim(line, "[]"))
			continue
		}
		name, value, _ := strings.Cut(line, "=")
		field := map[string]*string{
			"aws_access_key_id": &v.AccessKeyID, "aws_secret_access_key": &v.SecretAccessKey, "aws_session_token": &v.SessionToken,
		}[strings.ToLower(strings.TrimSpace(name))]
		switch {
		case field == nil:
			plain = append(plain, line) // a secret may have a "=" in it
		case profile == "default":
			*field = strings.TrimSpace(value)
		}
	}
	if v.AccessKeyID == "" && v.SecretAccessKey == "" && len(plain) == 2 {
		v.AccessKeyID, v.SecretAccessKey = plain[0], plain[1]
	}
	if v.AccessKeyID == "" || v.SecretAccessKey == "" {
		return v, errors.New("it has neither a [default] profile with aws_access_key_id and aws_secret_access_key, nor two lines with the key id and the secret")
	}
	return v, nil
}
