package testkit

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// MinIOOptions of a server. The zero value is plain HTTP, path style.
type MinIOOptions struct {
	TLS    bool   // serve HTTPS under a CA made for this server
	Domain string // also answer to BUCKET.Domain, for virtual-host style; "s3.localhost" is in the certificate
	Clock  *Clock // the time by which retention ends and objects were put; without TLS
}

// MinIO is a running server on loopback, of its own and with an empty folder.
type MinIO struct {
	Endpoint  string // 127.0.0.1:port
	Domain    string
	AccessKey string
	SecretKey string
	CAFile    string // PEM of the CA, "" without TLS
	CredsFile string // the two keys, mode 0600

	root *x509.CertPool
}

// StartMinIO starts a server and stops it when the test ends.
func StartMinIO(t testing.TB, opts MinIOOptions) *MinIO {
	Part(t, "MinIO")
	t.Helper()
	tool := Tool(t, "minio")
	dir := t.TempDir()
	m := &MinIO{Domain: opts.Domain, AccessKey: "coffer-test-user", SecretKey: "coffer-test-secret", CredsFile: filepath.Join(dir, "credentials")}
	writeFile(t, m.CredsFile, m.AccessKey+"\n"+m.SecretKey+"\n")
	certs := filepath.Join(dir, "certs")
	mkdir(t, certs)
	if opts.TLS {
		m.CAFile = filepath.Join(dir, "ca.pem")
		m.root = writeCertificates(t, m.CAFile, filepath.Join(certs, "public.crt"), filepath.Join(certs, "private.key"))
	}
	// Between finding a free port and its use another process may take it.
	for range 3 {
		m.Endpoint = freePort(t)
		args := []string{"server", "--quiet", "--address", m.Endpoint, "--certs-dir", certs, filepath.Join(dir, "data")}
		env := []string{"HOME=" + dir, "MINIO_ROOT_USER=" + m.AccessKey, "MINIO_ROOT_PASSWORD=" + m.SecretKey,
			"MINIO_BROWSER=off", "MINIO_UPDATE=off", "MINIO_DOMAIN=" + m.Domain}
		if opts.Clock != nil {
			env = append(env, "MINIO_NTP_SERVER="+opts.Clock.serveNTP(t))
		}
		p := startProcess(t, exec.Command(tool, args...), env)
		err := m.waitReady(t.Context(), p)
		if err == nil {
			if opts.Clock != nil {
				m.Endpoint = opts.Clock.serveS3(t, m.Endpoint)
			}
			return m
		}
		t.Logf("minio at %s: %v\n%s", m.Endpoint, err, p.output())
	}
	t.Fatal("minio does not start")
	return nil
}

// waitReady returns when the server answers that it is ready, or with an error
// when it ended or took half a minute.
func (m *MinIO) waitReady(ctx context.Context, p *process) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	client := &http.Client{Transport: m.transport()}
	defer client.CloseIdleConnections()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.base()+"/minio/health/ready", nil)
		if err != nil {
			return err
		}
		if resp, err := client.Do(req); err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return errors.New("not ready in time")
		case <-p.done:
			return errors.New("it has ended")
		case <-tick.C:
		}
	}
}

func (m *MinIO) base() string {
	if m.root != nil {
		return "https://" + m.Endpoint
	}
	return "http://" + m.Endpoint
}

func (m *MinIO) transport() *http.Transport {
	return &http.Transport{TLSClientConfig: &tls.Config{RootCAs: m.root}}
}

// BucketOptions of a bucket. The zero value is a plain one.
type BucketOptions struct {
	ObjectLock bool
	// Keep is for how many days the bucket lets nobody remove anything (compliance).
	Keep uint
}

// Bucket makes a bucket.
func (m *MinIO) Bucket(t testing.TB, name string, opts BucketOptions) {
	t.Helper()
	c := m.Client(t)
	err := c.MakeBucket(t.Context(), name, minio.MakeBucketOptions{ObjectLocking: opts.ObjectLock || opts.Keep > 0})
	if err == nil && opts.Keep > 0 {
		mode, unit := minio.Compliance, minio.Days
		err = c.SetBucketObjectLockConfig(t.Context(), name, &mode, &opts.Keep, &unit)
	}
	if err != nil {
		t.Fatalf("make bucket %s: %v", name, err)
	}
}

// Allow makes credentials that may do some actions ("s3:GetObject") with a bucket and
// nothing else, and returns the file that they are in. Store URLs take it with As.
func (m *MinIO) Allow(t testing.TB, bucket string, actions ...string) string {
	t.Helper()
	policy, err := json.Marshal(map[string]any{"Version": "2012-10-17", "Statement": []any{map[string]any{
		"Effect": "Allow", "Action": actions, "Resource": []string{"arn:aws:s3:::" + bucket, "arn:aws:s3:::" + bucket + "/*"},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	transport := m.transport()
	defer transport.CloseIdleConnections()
	role := credentials.New(&credentials.STSAssumeRole{STSEndpoint: m.base(), Client: &http.Client{Transport: transport},
		Options: credentials.STSAssumeRoleOptions{AccessKey: m.AccessKey, SecretKey: m.SecretKey, Policy: string(policy)}})
	v, err := role.GetWithContext(nil)
	if err != nil {
		t.Fatalf("make credentials that may %s: %v", actions, err)
	}
	path := filepath.Join(t.TempDir(), "credentials")
	writeFile(t, path, fmt.Sprintf("[default]\naws_access_key_id=%s\naws_secret_access_key=%s\naws_session_token=%s\n",
		v.AccessKeyID, v.SecretAccessKey, v.SessionToken))
	return path
}

// As returns a store URL of this server with other credentials.
func (m *MinIO) As(credsFile, storeURL string) string {
	return strings.Replace(storeURL, url.QueryEscape(m.CredsFile), url.QueryEscape(credsFile), 1)
}

// Client returns an administrator's client.
func (m *MinIO) Client(t testing.TB) *minio.Client {
	t.Helper()
	transport := m.transport()
	t.Cleanup(transport.CloseIdleConnections)
	c, err := minio.New(m.Endpoint, &minio.Options{
		Creds: credentials.NewStaticV4(m.AccessKey, m.SecretKey, ""), Secure: m.root != nil, Transport: transport, Region: "us-east-1",
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// URL returns the store URL of a bucket, or of a prefix in it (bucket/prefix),
// with credentials and CA by reference.
func (m *MinIO) URL(bucket string) string {
	q := url.Values{"credentials": {"file:" + m.CredsFile}}
	if m.root != nil {
		q.Set("ca", m.CAFile)
	} else {
		q.Set("tls", "off")
	}
	return "s3://" + m.Endpoint + "/" + bucket + "?" + q.Encode()
}

// VirtualURL is URL with the bucket in the host name.
func (m *MinIO) VirtualURL(bucket string) string {
	_, port, _ := net.SplitHostPort(m.Endpoint)
	return strings.Replace(m.URL(bucket), m.Endpoint, m.Domain+":"+port, 1) + "&style=virtual"
}

func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// process is a server that runs until the test ends.
type process struct {
	done chan struct{} // closed when it has ended
	log  string
}

// startProcess starts cmd with the environment and its output in a file, and
// ends it when the test ends.
func startProcess(t testing.TB, cmd *exec.Cmd, env []string) *process {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	p := &process{done: make(chan struct{}), log: log.Name()}
	cmd.Env, cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = env, log, log, dieWithUs()
	started := make(chan error)
	go func() {
		// A process that dies with us dies with the thread that started it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.done)
		defer log.Close()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		t.Fatalf("start %s: %v", cmd.Path, err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.done:
		case <-time.After(10 * time.Second):
			_ = cmd.Process.Kill()
			<-p.done
		}
	})
	return p
}

// output returns the end of what the process said.
func (p *process) output() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return fmt.Sprintf("no log: %v", err)
	}
	return string(b[max(0, len(b)-4000):])
}

func writeFile(t testing.TB, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func mkdir(t testing.TB, path string) {
	t.Helper()
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
}
