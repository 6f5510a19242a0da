package pkcs11_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/cofferbackup/coffer/kek/pkcs11"
)

const query = "?module-path=/usr/lib/p11.so&pin-source=file:/etc/coffer/pin"

func TestParseURI(t *testing.T) {
	for _, test := range []struct {
		uri, want string // want "": as uri, without its query
		check     func(pkcs11.URI) bool
	}{
		{"pkcs11:token=backup;object=coffer-kek" + query, "", func(u pkcs11.URI) bool {
			return u.Token == "backup" && u.Object == "coffer-kek" && u.ID == nil && u.Module == "/usr/lib/p11.so" && u.PIN.String() == "file:/etc/coffer/pin"
		}},
		{"pkcs11:object=k;type=private;token=NSS%20Certificate%20DB" + query, "pkcs11:token=NSS%20Certificate%20DB;object=k", func(u pkcs11.URI) bool {
			return u.Token == "NSS Certificate DB"
		}},
		{"pkcs11:serial=2e53;id=%00%01a" + query, "pkcs11:serial=2e53;id=%00%01%61", func(u pkcs11.URI) bool {
			return string(u.ID) == "\x00\x01a" && u.Object == ""
		}},
		{"pkcs11:slot-id=17;object=%c3%bc;id=%ff" + query, "pkcs11:slot-id=17;object=%C3%BC;id=%FF", func(u pkcs11.URI) bool {
			return *u.Slot == 17 && u.Object == "ü"
		}},
		{"pkcs11:token=a%3bb;object=c%25d?module-path=/x%3Fy", "pkcs11:token=a%3Bb;object=c%25d", func(u pkcs11.URI) bool {
			return u.Token == "a;b" && u.Object == "c%d" && u.Module == "/x?y" && u.PIN.IsZero()
		}},
		{"pkcs11:token=a;object=b?pin-source=env:PIN&module-path=/x/../y", "pkcs11:token=a;object=b", func(u pkcs11.URI) bool {
			return u.Module == "/y" && u.PIN.String() == "env:PIN"
		}},
	} {
		u, err := pkcs11.ParseURI(test.uri)
		if err != nil || !test.check(u) {
			t.Errorf("ParseURI(%q) = %+v, %v", test.uri, u, err)
			continue
		}
		want := test.want
		if want == "" {
			want, _, _ = strings.Cut(test.uri, "?")
		}
		if u.String() != want {
			t.Errorf("ParseURI(%q).String() = %q, want %q", test.uri, u, want)
		}
	}
}

func TestParseURIRefuses(t *testing.T) {
	for uri, says := range map[string]string{
		"":                                                             "not a pkcs11 URI",
		"file:///kek.pem":                                              "not a pkcs11 URI",
		"pkcs11:" + query:                                              "names no token",
		"pkcs11:token=a" + query:                                       "names no key",
		"pkcs11:object=a" + query:                                      "names no token",
		"pkcs11:token=a;object=b":                                      "names no library",
		"pkcs11:token=a;object=b?module-path=x":                        "absolute",
		"pkcs11:token=a;token=b;object=c" + query:                      "more than once",
		"pkcs11:token=;object=c" + query:                               "token is empty",
		"pkcs11:token;object=c" + query:                                "name=value",
		"pkcs11:token=a;;object=c" + query:                             "name=value",
		"pkcs11:token=a b;object=c" + query:                            "a blank is %20",
		"pkcs11:token=ü;object=c" + query:                              "percent-encode",
		"pkcs11:token=a%4;object=c" + query:                            "hexadecimal",
		"pkcs11:token=a%zz;object=c" + query:                           "hexadecimal",
		"pkcs11:token=a;object=c%" + query:                             "hexadecimal",
		"pkcs11:token=a;object=b;type=cert" + query:                    "type is not private",
		"pkcs11:slot-id=-1;object=b" + query:                           "slot-id is not a number",
		"pkcs11:slot-id=99999999999;object=b" + query:                  "slot-id is not a number",
		"pkcs11:token=a;object=b;manufacturer=x" + query:               "manufacturer is not supported",
		"pkcs11:token=a;object=b;x-vendor=tiger" + query:               "x-vendor is not supported",
		"pkcs11:token=a;object=b" + query + "&pin-value=tiger":         "pin-source=",
		"pkcs11:token=a;object=b?module-path=/x&pin-source=tiger":      "file:/path or env:NAME",
		"pkcs11:token=a;object=b?module-path=/x&pin-source=|tiger":     "file:/path or env:NAME",
		"pkcs11:token=a;object=b?module-path=/x&pin-source=file:tiger": "absolute",
		"pkcs11:token=a;object=b?module-path=/x&module-name=p11":       "module-name is not supported",
		"pkcs11:token=a;object=b?token=tiger&module-path=/x":           "token is not supported",
		"pkcs11:token=" + strings.Repeat("a", 5000):                    "longer than",
	} {
		_, err := pkcs11.ParseURI(uri)
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("ParseURI(%.80q) = %v, want %q", uri, err, says)
		} else if strings.Contains(err.Error(), "tiger") {
			t.Errorf("ParseURI tells what may be a secret: %v", err)
		}
	}
}

// FuzzParseURI: what is read is written so that it is read the same.
func FuzzParseURI(f *testing.F) {
	f.Add("pkcs11:token=backup;object=coffer-kek" + query)
	f.Add("pkcs11:serial=1;slot-id=2;id=%00%ff;type=private?module-path=/x&pin-source=env:PIN")
	f.Add("pkcs11:token=a%3bb;object=%25?module-path=/%3f")
	f.Fuzz(func(t *testing.T, text string) {
		u, err := pkcs11.ParseURI(text)
		if err != nil {
			return
		}
		again, err := pkcs11.ParseURI(u.String() + "?module-path=/x")
		if err != nil {
			t.Fatalf("ParseURI(%q) of ParseURI(%q): %v", u, text, err)
		}
		u.Module, again.Module = "", ""
		again.PIN = u.PIN
		if !reflect.DeepEqual(u, again) {
			t.Errorf("ParseURI(%q) = %+v, and of its own text %+v", text, u, again)
		}
	})
}
