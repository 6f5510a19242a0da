package pkcs11

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cofferbackup/coffer/kek/secret"
)

const maxURI = 4096

// URI is a PKCS#11 URI (RFC 7512) as far as a KEK needs one: which library, which
// token, which key. What would only narrow the choice further (manufacturer,
// model, ...) and what is not known is refused, never ignored.
type URI struct {
	Token, Serial string // "": any
	Slot          *uint  // nil: any
	Object        string // CKA_LABEL, "": any
	ID            []byte // CKA_ID, nil: the newest
	Module        string // absolute path of the library
	PIN           secret.Source
}

// ParseURI reads a key's URI. No error of it repeats a value.
func ParseURI(text string) (URI, error) {
	if len(text) > maxURI {
		return URI{}, fmt.Errorf("pkcs11 URI is longer than %d bytes", maxURI)
	}
	rest, ok := strings.CutPrefix(text, "pkcs11:")
	if !ok {
		return URI{}, errors.New("not a pkcs11 URI: want pkcs11:token=NAME;object=NAME?module-path=/path&pin-source=file:/path")
	}
	path, query, _ := strings.Cut(rest, "?")
	var u URI
	if err := eachAttribute(path, ";", u.setPath); err != nil {
		return URI{}, err
	}
	if err := eachAttribute(query, "&", u.setQuery); err != nil {
		return URI{}, err
	}
	return u, u.check()
}

// eachAttribute calls set for every name=value of list. RFC 7512, 2.3: no name may
// come twice.
func eachAttribute(list, separator string, set func(name, value string) error) error {
	if list == "" {
		return nil
	}
	seen := make(map[string]bool)
	for attribute := range strings.SplitSeq(list, separator) {
		name, escaped, ok := strings.Cut(attribute, "=")
		if !ok || !isName(name) {
			return errors.New("pkcs11 URI has an attribute that is not name=value")
		}
		if seen[name] {
			return fmt.Errorf("pkcs11 URI has %s more than once", name)
		}
		seen[name] = true
		value, err := unescape(escaped)
		if err != nil {
			return fmt.Errorf("pkcs11 URI: %s %w", name, err)
		}
		if value == "" {
			return fmt.Errorf("pkcs11 URI: %s is empty", name)
		}
		if err := set(name, value); err != nil {
			return err
		}
	}
	return nil
}

func (u *URI) setPath(name, value string) error {
	switch name {
	case "token":
		u.Token = value
	case "serial":
		u.Serial = value
	case "object":
		u.Object = value
	case "id":
		u.ID = []byte(value)
	case "slot-id":
		n, err := strconv.ParseUint(value, 10, 31)
		if err != nil {
			return errors.New("pkcs11 URI: slot-id is not a number")
		}
		slot := uint(n)
		u.Slot = &slot
	case "type":
		if value != "private" {
			return errors.New("pkcs11 URI: type is not private: leave it out")
		}
	default:
		return fmt.Errorf("pkcs11 URI: attribute %s is not supported: name the token by token, serial or slot-id, the key by object or id", name)
	}
	return nil
}

func (u *URI) setQuery(name, value string) error {
	switch name {
	case "module-path":
		if !filepath.IsAbs(value) {
			return errors.New("pkcs11 URI: module-path is not an absolute path")
		}
		u.Module = filepath.Clean(value)
	case "pin-source":
		source, err := secret.Parse(value)
		if err != nil {
			return fmt.Errorf("pkcs11 URI: pin-source: %w", err)
		}
		u.PIN = source
	case "pin-value":
		return errors.New("pkcs11 URI: pin-value would put the PIN into the config: use pin-source=file:/path or pin-source=env:NAME")
	default:
		return fmt.Errorf("pkcs11 URI: attribute %s is not supported: only module-path and pin-source may follow the question mark", name)
	}
	return nil
}

func (u URI) check() error {
	switch {
	case u.Token == "" && u.Serial == "" && u.Slot == nil:
		return errors.New("pkcs11 URI names no token: add token=NAME (or serial= or slot-id=)")
	case u.Object == "" && u.ID == nil:
		return errors.New("pkcs11 URI names no key: add object=NAME")
	case u.Module == "":
		return errors.New("pkcs11 URI names no library: add ?module-path=/path/of/the/token's/library.so")
	}
	return nil
}

// String returns the part that says which key it is. Where this host keeps the
// library and the PIN is left out: it means nothing elsewhere.
func (u URI) String() string {
	var b strings.Builder
	separator := "pkcs11:"
	write := func(name, escaped string) {
		b.WriteString(separator + name + "=" + escaped)
		separator = ";"
	}
	if u.Token != "" {
		write("token", escape(u.Token))
	}
	if u.Serial != "" {
		write("serial", escape(u.Serial))
	}
	if u.Slot != nil {
		write("slot-id", strconv.FormatUint(uint64(*u.Slot), 10))
	}
	if u.Object != "" {
		write("object", escape(u.Object))
	}
	if u.ID != nil {
		write("id", escapeAll(u.ID))
	}
	return b.String()
}

func isName(s string) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return s != ""
}

// unescape undoes percent-encoding (RFC 3986, 2.1).
func unescape(s string) (string, error) {
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '%':
			if i+2 >= len(s) {
				return "", errors.New("has a % without two hexadecimal digits")
			}
			n, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
			if err != nil {
				return "", errors.New("has a % without two hexadecimal digits")
			}
			out = append(out, byte(n))
			i += 2
		case c <= ' ' || c > '~':
			return "", errors.New("has a blank or a character outside ASCII: percent-encode it, a blank is %20")
		default:
			out = append(out, c)
		}
	}
	return string(out), nil
}

// escape percent-encodes all but the unreserved characters (RFC 3986, 2.3).
func escape(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if isName(string(rune(c))) || c == '.' || c == '~' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// escapeAll percent-encodes every byte, as RFC 7512 has it for id.
func escapeAll(id []byte) string {
	var b strings.Builder
	for _, c := range id {
		fmt.Fprintf(&b, "%%%02X", c)
	}
	return b.String()
}
