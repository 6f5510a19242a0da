package s3_test

import (
	"strings"
	"testing"

	"github.com/cofferbackup/coffer/store/s3"
)

func TestParseURL(t *testing.T) {
	base := s3.Config{Endpoint: "minio.example:9000", Bucket: "backups", Style: s3.Auto, PartSize: s3.DefaultPartSize}
	for raw, change := range map[string]func(*s3.Config){
		"s3://minio.example:9000/backups":                                     func(*s3.Config) {},
		"s3://minio.example:9000/backups/":                                    func(*s3.Config) {},
		"s3://MINIO.example:9000/backups?":                                    func(*s3.Config) {},
		"s3://minio.example/backups":                                          func(c *s3.Config) { c.Endpoint = "minio.example" },
		"s3://192.0.2.1:9000/backups":                                         func(c *s3.Config) { c.Endpoint = "192.0.2.1:9000" },
		"s3://[2001:db8::1]:9000/backups":                                     func(c *s3.Config) { c.Endpoint = "[2001:db8::1]:9000" },
		"s3://minio.example:9000/backups/host1":                               func(c *s3.Config) { c.Prefix = "host1" },
		"s3://minio.example:9000/backups/Site.A/host_1/":                      func(c *s3.Config) { c.Prefix = "Site.A/host_1" },
		"s3://minio.example:9000/backups?region=eu-west-1":                    func(c *s3.Config) { c.Region = "eu-west-1" },
		"s3://minio.example:9000/backups?style=path":                          func(c *s3.Config) { c.Style = s3.Path },
		"s3://minio.example:9000/backups?style=virtual":                       func(c *s3.Config) { c.Style = s3.Virtual },
		"s3://minio.example:9000/backups?tls=off":                             func(c *s3.Config) { c.Plaintext = true },
		"s3://minio.example:9000/backups?tls=on&ca=/etc/ca.pem":               func(c *s3.Config) { c.CA = "/etc/ca.pem" },
		"s3://minio.example:9000/backups?credentials=env":                     func(c *s3.Config) { c.Credentials = "env" },
		"s3://minio.example:9000/backups?credentials=iam":                     func(c *s3.Config) { c.Credentials = "iam" },
		"s3://minio.example:9000/backups?credentials=file:/etc/coffer/s3":     func(c *s3.Config) { c.Credentials = "file:/etc/coffer/s3" },
		"s3://minio.example:9000/backups?part-size=5MiB":                      func(c *s3.Config) { c.PartSize = 5 << 20 },
		"s3://minio.example:9000/backups?part-size=6144KiB&style=auto":        func(c *s3.Config) { c.PartSize = 6 << 20 },
		"s3://minio.example:9000/backups/a?part-size=6000000&region=x&tls=on": func(c *s3.Config) { c.PartSize, c.Region, c.Prefix = 6_000_000, "x", "a" },
	} {
		want := base
		change(&want)
		// A Config has a function in it and cannot be compared as a whole.
		got, err := s3.ParseURL(raw)
		if err != nil {
			t.Errorf("%s: %v", raw, err)
			continue
		}
		if show(got) != show(want) {
			t.Errorf("%s:\n got %s\nwant %s", raw, show(got), show(want))
		}
	}
}

func show(c s3.Config) string {
	plain := "tls"
	if c.Plaintext {
		plain = "plain"
	}
	return strings.Join([]string{c.Endpoint, c.Bucket, c.Prefix, c.Region, string(c.Style), plain, c.CA, c.Credentials, c.String()}, "|") +
		"|" + strings.Repeat("x", int(c.PartSize>>18))
}

func TestParseURLRefuses(t *testing.T) {
	for raw, want := range map[string]string{
		"":                                 "s3://",
		"https://h/bucket":                 "s3://",
		"s3:h/bucket":                      "s3://",
		"s3://":                            "host",
		"s3:///bucket":                     "host",
		"s3://h":                           "bucket",
		"s3://h/":                          "bucket",
		"s3://h/b":                         "bucket",
		"s3://h/Upper_Case":                "bucket",
		"s3://h:0/bucket":                  "port",
		"s3://h:/bucket":                   "port",
		"s3://h:99999/bucket":              "port",
		"s3://h:9000:1/bucket":             "port",
		"s3://h h/bucket":                  "host",
		"s3://h%41/bucket":                 "host",
		"s3://h/bucket//a":                 "prefix",
		"s3://h/bucket/../a":               "prefix",
		"s3://h/bucket/a b":                "prefix",
		"s3://h/bucket#x":                  "#",
		"s3://h/bucket?secret=1":           `"secret" is unknown`,
		"s3://h/bucket?tls=maybe":          "tls",
		"s3://h/bucket?tls=off&tls=off":    "2 times",
		"s3://h/bucket?style=dns":          "style",
		"s3://h/bucket?ca=":                "ca",
		"s3://h/bucket?tls=off&ca=/a":      "ca",
		"s3://h/bucket?credentials=":       "credentials",
		"s3://h/bucket?credentials=file:":  "credentials",
		"s3://h/bucket?part-size=4MiB":     "part-size",
		"s3://h/bucket?part-size=1GiB":     "part-size",
		"s3://h/bucket?part-size=257MiB":   "part-size",
		"s3://h/bucket?part-size=-6000000": "part-size",
		"s3://h/bucket?a=%zz":              "a=b",
		"s3://h/bucket?a;b":                "a=b",
	} {
		if got, err := s3.ParseURL(raw); err == nil {
			t.Errorf("%q is accepted as %s", raw, got)
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %q does not speak of %q", raw, err, want)
		}
	}
}

// TestParseURLHidesSecrets: wherever people put a secret into a URL, the error
// does not show it and says where it belongs.
func TestParseURLHidesSecrets(t *testing.T) {
	for _, raw := range []string{
		"s3://AKIA:hunter2@h/bucket", "s3://hunter2@h/bucket", "s3://AKIA:hunter2@h:99999/bucket", "s3://AKIA:hunter2/bucket",
		"s3://h/bucket?credentials=AKIA:hunter2", "s3://h/bucket?secret=hunter2", "s3://h/bucket?credentials=hunter2%zz",
		"s3://h/hunter2@bucket",
	} {
		_, err := s3.ParseURL(raw)
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", raw, err)
		}
		if strings.Contains(raw, "@") && !strings.Contains(err.Error(), "credentials=file:") {
			t.Errorf("%s: error %q does not say where credentials belong", raw, err)
		}
	}
}

// FuzzParseURL: what is accepted can be written and read again, and is safe.
func FuzzParseURL(f *testing.F) {
	for _, s := range []string{
		"s3://minio.example:9000/backups/host1?region=eu&style=path&tls=on&ca=/a.pem&credentials=file:/a&part-size=8MiB",
		"s3://[::1]:9000/bucket", "s3://a:b@c/bucket", "s3://h:1/bucket?tls=off", "s3://h/buc.ket/%2e%2e/x",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		c, err := s3.ParseURL(raw)
		if err != nil {
			return
		}
		again, err := s3.ParseURL(c.String())
		if err != nil {
			t.Fatalf("%q reads as %s, which does not read: %v", raw, c, err)
		}
		if again.Endpoint != c.Endpoint || again.Bucket != c.Bucket || again.Prefix != c.Prefix {
			t.Errorf("%q reads as %s, which reads as %s", raw, c, again)
		}
		if strings.ContainsAny(c.String(), "@%?#\\ \x00") || strings.Contains("/"+c.Prefix+"/", "/../") {
			t.Errorf("%q is accepted as %s", raw, c)
		}
		if c.PartSize < s3.MinPartSize || c.Plaintext && c.CA != "" {
			t.Errorf("%q is accepted with part size %d, CA %q", raw, c.PartSize, c.CA)
		}
	})
}
