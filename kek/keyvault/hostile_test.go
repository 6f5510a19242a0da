package keyvault_test

import (
	"bytes"
	"encoding/base64"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/cofferbackup/coffer/kek"
	"github.com/cofferbackup/coffer/kek/keyvault"
	"github.com/cofferbackup/coffer/kek/keyvault/kvtest"
)

// replace changes the body of an answer.
func replace(resp *http.Response, change func(string) string) {
	text, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		text = []byte(err.Error())
	}
	changed := []byte(change(string(text)))
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(changed)), int64(len(changed))
	resp.Header.Del("Content-Length")
}

// answers changes those answers of a vault whose request has that in its path.
func answers(path string, change func(string) string) func(*http.Response) {
	return func(resp *http.Response) {
		if resp.StatusCode == http.StatusOK && strings.Contains(resp.Request.URL.Path, path) {
			replace(resp, change)
		}
	}
}

func swap(old, with string) func(string) string {
	return func(text string) string { return strings.ReplaceAll(text, old, with) }
}

// TestAnswersForAnother: an answer that names another vault, key or version is not
// acted on, whoever gives it.
func TestAnswersForAnother(t *testing.T) {
	b := newBench(t, kvtest.Options{})
	k := b.made(kvtest.KeyOptions{})
	w := wrap(t, k, "secret")
	version := k.Ref().Version
	for name, change := range map[string]func(string) string{
		"vault":   swap("corp.localhost", "evil.localhost"),
		"key":     swap("/keys/backup", "/keys/other"),
		"version": swap(version, strings.Repeat("0", 32)),
		"none":    swap("/keys/backup/"+version, "/keys/backup"),
		"scheme":  swap("https://corp", "http://corp"),
	} {
		b.tamper(answers("/unwrapkey", change))
		secret, err := k.Unwrap(t.Context(), w)
		b.want(err, kek.ErrUnsuitable)
		if secret != nil {
			t.Errorf("another %s: Unwrap returned a secret", name)
		}
		b.tamper(answers("/keys/backup/"+version, change))
		_, err = keyvault.Open(t.Context(), b.config(b.uri(version)))
		b.want(err, kek.ErrUnsuitable)
	}
	b.tamper(nil)
	unwrap(t, k, w, "secret")
}

// TestNewPublicKey: the public key of a version never changes, whether the key is
// open or is opened again.
func TestNewPublicKey(t *testing.T) {
	b := newBench(t, kvtest.Options{})
	k := b.made(kvtest.KeyOptions{})
	b.tamper(answers("/keys/backup/", func(text string) string {
		at := strings.Index(text, `"n":"`) + 20
		return text[:at] + strings.Map(func(r rune) rune {
			if r == 'A' {
				return 'B'
			}
			return 'A'
		}, text[at:at+4]) + text[at+4:]
	}))
	inspector, ok := k.(kek.Inspector)
	if !ok {
		t.Fatal("the key is no Inspector")
	}
	_, err := inspector.Inspect(t.Context())
	b.want(err, kek.ErrUnsuitable, "public key")
	_, err = keyvault.Open(t.Context(), b.config(b.uri(k.Ref().Version)))
	b.want(err, kek.ErrUnsuitable, "a version never changes")
}

// TestWrongPlaintext: a canary that opens to something else is no healthy key, and
// an empty secret is none.
func TestWrongPlaintext(t *testing.T) {
	b := newBench(t, kvtest.Options{})
	k := b.made(kvtest.KeyOptions{})
	w := wrap(t, k, "secret")
	set := func(value string) func(string) string {
		return func(text string) string {
			at := strings.Index(text, `"value":"`) + len(`"value":"`)
			end := strings.Index(text[at:], `"`)
			return text[:at] + value + text[at+end:]
		}
	}
	b.tamper(answers("/unwrapkey", set(base64.RawURLEncoding.EncodeToString(make([]byte, 32)))))
	b.want(k.Check(t.Context()), kek.ErrUnsuitable, "to something else")
	for name, value := range map[string]string{"empty": "", "huge": strings.Repeat("AAAA", 400)} {
		b.tamper(answers("/unwrapkey", set(value)))
		_, err := k.Unwrap(t.Context(), w)
		b.want(err, kek.ErrUnsuitable)
		if err == nil {
			t.Errorf("%s: Unwrap took it", name)
		}
	}
	for name, change := range map[string]func(string) string{
		"not base64": set("***"),
		"half":       func(text string) string { return text[:len(text)/2] },
		"nothing":    func(string) string { return "" },
		"a list":     func(string) string { return "[]" },
		"endless":    func(string) string { return strings.Repeat(" ", 3<<20) },
	} {
		b.tamper(answers("/unwrapkey", change))
		secret, err := k.Unwrap(t.Context(), w)
		b.want(err, kek.ErrUnreachable)
		if secret != nil {
			t.Errorf("%s: Unwrap returned a secret", name)
		}
	}
}

// TestChallenges: a challenge that makes no sense, or asks for a token for someone
// else, gets none.
func TestChallenges(t *testing.T) {
	for name, challenge := range map[string]string{
		"none":        "",
		"short":       `Bearer authorization="x", resource="https://localhost"`,
		"other":       `Bearer authorization="https://login.example/t", resource="https://evil.example"`,
		"no resource": `Bearer authorization="https://login.example/t"`,
	} {
		b := newBench(t, kvtest.Options{})
		b.server.CreateKey(vaultName, keyName, kvtest.KeyOptions{})
		b.tamper(func(resp *http.Response) {
			if resp.StatusCode == http.StatusUnauthorized {
				resp.Header.Set("WWW-Authenticate", challenge)
				if challenge == "" {
					resp.Header.Del("WWW-Authenticate")
				}
			}
		})
		_, err := keyvault.Open(t.Context(), b.config(b.uri("")))
		if b.server.Calls(kvtest.OpToken) > 0 && name != "short" {
			t.Errorf("%s: a token was asked for", name)
		}
		if err == nil {
			t.Fatalf("%s: Open went well", name)
		}
		if name == "none" {
			b.want(err, kek.ErrDenied)
		} else {
			b.want(err, kek.ErrUnreachable, "not as Key Vault does")
		}
	}
}

// TestNextPageElsewhere: a list that goes on in another vault is not followed.
func TestNextPageElsewhere(t *testing.T) {
	b := newBench(t, kvtest.Options{PageSize: 1})
	for range 3 {
		b.server.CreateKey(vaultName, keyName, kvtest.KeyOptions{})
		b.pass(time.Minute)
	}
	b.tamper(answers("/versions", func(text string) string {
		return strings.ReplaceAll(text, `"nextLink":"https://corp.`, `"nextLink":"https://evil.`)
	}))
	_, err := keyvault.Open(t.Context(), b.config(b.uri("")))
	b.want(err, kek.ErrUnsuitable, "goes on elsewhere")
}
