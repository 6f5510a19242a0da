package kvtest

import (
	"crypto/ecdsa"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"strings"
	"time"
)

// octets are bytes on the wire: base64url without padding (RFC 4648, 5).
type octets []byte

// MarshalText implements encoding.TextMarshaler.
func (o octets) MarshalText() ([]byte, error) {
	return base64.RawURLEncoding.AppendEncode(nil, o), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (o *octets) UnmarshalText(text []byte) error {
	raw, err := base64.RawURLEncoding.Strict().AppendDecode(nil, text)
	*o = raw
	return err
}

// webKey is a JSON web key.
type webKey struct {
	ID    string   `json:"kid,omitempty"`
	Type  string   `json:"kty"`
	Ops   []string `json:"key_ops,omitempty"`
	N     octets   `json:"n,omitempty"`
	E     octets   `json:"e,omitempty"`
	Curve string   `json:"crv,omitempty"`
	X     octets   `json:"x,omitempty"`
	Y     octets   `json:"y,omitempty"`
	D     octets   `json:"d,omitempty"` // the rest only where a key is imported
	P     octets   `json:"p,omitempty"`
	Q     octets   `json:"q,omitempty"`
}

// attributes are those of a version. Times are unix seconds.
type attributes struct {
	Enabled         bool   `json:"enabled"`
	NotBefore       int64  `json:"nbf,omitempty"`
	Expires         int64  `json:"exp,omitempty"`
	Created         int64  `json:"created"`
	Updated         int64  `json:"updated"`
	RecoveryLevel   string `json:"recoveryLevel"`
	RecoverableDays int    `json:"recoverableDays"`
	Exportable      bool   `json:"exportable"`
	Platform        string `json:"hsmPlatform,omitempty"` // since 7.5
}

// deletion is what the bundle and the item of a deleted key have besides.
type deletion struct {
	RecoveryID string `json:"recoveryId,omitempty"`
	Deleted    int64  `json:"deletedDate,omitempty"`
	Purge      int64  `json:"scheduledPurgeDate,omitempty"`
}

// bundle is one version of a key, as most operations answer.
type bundle struct {
	Key        webKey            `json:"key"`
	Attributes attributes        `json:"attributes"`
	Tags       map[string]string `json:"tags,omitempty"`
	deletion
}

// item is an entry of a list.
type item struct {
	ID         string            `json:"kid"`
	Attributes attributes        `json:"attributes"`
	Tags       map[string]string `json:"tags,omitempty"`
	deletion
}

// page is a part of a list.
type page struct {
	Value []item  `json:"value"`
	Next  *string `json:"nextLink"` // null on the last page
}

// request is the body of any operation.
type request struct {
	Type       string            `json:"kty"`
	Size       int               `json:"key_size"`
	Ops        []string          `json:"key_ops"`
	Tags       map[string]string `json:"tags"`
	Key        *webKey           `json:"key"`
	Hardware   bool              `json:"Hsm"`
	Algorithm  string            `json:"alg"`
	Value      octets            `json:"value"`
	Count      int               `json:"count"`
	Attributes struct {
		Enabled   *bool  `json:"enabled"`
		NotBefore *int64 `json:"nbf"`
		Expires   *int64 `json:"exp"`
	} `json:"attributes"`

	raw json.RawMessage
}

// update is the change that the body asks for.
func (r *request) update() Update {
	at := func(seconds *int64) *time.Time {
		if seconds == nil {
			return nil
		}
		t := time.Unix(*seconds, 0)
		return &t
	}
	return Update{Enabled: r.Attributes.Enabled, NotBefore: at(r.Attributes.NotBefore), Expires: at(r.Attributes.Expires), Ops: r.Ops, Tags: r.Tags}
}

// options are those of the version that the body asks for.
func (r *request) options() KeyOptions {
	u := r.update()
	o := KeyOptions{Bits: r.Size, Ops: r.Ops, Tags: r.Tags, Hardware: r.Hardware || strings.HasSuffix(r.Type, "-HSM")}
	o.EC = strings.HasPrefix(r.Type, "EC")
	o.Disabled = u.Enabled != nil && !*u.Enabled
	if u.NotBefore != nil {
		o.NotBefore = *u.NotBefore
	}
	if u.Expires != nil {
		o.Expires = *u.Expires
	}
	return o
}

func seconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

// web is the public half of the version, under the address base.
func (v *version) web(base, name string) webKey {
	k := webKey{ID: base + "/keys/" + name + "/" + v.id, Type: v.kty(), Ops: v.ops}
	if private := v.rsa(); private != nil {
		k.N, k.E = private.N.Bytes(), big.NewInt(int64(private.E)).Bytes()
		return k
	}
	if private, ok := v.material.(*ecdsa.PrivateKey); ok {
		size := (private.Curve.Params().BitSize + 7) / 8
		if point, err := private.PublicKey.Bytes(); err == nil { // 4 || x || y
			k.X, k.Y = point[1:1+size], point[1+size:]
		}
		k.Curve = private.Curve.Params().Name
	}
	return k
}

func (v *vault) attributes(of *version, apiVersion string) attributes {
	platform := "0"
	switch {
	case apiVersion == "7.4":
		platform = ""
	case of.hardware:
		platform = "2"
	}
	return attributes{
		Enabled: of.enabled, NotBefore: seconds(of.notBefore), Expires: seconds(of.expires),
		Created: seconds(of.created), Updated: seconds(of.updated),
		RecoveryLevel: string(v.recovery), RecoverableDays: v.days, Platform: platform,
	}
}

func (k *key) deletion(base string) deletion {
	if k.deleted.IsZero() {
		return deletion{}
	}
	return deletion{RecoveryID: base + "/deletedkeys/" + k.name, Deleted: seconds(k.deleted), Purge: seconds(k.purge)}
}
