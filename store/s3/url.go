package s3

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/minio/minio-go/v7/pkg/s3utils"

	"github.com/cofferbackup/coffer/store"
)

// Style is where requests carry the name of the bucket.
type Style string

// The styles. Auto is virtual-host for the large clouds, which need it, and path
// for everything else.
const (
	Auto    Style = "auto"
	Path    Style = "path"
	Virtual Style = "virtual"
)

// Sources of credentials. FromFile is followed by the path.
const (
	FromEnv  = "env"   // AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN
	FromIAM  = "iam"   // the role of the machine, from the cloud's metadata service
	FromFile = "file:" // an AWS credentials file, or two lines: key id and secret
)

// Part sizes, in bytes. S3 takes parts from 5 MiB on.
const (
	MinPartSize     = 5 << 20
	DefaultPartSize = 64 << 20
)

// Config of a Store. It holds no secret.
type Config struct {
	Endpoint    string // host[:port]
	Bucket      string
	Prefix      string // of all keys, without slashes at its ends; "" for none
	Region      string // "": the bucket's own at AWS, us-east-1 elsewhere
	Style       Style  // "": Auto
	Plaintext   bool   // plain HTTP
	CA          string // PEM file of the CAs to trust instead of the system's
	Credentials string // "": FromEnv, or else FromIAM
	PartSize    int64  // of an object that is larger; 0: DefaultPartSize

	Now func() time.Time // tells whether a retention has ended; nil: time.Now

	// Upload and Download return when n bytes may go, or ctx has ended; nil: no limit.
	// They see what goes over the network, and may be shared with other stores.
	Upload, Download func(ctx context.Context, n int) error

	stall time.Duration // 0: stallTimeout
}

// form is what an operator is told when a URL makes no sense.
const form = "s3://host[:port]/bucket[/prefix]?region=&style=path|virtual|auto&tls=on|off&ca=/file.pem&credentials=file:/path|env|iam&part-size="

// ParseURL reads a store URL. Its errors show nothing of the part where people
// put secrets.
func ParseURL(raw string) (Config, error) {
	rest, ok := strings.CutPrefix(raw, "s3://")
	if !ok {
		return Config{}, errors.New("store url: it does not begin with s3://; the form is " + form)
	}
	rest, query, _ := strings.Cut(rest, "?")
	host, path, _ := strings.Cut(rest, "/")
	if strings.Contains(rest, "@") {
		return Config{}, errors.New("store url: credentials do not belong into a URL, where logs and process lists show them; " +
			"write them into a file of mode 0600 and say credentials=file:/path")
	}
	if strings.Contains(raw, "#") {
		return Config{}, errors.New("store url: # has no meaning in it; the form is " + form)
	}
	c := Config{Endpoint: strings.ToLower(host), Style: Auto, PartSize: DefaultPartSize}
	if err := checkHost(c.Endpoint); err != nil {
		return Config{}, fmt.Errorf("store url: %w; the form is %s", err, form)
	}
	c.Bucket, c.Prefix, _ = strings.Cut(strings.TrimSuffix(path, "/"), "/")
	if err := s3utils.CheckValidBucketNameStrict(c.Bucket); err != nil {
		return Config{}, fmt.Errorf("store url: bucket %q: %w", c.Bucket, err)
	}
	if err := checkPrefix(c.Prefix); err != nil {
		return Config{}, fmt.Errorf("store url: %w", err)
	}
	if err := c.options(query); err != nil {
		return Config{}, fmt.Errorf("store url: %w", err)
	}
	return c, nil
}

// checkHost accepts a name or an address, with or without a port.
func checkHost(host string) error {
	u, err := url.Parse("s3://" + host)
	if err != nil || u.Host != host || u.Hostname() == "" || strings.HasSuffix(host, ":") || host[0] != '[' && strings.Count(host, ":") > 1 {
		return errors.New("the host or its port is not one")
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return errors.New("the port is not in 1..65535")
		}
	}
	for _, c := range u.Hostname() {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && !strings.ContainsRune(".-_:", c) {
			return errors.New("the host has a character that names do not have")
		}
	}
	return nil
}

// checkPrefix accepts what S3 servers of all kinds take without quoting.
func checkPrefix(prefix string) error {
	if prefix == "" {
		return nil
	}
	// A prefix is like a key, and may have capitals.
	if err := store.Key(strings.ToLower(prefix)).Check(); err != nil || len(prefix) > 400 {
		return fmt.Errorf("prefix %q: it may have letters, digits, and . _ - between single slashes, at most 400 in all", prefix)
	}
	return nil
}

func (c *Config) options(query string) error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return errors.New("what comes after the ? is not of the form a=b&c=d")
	}
	for name, v := range values {
		if len(v) > 1 {
			return fmt.Errorf("option %q is there %d times", name, len(v))
		}
		if err := c.option(name, v[0]); err != nil {
			return err
		}
	}
	if c.Plaintext && c.CA != "" {
		return errors.New("ca has no meaning with tls=off")
	}
	return nil
}

func (c *Config) option(name, value string) error {
	switch name {
	case "region":
		c.Region = value
	case "style":
		c.Style = Style(value)
		if !slices.Contains([]Style{Auto, Path, Virtual}, c.Style) {
			return fmt.Errorf("style %q is not path, virtual or auto", value)
		}
	case "tls":
		if value != "on" && value != "off" {
			return fmt.Errorf("tls %q is not on or off", value)
		}
		c.Plaintext = value == "off"
	case "ca":
		if value == "" {
			return errors.New("ca names no file")
		}
		c.CA = value
	case "credentials":
		c.Credentials = value
		if path, ok := strings.CutPrefix(value, FromFile); value != FromEnv && value != FromIAM && (!ok || path == "") {
			return errors.New("credentials is not env, iam or file:/path") // and may be a secret
		}
	case "part-size":
		n, err := parseSize(value)
		if err != nil || n < MinPartSize || n > store.MaxObject {
			return fmt.Errorf("part-size %q is not in 5MiB..%dMiB", value, store.MaxObject>>20)
		}
		c.PartSize = n
	default:
		return fmt.Errorf("option %q is unknown; there are region, style, tls, ca, credentials and part-size", name)
	}
	return nil
}

// parseSize reads a number of bytes, or of KiB or MiB.
func parseSize(s string) (int64, error) {
	shift := 0
	for unit, n := range map[string]int{"KiB": 10, "MiB": 20} {
		if number, ok := strings.CutSuffix(s, unit); ok {
			s, shift = number, n
		}
	}
	n, err := strconv.ParseUint(s, 10, 32)
	return int64(n) << shift, err
}

// String returns the URL without its options.
func (c Config) String() string {
	s := "s3://" + c.Endpoint + "/" + c.Bucket
	if c.Prefix != "" {
		s += "/" + c.Prefix
	}
	return s
}
